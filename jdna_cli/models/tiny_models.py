"""Small models, made on the spot: tiny ones with random weights, and those of some layers alone.

Tiny ones know nothing before they are trained; each is the same every time it is made.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from jdna_cli.errors import RequestError
from jdna_cli.files import whole
from jdna_cli.models.quiet import transformers

PREFIX = "tiny-"
NAMES = ("tiny-encoder-32", "tiny-encoder-64", "tiny-encoder-128", "tiny-writer", "tiny-translator")
_SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<mask>")
LENGTH = 512  # positions


def make(name: str, folder: Path) -> Path:
    """Write the model `name` of `NAMES` to `folder`, if it is not there; returns the folder."""
    if folder.is_dir():
        return folder
    kind, _, width = name.removeprefix(PREFIX).partition("-")
    tokenizer = _tokenizer(framed=kind == "encoder", ended=kind == "translator")
    config, auto = _config(kind, int(width or 64), len(tokenizer))
    torch.manual_seed(0)
    model = auto.from_config(config)
    with whole(folder, named_by_content=True) as place:
        model.save_pretrained(place)
        tokenizer.save_pretrained(place)
    return folder


def first_layers(source: Path, layers: int, folder: Path) -> Path:
    """Write an encoder's embeddings and first layers to `folder`, with its tokenizer.

    What is left has to be fine-tuned: no later layer reads what the last one left writes.
    Source: Sajjad et al. 2023, arXiv 2004.03844 (dropping the top layers).

    Raises:
        RequestError: the encoder has no more layers than that.
    """
    config = transformers.AutoConfig.from_pretrained(source)
    if not 1 <= layers < config.num_hidden_layers:
        raise RequestError(f"{source.name} has {config.num_hidden_layers} layers, not {layers + 1}")
    config.num_hidden_layers = layers
    model = transformers.AutoModel.from_pretrained(source, config=config, dtype="float32")
    with whole(folder, named_by_content=True) as place:
        model.save_pretrained(place)
        transformers.AutoTokenizer.from_pretrained(source).save_pretrained(place)
    return folder


def _tokenizer(*, framed: bool, ended: bool) -> Any:
    """Bytes, one token each: needs no training, and knows every language."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: i for i, piece in enumerate([*_SPECIAL, *alphabet])}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    single, pair = ("<s> $A </s>", "<s> $A </s> $B </s>") if framed else ("$A", "$A $B")
    if ended:
        single, pair = "$A </s>", "$A </s> $B </s>"
    raw.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    named = {"pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>"}
    ends = {"cls_token": "<s>", "sep_token": "</s>"} if framed else {}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, **named, **ends, bos_token="<s>", eos_token="</s>"
    )


def _config(kind: str, width: int, vocabulary: int) -> tuple[Any, Any]:
    shared = {"vocab_size": vocabulary, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    sizes = {"hidden_size": width, "num_hidden_layers": 2, "num_attention_heads": 2,
             "intermediate_size": 2 * width, "initializer_range": 0.1,
             "max_position_embeddings": LENGTH}  # fmt: skip
    if kind == "encoder":
        return transformers.BertConfig(**shared, **sizes), transformers.AutoModelForMaskedLM
    if kind == "writer":
        return transformers.LlamaConfig(**shared, **sizes), transformers.AutoModelForCausalLM
    return (
        transformers.T5Config(
            vocab_size=vocabulary, pad_token_id=0, eos_token_id=2, d_model=width, d_ff=2 * width,
            d_kv=width // 2, num_layers=2, num_heads=2, decoder_start_token_id=0,
            feed_forward_proj="gated-gelu",
        ),
        transformers.AutoModelForSeq2SeqLM,
    )  # fmt: skip
