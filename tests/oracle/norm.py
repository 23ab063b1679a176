"""Normalisation: (x − mean) / √(var + eps) · weight + bias, each op over its own axes."""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def _channelwise(v: Array, ndim: int) -> Array:
    return v.reshape(1, -1, *(1,) * (ndim - 2))


def _affine(y: Array, weight: Array | None, bias: Array | None) -> Array:
    if weight is not None:
        y = y * _channelwise(weight, y.ndim)
    if bias is not None:
        y = y + _channelwise(bias, y.ndim)
    return y


def batch_norm(
    x: Array,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    weight: Array | None = None,
    bias: Array | None = None,
    *,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Array:
    """Normalise each channel by the batch's biased mean and variance (training) or the running ones."""
    if training or running_mean is None or running_var is None:
        axes = (0, *range(2, x.ndim))
        mean, var = x.mean(axis=axes), x.var(axis=axes)
    else:
        mean, var = running_mean, running_var
    y = (x - _channelwise(mean, x.ndim)) / np.sqrt(_channelwise(var, x.ndim) + eps)
    return _affine(y, weight, bias)


def batch_norm_running(x: Array, running_mean: Array, running_var: Array, *, momentum: float) -> tuple[Array, Array]:
    """running ← (1 − momentum)·running + momentum·(batch mean, batch variance with Bessel's correction)."""
    axes = (0, *range(2, x.ndim))
    return (
        (1 - momentum) * running_mean + momentum * x.mean(axis=axes),
        (1 - momentum) * running_var + momentum * x.var(axis=axes, ddof=1),
    )


def layer_norm(
    x: Array,
    normalized_shape: tuple[int, ...],
    weight: Array | None = None,
    bias: Array | None = None,
    *,
    eps: float = 1e-5,
) -> Array:
    """Normalise over the last axes, then scale and shift element by element of those axes."""
    axes = tuple(range(x.ndim - len(normalized_shape), x.ndim))
    y = (x - x.mean(axis=axes, keepdims=True)) / np.sqrt(x.var(axis=axes, keepdims=True) + eps)
    if weight is not None:
        y = y * weight
    return y if bias is None else y + bias


def group_norm(
    x: Array, num_groups: int, weight: Array | None = None, bias: Array | None = None, *, eps: float = 1e-5
) -> Array:
    """Normalise over the pixels and channels of each group of each sample."""
    n, c = x.shape[:2]
    z = x.reshape(n, num_groups, c // num_groups, *x.shape[2:])
    axes = tuple(range(2, z.ndim))
    z = (z - z.mean(axis=axes, keepdims=True)) / np.sqrt(z.var(axis=axes, keepdims=True) + eps)
    return _affine(z.reshape(x.shape), weight, bias)


def instance_norm(x: Array, weight: Array | None = None, bias: Array | None = None, *, eps: float = 1e-5) -> Array:
    """Normalise over the pixels of each channel of each sample."""
    return group_norm(x, x.shape[1], weight, bias, eps=eps)


def local_response_norm(x: Array, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Array:
    """y[n,c] = x[n,c] / (k + alpha/size · Σ_{c'} x[n,c']²)^beta, c' from c − size//2 to c + (size−1)//2."""
    return x / local_response_base(x, size, alpha, k) ** beta


def local_response_base(x: Array, size: int, alpha: float = 1e-4, k: float = 1.0) -> Array:
    """k + alpha/size · Σ_{c'} x[n,c']²."""
    base = np.empty(x.shape)
    for c in range(x.shape[1]):
        first, last = max(0, c - size // 2), min(x.shape[1] - 1, c + (size - 1) // 2)
        base[:, c] = k + alpha / size * (x[:, first : last + 1] ** 2).sum(axis=1)
    return base
