"""Arithmetic, comparison and logic, element by element."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from striate import _core, ops
from striate.autograd import Tensor
from striate.io.onnx.node import Node, operator
from striate.io.onnx.value import as_tensor

Binary = Callable[[Tensor, Tensor], Tensor]


def _binary(name: str, function: Binary) -> None:
    def run(node: Node, a: Any, b: Any) -> Tensor:
        a, b = as_tensor(a), as_tensor(b)
        return function(a, _aligned(node, a, b) if node.since < 7 and node.attributes.get("broadcast") else b)

    operator(name)(run)


def _aligned(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """Return b with axes of size 1 behind it, so that it lies along the axes that `axis` says: broadcasting before opset 7."""
    axis = node.attributes.get("axis")
    n_behind = 0 if axis is None else a.ndim - axis - b.ndim
    return ops.reshape(b, (*b.shape, *[1] * n_behind)) if n_behind > 0 else b


def _unary(name: str, function: Callable[[Tensor], Tensor]) -> None:
    def run(node: Node, x: Any) -> Tensor:
        return function(as_tensor(x))

    operator(name)(run)


def _floats_only(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Leave integers to the host, where ONNX's results have the operand's dtype."""

    @functools.wraps(function)
    def run(x: Tensor) -> Tensor:
        if not x.dtype.is_floating_point:
            raise _core.DTypeError(f"expected floats, got {x.dtype}")
        return function(x)

    return run


def _divide(a: Tensor, b: Tensor) -> Tensor:
    if not a.dtype.is_floating_point:
        raise _core.DTypeError("integer division is the host's")
    return ops.div(a, b)


@operator("Pow")
def power(node: Node, a: Any, b: Any) -> Tensor:
    """Raise to a power; a constant one of 2, ½, −1 or −½ is one multiplication, root or division."""
    a = as_tensor(a)
    if not a.dtype.is_floating_point:
        raise _core.DTypeError("powers of integers are the host's")
    if isinstance(b, np.ndarray) and b.size == 1 and b.ndim <= a.ndim:
        return ops.pow(a, float(b.reshape(())))
    b = as_tensor(b)
    b = _aligned(node, a, b) if node.since < 7 and node.attributes.get("broadcast") else b
    return ops.pow(a, ops.to(b, a.dtype))


for _name, _function in {
    "Add": ops.add,
    "Sub": ops.sub,
    "Mul": ops.mul,
    "Div": _divide,
    "Equal": ops.eq,
    "Greater": ops.gt,
    "GreaterOrEqual": ops.ge,
    "Less": ops.lt,
    "LessOrEqual": ops.le,
    "And": ops.logical_and,
    "Or": ops.logical_or,
    "Xor": ops.logical_xor,
}.items():
    _binary(_name, _function)

for _name, _single in {
    "Abs": ops.abs,
    "Neg": ops.neg,
    "Sign": ops.sign,
    "Floor": ops.floor,
    "Ceil": ops.ceil,
    "Round": ops.round,
    "Sqrt": ops.sqrt,
    "Reciprocal": ops.reciprocal,
    "Exp": ops.exp,
    "Log": ops.log,
    "Sin": ops.sin,
    "Cos": ops.cos,
    "Erf": ops.erf,
}.items():
    _unary(_name, _floats_only(_single))

_unary("Tan", _floats_only(lambda x: ops.sin(x) / ops.cos(x)))
_unary("Sinh", _floats_only(lambda x: (ops.expm1(x) - ops.expm1(-x)) * 0.5))
_unary("Cosh", _floats_only(lambda x: (ops.exp(x) + ops.exp(-x)) * 0.5))
_unary("Not", ops.logical_not)
_unary("IsNaN", ops.isnan)


@operator("IsInf")
def is_inf(node: Node, x: Any) -> Tensor:
    """Find +Inf, −Inf or both."""
    x = as_tensor(x)
    found = ops.isinf(x)
    if not node.attributes["detect_negative"]:
        found = ops.logical_and(found, x > 0)
    if not node.attributes["detect_positive"]:
        found = ops.logical_and(found, x < 0)
    return found


@operator("Where")
def where(node: Node, condition: Any, x: Any, y: Any) -> Tensor:
    """Choose x where the condition holds, else y."""
    return ops.where(as_tensor(condition), as_tensor(x), as_tensor(y))


def _fold(function: Binary, values: tuple[Any, ...]) -> Tensor:
    result = as_tensor(values[0])
    for value in values[1:]:
        result = function(result, as_tensor(value))
    return result


@operator("Sum")
def add_all(node: Node, *values: Any) -> Tensor:
    """Add all operands."""
    return _fold(ops.add, values)


@operator("Mean")
def mean_of_all(node: Node, *values: Any) -> Tensor:
    """Take the mean of all operands."""
    return _fold(ops.add, values) / float(len(values))


@operator("Max")
def max_of_all(node: Node, *values: Any) -> Tensor:
    """Take the largest of all operands."""
    return _fold(ops.maximum, values)


@operator("Min")
def min_of_all(node: Node, *values: Any) -> Tensor:
    """Take the smallest of all operands."""
    return _fold(ops.minimum, values)
