"""Nearest and bilinear resize as one small matrix an axis: y = R_h · x · R_wᵀ."""

from __future__ import annotations

import math

import numpy as np

Array = np.ndarray


def nearest_matrix(size: int, out: int, scale: float | None) -> Array:
    """Output i copies cell ⌊i·step⌋, step = size/out, or 1/scale when a scale factor was given."""
    matrix = np.zeros((out, size))
    for i in range(out):
        cell = (i * size) // out if scale is None else math.floor(i / scale)
        matrix[i, min(cell, size - 1)] = 1
    return matrix


def bilinear_matrix(size: int, out: int, scale: float | None, align_corners: bool) -> Array:
    """Output i reads at i·(size−1)/(out−1) (corners aligned) or (i + ½)·step − ½ (pixel centres), clamped at 0."""
    matrix = np.zeros((out, size))
    for i in range(out):
        if align_corners:
            at = i * (size - 1) / (out - 1) if out > 1 else 0.0
        else:
            step = size / out if scale is None else 1 / scale
            at = max((i + 0.5) * step - 0.5, 0.0)
        low = min(math.floor(at), size - 1)
        high = min(low + 1, size - 1)
        part = min(max(at - low, 0.0), 1.0)
        matrix[i, low] += 1 - part
        matrix[i, high] += part
    return matrix


def antialias_matrix(size: int, out: int, scale: float | None, align_corners: bool) -> Array:
    """Triangle filter, as wide as a shrink needs: w_j ∝ max(0, 1 − |j + ½ − centre| / max(step, 1))."""
    matrix = np.zeros((out, size))
    if align_corners:
        step = (size - 1) / (out - 1) if out > 1 else 0.0
    else:
        step = size / out if scale is None else 1 / scale
    support = max(step, 1.0)
    for i in range(out):
        centre = step * (i + 0.5)
        first = max(int(centre - support + 0.5), 0)
        last = min(int(centre + support + 0.5), size)
        weights = np.array([max(0.0, 1 - abs(j - centre + 0.5) / support) for j in range(first, last)])
        matrix[i, first:last] = weights / weights.sum()
    return matrix


def axis_matrix(size: int, out: int, scale: float | None, mode: str, align_corners: bool, antialias: bool) -> Array:
    """Choose the matrix of one axis."""
    if mode == "nearest":
        return nearest_matrix(size, out, scale)
    if antialias:
        return antialias_matrix(size, out, scale, align_corners)
    return bilinear_matrix(size, out, scale, align_corners)


def interpolate(
    x: Array,
    *,
    size: object = None,
    scale_factor: object = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    antialias: bool = False,
) -> Array:
    """Resize the spatial axes, one after the other."""
    n_axes = x.ndim - 2
    spread = lambda v: tuple(v) if isinstance(v, tuple | list) else (v,) * n_axes  # noqa: E731
    sizes, scales = spread(size), spread(scale_factor)
    y = x
    for a in range(n_axes):
        n = x.shape[2 + a]
        out = sizes[a] if sizes[a] is not None else math.floor(n * scales[a])
        matrix = axis_matrix(n, out, scales[a], mode, bool(align_corners), antialias)
        y = np.moveaxis(np.moveaxis(y, 2 + a, -1) @ matrix.T, -1, 2 + a)
    return y
