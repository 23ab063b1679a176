"""Joining tensors, cutting them, and laying copies side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from striate import _core
from striate.autograd.op import Op, public, register
from striate.autograd.tensor import Tensor
from striate.ops.shape import axis, expand, reshape, unsqueeze

if TYPE_CHECKING:
    from striate.autograd.tape import Node

Grads = tuple[Tensor | None, ...]


def _concat_vjp(node: Node, grad_y: Tensor) -> Grads:
    dim = node.attributes["dim"]
    return tuple(_split(grad_y, sizes=tuple([shape[dim] for shape in node.shapes]), dim=dim))


_concat = register(Op("concat", _core.concat, _concat_vjp))


def _split_vjp(node: Node, *grads: Tensor) -> Grads:
    return (_concat(*grads, dim=node.attributes["dim"]),)


_split = register(Op("split", _core.split, _split_vjp))


def _not_empty(name: str, tensors: Sequence[Tensor]) -> None:
    if not tensors:
        raise _core.ShapeError(f"{name}: expected at least one tensor, got none; check the list")


@public
def concat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Put tensors one after the other along an existing axis.

    Parameters
    ----------
    tensors : sequence of Tensor
        Equal shapes except at `dim`, one dtype.
    dim : int, default 0

    Returns
    -------
    Tensor, shape (…, Σ xᵢ.shape[dim], …)

    Raises
    ------
    ShapeError
        No tensors, or sizes that differ at another axis.
    DTypeError
        Different dtypes.

    Notes
    -----
    The result is laid out as the largest input: channels-last images stay channels-last.
    """
    _not_empty("concat", tensors)
    return _concat(*tensors, dim=axis("concat", dim, tensors[0].ndim))  # type: ignore[no-any-return]


@public
def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Put tensors one after the other along an existing axis; torch's short name for `concat`."""
    return concat(tensors, dim)


@public
def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Put tensors of one shape one after the other along a new axis `dim`.

    Returns
    -------
    Tensor, shape (…, len(tensors), …)

    Raises
    ------
    ShapeError
        No tensors, or shapes that differ.
    """
    _not_empty("stack", tensors)
    for x in tensors:
        if x.shape != tensors[0].shape:
            raise _core.ShapeError(
                f"stack: expected tensors of one shape {tensors[0].shape}, got {x.shape}; reshape or pad it first"
            )
    at = axis("stack", dim, tensors[0].ndim + 1)
    return _concat(*[unsqueeze(x, at) for x in tensors], dim=at)  # type: ignore[no-any-return]


@public
def split(x: Tensor, split_size: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Cut along an axis into views.

    Parameters
    ----------
    x : Tensor
    split_size : int or sequence of int
        Size of every piece (the last may be smaller), or all sizes.
    dim : int, default 0

    Returns
    -------
    tuple of Tensor

    Raises
    ------
    ShapeError
        Sizes that do not add up to the axis, or a size below 1.
    """
    at = axis("split", dim, x.ndim)
    n = x.shape[at]
    if isinstance(split_size, int):
        if split_size < 1:
            raise _core.ShapeError(
                f"split: expected a split_size of at least 1, got {split_size}; pass a positive size"
            )
        full = n // split_size
        rest = n - full * split_size
        sizes = (split_size,) * full + ((rest,) if rest != 0 or n == 0 else ())
    else:
        sizes = tuple(split_size)
    return _split(x, sizes=sizes, dim=at)  # type: ignore[no-any-return]


@public
def chunk(x: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """Cut along an axis into at most `chunks` views of equal size, the last one perhaps smaller.

    Raises
    ------
    ShapeError
        `chunks` below 1.
    """
    if chunks < 1:
        raise _core.ShapeError(f"chunk: expected at least 1 chunk, got {chunks}; pass a positive number")
    n = x.shape[axis("chunk", dim, x.ndim)]
    return split(x, -(-n // chunks) if n > 0 else 1, dim)


@public
def repeat(x: Tensor, repeats: Sequence[int]) -> Tensor:
    """Lay copies side by side: `repeats[i]` of them along axis `i`, new axes in front.

    Parameters
    ----------
    x : Tensor
    repeats : sequence of int
        At least one per axis of `x`.

    Returns
    -------
    Tensor, shape (repeats[0] · x.shape[0], …)

    Raises
    ------
    ShapeError
        Fewer repeats than axes, or a negative one.
    """
    added = len(repeats) - x.ndim
    if added < 0 or min(repeats, default=0) < 0:
        raise _core.ShapeError(
            f"repeat: expected one repeat of at least 0 for each axis of {x.shape}, "
            f"got {tuple(repeats)}; name every axis"
        )
    shape = (1,) * added + x.shape
    split_shape: list[int] = []
    wide: list[int] = []
    for n, r in zip(shape, repeats, strict=True):
        if r != 1:  # an axis of copies in front of every axis that is repeated
            split_shape.append(1)
            wide.append(r)
        split_shape.append(n)
        wide.append(n)
    if len(wide) == len(shape):
        return reshape(x, shape)
    return reshape(expand(reshape(x, split_shape), wide), [n * r for n, r in zip(shape, repeats, strict=True)])


@public
def tile(x: Tensor, dims: Sequence[int]) -> Tensor:
    """Lay copies side by side as `repeat` does; missing counts in front are 1 (NumPy's tile)."""
    return repeat(x, (1,) * (x.ndim - len(dims)) + tuple(dims))


__all__ = [
    "cat",
    "chunk",
    "concat",
    "repeat",
    "split",
    "stack",
    "tile",
]
