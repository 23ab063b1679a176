"""Sequences, which are lists of values, and optionals, which are a value or None."""

from __future__ import annotations

from typing import Any

import numpy as np

from striate import ops
from striate.autograd import Tensor
from striate.io.onnx.node import Node, operator
from striate.io.onnx.value import OnnxError, as_array, as_tensor, axis_of, ints, number


@operator("SequenceConstruct", takes_anything=True)
def construct(node: Node, *values: Any) -> Any:
    """Put values into a list."""
    return (list(values),)


@operator("SequenceEmpty", takes_anything=True)
def empty(node: Node) -> Any:
    """Return an empty list."""
    return ([],)


def _place(position: Any, n: int, *, may_append: bool = False) -> int:
    at = int(number(position))
    last = n if may_append else n - 1
    if not -n <= at <= last:
        raise OnnxError(f"expected a position from {-n} to {last}, got {at}; check the sequence's length")
    return at + n if at < 0 else at


@operator("SequenceAt", takes_anything=True)
def at(node: Node, sequence: list[Any], position: Any) -> Any:
    """Return one element."""
    return sequence[_place(position, len(sequence))]


@operator("SequenceInsert", takes_anything=True)
def insert(node: Node, sequence: list[Any], value: Any, position: Any = None) -> Any:
    """Return a list with one more element, at the end by default."""
    n = len(sequence)
    place = n if position is None else _place(position, n, may_append=True)
    return ([*sequence[:place], value, *sequence[place:]],)


@operator("SequenceErase", takes_anything=True)
def erase(node: Node, sequence: list[Any], position: Any = None) -> Any:
    """Return a list with one element less, the last by default."""
    place = len(sequence) - 1 if position is None else _place(position, len(sequence))
    return ([*sequence[:place], *sequence[place + 1 :]],)


@operator("SequenceLength", takes_anything=True)
def length(node: Node, sequence: list[Any]) -> Any:
    """Count the elements."""
    return np.array(len(sequence), dtype=np.int64)


@operator("ConcatFromSequence", takes_anything=True)
def concat(node: Node, sequence: list[Any]) -> Any:
    """Join the elements along an axis, a new one if asked."""
    axis = node.attributes["axis"]
    if not any(isinstance(v, Tensor) for v in sequence):
        join = np.stack if node.attributes["new_axis"] else np.concatenate
        return join([as_array(v) for v in sequence], axis)
    tensors = [as_tensor(v) for v in sequence]
    return ops.stack(tensors, axis) if node.attributes["new_axis"] else ops.concat(tensors, axis)


@operator("SplitToSequence", takes_anything=True)
def split(node: Node, x: Any, lengths: Any = None) -> Any:
    """Cut along an axis into a list."""
    x = as_tensor(x)
    axis = axis_of(node.attributes["axis"], x.ndim)
    n = int(x.shape[axis])
    if lengths is None:
        parts = [1] * n
    else:
        given = ints(lengths)
        is_single = as_array(lengths).ndim == 0
        if is_single and given[0] < 1:
            raise OnnxError(f"expected parts of at least one element, got {given[0]}; the file is damaged")
        parts = [min(given[0], n - i) for i in range(0, n, given[0])] if is_single else given
    cut = list(ops.split(x, parts, axis))
    if lengths is None and not node.attributes["keepdims"]:
        cut = [ops.squeeze(part, axis) for part in cut]
    return (cut,)


@operator("Optional", takes_anything=True)
def optional(node: Node, value: Any = None) -> Any:
    """Return the value, or nothing."""
    return (value,)


@operator("OptionalGetElement", takes_anything=True)
def get_element(node: Node, value: Any) -> Any:
    """Return the value of an optional that has one."""
    if value is None:
        raise OnnxError("expected an optional with a value, got an empty one; ask OptionalHasElement first")
    return (value,)


@operator("OptionalHasElement", takes_anything=True)
def has_element(node: Node, value: Any = None) -> Any:
    """Say whether an optional has a value."""
    return np.array(value is not None)
