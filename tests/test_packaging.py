"""The wheel holds all that the tool needs, away from its source tree."""

import json
import os
import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests import toys

TOP = Path(__file__).resolve().parents[1]


def borrow(target):
    """Link what jdna requires, and what that requires, into another environment."""
    waiting, seen = ["jdna"], set()
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in seen:
            continue
        seen.add(name)
        found = metadata.distribution(name)
        for text in found.requires or ():
            asked = Requirement(text)
            if asked.marker is None or asked.marker.evaluate({"extra": ""}):
                waiting.append(asked.name)
        if name == "jdna":
            continue
        for top in {file.parts[0] for file in found.files or () if file.parts[0] != ".."}:
            source, link = Path(found.locate_file(top)), target / top
            if not link.exists() and source.exists():
                link.symlink_to(source)
    assert {"sentencepiece", "protobuf", "torch"} <= seen
    assert not {"pytest", "lm-eval", "tiktoken"} & seen


def vicuna_like(folder):
    """A Llama as Vicuna-7B v1.5 is published: pickled shards, and a sentencepiece file alone."""
    import sentencepiece
    import torch
    import transformers

    folder.mkdir()
    text = folder / "text.txt"
    text.write_text("\n".join(f"the dog is red and the cat {i} is blue" for i in range(200)))
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(folder / "tokenizer"), vocab_size=60, model_type="bpe",
        pad_id=-1, minloglevel=2,
    )  # fmt: skip
    for name in ("text.txt", "tokenizer.vocab"):
        (folder / name).unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer"}))
    config = transformers.LlamaConfig(
        vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=64, architectures=["LlamaForCausalLM"],
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    config.save_pretrained(folder)
    names = list(model.state_dict())
    where = {}
    for i, own in enumerate((names[::2], names[1::2]), 1):
        file = f"pytorch_model-0000{i}-of-00002.bin"
        torch.save({name: model.state_dict()[name].half() for name in own}, folder / file)
        where |= dict.fromkeys(own, file)
    index = {"metadata": {"total_size": 1}, "weight_map": where}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


@pytest.mark.slow
def test_the_wheel_works_in_an_environment_of_its_own(tmp_path, bert):
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path]
    subprocess.run([*build, TOP], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("jdna-*.whl")
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True, symlinks=True)
    python = environment / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True, capture_output=True)
    # What the wheel asks for is borrowed from here, and nothing else.
    (own,) = environment.glob("lib/python*/site-packages")
    borrow(own)
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("JDNA", "PYTHON"))}

    def run(*command):
        done = subprocess.run(
            command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    found = run(python, "-c", "import jdna_cli; print(jdna_cli.__file__)")
    assert found.startswith(str(own))
    told = run(environment / "bin" / "jdna", "prune", str(bert), "--sparsity", "0.5", "--json")
    assert json.loads(told)["run"]["status"] == "finished"
    assert (tmp_path / "jdna-runs" / "jdna.db").is_file()
    assert "living" in run(environment / "bin" / "jdna", "tasks", "list")
    # A tokenizer that is a sentencepiece file alone, and weights as pickles, to an answer.
    vicuna_like(tmp_path / "vicuna")
    toys.write(tmp_path / "data", train=4, validation=4)
    where = ("--data-dir", "data", "--max-length", "32", "--json")
    jdna = environment / "bin" / "jdna"
    told = run(jdna, "eval", "vicuna", "--allow-pickle", "--task", "wikitext2", *where)
    assert json.loads(told)["metrics"]["perplexity"] > 1
    # Published curves, and the template of the page.
    assert "SST-2 (easy)" in run(jdna, "report", "paper", "cross-task")
    run(jdna, "report", "runs", "--html", "report.html")
    assert "<!doctype html>" in (tmp_path / "report.html").read_text()
