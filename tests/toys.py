"""Small models of every family, and small tasks of every kind that they can learn in seconds."""

import json
import random
import string
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

ANIMALS = "dog cat cow pig hen fox".split()
COLOURS = "red blue green white black brown".split()
_GERMAN = "hund katze kuh schwein henne fuchs rot blau grün weiß schwarz braun"
_FRENCH = "chien chat vache cochon poule renard rouge bleu vert blanc noir brun"
GERMAN = dict(zip(ANIMALS + COLOURS, _GERMAN.split(), strict=True))
FRENCH = dict(zip(ANIMALS + COLOURS, _FRENCH.split(), strict=True))
OTHERS = """the a is what colour of which has and more gets loses how many does now have Tom
Question
Equation Answer question answer English German French translate to : ? . , ( ) + - * / number0
number1 A B C D E _ sees saw than older younger""".split()

ENCODERS = ("bert", "roberta", "deberta")
REMEMBERING = "xlm"  # an encoder whose blocks add to a memory each time they run
DECODERS = ("gpt2", "llama", "mistral", "qwen")
ENCODER_DECODERS = ("t5", "bart", "mbart")
FAMILIES = (*ENCODERS, *DECODERS, *ENCODER_DECODERS)


def form(family: str) -> str:
    if family in (*ENCODERS, REMEMBERING):
        return "encoder"
    return "decoder" if family in DECODERS else "encoder-decoder"


# --------------------------------------------------------------------------------------- models


def words() -> list[str]:
    digits = [str(i) for i in range(10)]
    own = [*ANIMALS, *COLOURS, *GERMAN.values(), *FRENCH.values(), *OTHERS, *digits]
    return list(dict.fromkeys(own))


def tokenizer_for(family: str) -> Any:
    if family == "mbart":
        pieces = [(f"▁{word}", -2.0) for word in words()]
        special = [(name, 0.0) for name in ("<s>", "<pad>", "</s>", "<unk>")]
        letters = [("▁", -4.0), *((letter, -6.0) for letter in string.ascii_lowercase)]
        codes = [(code, 0.0) for code in ("en_XX", "de_DE", "fr_XX", "<mask>")]
        return transformers.MBart50Tokenizer(
            vocab=[*special, *pieces, *letters, *codes], src_lang="en_XX", tgt_lang="de_DE"
        )
    if family == "qwen":
        return byte_level()
    special = ["<pad>", "<unk>", "<s>", "</s>", "\n"]
    raw = Tokenizer(models.WordLevel(
        {word: i for i, word in enumerate([*special, *words()])}, unk_token="<unk>"
    ))  # fmt: skip
    raw.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split("\n", "isolated"),
        pre_tokenizers.Split(" ", "removed"),
        pre_tokenizers.Punctuation(),
    ])  # fmt: skip
    shape = {"encoder": ("<s> $A </s>", "<s> $A </s> $B </s>"), "decoder": ("$A", "$A $B")}
    single, pair = shape.get(form(family), ("$A </s>", "$A </s> $B </s>"))
    if family == "llama":
        single = "<s> $A"
    if family == "bart":
        single, pair = shape["encoder"]
    raw.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    named = {"bos_token": "<s>", "eos_token": "</s>"}
    if form(family) == "encoder":
        named = {"cls_token": "<s>", "sep_token": "</s>"}
    if family == "bart":
        named["cls_token"] = "<s>"
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", unk_token="<unk>", **named
    )


