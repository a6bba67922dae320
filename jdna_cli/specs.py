"""What was asked: one frozen model per command, its checks, and the fingerprint of its result.

The command line, the JSON in the database and the fingerprint all come from these classes. A field
at its default is left out of the fingerprint, so that a new option whose default changes nothing
keeps every old fingerprint; for the same reason a default is never changed.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from jdna_cli.errors import RequestError

Scope = Literal["global", "layer", "row"]
Regime = Literal[
    "dense", "sparse", "sparse-to-dense", "dense-frozen", "reinit", "large-frozen",
    "quantized", "quantized-to-dense",
]  # fmt: skip
Precision = Literal["no", "bf16", "fp16"]
Book = Literal["open", "closed"]
Dtype = Literal["float32", "bfloat16", "float16", "auto"]
DeviceMap = Literal["auto", "balanced", "sequential"]
Granularity = Literal["tensor", "channel"]
Rounding = Literal["nearest", "gptq"]
Schedule = Literal["one-shot", "iterative"]
Kernels = Literal["dense", "semi-structured"]
ExportFormat = Literal["onnx", "openvino"]
# Examples at a time, or as many as make a batch of so many tokens as memory has room for.
BatchSize = Annotated[int, Field(ge=1)] | Literal["auto"]

FINGERPRINT_VERSION = "s1"
MOST_SEED = 2**32 - 1  # what NumPy takes


@dataclass(frozen=True)
class ModelSource:
    """A model that was found: what it is called, where its files are, and what is in them."""

    name: str
    folder: Path
    identity: str
    mask: Path | None = None


class Spec(BaseModel):
    """A request that can be carried out, stored, and named by its fingerprint."""

    # Built at its first use: a command needs one of them, and a report none.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)

    kind: ClassVar[str]
    # Fields that never change a result: how often to save, how many examples at a time.
    neutral: ClassVar[frozenset[str]] = frozenset()
    # Fields that name what `identities` describes by content.
    named: ClassVar[frozenset[str]] = frozenset()

    def determining(self, without: frozenset[str] = frozenset()) -> dict[str, Any]:
        """The fields that differ from their default and determine the result."""
        hidden = self.neutral | self.named | without
        return self.model_dump(mode="json", exclude_defaults=True, exclude=set(hidden))

    def fingerprint(self, identities: Mapping[str, str]) -> str:
        """Name of the result: the same for equal requests on equal weights and data.

        Args:
            identities: content identity of each thing that the request names ("model", "data", …).
        """
        return digest({"kind": self.kind, "spec": self.determining(), **identities})


class PruningRequest(Spec):
    """What both commands that take weights away, or bits of them, can be asked."""

    named: ClassVar[frozenset[str]] = frozenset({"model", "calibration", "allocation"})

    model: str
    sparsity: float | None = Field(None, ge=0, lt=1)
    pattern: str | None = None
    quantize: int | None = Field(None, ge=2, le=8)
    criterion: str = "magnitude"
    scope: Scope = "global"
    allocation: str | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    granularity: Granularity = "channel"
    group_size: int | None = Field(None, ge=2)
    asymmetric: bool = False
    rounding: Rounding = "nearest"
    calibration: str | None = None
    calibration_samples: int = Field(128, ge=1)
    calibration_length: int = Field(2048, ge=2)
    sequential: bool = True
    pruning_seed: int = Field(0, ge=0, le=MOST_SEED)

    @field_validator("sparsity")
    @classmethod
    def _not_negative_zero(cls, value: float | None) -> float | None:
        if value is not None and math.copysign(1.0, value) < 0:
            raise ValueError("Input should be 0 or more")
        return value

    @field_validator("pattern")
    @classmethod
    def _canonical(cls, value: str | None) -> str | None:
        return None if value is None else "{}:{}".format(*parse_pattern(value))

    @model_validator(mode="after")
    def _at_most_one_way(self) -> Self:
        if self.sparsity is not None and self.pattern is not None:
            raise ValueError("give either --sparsity S (0 ≤ S < 1), or --pattern N:M")
        if self.quantize is None:
            for name in ("granularity", "group_size", "asymmetric", "rounding"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"--{name.replace('_', '-')}: goes with --quantize alone")
        elif self.criterion != "magnitude" and not self.removes:
            raise ValueError(
                "--criterion: --quantize alone rounds every weight, it chooses none: add "
                "--sparsity S or --pattern N:M"
            )
        if self.allocation is not None and not self.removes:
            raise ValueError("--allocation: goes with --sparsity S or --pattern N:M")
        if self.group_size is not None and self.granularity == "tensor":
            raise ValueError("--group-size: groups divide a channel, leave --granularity out")
        return self

    def determining(self, without: frozenset[str] = frozenset()) -> dict[str, Any]:
        """As of any request; a user's own criterion goes by the name of its file."""
        determining = super().determining(without)
        file, colon, function = self.criterion.rpartition(":")
        if colon and "criterion" in determining:
            determining["criterion"] = f"{Path(file).name}:{function}"
        return determining

    @property
    def removes(self) -> bool:
        """Whether the request itself takes weights away."""
        return self.sparsity is not None or self.pattern is not None

    @property
    def prunes(self) -> bool:
        """Whether the request itself takes weights, or bits of them, away."""
        return self.removes or self.quantize is not None


