"""Arithmetic, elementary functions and comparisons, element by element, with broadcasting."""

from __future__ import annotations

import math
from typing import Any

from striate import _core
from striate.autograd.op import Op, functions, public, register
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


def _square_vjp(node: Any, g: Tensor) -> tuple[Tensor]:
    return (_mul(g, _mul(node.inputs[0], _like(2.0, g))),)


def _abs_vjp(node: Any, g: Tensor) -> tuple[Tensor]:
    return (_mul(g, _sign(node.inputs[0])),)


def _flat_vjp(node: Any, g: Tensor) -> tuple[Tensor]:
    """A step function: its derivative is 0 wherever there is one."""
    return (functions["zeros_like"](g),)


def _reciprocal_vjp(node: Any, g: Tensor) -> tuple[Tensor]:
    return (_neg(_mul(g, _square(node.output))),)


def _sqrt_vjp(node: Any, g: Tensor) -> tuple[Tensor]:
    return (_div(_mul(g, _like(0.5, g)), node.output),)


def _rsqrt_vjp(node: Any, g: Tensor) -> tuple[Tensor]:
    y = node.output
    return (_mul(_mul(g, _like(-0.5, g)), _mul(y, _square(y))),)


def _exp_vjp(node: Any, g: Tensor) -> tuple[Tensor]:
    return (_mul(g, node.output),)


def _expm1_vjp(node: Any, g: Tensor) -> tuple[Tensor]:
    return (_add(_mul(g, node.output), g),)


def _log_vjp(node: Any, g: Tensor) -> tuple[Tensor]:
    return (_div(g, node.inputs[0]),)


def _log1p_vjp(node: Any, g: Tensor) -> tuple[Tensor]:
    return (_div(g, _add(node.inputs[0], _like(1.0, g))),)


def _sin_vjp(node: Any, g: Tensor) -> tuple[Tensor]:
    return (_mul(g, _cos(node.inputs[0])),)


def _cos_vjp(node: Any, g: Tensor) -> tuple[Tensor]:
    return (_neg(_mul(g, _sin(node.inputs[0]))),)


def _erf_vjp(node: Any, g: Tensor) -> tuple[Tensor]:
    density = _exp(_neg(_square(node.inputs[0])))
    return (_mul(g, _mul(density, _like(2.0 / math.sqrt(math.pi), g))),)


