"""What a model's folder says is data: it names no code to load, and no file outside of itself."""

import fnmatch
import json
import os
import shutil
import time

import pytest
import transformers
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

from jdna_cli.errors import RequestError
from jdna_cli.scoring import templates
from jdna_cli.store.identity import is_content
from jdna_cli.store.ledger import Ledger


@pytest.fixture
def folder(tiny, tmp_path):
    return shutil.copytree(tiny("bert"), tmp_path / "model")


def commands(folder):
    return (
        ("prune", folder, "--sparsity", 0.5),
        ("finetune", folder, "--task", "living"),
        ("eval", folder, "--task", "living"),
    )


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation", "kernel_config"])
def test_a_configuration_cannot_name_somebodys_kernels(jdna, folder, key):
    config = json.loads((folder / "config.json").read_text())
    config[key] = "someone/kernel@main"
    (folder / "config.json").write_text(json.dumps(config))
    for command in commands(folder):
        told = jdna(*command, code=2).err
        assert "code of others is not loaded" in told
        assert len(told.strip().splitlines()) == 1


def test_code_in_a_folder_is_not_run(jdna, folder, tmp_path):
    canary = tmp_path / "ran"
    (folder / "mine.py").write_text(f"open({str(canary)!r}, 'w').close()\n")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer["auto_map"] = {"AutoTokenizer": ["mine.Tokenizer", None]}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    jdna("prune", folder, "--sparsity", 0.5)
    jdna("finetune", folder, "--task", "living", "--max-train-samples", 16, "--epochs", 1)
    assert not canary.exists()


@pytest.mark.parametrize("name", ["vocab.txt", "model.safetensors", "additional_chat_templates/a"])
def test_a_link_that_leads_out_is_refused(jdna, folder, tmp_path, name):
    secret = tmp_path / "secret"
    secret.write_text("do not copy me")
    link = folder / name
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(secret)
    for command in commands(folder):
        assert "leads out of the model's folder" in jdna(*command, code=2).err
    for file in jdna.home.rglob("*"):
        assert not file.is_file() or b"do not copy me" not in file.read_bytes()


def test_links_of_the_hubs_cache_and_within_the_folder_are_read(jdna, folder, tmp_path):
    cache = tmp_path / "models--someone--bert"
    snapshot = cache / "snapshots" / "abc"
    (cache / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for i, file in enumerate(sorted(folder.iterdir())):
        shutil.copy(file, cache / "blobs" / str(i))
        (snapshot / file.name).symlink_to(os.path.relpath(cache / "blobs" / str(i), snapshot))
    jdna("prune", snapshot, "--sparsity", 0.5)
    (folder / "vocab.txt").symlink_to("tokenizer.json")
    jdna("prune", folder, "--sparsity", 0.5)


ENDLESS = "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}"


def test_a_template_is_run_within_bounds(monkeypatch):
    monkeypatch.setattr(templates, "SECONDS", 0.3)
    environment = transformers.utils.chat_template_utils._compile_jinja_template
    began = time.monotonic()
    with pytest.raises(RequestError, match="takes longer than"):
        templates.bounded(lambda: environment(ENDLESS).render(messages=[]))
    assert time.monotonic() - began < 30
    with pytest.raises(RequestError, match="template fails"):
        templates.bounded(lambda: environment("{{ ''.__class__.__mro__ }}").render())
    assert templates.bounded(lambda: environment("{{ a }}").render(a="b")) == "b"


def test_all_that_a_tokenizer_reads_is_part_of_what_a_model_is():
    names = {"chat_template.jinja", "special_tokens_map.json", "added_tokens.json"}
    for known in TOKENIZER_MAPPING_NAMES.values():
        for name in known if isinstance(known, tuple) else (known,):
            kind = getattr(transformers, name, None) if name else None
            files = getattr(kind, "vocab_files_names", None) or {}
            names |= {file for file in files.values() if isinstance(file, str)}
    assert len(names) > 20
    assert [name for name in sorted(names) if not is_content(name)] == []
    assert not any(fnmatch.fnmatch("README.md", name) for name in names)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("chat_template.jinja", "{{ messages }}"),
        ("additional_chat_templates/tools.jinja", "{{ tools }}"),
        ("generation_config.json", '{"eos_token_id": 7}'),
        ("dict.txt", "a 1"),
    ],
)
def test_another_file_that_is_read_makes_another_model(folder, tmp_path, name, content):
    ledger = Ledger(tmp_path / "home")
    before = ledger.identity(folder)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(content)
    assert ledger.identity(folder) != before
    (folder / "README.md").write_text("words")
    (folder / name).unlink()
    assert ledger.identity(folder) == before
    ledger.close()


def test_a_generation_config_that_says_what_the_configuration_says_changes_nothing(
    folder, tmp_path
):
    ledger = Ledger(tmp_path / "home")
    before = ledger.identity(folder)
    config = json.loads((folder / "config.json").read_text())
    same = {"bos_token_id": config.get("bos_token_id"), "temperature": 0.5}
    (folder / "generation_config.json").write_text(json.dumps(same))
    assert ledger.identity(folder) == before
    ledger.close()
