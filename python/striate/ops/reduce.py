"""Reductions over axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from striate import _core
from striate.autograd.op import Op, functions, public, register
from striate.autograd.tensor import Tensor

Dim = int | Sequence[int] | None


def axes(dim: Dim) -> list[int]:
    """Return dim as a list; the empty list means all axes."""
    return [] if dim is None else [dim] if isinstance(dim, int) else list(dim)


def kept_shape(shape: tuple[int, ...], dim: list[int]) -> tuple[int, ...]:
    """Return the shape after a reduction with keepdim=True."""
    if not dim:
        return (1,) * len(shape)
    reduced = {d % len(shape) for d in dim} if shape else set()
    return tuple([1 if i in reduced else n for i, n in enumerate(shape)])


def _expand(x: Any, *, kept: tuple[int, ...], shape: tuple[int, ...]) -> Any:
    viewed = x.try_reshape(kept)
    if viewed is None:
        viewed = _core.relayout(x, channels_last=False).try_reshape(kept)
    return viewed.broadcast_to(shape)


def _gathered(node: Any, g: Tensor, reduce: Op) -> tuple[Tensor]:
    """Reduce a gradient over the axes that the node broadcast, in the shape of the node's input."""
    kept, shape = node.attributes["kept"], node.attributes["shape"]
    dim = [i for i, (a, b) in enumerate(zip(kept, shape, strict=True)) if a != b]
    if dim:
        g = reduce(g, dim=dim, keepdim=True)
    return (_spread(g, kept=node.shapes[0], shape=node.shapes[0]),)


def _expand_back(node: Any, g: Tensor) -> tuple[Tensor]:
    return _gathered(node, g, _sum)


#: (x, kept, shape): view x under the shape `kept` (same elements), then broadcast it to `shape` without a copy.
_spread = register(Op("spread", _expand, _expand_back))


def _sum_vjp(node: Any, g: Tensor) -> tuple[Tensor]:
    shape = node.shapes[0]
    return (_spread(g, kept=kept_shape(shape, node.attributes["dim"]), shape=shape),)


_sum = register(Op("sum", _core.sum, _sum_vjp))


def _mean_vjp(node: Any, g: Tensor) -> tuple[Tensor]:
    shape = node.shapes[0]
    return (_mean_grad(g, kept=kept_shape(shape, node.attributes["dim"]), shape=shape),)


def _mean_grad_vjp(node: Any, g: Tensor) -> tuple[Tensor]:
    return _gathered(node, g, _mean)


#: A row of its own, so that a record counts the elements of whatever size comes.
_mean = register(Op("mean", _core.mean, _mean_vjp))
_mean_grad = register(Op("mean_grad", _core.mean_grad, _mean_grad_vjp))


def sum_to(g: Tensor, shape: tuple[int, ...], dtype: Any) -> Tensor:
    """Sum a gradient over the axes that broadcasting added, down to `shape`, and convert it to `dtype`."""
    if g.shape != shape:
        extra = g.ndim - len(shape)
        dim = [i for i, n in enumerate(g.shape) if i < extra or (n != 1 and shape[i - extra] == 1)]
        g = _sum(g, dim=dim, keepdim=True)
        if g.shape != shape:
            g = _spread(g, kept=shape, shape=shape)
    if g.dtype != dtype:
        from striate.ops.copy import to

        g = to(g, dtype)
    return g