def _pow_vjp(node: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    x, exponent = node.inputs[0], node.inputs[1]
    grad_x = grad_exponent = None
    if node.needs[0]:
        slope = _mul(exponent, _pow(x, _sub(exponent, _like(1.0, g))))
        is_constant = _eq(exponent, _like(0.0, g))  # x⁰ is 1 for every x, and its derivative 0
        grad_x = sum_to(_where(is_constant, _like(0.0, g), _mul(g, slope)), node.shapes[0], node.dtypes[0])
    if node.needs[1]:
        is_zero = _logical_and(_eq(x, _like(0.0, g)), _ge(exponent, _like(0.0, g)))
        slope = _mul(node.output, _log(_where(is_zero, _like(1.0, g), x)))
        grad_exponent = sum_to(_mul(g, slope), node.shapes[1], node.dtypes[1])
    return grad_x, grad_exponent


def _extremum_vjp(node: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    row = _maximum_grad if node.op is _maximum else _minimum_grad
    x, y = node.inputs[0].detach(), node.inputs[1].detach()
    return (
        sum_to(row(g, x, y), node.shapes[0], node.dtypes[0]) if node.needs[0] else None,
        sum_to(row(g, y, x), node.shapes[1], node.dtypes[1]) if node.needs[1] else None,
    )


def _extremum_grad_vjp(node: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    return (sum_to(node.op(g, node.inputs[1], node.inputs[2]), node.shapes[0], node.dtypes[0]), None, None)


def _where_vjp(node: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    condition, zero = node.inputs[0], _like(0.0, g)
    return (
        None,
        sum_to(_where(condition, g, zero), node.shapes[1], node.dtypes[1]) if node.needs[1] else None,
        sum_to(_where(condition, zero, g), node.shapes[2], node.dtypes[2]) if node.needs[2] else None,
    )


def _like(value: float, x: Tensor) -> Tensor:
    return Tensor._wrap(_core.scalar(value, x._array.dtype))


_square = register(Op("square", _core.square, _square_vjp, saves_inputs=(0,)))
_abs = register(Op("abs", _core.abs, _abs_vjp, saves_inputs=(0,)))
_sign = register(Op("sign", _core.sign, _flat_vjp))
_floor = register(Op("floor", _core.floor, _flat_vjp))
_ceil = register(Op("ceil", _core.ceil, _flat_vjp))
_round = register(Op("round", _core.round, _flat_vjp))
_reciprocal = register(Op("reciprocal", _core.reciprocal, _reciprocal_vjp, saves_output=True))
_sqrt = register(Op("sqrt", _core.sqrt, _sqrt_vjp, saves_output=True))
_rsqrt = register(Op("rsqrt", _core.rsqrt, _rsqrt_vjp, saves_output=True))
_exp = register(Op("exp", _core.exp, _exp_vjp, saves_output=True))
_expm1 = register(Op("expm1", _core.expm1, _expm1_vjp, saves_output=True))
_log = register(Op("log", _core.log, _log_vjp, saves_inputs=(0,)))
_log1p = register(Op("log1p", _core.log1p, _log1p_vjp, saves_inputs=(0,)))
_sin = register(Op("sin", _core.sin, _sin_vjp, saves_inputs=(0,)))
_cos = register(Op("cos", _core.cos, _cos_vjp, saves_inputs=(0,)))
_erf = register(Op("erf", _core.erf, _erf_vjp, saves_inputs=(0,)))
_pow = register(Op("pow", _core.pow, _pow_vjp, saves_inputs=(0, 1), saves_output=True))
_maximum = register(Op("maximum", _core.maximum, _extremum_vjp, saves_inputs=(0, 1)))
_minimum = register(Op("minimum", _core.minimum, _extremum_vjp, saves_inputs=(0, 1)))
_maximum_grad = register(Op("maximum_grad", _core.maximum_grad, _extremum_grad_vjp, saves_inputs=(1, 2)))
_minimum_grad = register(Op("minimum_grad", _core.minimum_grad, _extremum_grad_vjp, saves_inputs=(1, 2)))
_where = register(Op("where", _core.where, _where_vjp, saves_inputs=(0,)))
_eq = register(Op("eq", _core.eq))
_ne = register(Op("ne", _core.ne))
_lt = register(Op("lt", _core.lt))
_le = register(Op("le", _core.le))
_gt = register(Op("gt", _core.gt))
_ge = register(Op("ge", _core.ge))
_logical_and = register(Op("logical_and", _core.logical_and))
_logical_or = register(Op("logical_or", _core.logical_or))
_logical_xor = register(Op("logical_xor", _core.logical_xor))
_logical_not = register(Op("logical_not", _core.logical_not))
_isnan = register(Op("isnan", _core.isnan))
_isinf = register(Op("isinf", _core.isinf))
_isfinite = register(Op("isfinite", _core.isfinite))


@public
def pow(x: Tensor | Number, exponent: Tensor | Number) -> Tensor:  # torch's name
    """Raise to a power, xʸ, to 2 ulp; broadcasting, promotion and errors as `add`.

    Parameters
    ----------
    x : Tensor or number
    exponent : Tensor or number
        2, ½, −1 and −½ given as numbers are computed by one multiplication, root or division.

    Returns
    -------
    Tensor, of the broadcast shape
        NaN where x < 0 and the exponent is no integer. Integers to a negative power give 0, unless x is ±1.
    """
    if isinstance(x, Tensor) and isinstance(exponent, int | float) and x.dtype.is_floating_point:
        shortcut = _POWERS.get(float(exponent))
        if shortcut is not None:
            return shortcut(x)  # type: ignore[no-any-return]
    return _pow(*operands("pow", x, exponent))  # type: ignore[no-any-return]


_POWERS = {2.0: _square, 0.5: _sqrt, -1.0: _reciprocal, -0.5: _rsqrt}


@public
def maximum(x: Tensor | Number, y: Tensor | Number) -> Tensor:
    """Take the larger of two, element by element; NaN wins, and a tie shares its gradient evenly."""
    return _maximum(*operands("maximum", x, y))  # type: ignore[no-any-return]


@public
def minimum(x: Tensor | Number, y: Tensor | Number) -> Tensor:
    """Take the smaller of two, element by element; NaN wins, and a tie shares its gradient evenly."""
    return _minimum(*operands("minimum", x, y))  # type: ignore[no-any-return]


@public
def where(condition: Tensor, x: Tensor | Number, y: Tensor | Number) -> Tensor:
    """Choose x where the condition holds, else y.

    Parameters
    ----------
    condition : Tensor
        bool; other dtypes hold where they are not 0.
    x, y : Tensor or number
        Promoted to one dtype; all three broadcast.

    Returns
    -------
    Tensor, of the broadcast shape
    """
    if not isinstance(x, Tensor) and not isinstance(y, Tensor):
        is_float = isinstance(x, float) or isinstance(y, float)
        x = Tensor._wrap(_core.scalar(x, DType.float32 if is_float else DType.int64))
    return _where(condition, *operands("where", x, y))  # type: ignore[no-any-return]


@public
def square(x: Tensor) -> Tensor:
    """Square, x²."""
    return _square(x)  # type: ignore[no-any-return]


@public
def abs(x: Tensor) -> Tensor:  # torch's name
    """Take the absolute value, |x|; the gradient at 0 is 0."""
    return _abs(x)  # type: ignore[no-any-return]


@public
def sign(x: Tensor) -> Tensor:
    """Take the sign: −1, 0 or 1; NaN gives 0. The gradient is 0."""
    return _sign(x)  # type: ignore[no-any-return]


@public
def floor(x: Tensor) -> Tensor:
    """Round down to an integer; the gradient is 0."""
    return _floor(x)  # type: ignore[no-any-return]


@public
def ceil(x: Tensor) -> Tensor:
    """Round up to an integer; the gradient is 0."""
    return _ceil(x)  # type: ignore[no-any-return]


@public
def round(x: Tensor) -> Tensor:  # torch's name
    """Round to the nearest integer, halves to even; the gradient is 0."""
    return _round(x)  # type: ignore[no-any-return]


@public
def reciprocal(x: Tensor) -> Tensor:
    """Divide 1 by x."""
    return _reciprocal(x)  # type: ignore[no-any-return]


@public
def sqrt(x: Tensor) -> Tensor:
    """Take the square root, rounded correctly; NaN below 0."""
    return _sqrt(x)  # type: ignore[no-any-return]


@public
def rsqrt(x: Tensor) -> Tensor:
    """Divide 1 by the square root of x, to 1 ulp."""
    return _rsqrt(x)  # type: ignore[no-any-return]


@public
def exp(x: Tensor) -> Tensor:
    """Exponential, eˣ, to 2 ulp; integers give float32."""
    return _exp(x)  # type: ignore[no-any-return]


@public
def expm1(x: Tensor) -> Tensor:
    """Compute eˣ − 1 without cancellation, to 2 ulp."""
    return _expm1(x)  # type: ignore[no-any-return]


@public
def log(x: Tensor) -> Tensor:
    """Natural logarithm, to 2 ulp; −Inf at 0 and NaN below."""
    return _log(x)  # type: ignore[no-any-return]


@public
def log1p(x: Tensor) -> Tensor:
    """Compute ln(1 + x) without cancellation, to 2 ulp."""
    return _log1p(x)  # type: ignore[no-any-return]


@public
def sin(x: Tensor) -> Tensor:
    """Sine, to 2 ulp, for angles of any size."""
    return _sin(x)  # type: ignore[no-any-return]


@public
def cos(x: Tensor) -> Tensor:
    """Cosine, to 2 ulp, for angles of any size."""
    return _cos(x)  # type: ignore[no-any-return]


@public
def erf(x: Tensor) -> Tensor:
    """Error function, 2/√π ∫₀ˣ e^{−t²} dt, to 2 ulp."""
    return _erf(x)  # type: ignore[no-any-return]


@public
def logical_not(x: Tensor) -> Tensor:
    """Negate: true where x is 0; the result is bool."""
    return _logical_not(x)  # type: ignore[no-any-return]


@public
def isnan(x: Tensor) -> Tensor:
    """Find NaN; the result is bool."""
    return _isnan(x)  # type: ignore[no-any-return]


@public
def isinf(x: Tensor) -> Tensor:
    """Find ±Inf; the result is bool."""
    return _isinf(x)  # type: ignore[no-any-return]


@public
def isfinite(x: Tensor) -> Tensor:
    """Find what is neither NaN nor ±Inf; the result is bool."""
    return _isfinite(x)  # type: ignore[no-any-return]


@public
def eq(x: Tensor | Number, y: Tensor | Number) -> Tensor:
    """Compare, x = y; the result is bool. Broadcasting and promotion as `add`."""
    return _eq(*operands("eq", x, y))  # type: ignore[no-any-return]


@public
def ne(x: Tensor | Number, y: Tensor | Number) -> Tensor:
    """Compare, x ≠ y; the result is bool."""
    return _ne(*operands("ne", x, y))  # type: ignore[no-any-return]


@public
def lt(x: Tensor | Number, y: Tensor | Number) -> Tensor:
    """Compare, x < y; the result is bool."""
    return _lt(*operands("lt", x, y))  # type: ignore[no-any-return]


@public
def le(x: Tensor | Number, y: Tensor | Number) -> Tensor:
    """Compare, x ≤ y; the result is bool."""
    return _le(*operands("le", x, y))  # type: ignore[no-any-return]


@public
def gt(x: Tensor | Number, y: Tensor | Number) -> Tensor:
    """Compare, x > y; the result is bool."""
    return _gt(*operands("gt", x, y))  # type: ignore[no-any-return]


@public
def ge(x: Tensor | Number, y: Tensor | Number) -> Tensor:
    """Compare, x ≥ y; the result is bool."""
    return _ge(*operands("ge", x, y))  # type: ignore[no-any-return]


@public
def logical_and(x: Tensor | Number, y: Tensor | Number) -> Tensor:
    """True where both are not 0; the result is bool."""
    return _logical_and(*operands("logical_and", x, y))  # type: ignore[no-any-return]


@public
def logical_or(x: Tensor | Number, y: Tensor | Number) -> Tensor:
    """True where one of them is not 0; the result is bool."""
    return _logical_or(*operands("logical_or", x, y))  # type: ignore[no-any-return]


@public
def logical_xor(x: Tensor | Number, y: Tensor | Number) -> Tensor:
    """True where exactly one is not 0; the result is bool."""
    return _logical_xor(*operands("logical_xor", x, y))  # type: ignore[no-any-return]