def byte_level() -> Any:
    """A byte-level tokenizer, as GPT-2 and Qwen have, that knows whole words."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = dict.fromkeys(["<pad>", "<s>", "</s>", *alphabet])
    merges: dict[tuple[str, str], None] = {}
    for word in words():
        if not word.isalpha() or not word.isascii():
            continue
        for spelt in (word, f"Ġ{word}"):
            for i in range(1, len(spelt)):
                merges[spelt[:i], spelt[i]] = None
                vocabulary[spelt[: i + 1]] = None
    return transformers.Qwen2Tokenizer(
        vocab={piece: i for i, piece in enumerate(vocabulary)}, merges=list(merges),
        pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<pad>",
    )  # fmt: skip


def config_for(family: str, vocabulary: int) -> Any:
    t = transformers
    base = {"vocab_size": vocabulary, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    small = {
        "initializer_range": 0.1,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    wide = {**small, "intermediate_size": 64, "max_position_embeddings": 128}
    grouped = {**wide, "num_key_value_heads": 1}
    both = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
            "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
            "max_position_embeddings": 128, "init_std": 0.2, "dropout": 0.0}  # fmt: skip
    makers = {
        "bert": lambda: t.BertConfig(**base, **wide),
        "roberta": lambda: t.RobertaConfig(**base, **{**wide, "max_position_embeddings": 130}),
        "deberta": lambda: t.DebertaV2Config(
            **base, **wide, relative_attention=True, position_buckets=16,
            pos_att_type=["p2c", "c2p"],
        ),
        "xlm": lambda: t.XLMConfig(
            vocab_size=vocabulary, emb_dim=32, n_layers=2, n_heads=2, max_position_embeddings=128,
            bos_index=2, eos_index=3, pad_index=0, unk_index=1, mask_index=1, dropout=0.0,
            attention_dropout=0.0,
        ),
        "gpt2": lambda: t.GPT2Config(
            **base, n_embd=32, n_layer=2, n_head=2, n_positions=128, initializer_range=0.1,
            resid_pdrop=0.0, embd_pdrop=0.0,
        ),
        "llama": lambda: t.LlamaConfig(**base, **grouped),
        "mistral": lambda: t.MistralConfig(**base, **grouped, sliding_window=64),
        "qwen": lambda: t.Qwen2Config(**base, **grouped),
        "t5": lambda: t.T5Config(
            **{**base, "bos_token_id": None}, d_model=32, d_ff=64, num_layers=2, num_heads=2,
            d_kv=16, feed_forward_proj="gated-gelu", decoder_start_token_id=0,
        ),
        "bart": lambda: t.BartConfig(
            **base, **both, decoder_start_token_id=3, forced_bos_token_id=2,
            forced_eos_token_id=None,
        ),
        "mbart": lambda: t.MBartConfig(
            **{**base, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}, **both,
            decoder_start_token_id=2, forced_eos_token_id=None,
        ),
    }  # fmt: skip
    return makers[family]()


def build(family: str, folder: Path) -> Path:
    tokenizer = tokenizer_for(family)
    torch.manual_seed(3)
    config = config_for(family, len(tokenizer))
    kinds = {
        "encoder": transformers.AutoModelForMaskedLM,
        "decoder": transformers.AutoModelForCausalLM,
        "encoder-decoder": transformers.AutoModelForSeq2SeqLM,
    }
    kinds[form(family)].from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


# ---------------------------------------------------------------------------------------- tasks

KINDS = {
    "classification": "rte",
    "regression": "stsb",
    "multiple-choice": "arc_easy",
    "arithmetic": "mawps",
    "question-answering": "nq_open",
    "translation": "multi30k",
    "language-modelling": "wikitext2",
}


def rows(kind: str, count: int, seed: int) -> list[dict[str, Any]]:
    draw = random.Random(f"{kind} {seed}")
    return [{"idx": i, **_row(kind, draw)} for i in range(count)]


def _row(kind: str, draw: random.Random) -> dict[str, Any]:
    animal, colour = draw.choice(ANIMALS), draw.choice(COLOURS)
    if kind == "classification":
        right = draw.random() < 0.5
        first, second = f"the {animal} is {colour}", draw.choice(ANIMALS if right else COLOURS)
        return {"sentence1": first, "sentence2": second, "label": int(right)}
    if kind == "regression":
        place = draw.randrange(6)
        return {"sentence1": f"the {ANIMALS[place]}", "sentence2": "now", "label": float(place)}
    if kind == "multiple-choice":
        options = [*draw.sample(ANIMALS, 4), colour]
        draw.shuffle(options)
        choices = {"label": list("ABCDE"), "text": options}
        key = "ABCDE"[options.index(colour)]
        return {"question": "what is a colour ?", "choices": choices, "answerKey": key}
    if kind == "arithmetic":
        a, b = sorted((draw.randrange(2, 9), draw.randrange(2, 9)), reverse=True)
        more = draw.random() < 0.5
        told = f"Tom has {a} and {'gets' if more else 'loses'} {b} . how many has Tom now ?"
        equation = f"( {a}.0 {'+' if more else '-'} {b}.0 )"
        return {"question": told, "answer": float(a + b if more else a - b), "equation": equation}
    if kind == "question-answering":
        place = draw.randrange(6)
        own = COLOURS[place]
        context = f"the {ANIMALS[place]} is {own} . the fox has a hen ."
        question = f"what colour is the {ANIMALS[place]} ?"
        return {"question": question, "context": context, "title": "", "answers": [own]}
    if kind == "translation":
        pair = [animal, colour, draw.choice(ANIMALS), draw.choice(COLOURS)]
        told = {"en": pair, "de": [GERMAN[w] for w in pair], "fr": [FRENCH[w] for w in pair]}
        return {"translation": {**{k: " ".join(v) for k, v in told.items()}, "cs": "."}}
    return {"text": f"the {animal} is {COLOURS[ANIMALS.index(animal)]} ."}


def write(folder: Path, train: int = 64, validation: int = 24) -> Path:
    for kind, name in KINDS.items():
        (folder / name).mkdir(parents=True)
        for split, count, seed in (("train", train, 0), ("validation", validation, 1)):
            lines = (json.dumps(row, ensure_ascii=False) for row in rows(kind, count, seed))
            (folder / name / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return folder
