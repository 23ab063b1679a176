"""Reductions over axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from striate import _core
from striate.autograd.op import Op, public, register
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


def _expand_back(node: Any, g: Tensor) -> tuple[Tensor]:
    kept, shape = node.attributes["kept"], node.attributes["shape"]
    dim = [i for i, (a, b) in enumerate(zip(kept, shape, strict=True)) if a != b]
    if dim:
        g = _sum(g, dim=dim, keepdim=True)
    return (_expand_row(g, kept=node.shapes[0], shape=node.shapes[0]),)


#: (x, kept, shape): view x under the shape `kept` (same elements), then broadcast it to `shape` without a copy.
_expand_row = register(Op("spread", _expand, _expand_back))


def _sum_vjp(node: Any, g: Tensor) -> tuple[Tensor]:
    shape = node.shapes[0]
    return (_expand_row(g, kept=kept_shape(shape, node.attributes["dim"]), shape=shape),)


_sum = register(Op("sum", _core.sum, _sum_vjp))


def sum_to(g: Tensor, shape: tuple[int, ...], dtype: Any) -> Tensor:
    """Sum a gradient over the axes that broadcasting added, down to `shape`, and convert it to `dtype`."""
    if g.shape != shape:
        extra = g.ndim - len(shape)
        dim = [i for i, n in enumerate(g.shape) if i < extra or (n != 1 and shape[i - extra] == 1)]
        g = _sum(g, dim=dim, keepdim=True)
        if g.shape != shape:
            g = _expand_row(g, kept=shape, shape=shape)
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
    if dim is not None and not isinstance(dim, int) and len(dim) == 0:
        dim = None
    return _sum(x, dim=axes(dim), keepdim=keepdim)  # type: ignore[no-any-return]
