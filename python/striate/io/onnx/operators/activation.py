"""Activations, softmax and dropout."""

from __future__ import annotations

import math
from typing import Any

from striate import _core, ops
from striate.autograd import Tensor
from striate.io.onnx.node import Node, operator
from striate.io.onnx.value import as_tensor, number


@operator("Relu")
def relu(node: Node, x: Any) -> Tensor:
    """Return max(x, 0)."""
    return ops.relu(as_tensor(x))


@operator("LeakyRelu")
def leaky_relu(node: Node, x: Any) -> Tensor:
    """Return x where x > 0, else alpha · x."""
    return ops.leaky_relu(as_tensor(x), node.attributes["alpha"])


@operator("PRelu")
def prelu(node: Node, x: Any, slope: Any) -> Tensor:
    """Return x where x > 0, else slope · x; the slope broadcasts to x."""
    x, slope = as_tensor(x), as_tensor(slope)
    channels = x.shape[1] if x.ndim > 1 else 1
    is_old = node.since < 7 and slope.ndim == 1
    if (
        slope.size == 1
        or is_old
        or (slope.size == channels and slope.ndim == x.ndim - 1 and slope.shape[0] == channels)
    ):
        return ops.prelu(x, ops.reshape(slope, (-1,)))
    return ops.maximum(x, ops.zeros_like(x)) + ops.minimum(x, ops.zeros_like(x)) * slope


@operator("Elu")
def elu(node: Node, x: Any) -> Tensor:
    """Return x where x > 0, else alpha · (eˣ − 1)."""
    return ops.elu(as_tensor(x), node.attributes["alpha"])


@operator("Celu")
def celu(node: Node, x: Any) -> Tensor:
    """Return x where x > 0, else alpha · (e^(x/alpha) − 1)."""
    alpha = node.attributes["alpha"]
    return ops.elu(as_tensor(x) / alpha, 1.0) * alpha


@operator("Selu")
def selu(node: Node, x: Any) -> Tensor:
    """Return gamma · (x where x > 0, else alpha · (eˣ − 1))."""
    return ops.elu(as_tensor(x), node.attributes["alpha"]) * node.attributes["gamma"]


@operator("ThresholdedRelu")
def thresholded_relu(node: Node, x: Any) -> Tensor:
    """Return x where x > alpha, else 0."""
    x = as_tensor(x)
    return ops.where(x > node.attributes["alpha"], x, ops.zeros_like(x))


@operator("HardSigmoid")
def hard_sigmoid(node: Node, x: Any) -> Tensor:
    """Return min(max(alpha · x + beta, 0), 1)."""
    alpha, beta = node.attributes["alpha"], node.attributes["beta"]
    if beta == 0.5 and math.isclose(alpha, 1 / 6, rel_tol=1e-6):
        return ops.hardsigmoid(as_tensor(x))
    return ops.clip(as_tensor(x) * alpha + beta, 0.0, 1.0)


@operator("HardSwish")
def hard_swish(node: Node, x: Any) -> Tensor:
    """Return x · min(max(x/6 + 1/2, 0), 1)."""
    return ops.hardswish(as_tensor(x))


@operator("Swish")
def swish(node: Node, x: Any) -> Tensor:
    """Return x · sigmoid(alpha · x)."""
    alpha = node.attributes["alpha"]
    x = as_tensor(x)
    return ops.silu(x) if alpha == 1.0 else x * ops.sigmoid(x * alpha)


@operator("Softplus")
def softplus(node: Node, x: Any) -> Tensor:
    """Return ln(1 + eˣ)."""
    return ops.softplus(as_tensor(x))


@operator("Softsign")
def softsign(node: Node, x: Any) -> Tensor:
    """Return x / (1 + |x|)."""
    x = as_tensor(x)
    return x / (ops.abs(x) + 1.0)


@operator("Sigmoid")
def sigmoid(node: Node, x: Any) -> Tensor:
    """Return 1 / (1 + e⁻ˣ)."""
    return ops.sigmoid(as_tensor(x))


@operator("Tanh")
def tanh(node: Node, x: Any) -> Tensor:
    """Return the hyperbolic tangent."""
    return ops.tanh(as_tensor(x))


@operator("Gelu")
def gelu(node: Node, x: Any) -> Tensor:
    """Return x · Φ(x), or its approximation by tanh."""
    return ops.gelu(as_tensor(x), node.attributes["approximate"])


@operator("Mish")
def mish(node: Node, x: Any) -> Tensor:
    """Return x · tanh(ln(1 + eˣ))."""
    return ops.mish(as_tensor(x))


@operator("Shrink")
def shrink(node: Node, x: Any) -> Tensor:
    """Return x + bias below −lambd, x − bias above lambd, and 0 between."""
    x = as_tensor(x)
    if not x.dtype.is_floating_point:
        raise _core.DTypeError(f"shrink: expected floats, got {x.dtype}")
    lambd, bias = node.attributes["lambd"], node.attributes["bias"]
    zero = ops.zeros_like(x)
    return ops.where(x < -lambd, x + bias, ops.where(x > lambd, x - bias, zero))


@operator("Clip")
def clip(node: Node, x: Any, low: Any = None, high: Any = None) -> Tensor:
    """Return min(max(x, min), max)."""
    x = as_tensor(x)
    if node.since < 11:
        low, high = node.attributes.get("min"), node.attributes.get("max")
    else:
        low = None if low is None else number(low)
        high = None if high is None else number(high)
    if not x.dtype.is_floating_point:
        raise _core.DTypeError(f"clip: expected floats, got {x.dtype}")
    if low is None and high is None:
        return x
    if low is not None and high is not None and low > high:
        return ops.full_like(x, high)
    if low == 0.0 and high == 6.0:
        return ops.relu6(x)
    if low == 0.0 and (high is None or high >= 3e38):
        return ops.relu(x)
    return ops.clip(x, low, high)


def _along(node: Node, x: Tensor, function: Any) -> Tensor:
    """Apply along one axis; before opset 13 along all axes from `axis` on."""
    axis = node.attributes["axis"]
    if node.since >= 13:
        return function(x, axis)
    axis = axis + x.ndim if axis < 0 else axis
    n_rows = 1
    for n in x.shape[:axis]:
        n_rows = n * n_rows
    return ops.reshape(function(ops.reshape(x, (n_rows, -1)), 1), x.shape)


@operator("Softmax")
def softmax(node: Node, x: Any) -> Tensor:
    """Normalise exponentials."""
    return _along(node, as_tensor(x), ops.softmax)


@operator("LogSoftmax")
def log_softmax(node: Node, x: Any) -> Tensor:
    """Take the logarithm of the softmax."""
    return _along(node, as_tensor(x), ops.log_softmax)


@operator("Dropout")
def dropout(node: Node, x: Any, ratio: Any = None, training: Any = None) -> Any:
    """Drop elements while training; the model's own mode decides where the file does not."""
    x = as_tensor(x)
    p = node.attributes.get("ratio", 0.5) if ratio is None else float(number(ratio))
    drops = node.mode.is_training if training is None else bool(number(training))
    if node.attributes.get("seed") is not None and training is not None and drops:
        raise _core.DTypeError("a seed of the file's own is the host's")
    wants_mask = len(node.outputs) > 1 and bool(node.outputs[1])
    if not wants_mask:
        return ops.dropout(x, p, training=True) if drops and p > 0 else x
    ones = ops.ones_like(x.detach())
    kept = ops.dropout(ones, p, training=True) if drops and p > 0 else ones
    return (x * kept if drops and p > 0 else x), kept != 0.0