class PruneSpec(PruningRequest):
    """Prune a model once: which weights go, chosen by what; or how they are rounded."""

    kind: ClassVar[str] = "prune"
    neutral: ClassVar[frozenset[str]] = frozenset({"packed"})

    packed: bool = False

    @model_validator(mode="after")
    def _some_way(self) -> Self:
        if not self.prunes:
            raise ValueError(
                "give either --sparsity S (0 ≤ S < 1) or --pattern N:M, or --quantize BITS, or both"
            )
        return self


# Fields that say what is taken away, and how it is made good: without them two runs are the same
# but for the pruning.
PRUNING_FIELDS = frozenset(
    {*PruningRequest.model_fields, "regime", "schedule", "schedule_rounds", "schedule_end",
     "teacher", "distill_weight", "temperature"}
) - {"model"}  # fmt: skip


class TaskConditions(Spec):
    """Conditions that make a task easier or harder; those that a task has not are None."""

    options: int | None = Field(None, ge=2)
    book: Book | None = None
    context_words: int | None = Field(None, ge=1)
    pairs: str | None = None


CONDITION_FIELDS = tuple(TaskConditions.model_fields)


class FinetuneSpec(PruningRequest, TaskConditions):
    """Fine-tune a model on a task under a transfer regime."""

    kind: ClassVar[str] = "finetune"
    neutral: ClassVar[frozenset[str]] = frozenset(
        {
            "checkpoint_every",
            "eval_batch_size",
            "dynamics",
            "dynamics_every",
            "lora_keep",
            "log_with",
        }
    )
    named: ClassVar[frozenset[str]] = PruningRequest.named | {"teacher"}

    task: str
    regime: Regime = "dense"
    data_fraction: float = Field(1.0, gt=0, le=1)
    max_train_samples: int | None = Field(None, ge=1)
    epochs: int = Field(3, ge=1)
    lr: float = Field(2e-5, gt=0)
    batch_size: int = Field(16, ge=1)
    eval_batch_size: int = Field(64, ge=1)
    gradient_accumulation: int = Field(1, ge=1)
    max_length: int = Field(128, ge=4)
    weight_decay: float = Field(0.0, ge=0, lt=1)
    warmup: float = Field(0.06, ge=0, lt=1)
    max_grad_norm: float | None = Field(None, gt=0)
    seed: int = Field(41, ge=0, le=MOST_SEED)
    mixed_precision: Precision = "no"
    checkpoint_every: int = Field(500, ge=0)
    schedule: Schedule = "one-shot"
    schedule_rounds: int = Field(10, ge=1)
    schedule_end: float = Field(0.5, gt=0, le=1)
    teacher: str | None = None
    distill_weight: float = Field(0.5, gt=0, le=1)
    temperature: float = Field(2.0, gt=0)
    dynamics: bool = False
    dynamics_every: int = Field(100, ge=1)
    lora: int | None = Field(None, ge=1)
    lora_alpha: float | None = Field(None, gt=0)
    lora_targets: tuple[str, ...] = ()
    lora_keep: bool = False
    log_with: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _settings_that_are_read(self) -> Self:
        for switch, names in (
            (self.schedule != "one-shot", ("schedule_rounds", "schedule_end")),
            (self.teacher is not None, ("distill_weight", "temperature")),
        ):
            for name in names if not switch else ():
                if getattr(self, name) != type(self).model_fields[name].default:
                    flag = "--schedule iterative" if name.startswith("schedule") else "--teacher"
                    raise ValueError(f"--{name.replace('_', '-')}: goes with {flag} alone")
        for name in ("lora_alpha", "lora_targets", "lora_keep"):
            if self.lora is None and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"--{name.replace('_', '-')}: goes with --lora RANK alone")
        return self

    def prune_spec(self) -> PruneSpec:
        """The pruning that comes before this fine-tuning."""
        shared = PruneSpec.model_fields.keys()
        return PruneSpec(**{k: v for k, v in self.model_dump().items() if k in shared})


class EvalSpec(TaskConditions):
    """Measure a model on one split of a task."""

    kind: ClassVar[str] = "eval"
    neutral: ClassVar[frozenset[str]] = frozenset({"batch_size", "device_map", "time"})
    named: ClassVar[frozenset[str]] = frozenset({"model"})

    model: str
    task: str
    split: str
    batch_size: BatchSize = "auto"
    max_length: int = Field(128, ge=4)
    mixed_precision: Precision = "no"
    shots: int = Field(0, ge=0)
    chat: bool = False
    limit: int | None = Field(None, ge=1)
    stride: int | None = Field(None, ge=1)
    label_order: str | None = None
    seed: int = Field(0, ge=0, le=MOST_SEED)
    dtype: Dtype = "float32"
    device_map: DeviceMap | None = None
    time: bool = False
    kernels: Kernels = "dense"


