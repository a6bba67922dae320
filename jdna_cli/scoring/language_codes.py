"""Languages as multilingual tokenizers name them: de_DE, deu_Latn, or de."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

from jdna_cli.errors import RequestError
from jdna_cli.tasks.prompts import LANGUAGES

# ISO 639-3 of the languages that tasks name by ISO 639-1.
_THREE = {
    "ar": "arb", "cs": "ces", "de": "deu", "en": "eng", "es": "spa", "et": "est", "fi": "fin",
    "fr": "fra", "gu": "guj", "hi": "hin", "is": "isl", "it": "ita", "ja": "jpn", "kk": "kaz",
    "ko": "kor", "lt": "lit", "lv": "lvs", "my": "mya", "ne": "npi", "nl": "nld", "ro": "ron",
    "ru": "rus", "si": "sin", "tr": "tur", "vi": "vie", "zh": "zho",
}  # fmt: skip


def has_codes(tokenizer: Any) -> bool:
    """Whether the tokenizer marks languages."""
    return hasattr(tokenizer, "src_lang")


def code(tokenizer: Any, language: str) -> str:
    """The tokenizer's own code of a language.

    Raises:
        RequestError: it has none.
    """
    three = _THREE.get(language, language)
    form = re.compile(rf"(__{language}__|{language}(_[A-Z]{{2}})?|{three}_[A-Z][a-z]{{3}})")
    known = {*tokenizer.get_added_vocab(), *tokenizer.all_special_tokens}
    found = sorted(name for name in known if form.fullmatch(name))
    if not found:
        name = LANGUAGES.get(language, language)
        raise RequestError(f"--pairs: the model's tokenizer does not know {name} ({language})")
    best: str = found[0]
    return best.strip("_") if best.startswith("__") else best


def check(tokenizer: Any, pairs: Sequence[str]) -> None:
    """Refuse directions between languages that the tokenizer does not know.

    Raises:
        RequestError: names the first.
    """
    if has_codes(tokenizer):
        for language in dict.fromkeys(part for pair in pairs for part in pair.split("-")):
            code(tokenizer, language)


@contextlib.contextmanager
def set_for(tokenizer: Any, pair: str) -> Iterator[None]:
    """Let the tokenizer read the first language of a direction and write the second."""
    if pair and has_codes(tokenizer):
        source, target = pair.split("-")
        before = tokenizer.src_lang, tokenizer.tgt_lang
        tokenizer.src_lang, tokenizer.tgt_lang = code(tokenizer, source), code(tokenizer, target)
        try:
            yield
        finally:
            tokenizer.src_lang, tokenizer.tgt_lang = before
    else:
        yield


def started_in(tokenizer: Any, pair: str) -> dict[str, int]:
    """How a decoder is made to write the second language of a direction.

    Tokenizers that put the code before the text have it forced as the first token; those that put
    it after the end have decoding start from it.
    """
    if not pair or not has_codes(tokenizer):
        return {}
    target = code(tokenizer, pair.split("-")[1])
    with set_for(tokenizer, pair):
        ids = tokenizer(text_target=["a"])["input_ids"][0]
    token = next(
        int(tokenizer.convert_tokens_to_ids(form))
        for form in (f"__{target}__", target)
        if form in tokenizer.get_vocab()
    )
    return {"forced_bos_token_id" if ids[0] == token else "decoder_start_token_id": token}
