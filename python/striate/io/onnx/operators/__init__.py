"""What computes ONNX's operators: each file fills the table of handlers."""

from striate.io.onnx.operators import (
    activation,
    control,
    elementwise,
    host,
    index,
    linear,
    loss,
    norm,
    quantize,
    recurrent,
    reduce,
    resize,
    sequence,
    shape,
    vision,
    window,
)

__all__ = [
    "activation",
    "control",
    "elementwise",
    "host",
    "index",
    "linear",
    "loss",
    "norm",
    "quantize",
    "recurrent",
    "reduce",
    "resize",
    "sequence",
    "shape",
    "vision",
    "window",
]
