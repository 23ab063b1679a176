"""Resizing in all of ONNX's modes: along each axis a product with a matrix of at most a few entries a row.

References
----------
ONNX operator Resize (opset 19), coordinate transformations and the cubic kernel; R. Keys, "Cubic convolution interpolation
for digital image processing", IEEE TASSP 29 (1981), equation 15.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from striate import _core, ops
from striate.autograd import Tensor
from striate.autograd.dim import Dim
from striate.io.onnx.node import Node, operator
from striate.io.onnx.value import OnnxError, as_array, as_tensor, axis_of, check_size, ints


@operator("Upsample")
def upsample(node: Node, x: Any, scales: Any = None) -> Tensor:
    """Enlarge by whole or broken factors, reading at ⌊i / scale⌋ or between."""
    x = as_tensor(x)
    factors = node.attributes["scales"] if scales is None else as_array(scales).tolist()
    mode = node.attributes["mode"]
    shape = [_scaled(n, f) for n, f in zip(x.shape, factors, strict=True)]
    return _resize(
        x, shape, factors, "linear" if mode in ("linear", "bilinear") else mode, _Options("asymmetric", "floor")
    )


class _Options:
    """What Resize may say beside mode and sizes."""

    __slots__ = ("antialias", "coordinates", "cubic", "excludes_outside", "extrapolated", "nearest")

    def __init__(self, coordinates: str, nearest: str) -> None:
        self.coordinates = coordinates
        self.nearest = nearest
        self.cubic = -0.75
        self.excludes_outside = False
        self.extrapolated = 0.0
        self.antialias = False


def _scaled(n: int, factor: float) -> int:
    if float(factor).is_integer():
        return n * int(factor)
    if math.frexp(factor)[0] == 0.5:
        return n // int(1 / factor)
    return math.floor(n * factor)


@operator("Resize")
def resize(node: Node, x: Any, roi: Any = None, scales: Any = None, wanted: Any = None) -> Tensor:
    """Resize to sizes or by factors."""
    x = as_tensor(x)
    if not x.dtype.is_floating_point:
        y = _resize_floats(node, ops.to(x, _core.DType.float32), roi, scales, wanted)
        return ops.to(ops.round(y), x.dtype)
    return _resize_floats(node, x, roi, scales, wanted)


def _resize_floats(node: Node, x: Tensor, roi: Any, scales: Any, wanted: Any) -> Tensor:
    a = node.attributes
    if node.since < 11:
        roi, scales, wanted = None, roi, None
        options = _Options("asymmetric", "floor")
    else:
        options = _Options(a["coordinate_transformation_mode"], a["nearest_mode"])
        options.cubic = a["cubic_coeff_a"]
        options.excludes_outside = bool(a["exclude_outside"])
        options.extrapolated = a["extrapolation_value"]
        options.antialias = bool(a.get("antialias", 0))
    axes = [axis_of(i, x.ndim) for i in a.get("axes") or range(x.ndim)]
    shape: list[int] = list(x.shape)
    factors: list[float] = [1.0] * x.ndim
    has_sizes = wanted is not None and np.size(_sized(wanted)) > 0
    if has_sizes:
        targets = ints(wanted)
        policy = a.get("keep_aspect_ratio_policy", "stretch")
        if policy == "stretch":
            for axis, n in zip(axes, targets, strict=True):
                shape[axis] = n
                factors[axis] = _ratio(n, x.shape[axis])
        else:
            choose = min if policy == "not_larger" else max
            factor = choose(n / x.shape[axis] for axis, n in zip(axes, targets, strict=True))
            for axis in axes:
                shape[axis] = math.floor(factor * x.shape[axis] + 0.5)
                factors[axis] = factor
    elif scales is not None and np.size(_sized(scales)) > 0:
        for axis, factor in zip(axes, as_array(scales).tolist(), strict=True):
            shape[axis] = _scaled(x.shape[axis], factor)
            factors[axis] = factor
    else:
        raise OnnxError("expected scales or sizes, got neither; the file is damaged")
    check_size(shape)
    regions = None
    if options.coordinates == "tf_crop_and_resize":
        given = as_array(roi).tolist()
        half = len(given) // 2
        regions = {axis: (given[i], given[half + i]) for i, axis in enumerate(axes)}
    return _resize(x, shape, factors, a["mode"], options, regions, has_sizes)


def _ratio(n: int, m: int) -> float:
    """Return n / m; that it is whole is a guard of a record, and that it is 1."""
    if n is m or n == m:
        return 1.0
    ratio = int.__add__(n, 0) / max(int.__add__(m, 0), 1)
    return ratio if not ratio.is_integer() or n == m * int(ratio) else float("nan")


def _sized(value: Any) -> Any:
    return value if not isinstance(value, Tensor) else np.empty(value.shape)


def _resize(
    x: Tensor,
    shape: Sequence[int],
    factors: Sequence[float],
    mode: str,
    options: _Options,
    regions: dict[int, tuple[float, float]] | None = None,
    has_sizes: bool = False,
) -> Tensor:
    fast = _by_kernel(x, shape, factors, mode, options, has_sizes) if regions is None else None
    if fast is not None:
        return fast
    inside: list[Any] = []
    for axis in range(x.ndim):
        n, m = x.shape[axis], shape[axis]
        region = None if regions is None else regions.get(axis)
        if region is None and (n is m or (not isinstance(n, Dim) and n == m and factors[axis] == 1.0)):
            inside.append(None)
            continue
        x, is_inside = _resize_axis(x, axis, int(n), int(m), factors[axis], mode, options, region)
        inside.append(is_inside)
    if options.coordinates == "tf_crop_and_resize":
        for axis, is_inside in enumerate(inside):
            if is_inside is not None and not is_inside.all():
                mask = is_inside.reshape([-1 if i == axis else 1 for i in range(x.ndim)])
                x = ops.where(as_tensor(mask), x, ops.full_like(x, options.extrapolated))
    return x


def _by_kernel(
    x: Tensor, shape: Sequence[int], factors: Sequence[float], mode: str, options: _Options, has_sizes: bool
) -> Tensor | None:
    """Resize by the core's kernel where it does the same."""
    if x.ndim not in (3, 4, 5) or any(f != 1.0 for f in factors[:2]):
        return None
    if mode == "nearest":
        is_floor = options.nearest == "floor" and options.coordinates == "asymmetric"
        is_rounded = options.nearest.startswith("round") and options.coordinates == "half_pixel"
        is_whole = (is_floor or is_rounded) and all(float(f).is_integer() and f >= 1 for f in factors[2:])
        if not (is_floor or is_whole):
            return None
        if is_whole:
            return ops.interpolate(x, scale_factor=[float(f) for f in factors[2:]], mode="nearest")
        if has_sizes:
            return ops.interpolate(x, size=list(shape[2:]), mode="nearest")
        return None
    if mode != "linear" or x.ndim != 4:
        return None
    is_exact = has_sizes or all(float(f).is_integer() for f in factors[2:])
    if options.coordinates == "align_corners" and is_exact and not options.antialias:
        return ops.interpolate(x, size=list(shape[2:]), mode="bilinear", align_corners=True)
    if options.coordinates in ("half_pixel", "pytorch_half_pixel") and is_exact and not options.antialias:
        if options.coordinates == "pytorch_half_pixel" and any(n == 1 for n in shape[2:]):
            return None
        return ops.interpolate(x, size=list(shape[2:]), mode="bilinear", align_corners=False)
    return None


