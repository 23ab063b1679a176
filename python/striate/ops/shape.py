"""Operators that move elements: shapes, axes, joining, splitting and small patterns. Indexing is in `index`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from striate import _core
from striate.autograd.op import Op, functions, public, register
from striate.autograd.tensor import Tensor

if TYPE_CHECKING:
    from striate.autograd.tape import Node

Grads = tuple[Tensor | None, ...]


def axis(name: str, dim: int, ndim: int) -> int:
    """Return the axis that `dim` names, counting negative ones from the end.

    Raises
    ------
    IndexError
        No such axis.
    """
    if not -ndim <= dim < ndim:
        raise IndexError(
            f"{name}: expected dim from {-ndim} to {ndim - 1} for a tensor of {ndim} axes, got {dim}; "
            "check the number of axes"
        )
    return dim + ndim if dim < 0 else dim


def _reshape_vjp(node: Node, grad_y: Tensor) -> Grads:
    if node.attributes.get("from_channels_last"):
        return (_reshape(grad_y, shape=node.shapes[0], to_channels_last=True),)
    return (_reshape(grad_y, shape=node.shapes[0]),)


_reshape = register(Op("reshape", _core.reshape, _reshape_vjp))


def _permute_vjp(node: Node, grad_y: Tensor) -> Grads:
    dims = node.attributes["dims"]
    inverse = [0] * len(dims)
    for i, dim in enumerate(dims):
        inverse[dim] = i
    return (_permute(grad_y, dims=tuple(inverse)),)


_permute = register(Op("permute", _core.permute, _permute_vjp))


def _expand_vjp(node: Node, grad_y: Tensor) -> Grads:
    shape = node.shapes[0]
    added = grad_y.ndim - len(shape)
    dims = [i for i, n in enumerate(grad_y.shape) if i < added or (shape[i - added] == 1 and n != 1)]
    summed = functions["sum"](grad_y, dim=tuple(dims), keepdim=True) if dims else grad_y
    return (_reshape(summed, shape=shape) if added else summed,)


_expand = register(Op("expand", _core.expand, _expand_vjp))


def _flip_vjp(node: Node, grad_y: Tensor) -> Grads:
    return (_flip(grad_y, dims=node.attributes["dims"]),)


_flip = register(Op("flip", _core.flip, _flip_vjp))


def _pixel_shuffle_vjp(node: Node, grad_y: Tensor) -> Grads:
    return (_pixel_unshuffle(grad_y, factor=node.attributes["factor"]),)


def _pixel_unshuffle_vjp(node: Node, grad_y: Tensor) -> Grads:
    return (_pixel_shuffle(grad_y, factor=node.attributes["factor"]),)


_pixel_shuffle = register(Op("pixel_shuffle", _core.pixel_shuffle, _pixel_shuffle_vjp))
_pixel_unshuffle = register(Op("pixel_unshuffle", _core.pixel_unshuffle, _pixel_unshuffle_vjp))


def _triangle_vjp(node: Node, grad_y: Tensor) -> Grads:
    return (_triangle(grad_y, **node.attributes),)


_triangle = register(Op("triangle", _core.triangle, _triangle_vjp))
_one_hot = register(Op("one_hot", _core.one_hot))


def _product(sizes: Sequence[int]) -> int:
    n = 1
    for size in sizes:
        n = n * size
    return n


@public
def reshape(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Give the elements, in logical order, another shape.

    Parameters
    ----------
    x : Tensor, shape (…)
    shape : sequence of int
        One size may be −1 and is worked out from the others.

    Returns
    -------
    Tensor, shape `shape`

    Raises
    ------
    ShapeError
        `shape` does not hold as many elements as `x`.

    Notes
    -----
    A view when strides allow it, else a copy: flattening a channels-last image moves every element.
    """
    sizes = tuple(shape)
    if -1 in sizes:
        known = _product([n for n in sizes if n != -1])
        if known == 0 or sizes.count(-1) > 1 or x.size % known != 0:
            raise _core.ShapeError(
                f"reshape: expected a shape of {x.size} elements with at most one -1, as in {x.shape}, got {sizes}; "
                "give the other sizes in full"
            )
        at = sizes.index(-1)
        sizes = (*sizes[:at], _product(x.shape) // known, *sizes[at + 1 :])
    array = x._array
    if array.ndim > 2 and array.is_channels_last and not array.is_row_major:
        return _reshape(x, shape=sizes, from_channels_last=True)  # type: ignore[no-any-return]
    return _reshape(x, shape=sizes)  # type: ignore[no-any-return]


@public
def flatten(x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Merge the axes from `start_dim` to `end_dim`, both included, into one.

    Parameters
    ----------
    x : Tensor
    start_dim, end_dim : int
        Negative values count from the last axis.

    Returns
    -------
    Tensor, shape (*x.shape[:start], Π x.shape[start … end], *x.shape[end + 1:])

    Raises
    ------
    IndexError
        No such axis.
    ShapeError
        `start_dim` comes after `end_dim`.
    """
    shape = x.shape
    if not shape:
        return reshape(x, (1,))
    start = axis("flatten", start_dim, len(shape))
    end = axis("flatten", end_dim, len(shape))
    if start > end:
        raise _core.ShapeError(
            f"flatten: expected start_dim before end_dim, got {start_dim} and {end_dim} for shape {shape}; swap them"
        )
    return reshape(x, (*shape[:start], _product(shape[start : end + 1]), *shape[end + 1 :]))


@public
def permute(x: Tensor, dims: Sequence[int]) -> Tensor:
    """Reorder axes: axis `i` of the result is axis `dims[i]` of `x`. A view.

    Parameters
    ----------
    x : Tensor
    dims : sequence of int
        Every axis once; negative values count from the last.

    Returns
    -------
    Tensor, shape (x.shape[dims[0]], x.shape[dims[1]], …)

    Raises
    ------
    IndexError
        No such axis.
    ShapeError
        An axis named twice or left out.
    """
    n = x._array.ndim
    return _permute(x, dims=tuple([axis("permute", dim, n) for dim in dims]))  # type: ignore[no-any-return]


@public
def transpose(x: Tensor, dim0: int, dim1: int) -> Tensor:
    """Swap two axes. A view.

    Raises
    ------
    IndexError
        No such axis.
    """
    n = x._array.ndim
    dims = list(range(n))
    a, b = axis("transpose", dim0, n), axis("transpose", dim1, n)
    dims[a], dims[b] = b, a
    return _permute(x, dims=tuple(dims))  # type: ignore[no-any-return]


@public
def squeeze(x: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
    """Drop axes of size 1: all of them, or those of `dim` that have size 1. A view.

    Raises
    ------
    IndexError
        No such axis.
    """
    shape = x.shape
    if dim is None:
        dropped = [i for i, n in enumerate(shape) if n == 1]
    else:
        dims = (dim,) if isinstance(dim, int) else dim
        dropped = [a for a in (axis("squeeze", d, len(shape)) for d in dims) if shape[a] == 1]
    return _reshape(x, shape=tuple([n for i, n in enumerate(shape) if i not in dropped]))  # type: ignore[no-any-return]


@public
def unsqueeze(x: Tensor, dim: int) -> Tensor:
    """Insert an axis of size 1, which becomes axis `dim` of the result. A view.

    Raises
    ------
    IndexError
        `dim` outside −ndim − 1 … ndim.
    """
    shape = list(x.shape)
    shape.insert(axis("unsqueeze", dim, len(shape) + 1), 1)
    return _reshape(x, shape=tuple(shape))  # type: ignore[no-any-return]


@public
def expand(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Repeat axes of size 1 without copying: all repeats share memory.

    Parameters
    ----------
    x : Tensor
    shape : sequence of int
        Aligned with `x` at the last axis; −1 keeps a size. New axes may come in front.

    Returns
    -------
    Tensor, shape `shape`

    Raises
    ------
    ShapeError
        A size of `x` that is neither 1 nor the one asked for.
    """
    added = len(shape) - x.ndim
    old = x.shape
    sizes = tuple([old[i - added] if n == -1 and i >= added else n for i, n in enumerate(shape)])
    return _expand(x, shape=sizes)  # type: ignore[no-any-return]


@public
def broadcast_to(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Repeat axes of size 1 without copying; the same as `expand`, under NumPy's name."""
    return expand(x, shape)


@public
def flip(x: Tensor, dims: int | Sequence[int]) -> Tensor:
    """Reverse the order along axes: a copy.

    Raises
    ------
    IndexError
        No such axis.
    ShapeError
        An axis named twice.
    """
    axes = (dims,) if isinstance(dims, int) else dims
    return _flip(x, dims=tuple([axis("flip", d, x.ndim) for d in axes]))  # type: ignore[no-any-return]


@public
def pixel_shuffle(x: Tensor, upscale_factor: int) -> Tensor:
    """Turn channels into pixels.

    y[n, c, h·r + i, w·r + j] = x[n, c·r² + i·r + j, h, w]      (r = upscale_factor)

    Parameters
    ----------
    x : Tensor, shape (N, C·r², H, W)
    upscale_factor : int

    Returns
    -------
    Tensor, shape (N, C, H·r, W·r)

    Raises
    ------
    ShapeError
        Another number of axes, or channels that are no multiple of r².

    References
    ----------
    Shi et al. 2016, "Real-time single image and video super-resolution", arXiv:1609.05158.
    """
    return _pixel_shuffle(x, factor=upscale_factor)  # type: ignore[no-any-return]


@public
def pixel_unshuffle(x: Tensor, downscale_factor: int) -> Tensor:
    """Turn pixels into channels: the inverse of `pixel_shuffle`.

    Parameters
    ----------
    x : Tensor, shape (N, C, H·r, W·r)
    downscale_factor : int

    Returns
    -------
    Tensor, shape (N, C·r², H, W)

    Raises
    ------
    ShapeError
        Another number of axes, or sizes that are no multiple of r.
    """
    return _pixel_unshuffle(x, factor=downscale_factor)  # type: ignore[no-any-return]


@public
def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Deal the channels out, one from each group in turn.

    y[n, i·g + j, h, w] = x[n, j·(C/g) + i, h, w]      (g = groups)

    Parameters
    ----------
    x : Tensor, shape (N, C, H, W)
    groups : int
        Divides C.

    Returns
    -------
    Tensor, shape of x
        One copy; channels stay last in memory.

    Raises
    ------
    ShapeError
        Another number of axes, or channels that `groups` does not divide.

    References
    ----------
    Zhang et al. 2017, "ShuffleNet", arXiv:1707.01083, section 3.1.
    """
    if x.ndim != 4 or groups < 1 or x.shape[1] % groups:
        raise _core.ShapeError(
            f"channel_shuffle: expected a shape (N, C, H, W) with C divided by groups, got {x.shape} and groups={groups}; "
            "check groups"
        )
    n, c, h, w = x.shape
    last = reshape(permute(x, (0, 2, 3, 1)), (n, h, w, groups, c // groups))
    return permute(reshape(transpose(last, 3, 4), (n, h, w, c)), (0, 3, 1, 2))


@public
def one_hot(x: Tensor, num_classes: int = -1) -> Tensor:
    """Mark the class of every element: y[…, c] = 1 where x[…] = c, else 0.

    Parameters
    ----------
    x : Tensor of int64
        Classes 0 … num_classes − 1.
    num_classes : int
        −1 takes the largest class + 1, which reads the data.

    Returns
    -------
    Tensor of int64, shape (*x.shape, num_classes)

    Raises
    ------
    IndexError
        A class outside the range.
    """
    if num_classes < 0:
        x._reads("one_hot")
    return _one_hot(x, num_classes=num_classes)  # type: ignore[no-any-return]


@public
def tril(x: Tensor, diagonal: int = 0) -> Tensor:
    """Keep the lower triangle of the last two axes, zero above `diagonal`; a row-major copy."""
    return _triangle(x, diagonal=diagonal, is_upper=False)  # type: ignore[no-any-return]


@public
def triu(x: Tensor, diagonal: int = 0) -> Tensor:
    """Keep the upper triangle of the last two axes, zero below `diagonal`; a row-major copy."""
    return _triangle(x, diagonal=diagonal, is_upper=True)  # type: ignore[no-any-return]


__all__ = [
    "broadcast_to",
    "channel_shuffle",
    "expand",
    "flatten",
    "flip",
    "one_hot",
    "permute",
    "pixel_shuffle",
    "pixel_unshuffle",
    "reshape",
    "squeeze",
    "transpose",
    "tril",
    "triu",
    "unsqueeze",
]
