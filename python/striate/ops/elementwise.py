"""Arithmetic, element by element, with broadcasting."""

from __future__ import annotations

from typing import Any

from striate import _core
from striate.autograd.op import Op, public, register
from striate.autograd.tensor import Number, Tensor
from striate.ops.reduce import sum_to

DType = _core.DType


def operands(name: str, x: Any, y: Any) -> tuple[Tensor, Tensor]:
    """Return two operands as tensors; a Python number takes the other's dtype, unless its own is of a higher kind."""
    if isinstance(x, Tensor):
        if isinstance(y, Tensor):
            return x, y
        if isinstance(y, int | float):
            return x, Tensor._wrap(_core.scalar(y, x._array.dtype))
        return x, _converted(name, y)
    if isinstance(y, Tensor):
        if isinstance(x, int | float):
            return Tensor._wrap(_core.scalar(x, y._array.dtype)), y
        return _converted(name, x), y
    got = f"{type(x).__name__} and {type(y).__name__}"
    raise TypeError(f"{name}: expected at least one tensor, got {got}; use striate.tensor")


def _converted(name: str, value: Any) -> Tensor:
    import numpy as np

    if isinstance(value, np.ndarray | np.generic):
        from striate.ops.create import tensor

        return tensor(value)
    raise TypeError(f"{name}: expected a tensor or a number, got {type(value).__name__}; use striate.tensor")


def _add_vjp(node: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    return tuple([sum_to(g, node.shapes[i], node.dtypes[i]) if node.needs[i] else None for i in (0, 1)])


def _sub_vjp(node: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    return (
        sum_to(g, node.shapes[0], node.dtypes[0]) if node.needs[0] else None,
        sum_to(_neg(g), node.shapes[1], node.dtypes[1]) if node.needs[1] else None,
    )


def _mul_vjp(node: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    return (
        sum_to(_mul(g, node.inputs[1]), node.shapes[0], node.dtypes[0]) if node.needs[0] else None,
        sum_to(_mul(g, node.inputs[0]), node.shapes[1], node.dtypes[1]) if node.needs[1] else None,
    )


def _div_vjp(node: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    quotient = _div(g, node.inputs[1])
    grad_y = None
    if node.needs[1]:
        grad_y = sum_to(_neg(_mul(quotient, _div(node.inputs[0], node.inputs[1]))), node.shapes[1], node.dtypes[1])
    return sum_to(quotient, node.shapes[0], node.dtypes[0]) if node.needs[0] else None, grad_y


def _neg_vjp(node: Any, g: Tensor) -> tuple[Tensor]:
    return (_neg(g),)


_add = register(Op("add", _core.add, _add_vjp))
_sub = register(Op("sub", _core.sub, _sub_vjp))
_mul = register(Op("mul", _core.mul, _mul_vjp, saves_inputs=(0, 1)))
_div = register(Op("div", _core.div, _div_vjp, saves_inputs=(0, 1)))
_neg = register(Op("neg", _core.neg, _neg_vjp))


@public
def add(x: Tensor | Number, y: Tensor | Number) -> Tensor:
    """Add two tensors, x + y.

    Parameters
    ----------
    x, y : Tensor or number
        Shapes broadcast; dtypes promote as in PyTorch (a Python number does not widen a tensor of its kind).

    Returns
    -------
    Tensor, of the broadcast shape
        In the memory layout of the largest operand.

    Raises
    ------
    ShapeError
        Shapes that do not broadcast.
    DTypeError
        Dtypes without a common one, or a storage dtype (float16, bfloat16).
    """
    return _add(*operands("add", x, y))  # type: ignore[no-any-return]


@public
def sub(x: Tensor | Number, y: Tensor | Number) -> Tensor:
    """Subtract, x − y; broadcasting, promotion and errors as `add`."""
    return _sub(*operands("sub", x, y))  # type: ignore[no-any-return]


@public
def mul(x: Tensor | Number, y: Tensor | Number) -> Tensor:
    """Multiply, x · y; broadcasting, promotion and errors as `add`."""
    return _mul(*operands("mul", x, y))  # type: ignore[no-any-return]


@public
def div(x: Tensor | Number, y: Tensor | Number) -> Tensor:
    """Divide, x / y; integers give float32; broadcasting and errors as `add`."""
    return _div(*operands("div", x, y))  # type: ignore[no-any-return]


@public
def neg(x: Tensor) -> Tensor:
    """Negate, −x."""
    return _neg(x)  # type: ignore[no-any-return]
