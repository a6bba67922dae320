"""Models of the paper's sizes: one of 7 B pruned, one like roberta-large fine-tuned.

Weights are random: times and memory do not depend on their values. Without a GPU the shapes are
small ones, so that the benchmark itself can be tried.
"""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from benchmarks import checkpoint, training
from benchmarks.measuring import seconds, table
from jdna_cli.cli.app import app
from jdna_cli.specs import ModelSource

GPU = torch.cuda.is_available()
WINDOWS, LENGTH = (128, 2048) if GPU else (4, 64)
PRUNINGS = {
    "magnitude 50 %, global": ("--sparsity", "0.5"),
    "Wanda 2:4": ("--criterion", "wanda", "--pattern", "2:4"),
    "SparseGPT 2:4": ("--criterion", "sparsegpt", "--pattern", "2:4"),
    "4 bits, GPTQ": ("--quantize", "4", "--rounding", "gptq"),
    "magnitude 2:4": ("--pattern", "2:4"),
}


def tokenizer(folder: Path, words: list[str]) -> transformers.PreTrainedTokenizerFast:
    """One token per word, written to the folder."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    vocabulary = {word: i for i, word in enumerate([*special, *words])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", pad_token="<pad>", eos_token="</s>",
        unk_token="<unk>",
    )  # fmt: skip
    made.save_pretrained(folder)
    return made


def pruned(top: Path) -> str:
    """Whole commands, from the files to the files."""
    hidden, layers = (4096, 32) if GPU else (128, 3)
    began = time.perf_counter()
    folder = checkpoint.make(
        top / "model", hidden=hidden, layers=layers, shards=min(layers, 14), vocabulary=32000
    )
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    print(f"{size / 1e9:.2f} GB written in {time.perf_counter() - began:.0f} s", flush=True)
    words = [f"word{i}" for i in range(30000)]
    tokenizer(folder, words)
    draw = random.Random(0)
    text = top / "text.txt"
    text.write_text(" ".join(draw.choices(words, k=WINDOWS * LENGTH * 2)))
    calibration = ("--calibration", str(text), "--calibration-samples", str(WINDOWS),
                   "--calibration-length", str(LENGTH))  # fmt: skip
    rows = []
    for name, asked in PRUNINGS.items():
        if "--criterion" in asked or "--rounding" in asked:
            asked = (*asked, *calibration)
        command = ["prune", str(folder), *asked, "--home", str(top / "home")]
        if GPU:
            torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        try:
            app(command)
        except SystemExit as end:
            if end.code:
                raise
        spent = time.perf_counter() - began
        highest = torch.cuda.max_memory_allocated() / 2**30 if GPU else 0.0
        rows.append([name, f"{spent:.0f}", f"{highest:.1f}"])
        print(rows[-1], flush=True)
        shutil.rmtree(top / "home")
    title = (
        f"A Llama-shaped checkpoint of {size / 1e9:.2f} GB (bfloat16), whole commands, "
        f"calibrated on {WINDOWS} × {LENGTH} tokens"
    )
    return table(title, ["pruning", "s", "GiB of the device at most"], rows)


def peak() -> float:
    """TFLOP/s of a large bfloat16 product, measured here."""
    size = 8192 if GPU else 1024
    one = torch.randn(size, size, dtype=torch.bfloat16, device="cuda" if GPU else "cpu")

    def product() -> None:
        for _ in range(10):
            one @ one
        if GPU:
            torch.cuda.synchronize()

    return 10 * 2 * size**3 / seconds(product, 3) / 1e12


def trained(top: Path) -> str:
    """One epoch in bfloat16 at the paper's batch of 32, dense and sparse."""
    width, layers = (1024, 24) if GPU else (64, 2)
    config = transformers.RobertaConfig(
        vocab_size=50265, hidden_size=width, num_hidden_layers=layers,
        num_attention_heads=width // 64, intermediate_size=4 * width,
        max_position_embeddings=514, type_vocab_size=1, pad_token_id=1,
    )  # fmt: skip
    folder = top / "roberta"
    model = transformers.RobertaForMaskedLM(config)
    model.save_pretrained(folder)
    weights = sum(w.numel() for n, w in model.named_parameters() if ".layer." in n and w.ndim == 2)
    words = sorted({word for text in training.pool() for word in text.replace(".", " .").split()})
    tokenizer(folder, words)
    source = ModelSource("roberta", folder, "roberta")
    count = 4096 if GPU else 64
    scorer = training.scorer(source)
    encoded = scorer.encode(training.examples(count, most=14))
    # Six operations per weight and token, and the products of attention.
    work = sum(6 * n * weights + 12 * n * n * width * layers for n in encoded.lengths)
    limit = peak()
    rows = []
    training.ours(encoded, "bf16", source=source)  # the first one pays for what is loaded once
    ways = {
        "jdna, dense": lambda: training.ours(encoded, "bf16", source=source)[0],
        "jdna, sparse": lambda: training.ours(encoded, "bf16", "sparse", source=source)[0],
        "Trainer, default": lambda: training.trainer(encoded, "bf16", False, source=source),
        "Trainer, grouped": lambda: training.trainer(encoded, "bf16", True, source=source),
    }
    for name, way in ways.items():
        spent = way()
        rate = work / spent / 1e12
        rows.append([name, f"{spent:.2f}", f"{count / spent:.0f}", f"{rate:.2f}",
                     f"{rate / limit:.1%}"])  # fmt: skip
        print(rows[-1], flush=True)
    mean = sum(encoded.lengths) / count
    title = (
        f"A model like roberta-large ({weights / 1e6:.0f} M in its layers), one epoch of {count} "
        f"pairs of {mean:.0f} tokens on average, batch {training.BATCH}, bfloat16"
    )
    columns = ["", "s", "examples/s", "TFLOP/s", f"of {limit:.2f} in a product"]
    return table(title, columns, rows)


def report() -> str:
    with tempfile.TemporaryDirectory() as place:
        return "\n".join([trained(Path(place)), pruned(Path(place))])
