"""ONNX: models in, models out, and striate as a backend of the onnx package.

Needs the onnx package: `pip install 'striate[onnx]'`.
"""

from striate.io.onnx import NotDifferentiable, OnnxError, OnnxModule, backend, load, save, to_model

__all__ = ["NotDifferentiable", "OnnxError", "OnnxModule", "backend", "load", "save", "to_model"]
