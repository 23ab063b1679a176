"""ONNX: models in, models out, and striate as a backend of the onnx package.

Needs the onnx package: `pip install 'striate[onnx]'`.
"""

try:
    from striate.io.onnx import *  # noqa: F403
    from striate.io.onnx import __all__ as __all__
except ModuleNotFoundError as error:
    if error.name not in ("onnx", "ml_dtypes", "google", "google.protobuf"):
        raise
    raise ModuleNotFoundError(
        f"striate.onnx: expected the package onnx and what it needs, got no {error.name}; run pip install 'striate[onnx]'",
        name=error.name,
    ) from error