def _coordinates(n: int, m: int, factor: float, options: _Options, region: tuple[float, float] | None) -> Any:
    """Return where each of m outputs reads on an axis of n."""
    i = np.arange(m, dtype=np.float64)
    kind = options.coordinates
    if kind == "half_pixel":
        return (i + 0.5) / factor - 0.5
    if kind == "asymmetric":
        return i / factor
    if kind == "align_corners":
        span = factor * n - 1  # by factors, what a broken size would be counts
        return i * ((n - 1) / span) if m > 1 and span != 0 else np.zeros(m)
    if kind == "pytorch_half_pixel":
        return (i + 0.5) / factor - 0.5 if m > 1 else np.zeros(m)
    if kind == "half_pixel_symmetric":
        adjustment = m / (factor * n)
        return n / 2 * (1 - adjustment) + (i + 0.5) / factor - 0.5
    if kind == "tf_half_pixel_for_nn":
        return (i + 0.5) / factor
    if kind == "tf_crop_and_resize":
        start, end = region if region is not None else (0.0, 1.0)
        if m > 1:
            return start * (n - 1) + i * (end - start) * (n - 1) / (m - 1)
        return np.full(m, 0.5 * (start + end) * (n - 1))
    raise OnnxError(f"expected a coordinate transformation of ONNX, got {kind!r}; the file is damaged")


