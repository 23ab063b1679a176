"""Picking elements by indices, and putting them back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from striate import _core, ops
from striate.autograd import Tensor
from striate.io.onnx.node import Node, operator
from striate.io.onnx.value import OnnxError, as_array, as_tensor, axis_of, check_size, ints, number


@operator("Gather")
def gather(node: Node, x: Any, indices: Any) -> Tensor:
    """Pick slices along an axis; negative indices count from the end."""
    x = as_tensor(x)
    axis = axis_of(node.attributes["axis"], x.ndim)
    if isinstance(indices, np.ndarray) and indices.ndim == 0:
        return ops.index(x, (*[slice(None)] * axis, int(indices)))
    places = as_tensor(indices)
    n = math.prod(places.shape)
    check_size([*x.shape[:axis], n, *x.shape[axis + 1 :]])
    return ops.index(x, (*[slice(None)] * axis, places))


@operator("GatherElements")
def gather_elements(node: Node, x: Any, indices: Any) -> Tensor:
    """Pick elements along an axis."""
    x, places = as_tensor(x), as_tensor(indices)
    axis = axis_of(node.attributes["axis"], x.ndim)
    return ops.gather(x, _counted(places, x.shape[axis]), axis)


def _counted(places: Tensor, n: int) -> Tensor:
    """Return indices counted from the start."""
    places = ops.to(places, _core.DType.int64)
    return ops.where(places < 0, places + n, places)


@operator("GatherND")
def gather_nd(node: Node, x: Any, indices: Any) -> Tensor:
    """Pick slices by tuples of indices, after `batch_dims` shared axes."""
    x, places = as_tensor(x), as_tensor(indices)
    n_batch = node.attributes.get("batch_dims", 0)
    depth = places.shape[-1]
    if not 0 < depth <= x.ndim - n_batch:
        raise OnnxError(f"expected tuples of 1 to {x.ndim - n_batch} indices, got {depth}; the file is damaged")
    grids = []
    for i in range(n_batch):
        counted = ops.arange(x.shape[i])
        grids.append(ops.reshape(counted, (*[1] * i, -1, *[1] * (places.ndim - 2 - i))))
    keys = [ops.index(places, (..., i)) for i in range(depth)]
    return ops.index(x, (*grids, *keys))


@operator("ScatterElements", "Scatter")
def scatter_elements(node: Node, x: Any, indices: Any, updates: Any) -> Tensor:
    """Put elements at places along an axis, or add, multiply, or keep the extreme."""
    x, places, updates = as_tensor(x), as_tensor(indices), as_tensor(updates)
    axis = axis_of(node.attributes["axis"], x.ndim)
    how = node.attributes.get("reduction", "none")
    places = _counted(places, x.shape[axis])
    if how == "add" and x.dtype.is_floating_point:
        return ops.scatter_add(x, places, updates, axis)
    if how != "none" or not x.dtype.is_floating_point:
        raise _core.DTypeError("these are the host's")
    # The last of several updates of one place wins; what it overwrites is taken off.
    chosen = places.numpy()
    key = list(np.ogrid[tuple(slice(n) for n in chosen.shape)])
    key[axis] = chosen
    at = tuple(key)
    order = np.arange(chosen.size).reshape(chosen.shape)
    last = np.full(x.shape, -1)
    last[at] = order
    wins = as_tensor(last[at] == order)
    kept = ops.where(as_tensor(last >= 0), ops.zeros_like(x), x)
    return ops.scatter_add(kept, places, ops.where(wins, updates, ops.zeros_like(updates)), axis)


@operator("ScatterND")
def scatter_nd(node: Node, x: Any, indices: Any, updates: Any) -> Tensor:
    """Put slices at tuples of indices, or add them."""
    x, updates = as_tensor(x), as_tensor(updates)
    places = as_array(indices)
    how = node.attributes.get("reduction", "none")
    if not x.dtype.is_floating_point or how not in ("none", "add"):
        raise _core.DTypeError("these are the host's")
    depth = places.shape[-1]
    shape = [int(n) for n in x.shape]
    rows, width = math.prod(shape[:depth]), math.prod(shape[depth:])
    tuples = places.reshape(-1, depth)
    tuples = np.where(tuples < 0, tuples + np.array(shape[:depth]), tuples)
    if tuples.size and (tuples.min() < 0 or (tuples >= np.array(shape[:depth])).any()):
        raise IndexError(f"expected indices inside {shape[:depth]}, got {tuples.min()} to {tuples.max()}; check them")
    flat = np.ravel_multi_index(tuple(tuples.T), tuple(shape[:depth])) if len(tuples) else np.zeros(0, np.int64)
    table = ops.reshape(x, (rows, width))
    news = ops.reshape(updates, (len(flat), width))
    if how == "none":
        last = {int(row): i for i, row in enumerate(flat)}
        kept = np.ones((rows, 1), dtype=np.float64)
        kept[flat] = 0
        table = ops.where(as_tensor(kept == 0), ops.zeros_like(table), table)
        order = np.array(sorted(last.values()), dtype=np.int64)
        news, flat = ops.index(news, as_tensor(order)), flat[order]
    at = np.ascontiguousarray(np.broadcast_to(flat[:, None], (len(flat), width)))
    return ops.reshape(ops.scatter_add(table, as_tensor(at.astype(np.int64)), news, 0), shape)


@operator("OneHot")
def one_hot(node: Node, indices: Any, depth: Any, values: Any) -> Any:
    """Mark places along a new axis; indices outside it mark nothing."""
    places, n = as_array(indices), int(number(depth))
    check_size([*places.shape, n])
    off, on = as_array(values)
    axis = node.attributes["axis"]
    whole = places.astype(np.int64)
    counted = np.where(whole < 0, whole + n, whole)
    marked = np.expand_dims(counted, axis if axis >= 0 else places.ndim + 1 + axis)
    shape = [1] * (places.ndim + 1)
    shape[axis] = n
    return np.where(np.arange(n).reshape(shape) == marked, on, off).astype(np.asarray(on).dtype)


@operator("TopK")
def top_k(node: Node, x: Any, k: Any = None) -> Any:
    """Find the largest or smallest elements along an axis, and where they are."""
    x = as_tensor(x)
    count = node.attributes["k"] if node.since < 10 else int(number(k))
    axis = axis_of(node.attributes["axis"], x.ndim)
    if not 0 <= count <= x.shape[axis]:
        raise OnnxError(f"expected k from 0 to {x.shape[axis]}, got {count}; choose fewer")
    values = as_array(x)
    largest = bool(node.attributes.get("largest", 1))
    if largest:  # equal ones come in the order of their places
        reverse = np.flip(values, axis)
        order = values.shape[axis] - 1 - np.flip(np.argsort(reverse, axis=axis, kind="stable"), axis)
    else:
        order = np.argsort(values, axis=axis, kind="stable")
    chosen = np.ascontiguousarray(np.take(order, np.arange(count), axis=axis).astype(np.int64))
    places = as_tensor(chosen)
    if x.dtype.is_floating_point:
        return ops.gather(x, places, axis), places
    return np.take_along_axis(values, chosen, axis), places


@operator("CumSum")
def cum_sum(node: Node, x: Any, axis: Any) -> Tensor:
    """Add up along an axis, by a product with a triangle of ones."""
    x = as_tensor(x)
    if not x.dtype.is_floating_point:
        raise _core.DTypeError("sums of integers are the host's")
    at = axis_of(int(number(axis)), x.ndim)
    n = int(x.shape[at])
    ones = np.tri(n, k=-1 if node.attributes["exclusive"] else 0, dtype=str(x.dtype))
    if node.attributes["reverse"]:
        ones = np.ascontiguousarray(ones[::-1, ::-1])
    moved = ops.transpose(x, at, x.ndim - 1) if at != x.ndim - 1 else x
    y = ops.matmul(ops.reshape(moved, (-1, n)), as_tensor(np.ascontiguousarray(ones.T)))
    y = ops.reshape(y, moved.shape)
    return ops.transpose(y, at, x.ndim - 1) if at != x.ndim - 1 else y


@operator("Compress")
def compress(node: Node, x: Any, condition: Any) -> Tensor:
    """Keep the slices along an axis for which a condition holds."""
    x = as_tensor(x)
    places = as_tensor(np.flatnonzero(as_array(condition)))
    axis = node.attributes.get("axis")
    if axis is None:
        return ops.index(ops.reshape(x, (-1,)), places)
    return ops.index(x, (*[slice(None)] * axis_of(axis, x.ndim), places))


@operator("ReverseSequence")
def reverse_sequence(node: Node, x: Any, lengths: Any) -> Tensor:
    """Reverse the first elements of each sequence."""
    x = as_tensor(x)
    batch, time = node.attributes["batch_axis"], node.attributes["time_axis"]
    sizes = [int(n) for n in x.shape]
    n = sizes[time]
    order = np.broadcast_to(np.arange(n), (sizes[batch], n)).copy()
    for row, length in enumerate(ints(lengths)):
        order[row, :length] = np.arange(length)[::-1]
    shape = [1] * x.ndim
    shape[batch], shape[time] = sizes[batch], n
    wide = np.ascontiguousarray(np.broadcast_to((order if batch < time else order.T).reshape(shape), sizes))
    return ops.gather(x, as_tensor(wide), time)
