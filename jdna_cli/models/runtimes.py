"""Other runtimes: a model's forward pass as one graph in their file, and that file opened by them.

Through torch's own ONNX exporter, and OpenVINO's own reader of torch models: optimum, which wraps
both, admits no transformers 5 (optimum-onnx 0.1 wants one before 4.58).
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from jdna_cli.errors import RequestError
from jdna_cli.models import loading, model_files
from jdna_cli.models.formats import FORMATS, Format
from jdna_cli.models.quiet import transformers
from jdna_cli.specs import ModelSource

Inputs = dict[str, Tensor]
Call = Callable[[Inputs], Tensor]
LARGE = 1 << 30  # bytes of weights; an ONNX file of more than twice that cannot hold them itself


class Graph(nn.Module):
    """A model's forward pass: token ids and their mask to logits, or to the last hidden state."""

    def __init__(self, model: Any, inputs: tuple[str, ...], choices: bool) -> None:
        """Set up; `inputs` are names of arguments, `choices` that texts come in groups."""
        super().__init__()
        self.model, self.inputs, self.choices = model, inputs, choices
        self._rest = {"use_cache": False} if hasattr(model.config, "use_cache") else {}

    def forward(self, *tensors: Tensor) -> Tensor:
        """What the model says of (texts, tokens) int64, or (questions, options, tokens)."""
        given = dict(zip(self.inputs, tensors, strict=True))
        found = self.model(**given, **self._rest)
        output: Tensor = found.logits if "logits" in found else found.last_hidden_state
        return output

    def example(self, shape: tuple[int, int], seed: int, padded: int = 0) -> Inputs:
        """Random texts for it: `shape` is (texts, tokens); of the first the end is padding."""
        config, generator = self.model.config, torch.Generator().manual_seed(seed)
        inner = config.get_text_config()
        size = (shape[0], 3, shape[1]) if self.choices else shape
        ids = torch.randint(0, inner.vocab_size, size, generator=generator)
        kinds = ("pad", "bos", "eos", "sep", "cls", "mask", "decoder_start")
        special = {getattr(inner, f"{kind}_token_id", None) for kind in kinds}
        plain = next(i for i in range(inner.vocab_size) if i not in special)
        for one in special:
            if isinstance(one, int):
                ids[ids == one] = plain
        mask = torch.ones_like(ids)
        if padded:
            mask[0, ..., -padded:] = 0
            pad = inner.pad_token_id
            ids[mask == 0] = pad if isinstance(pad, int) and pad >= 0 else plain
        parts = torch.randint(0, 2, size, generator=generator) * mask
        known = {"input_ids": ids, "attention_mask": mask, "token_type_ids": parts}
        return {name: known[name] for name in self.inputs}


def graph_of(source: ModelSource) -> Graph:
    """The graph of a model, in the form that its configuration names, on the CPU.

    Raises:
        RequestError: it has none, or lacks weights, or writes by an encoder and a decoder.
    """
    config = model_files.config_of(source.folder)
    if config.is_encoder_decoder:
        raise RequestError(
            f"{source.name} is an encoder-decoder, which is no one graph: encoders, decoders, and "
            "their heads can be exported"
        )
    named = next(iter(config.architectures or ()), "AutoModel")
    kind = getattr(transformers, named, transformers.AutoModel)
    model, absent = loading.load(kind, source, "export")
    if absent:
        raise RequestError(f"model {source.name!r} is not whole: {loading.lacks(absent)}")
    tokenizer = model_files.tokenizer_of(source.folder)
    takes = inspect.signature(model.forward).parameters
    parts = (
        "token_type_ids" in takes
        and "token_type_ids" in tokenizer.model_input_names
        and getattr(config, "type_vocab_size", 0) > 1
    )
    inner = model.config.get_text_config()
    if inner.pad_token_id is None:  # a decoder's head reads at the last token that is no padding
        own = tokenizer.pad_token_id
        inner.pad_token_id = tokenizer.eos_token_id if own is None else own
    inputs = ("input_ids", "attention_mask", *(("token_type_ids",) if parts else ()))
    model.eval()
    return Graph(model, inputs, named.endswith("ForMultipleChoice"))


@dataclass(frozen=True)
class Runtime:
    """How files of a format are written, and opened."""

    format: Format
    write: Callable[[Graph, Path], None]  # into a folder that is there
    open: Callable[[Path, int], Call]  # of such a folder, to be run by so many threads


def runtime(name: str) -> Runtime:
    """The runtime of a format.

    Raises:
        RequestError: what it needs is not installed.
    """
    found = RUNTIMES[name]
    missing = [one for one in found.format.packages if importlib.util.find_spec(one) is None]
    if missing:
        raise RequestError(
            f"--format {name} needs the extra `{name}`: pip install 'jdna[{name}]' "
            f"({', '.join(missing)} is missing)"
        )
    return found


def _to_onnx(graph: Graph, folder: Path) -> None:
    example = graph.example((2, 16), seed=0)
    names = ("batch", "choices", "length") if graph.choices else ("batch", "length")
    dims = {i: torch.export.Dim(name) for i, name in enumerate(names)}
    weights = sum(p.numel() * p.element_size() for p in graph.parameters())
    with _quietly():
        program = torch.onnx.export(
            graph, tuple(example.values()), dynamo=True, verbose=False,
            input_names=list(graph.inputs), output_names=["output"],
            dynamic_shapes={"tensors": tuple(dims for _ in graph.inputs)},
        )  # fmt: skip
        assert program is not None
        program.save(str(folder / FORMATS["onnx"].file), external_data=weights > LARGE)


def _open_onnx(folder: Path, threads: int) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        folder / FORMATS["onnx"].file, options, providers=["CPUExecutionProvider"]
    )

    def call(inputs: Inputs) -> Tensor:
        (found,) = session.run(None, {name: x.numpy() for name, x in inputs.items()})
        return torch.from_numpy(found)

    return call


def _to_openvino(graph: Graph, folder: Path) -> None:
    import openvino

    example = graph.example((2, 16), seed=0)
    any_size = [-1, -1, -1] if graph.choices else [-1, -1]
    with _quietly():
        found = openvino.convert_model(
            graph, example_input=tuple(example.values()),
            input=[(any_size, openvino.Type.i64) for _ in graph.inputs],
        )  # fmt: skip
    for name, own in zip(graph.inputs, found.inputs, strict=True):
        own.get_tensor().set_names({name})
    openvino.save_model(found, folder / FORMATS["openvino"].file, compress_to_fp16=False)


def _open_openvino(folder: Path, threads: int) -> Call:
    import openvino

    # In float32, as the model's weights are; by default it computes in bfloat16 where it can.
    asked: Mapping[str, Any] = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = openvino.Core().compile_model(folder / FORMATS["openvino"].file, "CPU", dict(asked))

    def call(inputs: Inputs) -> Tensor:
        return torch.from_numpy(compiled({name: x.numpy() for name, x in inputs.items()})[0].copy())

    return call


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Exporters speak at length of what they skip."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


RUNTIMES = {
    "onnx": Runtime(FORMATS["onnx"], _to_onnx, _open_onnx),
    "openvino": Runtime(FORMATS["openvino"], _to_openvino, _open_openvino),
}
