"""Activations and softmax."""

from __future__ import annotations

from collections.abc import Callable
from math import nan
from typing import Any

import numpy as np

from cases.case import Case, real
from oracle import activation, bound

Array = np.ndarray
INF = float("inf")
EVERY = (nan, INF, -INF)


def _unary(
    op: str,
    label: str = "",
    *,
    limit: Callable[..., Any] | None = None,
    ulps: float | None = None,
    kinks: tuple[float, ...] = (),
    scale: float = 3.0,
    shape: tuple[int, ...] = (2, 17, 5, 3),
    nonfinite: tuple[float, ...] = EVERY,
    excused: str = "rounds",
    large: bool = False,
    **attributes: Any,
) -> Case:
    def ulp_bound(f: bound.Format, y: Array, *_: Array, **__: Any) -> Array:
        return bound.ulps(f, ulps or 0, y)

    fields: dict[str, Any] = {"bound": limit or ulp_bound} if limit or ulps else {}
    return Case(
        op=op,
        label=label,
        inputs=(real(*shape, scale=scale, kinks=kinks),),
        attributes=attributes,
        oracle=getattr(activation, op),
        excused=excused if fields else "",
        batch=(0,),
        nonfinite=nonfinite,
        ulps=ulps,
        large=large,
        **fields,
    )


def _slope_bound(f: bound.Format, y: Array, *_: Array, **__: Any) -> Array:
    return bound.roundings(f, 2, y)  # the slope itself is rounded, then the product


def _prelu(label: str, shape: tuple[int, ...], n_weights: int) -> Case:
    return Case(
        op="prelu",
        label=label,
        inputs=(real(*shape, kinks=(0.0,)), real(n_weights)),
        oracle=activation.prelu,
        bound=lambda f, y, *_: bound.roundings(f, 1, y),
        batch=(0,),
        nonfinite=EVERY,
    )


def softmax_case(
    op: str, label: str, shape: tuple[int, ...], dim: int, scale: float = 3.0, large: bool = False
) -> Case:
    """Make a softmax or log_softmax."""
    limit = bound.softmax if op == "softmax" else bound.log_softmax
    return Case(
        op=op,
        label=label,
        inputs=(real(*shape, scale=scale),),
        attributes={"dim": dim},
        oracle=getattr(activation, op),
        bound=lambda f, y, x, dim: limit(f, x, y, dim),
        excused="exponentials round",
        batch=(0,) if dim not in (0, -len(shape)) else (),
        large=large,
        meet=shape[dim],
    )


CASES = (
    _unary("relu", kinks=(0.0,)),
    _unary("relu", "large", shape=(8, 48, 28, 28), large=True),
    _unary("relu6", kinks=(0.0, 6.0)),
    _unary("leaky_relu", limit=_slope_bound, kinks=(0.0,)),
    _unary("leaky_relu", "quarter", limit=_slope_bound, kinks=(0.0,), negative_slope=0.25, excused=""),
    _prelu("one", (2, 5, 4, 3), 1),
    _prelu("channels", (2, 17, 4, 3), 17),
    _prelu("features", (6, 9), 9),
    _unary("elu", ulps=4, kinks=(0.0,)),
    _unary("elu", "alpha", ulps=4, kinks=(0.0,), alpha=0.5),
    _unary("selu", ulps=4, kinks=(0.0,)),
    _unary("gelu", ulps=4, nonfinite=(nan, INF)),
    _unary("gelu", "tanh", ulps=4, approximate="tanh", nonfinite=(nan, INF)),
    _unary("gelu", "large", ulps=4, shape=(4, 33, 31, 17), large=True),
    _unary("silu", ulps=4, nonfinite=(nan, INF)),
    _unary("mish", ulps=4, nonfinite=(nan, INF)),
    _unary("sigmoid", ulps=4),
    _unary("tanh", ulps=2),
    _unary("tanh", "small", ulps=2, scale=1e-3, shape=(9, 8)),
    _unary("hardswish", limit=lambda f, y, x: bound.roundings(f, 4, y), kinks=(-3.0, 3.0), nonfinite=(nan, INF)),
    _unary(
        "hardsigmoid",
        limit=lambda f, y, x: bound.roundings(f, 4, y + np.minimum(np.abs(x), 3) / 6),
        kinks=(-3.0, 3.0),
    ),
    _unary("softplus", ulps=4),
    _unary(
        "softplus",
        "beta",
        limit=lambda f, y, x, beta, threshold: bound.ulps(f, 6, y),
        beta=2.0,
        threshold=5.0,
        kinks=(2.5,),
    ),
    _unary(
        "clip", limit=lambda f, y, x, **_: bound.roundings(f, 1, y), kinks=(-1.5, 2.0), min=-1.5, max=2.0, excused=""
    ),
    _unary("clip", "lower", kinks=(0.5,), min=0.5),
    _unary("clip", "upper", kinks=(0.5,), max=0.5),
    softmax_case("softmax", "rows", (5, 10), -1),
    softmax_case("softmax", "channels", (2, 17, 3, 4), 1),
    softmax_case("softmax", "first", (7, 3, 2), 0),
    softmax_case("softmax", "far", (3, 33), 1, scale=40.0),
    softmax_case("softmax", "two", (3, 2), 1),
    softmax_case("softmax", "large", (300, 130), 1, large=True),
    softmax_case("log_softmax", "rows", (5, 10), -1),
    softmax_case("log_softmax", "channels", (2, 17, 3, 4), 1),
    softmax_case("log_softmax", "far", (3, 33), 1, scale=40.0),
    softmax_case("log_softmax", "large", (300, 130), 1, large=True),
)
