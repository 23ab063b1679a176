"""Reductions over dim (None: all axes)."""

from __future__ import annotations

import numpy as np

Array = np.ndarray
Dim = int | tuple[int, ...] | None


def sum(x: Array, dim: Dim = None, keepdim: bool = False) -> Array:
    """Σ x."""
    return np.sum(x, axis=dim, keepdims=keepdim)


def mean(x: Array, dim: Dim = None, keepdim: bool = False) -> Array:
    """Σ x / n."""
    return np.mean(x, axis=dim, keepdims=keepdim)


def max(x: Array, dim: Dim = None, keepdim: bool = False) -> Array:
    """Largest element; NaN wins."""
    return np.max(x, axis=dim, keepdims=keepdim)


amax = max


def min(x: Array, dim: Dim = None, keepdim: bool = False) -> Array:
    """Smallest element; NaN wins."""
    return np.min(x, axis=dim, keepdims=keepdim)


amin = min


def prod(x: Array, dim: Dim = None, keepdim: bool = False) -> Array:
    """Π x."""
    return np.prod(x, axis=dim, keepdims=keepdim)


def argmax(x: Array, dim: int | None = None, keepdim: bool = False) -> Array:
    """Index of the first largest element (in the flattened tensor for dim=None)."""
    return np.argmax(x, axis=dim, keepdims=keepdim)


def argmin(x: Array, dim: int | None = None, keepdim: bool = False) -> Array:
    """Index of the first smallest element."""
    return np.argmin(x, axis=dim, keepdims=keepdim)


def var(x: Array, dim: Dim = None, keepdim: bool = False, correction: int = 1) -> Array:
    """Σ (x − mean)² / (n − correction)."""
    return np.var(x, axis=dim, keepdims=keepdim, ddof=correction)


def std(x: Array, dim: Dim = None, keepdim: bool = False, correction: int = 1) -> Array:
    """√var."""
    return np.std(x, axis=dim, keepdims=keepdim, ddof=correction)


def logsumexp(x: Array, dim: Dim = None, keepdim: bool = False) -> Array:
    """Ln Σ eˣ."""
    top = np.max(x, axis=dim, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    y = np.log(np.sum(np.exp(x - top), axis=dim, keepdims=True)) + top
    return y if keepdim else np.squeeze(y, axis=dim)
