"""ONNX: models in, models out, and striate as a backend of the onnx package.

Needs the onnx package: `pip install 'striate[onnx]'`.
"""

from striate.io.onnx import (
    Description,
    NotDifferentiable,
    OnnxError,
    OnnxModule,
    backend,
    describe,
    load,
    save,
    to_model,
)

__all__ = [
    "Description",
    "NotDifferentiable",
    "OnnxError",
    "OnnxModule",
    "backend",
    "describe",
    "load",
    "save",
    "to_model",
]