class ScanSpec(TaskConditions):
    """Prune each kind of matrix of each block alone, and measure what that does to a task."""

    kind: ClassVar[str] = "scan"
    neutral: ClassVar[frozenset[str]] = frozenset({"batch_size", "total"})
    named: ClassVar[frozenset[str]] = frozenset({"model", "calibration"})

    model: str
    task: str
    split: str
    sparsities: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field((0.7,), min_length=1)
    total: float = Field(0.5, gt=0, lt=1)
    criterion: str = "magnitude"
    scope: Literal["layer", "row"] = "layer"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    calibration: str | None = None
    calibration_samples: int = Field(128, ge=1)
    calibration_length: int = Field(2048, ge=2)
    pruning_seed: int = Field(0, ge=0, le=MOST_SEED)
    batch_size: BatchSize = "auto"
    max_length: int = Field(128, ge=4)
    mixed_precision: Precision = "no"
    shots: int = Field(0, ge=0)
    chat: bool = False
    limit: int | None = Field(None, ge=1)
    stride: int | None = Field(None, ge=1)
    label_order: str | None = None
    seed: int = Field(0, ge=0, le=MOST_SEED)

    @field_validator("sparsities")
    @classmethod
    def _each_once(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(sorted(set(values)))

    def prune_spec(self) -> PruneSpec:
        """How a matrix is pruned, to the largest sparsity."""
        own = {k: v for k, v in self.model_dump().items() if k in PruneSpec.model_fields}
        return PruneSpec(**own, sparsity=self.sparsities[-1])

    def eval_spec(self) -> EvalSpec:
        """How the model is measured."""
        own = {k: v for k, v in self.model_dump().items() if k in EvalSpec.model_fields}
        return EvalSpec(**own)


class HarnessSpec(Spec):
    """Measure a model by the LM evaluation harness."""

    kind: ClassVar[str] = "eval"
    neutral: ClassVar[frozenset[str]] = frozenset({"batch_size", "device_map"})
    named: ClassVar[frozenset[str]] = frozenset({"model"})

    model: str
    harness: tuple[str, ...] = Field(min_length=1)
    shots: int | None = Field(None, ge=0)
    limit: int | None = Field(None, ge=1)
    batch_size: BatchSize = 64
    max_length: int | None = Field(None, ge=4)
    chat: bool = False
    seed: int = Field(0, ge=0, le=MOST_SEED)
    dtype: Dtype = "float32"
    device_map: DeviceMap | None = None


class InterpolateSpec(TaskConditions):
    """Measure the straight line between two models."""

    kind: ClassVar[str] = "interpolate"
    neutral: ClassVar[frozenset[str]] = frozenset({"batch_size"})
    named: ClassVar[frozenset[str]] = frozenset({"model", "other"})

    model: str
    other: str
    task: str
    split: str
    points: int = Field(11, ge=2, le=10_001)
    batch_size: int = Field(64, ge=1)
    max_length: int = Field(128, ge=4)
    mixed_precision: Precision = "no"
    shots: int = Field(0, ge=0)
    seed: int = Field(0, ge=0, le=MOST_SEED)


class ExportSpec(Spec):
    """Write a model for another runtime, compare what it gives, and time both."""

    kind: ClassVar[str] = "export"
    named: ClassVar[frozenset[str]] = frozenset({"model"})

    model: str
    format: ExportFormat
    length: int = Field(128, ge=4)


# The specs that measure a task.
Measured = FinetuneSpec | EvalSpec | InterpolateSpec

# Fields of any spec that never change a result.
NEUTRAL = FinetuneSpec.neutral | EvalSpec.neutral | HarnessSpec.neutral | InterpolateSpec.neutral

S = TypeVar("S", bound=Spec)


def digest(value: Mapping[str, Any]) -> str:
    """Version-prefixed SHA-256 of the canonical JSON of `value`."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return f"{FINGERPRINT_VERSION}:{hashlib.sha256(text.encode()).hexdigest()}"


def build(spec: type[S], values: Mapping[str, Any]) -> S:
    """Build a spec; the first thing wrong with it becomes one line that names the flag.

    Raises:
        RequestError: a value is out of range, of the wrong type, or contradicts another.
    """
    try:
        return spec(**values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        message = first["msg"].removeprefix("Value error, ")
        if not first["loc"]:
            raise RequestError(message) from None
        flag = str(first["loc"][0]).replace("_", "-")
        raise RequestError(f"--{flag}: {message}, got {first['input']!r}") from None


def parse_pattern(text: str) -> tuple[int, int]:
    """Parse N:M: of each M consecutive weights along the input dimension, N are kept.

    Raises:
        ValueError: not two integers with 1 ≤ N < M.
    """
    kept, colon, group = text.partition(":")
    if not (colon and kept.isascii() and group.isascii() and kept.isdigit() and group.isdigit()):
        raise ValueError("a pattern is N:M, as in 4:8 (4 of each 8 weights are kept)")
    n, m = int(kept), int(group)
    if not 1 <= n < m:
        raise ValueError("a pattern N:M keeps N of each M weights, with 1 ≤ N < M")
    return n, m
