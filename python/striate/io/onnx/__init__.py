"""ONNX: models in, models out, and the backend interface of the onnx package."""

from striate.io.onnx import backend
from striate.io.onnx.describe import Description, describe
from striate.io.onnx.read import OnnxModule, load
from striate.io.onnx.value import NotDifferentiable, OnnxError
from striate.io.onnx.write import save, to_model

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
