"""Shape arithmetic on the host: small arrays of numbers, among them sizes that follow an input while recording.

Arrays of objects hold such sizes (`Dim`); NumPy's own functions carry them along. What would turn one into a plain number
leaves a guard in the record.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import helper

from striate.autograd.dim import Dim, maximum, minimum
from striate.io.onnx.node import Node, host_operator, size_checks
from striate.io.onnx.value import Array, OnnxError, as_array, check_size, has_dims, ints, number

#: Of the texts that one node joins.
MOST_LETTERS = 2**24


def _numbers(value: Any) -> Array:
    return np.asarray(value)


def _plain(array: Array) -> Array:
    """Return sizes as int64 where none follows an input any more."""
    if array.dtype == object and not any(isinstance(v, Dim) for v in array.flat):
        return array.astype(np.int64)
    return array


def _needs_dims(*values: Any) -> bool:
    return any(isinstance(v, np.ndarray) and v.dtype == object and has_dims(v) for v in values)


def _divide(a: Any, b: Any) -> Any:
    """Divide and round towards zero, as ONNX does with integers."""
    return -(-a // b) if (a < 0) != (b < 0) else a // b


_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Div": _divide,
    "Max": maximum,
    "Min": minimum,
    "Equal": lambda a, b: a == b,
    "Less": lambda a, b: a < b,
    "Greater": lambda a, b: a > b,
}


@host_operator(*_BINARY)
def binary(node: Node, *values: Any) -> Any:
    """Compute with sizes; anything else is NumPy's."""
    if not _needs_dims(*values):
        return NotImplemented
    if any(np.asarray(v).dtype.kind == "f" for v in values):
        return NotImplemented
    function = _BINARY[node.op_type]
    result: Any = values[0]
    for value in values[1:]:
        a, b = np.broadcast_arrays(np.asarray(result, dtype=object), np.asarray(value, dtype=object))
        made = np.empty(a.shape, dtype=object)
        for at in np.ndindex(a.shape):
            made[at] = function(a[at], b[at])
        result = made
    array = np.asarray(result)
    return array.astype(bool) if node.op_type in ("Equal", "Less", "Greater") else _plain(array)


@host_operator("Cast")
def cast(node: Node, x: Any) -> Any:
    """Keep sizes as they are between integers."""
    if not _needs_dims(x):
        return NotImplemented
    dtype = helper.tensor_dtype_to_np_dtype(node.attributes["to"])
    return x if dtype.kind in "iu" else as_array(x).astype(dtype)


@host_operator("Gather")
def gather(node: Node, x: Any, indices: Any) -> Any:
    """Pick sizes."""
    return np.take(_numbers(x), as_array(indices), axis=node.attributes["axis"])


@host_operator("Concat")
def concat(node: Node, *values: Any) -> Any:
    """Join sizes."""
    if not _needs_dims(*values):
        return NotImplemented
    return np.concatenate([np.asarray(v, dtype=object) for v in values], axis=node.attributes["axis"])


@host_operator("Slice")
def slice_(node: Node, x: Any, starts: Any = None, ends: Any = None, axes: Any = None, steps: Any = None) -> Any:
    """Cut a range of sizes out."""
    if not _needs_dims(x) or x.ndim != 1:
        return NotImplemented
    begin = node.attributes["starts"] if node.since < 10 else ints(starts)
    end = node.attributes["ends"] if node.since < 10 else ints(ends)
    step = [1] if steps is None else ints(steps)
    return _plain(x[slice(int(begin[0]), int(end[0]), int(step[0]))])


@host_operator("Unsqueeze")
def unsqueeze(node: Node, x: Any, axes: Any = None) -> Any:
    """Add axes to sizes."""
    chosen = node.attributes.get("axes") if axes is None else ints(axes)
    return np.expand_dims(_numbers(x), tuple(chosen or ()))


@host_operator("Squeeze")
def squeeze(node: Node, x: Any, axes: Any = None) -> Any:
    """Drop axes of sizes."""
    chosen = node.attributes.get("axes") if axes is None else ints(axes)
    return np.squeeze(_numbers(x), None if chosen is None else tuple(chosen))


@host_operator("Reshape")
def reshape(node: Node, x: Any, shape: Any) -> Any:
    """Reshape sizes."""
    wanted = [int(n) for n in ints(shape)]
    return np.reshape(x, wanted) if _needs_dims(x) and 0 not in wanted else NotImplemented


@host_operator("ReduceProd")
def reduce_prod(node: Node, x: Any, axes: Any = None) -> Any:
    """Multiply sizes."""
    if not _needs_dims(x) or x.ndim != 1:
        return NotImplemented
    n = np.empty((), dtype=object)
    n[()] = math.prod(x.flat)
    return n.reshape((1,) * x.ndim) if node.attributes["keepdims"] else n


@host_operator("Where")
def where(node: Node, condition: Any, x: Any, y: Any) -> Any:
    """Choose between sizes."""
    if not _needs_dims(x, y):
        return NotImplemented
    return _plain(np.where(as_array(condition), np.asarray(x, dtype=object), np.asarray(y, dtype=object)))


@host_operator("Shape", "Size", "ConstantOfShape", "Range", "EyeLike", "OneHot")
def by_handler(node: Node, *values: Any) -> Any:
    """These check how large they become, and leave their results on the host."""
    assert node.handler is not None
    return node.handler(node, *values)


@host_operator("Expand")
def expand(node: Node, x: Any, shape: Any) -> Any:
    """Broadcast sizes."""
    wanted = [int(n) for n in ints(shape)]
    joint = np.broadcast_shapes(np.shape(x), tuple(wanted)) if min(wanted, default=0) >= 0 else wanted
    check_size(joint, 8)
    return np.array(np.broadcast_to(_numbers(x), joint))


def _check_tile(node: Node, x: Any, repeats: Any) -> None:
    counts = [int(n) for n in ints(repeats)]
    check_size([n * r for n, r in zip(np.shape(x), counts, strict=False)], 8)


def _check_pad(node: Node, x: Any, pads: Any = None, *rest: Any) -> None:
    counts = node.attributes["pads"] if pads is None else ints(pads)
    grown = sum(abs(c) for c in counts)
    check_size([n + grown for n in x.shape], 8)


def _check_growth(node: Node, *values: Any) -> None:
    check_size([sum(int(np.prod(v.shape)) for v in values if hasattr(v, "shape"))], 8)


def _check_texts(node: Node, *values: Any) -> None:
    n_letters = sum(len(text) for v in values for text in np.asarray(v).flat)
    if n_letters > MOST_LETTERS:
        raise OnnxError(f"expected texts of at most {MOST_LETTERS:,} letters, got {n_letters:,}; split them")


def _check_window(node: Node, size: Any) -> None:
    check_size([int(number(size))], 8)


size_checks.update(
    {
        "Tile": _check_tile,
        "Pad": _check_pad,
        "Concat": _check_growth,
        "StringConcat": _check_texts,
        "HannWindow": _check_window,
        "HammingWindow": _check_window,
        "BlackmanWindow": _check_window,
    }
)