def _nearest(at: Any, how: str) -> Any:
    if how == "round_prefer_floor":
        return np.ceil(at - 0.5)
    if how == "round_prefer_ceil":
        return np.floor(at + 0.5)
    if how == "floor":
        return np.floor(at)
    if how == "ceil":
        return np.ceil(at)
    raise OnnxError(f"expected a nearest_mode of ONNX, got {how!r}; the file is damaged")


def _taps(at: Any, factor: float, mode: str, options: _Options) -> tuple[Any, Any]:
    """Return (places, weights) of what each output blends, of shape (m, taps)."""
    stretch = max(1.0 / factor, 1.0) if options.antialias else 1.0
    reach = (2 if mode == "cubic" else 1) * stretch
    first = np.floor(at - reach).astype(np.int64) + 1
    n_taps = int(np.ceil(2 * reach)) + (1 if options.antialias else 0)
    places = first[:, None] + np.arange(n_taps)
    distance = np.abs(places - at[:, None]) / stretch
    if mode == "linear":
        weights = np.maximum(1.0 - distance, 0.0)
    else:
        a = options.cubic
        near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
        far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
        weights = np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))
    return places, weights


def _resize_axis(
    x: Tensor,
    axis: int,
    n: int,
    m: int,
    factor: float,
    mode: str,
    options: _Options,
    region: tuple[float, float] | None,
) -> tuple[Tensor, Any]:
    at = _coordinates(n, m, factor, options, region)
    is_inside = (at >= 0) & (at <= n - 1)
    if n == 0:
        raise OnnxError("expected images of at least one pixel, got none; check the input")
    if mode == "nearest":
        places = np.clip(_nearest(at, options.nearest), 0, n - 1).astype(np.int64)
        return ops.index(x, (*[slice(None)] * axis, as_tensor(places))), is_inside
    if mode not in ("linear", "cubic"):
        raise OnnxError(f"expected mode nearest, linear or cubic, got {mode!r}; the file is damaged")
    places, weights = _taps(at, factor, mode, options)
    if options.excludes_outside or options.antialias:
        outside = (places < 0) | (places >= n)
        if options.excludes_outside:
            weights = np.where(outside, 0.0, weights)
        weights = weights / weights.sum(axis=1, keepdims=True)
    matrix = np.zeros((m, n))
    np.add.at(matrix, (np.arange(m)[:, None], np.clip(places, 0, n - 1)), weights)
    operand = as_tensor(matrix.astype(str(x.dtype)))
    moved = ops.transpose(x, axis, x.ndim - 1) if axis != x.ndim - 1 else x
    y = ops.linear(moved, operand)
    return (ops.transpose(y, axis, x.ndim - 1) if axis != x.ndim - 1 else y), is_inside
