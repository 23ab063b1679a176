"""Resizing of images, and padding of any axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from striate import _core
from striate.autograd.op import Op, functions, public, register
from striate.autograd.tape import Node
from striate.autograd.tensor import Tensor


def _resample_vjp(node: Node, grad_y: Tensor) -> tuple[Tensor | None, ...]:
    return (_resample_grad(grad_y, x_shape=node.shapes[0], **node.attributes),)


def _resample_grad_vjp(node: Node, grad_grad_x: Tensor) -> tuple[Tensor | None, ...]:
    return (_resample(grad_grad_x, **{k: v for k, v in node.attributes.items() if k != "x_shape"}),)


def _pad_vjp(node: Node, grad_y: Tensor) -> tuple[Tensor | None, ...]:
    begin, end = node.attributes["begin"], node.attributes["end"]
    return (_pad(grad_y, begin=[-n for n in begin], end=[-n for n in end], value=0.0),)


_resample = register(Op("interpolate", _core.resample, _resample_vjp))
_resample_grad = register(Op("interpolate_grad", _core.resample_grad, _resample_grad_vjp))
_pad = register(Op("pad", _core.pad, _pad_vjp))


def _per_axis(name: str, value: Any, n_axes: int) -> list[Any]:
    values = list(value) if isinstance(value, Sequence) else [value] * n_axes
    if len(values) != n_axes:
        raise _core.ShapeError(
            f"interpolate: expected {name} as one number or {n_axes} of them, got {value!r}; pass one per spatial axis"
        )
    return values


def _scaled(n: int, factor: float) -> int:
    """Scale a size and round down; by whole factors, halves, quarters, … in whole numbers, which a record follows."""
    if factor.is_integer():
        return n * int(factor)
    if math.frexp(factor)[0] == 0.5:
        return n // int(1 / factor)
    return math.floor(n * factor)


@public
def interpolate(
    x: Tensor,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    *,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """Resize images.

    nearest: y[i] = x[⌊i·step⌋]. bilinear: y[i] blends the two pixels around (i + ½)·step − ½, in each axis.

    Parameters
    ----------
    x : Tensor, shape (N, C, *spatial)
    size : int or sequence of int, optional
        Sizes of the result.
    scale_factor : float or sequence of float, optional
        Or the factors by which sizes grow, rounded down. Exactly one of the two must be given.
    mode : {"nearest", "bilinear"}, default "nearest"
        Bilinear needs two spatial axes.
    align_corners : bool, optional
        Bilinear: put the corner pixels of both images on each other, so that y[i] is read at i·(H − 1)/(H′ − 1).
    recompute_scale_factor : bool, optional
        Take the step as H/H′ even when a scale_factor is given; else the step is 1/scale_factor.
    antialias : bool, default False
        Bilinear: blend all pixels under a triangle as wide as the step when shrinking.

    Returns
    -------
    Tensor, shape (N, C, *size)

    Raises
    ------
    ShapeError
        Sizes below 1, or not one per spatial axis.
    ValueError
        Both or none of size and scale_factor, an unknown mode, or an option the mode does not have.
    DTypeError
        x of a dtype other than float32 or float64.

    Notes
    -----
    Weights are computed in float64 and rounded once. With antialias and align_corners the step is that of aligned
    corners, as in PyTorch.

    Examples
    --------
    >>> import striate
    >>> striate.interpolate(striate.tensor([[[1.0, 2.0]]]), scale_factor=2).numpy().tolist()
    [[[1.0, 1.0, 2.0, 2.0]]]
    """
    n_axes = x.ndim - 2
    if (size is None) == (scale_factor is None):
        raise ValueError("interpolate: expected one of size and scale_factor, got both or none; pass exactly one")
    if mode not in ("nearest", "bilinear"):
        raise ValueError(f"interpolate: expected mode 'nearest' or 'bilinear', got {mode!r}; choose one of them")
    if mode == "nearest" and (align_corners is not None or antialias):
        raise ValueError(
            "interpolate: expected align_corners=None and antialias=False with mode 'nearest', got others; "
            "use mode='bilinear'"
        )
    if mode == "bilinear" and n_axes != 2:
        raise _core.ShapeError(
            f"interpolate: expected x with 4 axes for mode 'bilinear', got shape {x.shape}; use mode='nearest'"
        )
    if n_axes < 1:
        raise _core.ShapeError(
            f"interpolate: expected x of shape (N, C, *spatial), got {x.shape}; add axes with reshape"
        )
    if size is not None:
        if recompute_scale_factor:
            raise ValueError(
                "interpolate: expected recompute_scale_factor with a scale_factor, got size; drop one of them"
            )
        # A Dim stays one, so that a record fits other images.
        sizes = [n if isinstance(n, int) else int(n) for n in _per_axis("size", size, n_axes)]
        scales = [0.0] * n_axes
    else:
        factors = [float(s) for s in _per_axis("scale_factor", scale_factor, n_axes)]
        if any(s <= 0 for s in factors):
            raise ValueError(f"interpolate: expected scale_factor above 0, got {scale_factor!r}; use positive factors")
        sizes = [_scaled(n, factor) for n, factor in zip(x.shape[2:], factors, strict=True)]
        scales = [0.0] * n_axes if recompute_scale_factor else factors
    return _resample(  # type: ignore[no-any-return]
        x, size=sizes, scale_factor=scales, mode=mode, align_corners=bool(align_corners), antialias=antialias
    )


def _pad_axis(x: Tensor, axis: int, begin: int, end: int, mode: str) -> Tensor:
    """Grow one axis by its mirror image or by its first and last elements; a negative count crops."""
    n = x.shape[axis]
    if begin < 0 or end < 0:
        x = functions["index"](x, (*[slice(None)] * axis, slice(max(-begin, 0), n - max(-end, 0))))
        begin, end, n = max(begin, 0), max(end, 0), x.shape[axis]
    if begin == 0 and end == 0:
        return x
    limit = n - 1 if mode == "reflect" else None
    if n < 1 or (limit is not None and max(begin, end) > limit):
        raise _core.ShapeError(
            f"pad: expected at most {limit or 0} elements of {mode} padding on axis {axis} of shape {x.shape}, got "
            f"({begin}, {end}); pad less"
        )

    def part(first: int, last: int) -> Tensor:
        return functions["index"](x, (*[slice(None)] * axis, slice(first, last)))  # type: ignore[no-any-return]

    def edge(first: int, count: int) -> Tensor:
        shape = list(x.shape)
        shape[axis] = count
        return functions["expand"](part(first, first + 1), tuple(shape))  # type: ignore[no-any-return]

    parts = [x]
    if begin > 0:
        parts.insert(0, functions["flip"](part(1, begin + 1), axis) if mode == "reflect" else edge(0, begin))
    if end > 0:
        parts.append(functions["flip"](part(n - 1 - end, n - 1), axis) if mode == "reflect" else edge(n - 1, end))
    return functions["concat"](parts, axis)  # type: ignore[no-any-return]


@public
def pad(x: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """Grow the last axes of a tensor at both ends.

    Parameters
    ----------
    x : Tensor
        Of any dtype that computes.
    pad : sequence of int
        (begin, end) of the last axis, then of the one before, …; a negative count crops.
    mode : {"constant", "reflect", "replicate"}, default "constant"
        Fill with `value`, with the mirror image (the edge itself is not repeated), or with the edge.
    value : float, optional
        0 when not given.

    Returns
    -------
    Tensor
        Sizes grown by begin + end.

    Raises
    ------
    ShapeError
        An odd number of counts, more pairs than axes, a crop beyond the axis, or a mirror image longer than the axis − 1.
    ValueError
        An unknown mode, or a value with a mode other than "constant".

    Examples
    --------
    >>> import striate
    >>> striate.pad(striate.tensor([1.0, 2.0, 3.0]), (2, 1), mode="reflect").numpy().tolist()
    [3.0, 2.0, 1.0, 2.0, 3.0, 2.0]
    """
    counts = [int(n) for n in pad]
    if len(counts) % 2 != 0 or len(counts) // 2 > x.ndim:
        raise _core.ShapeError(
            f"pad: expected (begin, end) pairs for at most {x.ndim} axes, got {tuple(counts)}; pass two counts per axis"
        )
    if mode not in ("constant", "reflect", "replicate"):
        raise ValueError(f"pad: expected mode 'constant', 'reflect' or 'replicate', got {mode!r}; choose one of them")
    if mode == "constant":
        begin, end = [0] * x.ndim, [0] * x.ndim
        for i in range(len(counts) // 2):
            begin[x.ndim - 1 - i], end[x.ndim - 1 - i] = counts[2 * i], counts[2 * i + 1]
        return _pad(x, begin=begin, end=end, value=0.0 if value is None else float(value))  # type: ignore[no-any-return]
    if value is not None:
        raise ValueError(f"pad: expected no value with mode {mode!r}, got {value}; use mode='constant'")
    for i in range(len(counts) // 2):
        x = _pad_axis(x, x.ndim - 1 - i, counts[2 * i], counts[2 * i + 1], mode)
    return x
