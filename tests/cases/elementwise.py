"""Element-wise arithmetic and comparison, with and without broadcasting."""

from __future__ import annotations

from collections.abc import Callable
from math import nan
from typing import Any

import numpy as np

from cases.case import Case, Input, boolean, integer, real
from oracle import bound, elementwise

Array = np.ndarray
INF = float("inf")
EVERY = (nan, INF, -INF)
SHAPE = (2, 17, 3, 5)


def _rounded(f: bound.Format, y: Array, *_: Array, **__: Any) -> Array:
    return bound.roundings(f, 1, y)


def _unary(
    op: str, label: str = "", *, ulps: float | None = None, limit: Callable[..., Any] | None = None, **fields: Any
) -> Case:
    shape = fields.pop("shape", SHAPE)
    given = {key: fields.pop(key) for key in ("uniform", "kinks", "scale", "integers") if key in fields}

    def ulp_bound(f: bound.Format, y: Array, *_: Array) -> Array:
        return bound.ulps(f, ulps or 0, y)

    if limit or ulps:
        fields["bound"] = limit or ulp_bound
        fields.setdefault("excused", "rounds")
    fields.setdefault("nonfinite", EVERY)
    return Case(
        op=op,
        label=label,
        inputs=(real(*shape, **given),),
        oracle=getattr(elementwise, op),
        batch=(0,),
        ulps=ulps,
        **fields,
    )


def _pair(op: str, label: str, a: Input, b: Input, **fields: Any) -> Case:
    return Case(op=op, label=label, inputs=(a, b), oracle=getattr(elementwise, op), **fields)


def _arithmetic(op: str, **fields: Any) -> list[Case]:
    """Make the same op over equal shapes, broadcast ones, and scalars (0-d)."""
    second = fields.pop("second", {})
    fields = {"bound": _rounded, "nonfinite": EVERY, **fields}
    return [
        _pair(op, "equal", real(*SHAPE), real(*SHAPE, **second), batch=(0, 1), **fields),
        _pair(op, "channel", real(*SHAPE), real(1, 17, 1, 1, **second), **fields),
        _pair(op, "both", real(3, 1, 4), real(2, 1, 5, 1, **second), **fields),
        _pair(op, "scalar", real(), real(33, **second), **fields),
        _pair(op, "large", real(4, 33, 40, 17), real(33, 1, 1, **second), large=True, **fields),
    ]


def _comparison(op: str) -> list[Case]:
    row = real(*SHAPE, integers=(-2, 2), differentiable=False)
    return [
        Case(
            op=op,
            label="equal",
            inputs=(row, row),
            oracle=getattr(elementwise, op),
            nonfinite=EVERY,
            batch=(0, 1),
            constant="two reals are hardly ever equal" if op in ("eq", "ne") else "",
        ),
        Case(
            op=op,
            label="integers",
            inputs=(integer(4, 1, 9, integers=(-2, 3)), integer(7, 1, integers=(-2, 3))),
            oracle=getattr(elementwise, op),
            constant="a comparison may be rare",
        ),
    ]


CASES = (
    *_arithmetic("add", linear=(0, 1)),
    *_arithmetic("sub", linear=(0, 1)),
    *_arithmetic("mul", linear=(0, 1)),
    *_arithmetic(
        "div",
        second={"uniform": (0.5, 3.0), "integers": (1, 4)},
        excused="divides",
    ),
    *_arithmetic("maximum", bound=None),
    *_arithmetic("minimum", bound=None),
    _pair("add", "int64", integer(3, 5), integer(5)),
    _pair("sub", "int32", integer(3, 5, dtype="int32"), integer(3, 1, dtype="int32")),
    _pair("mul", "int64", integer(3, 5), integer(3, 5)),
    _pair(
        "pow",
        "",
        real(*SHAPE, uniform=(0.3, 3.0)),
        real(*SHAPE),
        bound=lambda f, y, *_: bound.ulps(f, 2, y),
        excused="goes through a logarithm",
        batch=(0, 1),
    ),
    _pair(
        "pow",
        "channel",
        real(3, 4, uniform=(0.3, 3.0)),
        real(4, uniform=(-3, 3)),
        bound=lambda f, y, *_: bound.ulps(f, 2, y),
        excused="goes through a logarithm",
    ),
    *(
        Case(
            op="pow",
            label=f"exponent-{exponent}",
            inputs=(real(3, 17, uniform=(0.3, 3.0) if exponent != 3 else None),),
            attributes={"exponent": exponent},
            call=lambda ops, x, exponent: ops.pow(x, exponent),
            oracle=lambda x, exponent: np.power(x, exponent),
            bound=lambda f, y, x, exponent: bound.ulps(f, 2, y),
            excused="goes through a logarithm",
        )
        for exponent in (2, 3, 0.5, -1, 1.5)
    ),
    _unary("neg"),
    _unary("abs", kinks=(0.0,)),
    _unary("exp", ulps=2, scale=5.0),
    _unary("log", ulps=2, uniform=(0.01, 9.0), integers=(1, 4), nonfinite=(nan, INF)),
    _unary("expm1", ulps=2, scale=3.0),
    _unary("log1p", ulps=2, uniform=(-0.9, 9.0), integers=(1, 4), nonfinite=(nan, INF)),
    _unary("erf", ulps=2, scale=2.0),
    _unary("rsqrt", ulps=2, uniform=(0.01, 9.0), integers=(1, 4), nonfinite=(nan, INF)),
    *(
        Case(
            op=op,
            label="",
            inputs=(real(*SHAPE, differentiable=False),),
            oracle=getattr(elementwise, op),
            nonfinite=EVERY,
            constant="drawn values are finite",
        )
        for op in ("isnan", "isinf", "isfinite")
    ),
    _unary("sqrt", limit=_rounded, uniform=(0.01, 9.0), integers=(1, 4), nonfinite=(nan, INF)),
    _unary("square", limit=_rounded, excused=""),
    _unary("reciprocal", limit=_rounded, uniform=(0.2, 4.0), integers=(1, 4)),
    _unary("sin", ulps=2, scale=4.0, nonfinite=(nan,)),
    _unary("cos", ulps=2, scale=4.0, nonfinite=(nan,)),
    _unary("sign", flat=True, kinks=(0.0,), nonfinite=(INF, -INF)),
    _unary("floor", flat=True, scale=3.0, kinks=(1.0, -2.0, 0.0)),
    _unary("ceil", flat=True, scale=3.0, kinks=(1.0, -2.0, 0.0)),
    _unary("round", flat=True, scale=3.0, kinks=(0.5, 1.5, -2.5)),
    _unary("exp", "large", ulps=2, shape=(4, 33, 31, 17), large=True),
    *(case for op in ("eq", "ne", "lt", "le", "gt", "ge") for case in _comparison(op)),
    _pair("logical_and", "", boolean(14, 33), boolean(33)),
    _pair("logical_xor", "", boolean(14, 9), boolean(14, 1)),
    _pair("logical_or", "", boolean(14, 9), boolean(14, 1)),
    Case(op="logical_not", label="", inputs=(boolean(15, 17),), oracle=elementwise.logical_not),
    Case(
        op="where",
        label="equal",
        inputs=(boolean(*SHAPE), real(*SHAPE), real(*SHAPE)),
        oracle=elementwise.where,
        linear=(1, 2),
        batch=(0, 1, 2),
        nonfinite=EVERY,
    ),
    Case(
        op="where",
        label="broadcast",
        inputs=(boolean(4, 1, 3), real(5, 1), real()),
        oracle=elementwise.where,
        linear=(1, 2),
        nonfinite=EVERY,
    ),
)
