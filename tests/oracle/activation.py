"""Activations, element by element, in forms that do not cancel."""

from __future__ import annotations

import math

import numpy as np

Array = np.ndarray

SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946

_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def relu(x: Array) -> Array:
    """max(x, 0); NaN stays."""
    return np.where(x <= 0, 0.0, x)


def relu6(x: Array) -> Array:
    """min(max(x, 0), 6)."""
    return np.where(x <= 0, 0.0, np.where(x >= 6, 6.0, x))


def leaky_relu(x: Array, negative_slope: float = 0.01) -> Array:
    """X if x > 0 else negative_slope·x."""
    return np.where(x > 0, x, negative_slope * x)


def prelu(x: Array, weight: Array) -> Array:
    """X if x > 0 else weight[c]·x, c the channel (axis 1), or one weight for all."""
    w = weight if weight.size == 1 else weight.reshape(1, -1, *(1,) * (x.ndim - 2))
    return np.where(x > 0, x, w * x)


def elu(x: Array, alpha: float = 1.0) -> Array:
    """X if x > 0 else alpha·(eˣ − 1)."""
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def selu(x: Array) -> Array:
    """scale·elu(x, α) with the constants of Klambauer et al. 2017, arXiv:1706.02515."""
    return SELU_SCALE * elu(x, SELU_ALPHA)


def gelu(x: Array, approximate: str = "none") -> Array:
    """x·Φ(x); or ½x(1 + tanh(√(2/π)(x + 0.044715x³)))."""
    if approximate == "none":
        return 0.5 * x * _erfc(-x / math.sqrt(2))
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return x * sigmoid(2 * inner)  # ½(1 + tanh t) = sigmoid(2t), without the cancellation


def sigmoid(x: Array) -> Array:
    """1 / (1 + e⁻ˣ)."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small))


def silu(x: Array) -> Array:
    """x·sigmoid(x)."""
    return x * sigmoid(x)


def softplus(x: Array, beta: float = 1.0, threshold: float = 20.0) -> Array:
    """ln(1 + e^{βx}) / β; x itself where βx > threshold."""
    z = beta * x
    stable = np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))
    return np.where(z > threshold, x, stable / beta)


def mish(x: Array) -> Array:
    """x·tanh(ln(1 + eˣ))."""
    return x * np.tanh(softplus(x, threshold=np.inf))


def tanh(x: Array) -> Array:
    """(eˣ − e⁻ˣ) / (eˣ + e⁻ˣ)."""
    return np.tanh(x)


def hardswish(x: Array) -> Array:
    """x·relu6(x + 3) / 6."""
    return x * relu6(x + 3) / 6


def hardsigmoid(x: Array) -> Array:
    """relu6(x + 3) / 6."""
    return relu6(x + 3) / 6


def clip(x: Array, min: float | None = None, max: float | None = None) -> Array:
    """min(max(x, min), max); NaN stays."""
    y = x
    if min is not None:
        y = np.where(y < min, min, y)
    if max is not None:
        y = np.where(y > max, max, y)
    return y


def log_softmax(x: Array, dim: int) -> Array:
    """x − ln Σ eˣ along dim."""
    shifted = x - x.max(axis=dim, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=dim, keepdims=True))


def softmax(x: Array, dim: int) -> Array:
    """eˣ / Σ eˣ along dim."""
    e = np.exp(x - x.max(axis=dim, keepdims=True))
    return e / e.sum(axis=dim, keepdims=True)