@public
def sum(x: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """Sum over axes.

    Parameters
    ----------
    x : Tensor, any shape
    dim : int, sequence of int, or None
        Axes to sum over; None means all.
    keepdim : bool
        Keep summed axes with size 1.

    Returns
    -------
    Tensor, shape of x without the axes `dim`
        Integers and bool are summed in int64.

    Raises
    ------
    ShapeError
        An axis that does not exist, or the same axis twice.

    Notes
    -----
    The order of additions is a tree fixed by the shape and memory order of x: the same bits for any number of threads.
    """
    return _sum(x, dim=axes(dim), keepdim=keepdim)  # type: ignore[no-any-return]


def _count(shape: tuple[int, ...], dim: list[int]) -> int:
    return math.prod([shape[d] for d in dim]) if dim else math.prod(shape)


def _kept(y: Tensor, node: Any) -> Tensor:
    """View a result, or its gradient, with its reduced axes as size 1, spread over the shape of the input."""
    shape = node.shapes[0]
    return _spread(y, kept=kept_shape(shape, node.attributes["dim"]), shape=shape)  # type: ignore[no-any-return]


def _extremum_vjp(node: Any, g: Tensor) -> tuple[Tensor]:
    x, y = node.inputs[0].detach(), _kept(node.output.detach(), node)
    mask = functions["to"](functions["eq"](x, y), x.dtype)
    dim = node.attributes["dim"]
    count = sum(mask, dim=dim or None, keepdim=True)
    share = mask / count
    return (_kept(g, node) * share,)


def _prod_vjp(node: Any, g: Tensor) -> tuple[Tensor]:
    # y/x, except in groups that hold a zero: there only the zero, when it is alone, sees the product of the others.
    x = node.inputs[0]
    dim = node.attributes["dim"] or None
    where = functions["where"]
    is_zero = functions["eq"](x, 0)
    n_zeros = sum(functions["to"](is_zero, x.dtype), dim=dim, keepdim=True)
    others = prod(where(is_zero, 1.0, x), dim=dim, keepdim=True)
    alone = where(functions["eq"](n_zeros, 1), others, 0.0)
    whole = where(functions["eq"](n_zeros, 0), others, 0.0)
    return (_kept(g, node) * where(is_zero, alone, whole / where(is_zero, 1.0, x)),)


_prod = register(Op("prod", _core.prod, _prod_vjp, saves_inputs=(0,)))
_max = register(Op("max", _core.max, _extremum_vjp, saves_inputs=(0,), saves_output=True))
_min = register(Op("min", _core.min, _extremum_vjp, saves_inputs=(0,), saves_output=True))
_argmax = register(Op("argmax", _core.argmax))
_argmin = register(Op("argmin", _core.argmin))


@public
def mean(x: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """Mean over axes, Σ x / n; arguments and order of additions as `sum`.

    Raises
    ------
    DTypeError
        Integers or bool: convert with .to(float32).
    """
    return _mean(x, dim=axes(dim), keepdim=keepdim)  # type: ignore[no-any-return]


@public
def prod(x: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """Product over axes, Π x; integers and bool are multiplied in int64; arguments as `sum`."""
    return _prod(x, dim=axes(dim), keepdim=keepdim)  # type: ignore[no-any-return]


@public
def max(x: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """Largest element over axes.

    Parameters
    ----------
    x : Tensor, any shape, at least one element
    dim : int, sequence of int, or None
        None means all axes.
    keepdim : bool

    Returns
    -------
    Tensor, shape of x without the axes `dim`
        Values only (torch's `amax`); see `argmax` for places. NaN wins. The gradient is shared evenly among equal maxima.

    Raises
    ------
    ShapeError
        No elements, or an axis that does not exist.
    """
    return _max(x, dim=axes(dim), keepdim=keepdim)  # type: ignore[no-any-return]


@public
def min(x: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """Smallest element over axes (torch's `amin`); arguments, ties and errors as `max`."""
    return _min(x, dim=axes(dim), keepdim=keepdim)  # type: ignore[no-any-return]


@public
def amax(x: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """Largest element over axes; the same as `max`."""
    return max(x, dim, keepdim)


@public
def amin(x: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """Smallest element over axes; the same as `min`."""
    return min(x, dim, keepdim)


@public
def argmax(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Index of the first largest element, int64.

    Parameters
    ----------
    x : Tensor, any shape, at least one element
    dim : int or None
        None means the place in the flattened tensor, in logical order.
    keepdim : bool

    Returns
    -------
    Tensor, shape of x without the axis `dim`
        NaN counts as the largest. Not differentiable.
    """
    return _argmax(x, dim=dim, keepdim=keepdim)  # type: ignore[no-any-return]


@public
def argmin(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Index of the first smallest element, int64; NaN counts as the smallest; arguments as `argmax`."""
    return _argmin(x, dim=dim, keepdim=keepdim)  # type: ignore[no-any-return]


@public
def var(x: Tensor, dim: Dim = None, keepdim: bool = False, correction: int = 1) -> Tensor:
    """Variance over axes, Σ (x − mean)² / (n − correction).

    Parameters
    ----------
    x : Tensor, any shape
    dim : int, sequence of int, or None
    keepdim : bool
    correction : int, default 1
        0 for the biased variance.

    Returns
    -------
    Tensor, shape of x without the axes `dim`
        Infinite or NaN when n ≤ correction.

    Notes
    -----
    Two passes: the mean, then the squares of the differences, never E[x²] − E[x]².
    """
    gap = x - mean(x, dim, True)
    total = sum(functions["square"](gap), dim, keepdim)
    n = (_count(x.shape, axes(dim)) if x.ndim else 1) - correction
    return total / float(n if n > 0 else 0)


@public
def std(x: Tensor, dim: Dim = None, keepdim: bool = False, correction: int = 1) -> Tensor:
    """Standard deviation over axes, the root of `var`."""
    return functions["sqrt"](var(x, dim, keepdim, correction))  # type: ignore[no-any-return]


@public
def logsumexp(x: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """Compute ln Σ eˣ over axes without overflow: the largest element is taken off first; arguments as `sum`."""
    top = max(x.detach(), dim, True)
    top = functions["where"](functions["isfinite"](top), top, 0.0)
    y = functions["log"](sum(functions["exp"](x - top), dim, True)) + top
    if keepdim:
        return y  # type: ignore[no-any-return]
    shape = [] if dim is None else [n for i, n in enumerate(y.shape) if i not in {d % x.ndim for d in axes(dim)}]
    return functions["reshape"](y, shape)  # type: ignore[no-any-return]
