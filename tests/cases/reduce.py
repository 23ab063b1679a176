"""Reductions over one, several and all axes."""

from __future__ import annotations

from math import nan
from typing import Any

import numpy as np

from cases.case import Case, real
from oracle import bound, reduce

Array = np.ndarray
INF = float("inf")
EVERY = (nan, INF, -INF)

AXES: tuple[tuple[str, tuple[int, ...], dict[str, Any]], ...] = (
    ("all", (3, 17, 4, 5), {}),
    ("all-keepdim", (5, 9), {"keepdim": True}),
    ("first", (7, 8), {"dim": 0}),
    ("channels", (2, 33, 3, 4), {"dim": 1}),
    ("last-keepdim", (4, 3, 15), {"dim": -1, "keepdim": True}),
    ("pixels", (2, 9, 5, 6), {"dim": (2, 3)}),
    ("batch-and-pixels", (3, 8, 4, 5), {"dim": (0, 2, 3), "keepdim": True}),
    ("one", (3, 1), {"dim": 1}),
    ("large", (6, 33, 30, 31), {"dim": (0, 2, 3)}),
)


def _count(x: Array, y: Array) -> int:
    return x.size // max(np.size(y), 1)


def _sum_bound(f: bound.Format, y: Array, x: Array, **attributes: Any) -> Array:
    return bound.dot(f, _count(x, y), reduce.sum(np.abs(x), **attributes))


def _mean_bound(f: bound.Format, y: Array, x: Array, **attributes: Any) -> Array:
    return bound.dot(f, _count(x, y) + 1, reduce.mean(np.abs(x), **attributes))


def _prod_bound(f: bound.Format, y: Array, x: Array, **attributes: Any) -> Array:
    return bound.roundings(f, _count(x, y), y)


def _var_bound(
    f: bound.Format, y: Array, x: Array, dim: Any = None, keepdim: bool = False, correction: int = 1
) -> Array:
    n = _count(x, y)
    biased = np.var(x, axis=dim, keepdims=keepdim)
    return bound.variance(f, x, biased, dim, keepdim) * n / max(n - correction, 1) + 2 * f.u * np.abs(y)


def _std_bound(f: bound.Format, y: Array, x: Array, **attributes: Any) -> Array:
    """√(v + dv) − √v ≤ dv / √v, and one rounding."""
    return _var_bound(f, np.square(y), x, **attributes) / y + 2 * f.u * y


def _lse_bound(f: bound.Format, y: Array, x: Array, dim: Any = None, keepdim: bool = False) -> Array:
    return bound.logsumexp(f, x, y, dim, keepdim)


def _cases(op: str, labels: tuple[str, ...] | None = None, batch: bool = True, **fields: Any) -> list[Case]:
    given = {key: fields.pop(key) for key in ("distinct", "uniform", "integers", "scale") if key in fields}
    differentiable = fields.pop("differentiable", True)
    rows = []
    for label, shape, attributes in AXES:
        if labels is not None and label not in labels:
            continue
        keeps_batch = attributes.get("dim") in (1, -1, (2, 3))
        rows.append(
            Case(
                op=op,
                label=label,
                inputs=(real(*shape, differentiable=differentiable, **given),),
                attributes=attributes,
                oracle=getattr(reduce, op),
                batch=(0,) if keeps_batch and batch else (),
                large=label == "large",
                **fields,
            )
        )
    return rows


SINGLE = ("all", "first", "channels", "last-keepdim")

CASES = (
    *_cases("sum", bound=_sum_bound, linear=(0,), nonfinite=EVERY),
    *_cases("mean", bound=_mean_bound, excused="divides by a count", nonfinite=EVERY),
    *_cases("max", distinct=True, nonfinite=EVERY),
    *_cases("min", distinct=True, nonfinite=EVERY),
    *_cases(
        "prod",
        ("all-keepdim", "first", "channels", "last-keepdim", "one"),
        bound=_prod_bound,
        uniform=(0.7, 1.4),
        integers=(1, 2),
        gradient_excused="divides the product",
        nonfinite=(nan,),
    ),
    *_cases("argmax", SINGLE, distinct=True, differentiable=False),
    *_cases("argmin", SINGLE, distinct=True, differentiable=False),
    *_cases(
        "var",
        ("all", "first", "channels", "last-keepdim", "pixels", "batch-and-pixels", "large"),
        bound=_var_bound,
        excused="divides by a count",
    ),
    Case(
        op="var",
        label="biased",
        inputs=(real(4, 9),),
        attributes={"dim": 1, "correction": 0},
        oracle=reduce.var,
        bound=_var_bound,
        excused="divides by a count",
        batch=(0,),
    ),
    Case(
        op="var",
        label="far-from-zero",
        inputs=(real(5, 33, uniform=(1000.0, 1001.0), differentiable=False),),
        attributes={"dim": 1},
        oracle=reduce.var,
        bound=_var_bound,
        excused="divides by a count",
    ),
    *_cases("amax", ("channels", "pixels"), distinct=True, nonfinite=EVERY),
    *_cases("amin", ("channels", "pixels"), distinct=True, nonfinite=EVERY),
    *_cases("std", ("all", "channels", "pixels"), bound=_std_bound, excused="divides by a count"),
    *_cases(
        "logsumexp",
        ("all", "first", "channels", "pixels", "last-keepdim"),
        bound=_lse_bound,
        excused="rounds",
        scale=3.0,
    ),
)
