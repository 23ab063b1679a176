"""Indexing as in NumPy: ranges are views, integer tensors and masks copy, and every gradient scatters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from striate import _core
from striate.autograd.op import Op, public, register
from striate.autograd.tensor import Tensor
from striate.ops.shape import _expand, _flip, _permute, _reshape, axis

if TYPE_CHECKING:
    from striate.autograd.tape import Node

Grads = tuple[Tensor | None, ...]


def _slice_vjp(node: Node, grad_y: Tensor) -> Grads:
    at = node.attributes
    return (_slice_grad(grad_y, shape=node.shapes[0], begin=at["begin"], step=at["step"]),)


def _slice_grad_vjp(node: Node, grad_y: Tensor) -> Grads:
    at = node.attributes
    return (_slice(grad_y, begin=at["begin"], size=node.shapes[0], step=at["step"]),)


_slice = register(Op("slice", _core.slice, _slice_vjp))
_slice_grad = register(Op("slice_grad", _core.slice_grad, _slice_grad_vjp))


def _gather_vjp(node: Node, grad_y: Tensor) -> Grads:
    grad = _scatter_add(grad_y, node.inputs[1], shape=node.shapes[0], dim=node.attributes["dim"])
    return grad, None


def _scatter_add_vjp(node: Node, grad_y: Tensor) -> Grads:
    return _gather(grad_y, node.inputs[1], dim=node.attributes["dim"]), None


_gather = register(Op("gather", _core.gather, _gather_vjp, saves_inputs=(1,)))
_scatter_add = register(Op("scatter_add", _core.scatter_add, _scatter_add_vjp, saves_inputs=(1,)))


def _index_vjp(node: Node, grad_y: Tensor) -> Grads:
    indices = [node.inputs[i] for i in range(1, len(node.shapes))]
    return (_index_add(grad_y, *indices, shape=node.shapes[0]), *[None] * len(indices))


def _index_add_vjp(node: Node, grad_y: Tensor) -> Grads:
    indices = [node.inputs[i] for i in range(1, len(node.shapes))]
    return (_index(grad_y, *indices), *[None] * len(indices))


_index = register(Op("index", _core.index, _index_vjp, saves_inputs=tuple(range(1, 9))))
_index_add = register(Op("index_add", _core.index_add, _index_add_vjp, saves_inputs=tuple(range(1, 9))))


@public
def gather(x: Tensor, index: Tensor, dim: int) -> Tensor:
    """Pick elements along one axis.

    y[i, j, k] = x[i, index[i, j, k], k]      (dim = 1)

    Parameters
    ----------
    x : Tensor
    index : Tensor of int64
        As many axes as `x`, and no larger than it except at `dim`.
    dim : int

    Returns
    -------
    Tensor, shape index.shape

    Raises
    ------
    IndexError
        No such axis, or an index outside 0 … x.shape[dim] − 1.
    ShapeError
        An index tensor that does not fit.
    DTypeError
        An index that is not of integers.
    """
    return _gather(x, index, dim=axis("gather", dim, x.ndim))  # type: ignore[no-any-return]


@public
def scatter_add(x: Tensor, index: Tensor, src: Tensor, dim: int) -> Tensor:
    """Add `src` to `x` at the places that `index` names, into a new tensor.

    y = x;  y[i, index[i, j, k], k] += src[i, j, k]      (dim = 1)

    Parameters
    ----------
    x : Tensor
    index : Tensor of int64, shape src.shape
    src : Tensor
    dim : int

    Returns
    -------
    Tensor, shape x.shape

    Notes
    -----
    Additions to one place happen in the order of `index`, for any number of threads.
    """
    at = axis("scatter_add", dim, x.ndim)
    return x + _scatter_add(src, index, shape=x.shape, dim=at)  # type: ignore[no-any-return]


@public
def narrow(x: Tensor, dim: int, start: int, length: int) -> Tensor:
    """Keep `length` positions from `start` of one axis: a view.

    Raises
    ------
    ShapeError
        A range that leaves the axis.
    """
    at = axis("narrow", dim, x.ndim)
    shape = x.shape
    begin = tuple([(start + shape[at] if start < 0 else start) if a == at else 0 for a in range(len(shape))])
    size = tuple([length if a == at else n for a, n in enumerate(shape)])
    return _slice(x, begin=begin, size=size, step=(1,) * len(shape))  # type: ignore[no-any-return]


def _bound(value: Any, n: int, lowest: int, highest: int) -> int:
    """Return one end of a slice: counted from the end when negative, then clamped."""
    at: int = value.__index__() if not isinstance(value, int) else value
    if at < 0:
        at = at + n
    return lowest if at < lowest else highest if at > highest else at


def _range(key: slice, n: int) -> tuple[int, int, int]:
    """Return (begin, size, step) of a slice on an axis of n, step possibly negative."""
    step: int = 1 if key.step is None else key.step.__index__()
    if step == 0:
        raise ValueError("index: expected a slice step other than 0, got 0; leave the step out")
    if step > 0:
        begin = 0 if key.start is None else _bound(key.start, n, 0, n)
        end = n if key.stop is None else _bound(key.stop, n, 0, n)
        span = end - begin
    else:
        begin = n - 1 if key.start is None else _bound(key.start, n, -1, n - 1)
        end = -1 if key.stop is None else _bound(key.stop, n, -1, n - 1)
        span = begin - end
    if span <= 0:
        return 0, 0, 1
    stride = step if step > 0 else -step
    size = span if stride == 1 else (span + (stride - 1)) // stride
    return begin, size, step


def _as_index(key: Any) -> Any:
    """Return int, slice, None, Ellipsis or an index tensor for one entry of a key."""
    if key is None or key is Ellipsis or isinstance(key, slice | Tensor):
        return key
    if isinstance(key, bool | np.bool_):
        raise IndexError("index: expected integers, slices, tensors, None or ..., got a bool; make a mask tensor of it")
    if isinstance(key, int):
        return key
    if isinstance(key, np.ndarray | list | tuple):
        from striate.ops.create import tensor

        array = np.asarray(key)
        if array.size == 0 and not isinstance(key, np.ndarray):
            array = array.astype(np.int64)
        return tensor(array)
    try:
        return key.__index__()
    except AttributeError:
        raise IndexError(
            f"index: expected integers, slices, tensors, None or ..., got {type(key).__name__}; convert it first"
        ) from None


def _entries(key: Any, ndim: int) -> list[Any]:
    """Return one entry per axis or new axis, masks expanded into index tensors."""
    entries: list[Any] = []
    for part in key if isinstance(key, tuple) else (key,):
        entry = _as_index(part)
        if isinstance(entry, Tensor) and entry.dtype == _core.DType.bool:
            entry._reads("index")
            found = Tensor._wrap(_core.nonzero(entry._array))
            entries.extend(_Axis(found, a, entry.shape[a]) for a in range(entry.ndim))
        else:
            entries.append(entry)
    n_axes = sum(entry is not None and entry is not Ellipsis for entry in entries)
    n_ellipses = sum(entry is Ellipsis for entry in entries)
    if n_axes > ndim or n_ellipses > 1:
        raise IndexError(
            f"index: expected at most {ndim} indices and one ..., got {n_axes} and {n_ellipses}; index fewer axes"
        )
    rest: list[Any] = [slice(None)] * (ndim - n_axes)
    if n_ellipses == 0:
        return entries + rest
    at = next(i for i, entry in enumerate(entries) if entry is Ellipsis)
    return entries[:at] + rest + entries[at + 1 :]


class _Axis:
    """One axis of a mask: row `axis` of the table of its true positions."""

    __slots__ = ("axis", "found", "size")

    def __init__(self, found: Tensor, axis: int, size: int) -> None:
        self.found = found
        self.axis = axis
        self.size = size

    def tensor(self, n: int) -> Tensor:
        if self.size != n:
            raise IndexError(
                f"index: expected a mask of size {n} at an axis of {n}, got {self.size}; it must match what it masks"
            )
        return index(self.found, self.axis)


def _single(x: Tensor, key: int) -> Tensor:
    shape = x.shape
    n = shape[0]
    if not -n <= key < n:
        raise _outside(key, n, 0)
    begin = (key if key >= 0 else n + key,) + (0,) * (len(shape) - 1)
    picked = _slice(x, begin=begin, size=(1, *shape[1:]), step=(1,) * len(shape))
    return _reshape(picked, shape=shape[1:])  # type: ignore[no-any-return]


def _outside(key: int, n: int, at: int) -> IndexError:
    return IndexError(f"index: expected an index from {-n} to {n - 1} at axis {at}, got {key}; check the size")


@public
def index(x: Tensor, key: Any) -> Tensor:
    """Index as NumPy does: `x[key]`.

    Parameters
    ----------
    x : Tensor
    key : int, slice, None, Ellipsis, Tensor of integers, Tensor of bool, or a tuple of these
        Integers and slices give a view (a negative step copies), None adds an axis, Ellipsis stands for all axes not
        named. Integer tensors broadcast together and pick elements; a mask picks where it is true. Their axes come
        first in the result, or in place when they stand side by side.

    Returns
    -------
    Tensor

    Raises
    ------
    IndexError
        An index outside its axis, too many indices, or a key of another kind.

    Notes
    -----
    The gradient writes into zeros; elements picked several times add up in the order of the index.
    """
    if type(key) is int and x._array.ndim > 0:
        return _single(x, key)
    shape = x.shape
    begin: list[int] = []
    size: list[int] = []
    step: list[int] = []
    flipped: list[int] = []
    viewed: list[int] = []  # sizes after integers went and new axes came
    picks: list[tuple[int, Tensor]] = []  # (axis of the view, index tensor)
    positions: list[int] = []  # where among the entries an advanced index stands; integers count too
    for place, entry in enumerate(_entries(key, len(shape))):
        if entry is None:
            viewed.append(1)
            continue
        n = shape[len(begin)]
        if isinstance(entry, slice):
            first, count, stride = _range(entry, n)
            if stride < 0:
                flipped.append(len(begin))
                first, stride = first + (count - 1) * stride, -stride
            begin.append(first)
            size.append(count)
            step.append(stride)
            viewed.append(count)
            continue
        if isinstance(entry, int):
            if not -n <= entry < n:
                raise _outside(entry, n, len(begin))
            begin.append(entry if entry >= 0 else n + entry)
            size.append(1)
            positions.append(place)
        else:
            picks.append((len(viewed), entry.tensor(n) if isinstance(entry, _Axis) else entry))
            positions.append(place)
            begin.append(0)
            size.append(n)
            viewed.append(n)
        step.append(1)
    y: Tensor = x
    if tuple(size) != shape or any(s != 1 for s in step):
        y = _slice(y, begin=tuple(begin), size=tuple(size), step=tuple(step))
    if flipped:
        y = _flip(y, dims=tuple(flipped))
    if len(viewed) != len(size) or tuple(viewed) != tuple(size):
        y = _reshape(y, shape=tuple(viewed))
    if not picks:
        return y if y is not x else _slice(y, begin=tuple(begin), size=tuple(size), step=tuple(step))
    are_adjacent = positions == list(range(positions[0], positions[0] + len(positions)))
    return _pick(y, picks, are_adjacent)


def _pick(x: Tensor, picks: Sequence[tuple[int, Tensor]], are_adjacent: bool) -> Tensor:
    """Index axes by tensors that broadcast together; NumPy's rule places the axes of the result."""
    axes = [a for a, _ in picks]
    rest = [a for a in range(x.ndim) if a not in axes]
    shapes = [index.shape for _, index in picks]
    are_equal = all(shape == shapes[0] for shape in shapes[1:])
    common = shapes[0] if are_equal else np.broadcast_shapes(*shapes)  # which makes plain numbers of sizes
    indices = [index if are_equal or index.shape == common else _expand(index, shape=common) for _, index in picks]
    front = x if axes == list(range(len(axes))) else _permute(x, dims=(*axes, *rest))
    y: Tensor = _index(front, *indices)
    before = sum(a < axes[0] for a in rest) if are_adjacent else 0
    if before == 0:
        return y
    n = len(common)
    dims = (*range(n, n + before), *range(n), *range(n + before, n + len(rest)))
    return _permute(y, dims=dims)  # type: ignore[no-any-return]


__all__ = ["gather", "index", "narrow", "scatter_add"]
