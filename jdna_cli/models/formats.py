"""Formats that models are exported to: whose they are, and their main file. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Format:
    """A format of files, who runs it, and what that needs, by the names it is imported by."""

    runtime: str
    file: str
    packages: tuple[str, ...]


FORMATS = {
    "onnx": Format("ONNX Runtime", "model.onnx", ("onnxruntime", "onnxscript")),
    "openvino": Format("OpenVINO", "model.xml", ("openvino",)),
}
