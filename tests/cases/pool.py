"""Pooling."""

from __future__ import annotations

from math import nan
from typing import Any

import numpy as np

from cases.case import Case, real
from oracle import bound, pool

Array = np.ndarray
INF = float("inf")


def max_pool_case(label: str, x: tuple[int, ...], *, large: bool = False, **attributes: Any) -> Case:
    """Make a max pooling over as many axes as x has."""
    return Case(
        op=f"max_pool{len(x) - 2}d",
        label=label,
        inputs=(real(*x, distinct=True),),
        attributes=attributes,
        oracle=pool.max_pool,
        batch=(0,),
        nonfinite=()
        if attributes.get("return_indices")
        else (nan, INF, -INF),  # the place of one NaN of several is free
        large=large,
    )


def avg_pool_case(
    label: str, x: tuple[int, ...], *, exact: bool = False, large: bool = False, **attributes: Any
) -> Case:
    """Make an average pooling; exact where every count is a power of two."""
    n_taps = int(np.prod(pool.per_axis(attributes["kernel_size"], len(x) - 2)))
    return Case(
        op=f"avg_pool{len(x) - 2}d",
        label=label,
        inputs=(real(*x),),
        attributes=attributes,
        oracle=pool.avg_pool,
        bound=lambda f, y, v, **a: bound.dot(f, n_taps + 2, pool.avg_pool(np.abs(v), **a)),
        linear=(0,) if exact else (),
        excused="" if exact else "divides by a count that is no power of two",
        batch=(0,),
        nonfinite=(nan, INF, -INF),
        large=large,
        meet=n_taps,
    )


def _adaptive_avg_case(label: str, x: tuple[int, ...], output_size: object, exact: bool = False) -> Case:
    n_taps = int(np.prod(x[2:]))
    return Case(
        op=f"adaptive_avg_pool{len(x) - 2}d",
        label=label,
        inputs=(real(*x),),
        attributes={"output_size": output_size},
        oracle=pool.adaptive_avg_pool,
        bound=lambda f, y, v, **a: bound.dot(f, n_taps + 2, pool.adaptive_avg_pool(np.abs(v), **a)),
        linear=(0,) if exact else (),
        excused="" if exact else "divides by a count that is no power of two",
        batch=(0,),
        nonfinite=(nan, INF, -INF),
        meet=n_taps,
    )


def _adaptive_max_case(label: str, x: tuple[int, ...], output_size: object, **attributes: Any) -> Case:
    return Case(
        op=f"adaptive_max_pool{len(x) - 2}d",
        label=label,
        inputs=(real(*x, distinct=True),),
        attributes={"output_size": output_size, **attributes},
        oracle=pool.adaptive_max_pool,
        batch=(0,),
        nonfinite=() if attributes else (nan, INF, -INF),
    )


CASES = (
    max_pool_case("2x2", (2, 9, 8, 6), kernel_size=2),
    max_pool_case("3x3-stride2", (2, 17, 9, 9), kernel_size=3, stride=2, padding=1),
    max_pool_case("overlap", (1, 7, 6, 7), kernel_size=(3, 2), stride=1),
    max_pool_case("ceil", (1, 8, 7, 6), kernel_size=3, stride=2, ceil_mode=True),
    max_pool_case("ceil-drops-last", (1, 3, 5, 5), kernel_size=2, stride=3, padding=1, ceil_mode=True),
    max_pool_case("ceil-over-image", (2, 9, 2, 1), kernel_size=3, stride=(2, 3), ceil_mode=True),
    max_pool_case(
        "ceil-over-image-indices", (1, 4, 2, 3), kernel_size=(3, 5), stride=(2, 4), ceil_mode=True, return_indices=True
    ),
    max_pool_case("dilated", (1, 15, 9, 10), kernel_size=3, stride=2, padding=1, dilation=2),
    max_pool_case("stride-over-kernel", (2, 1, 9, 9), kernel_size=2, stride=4),
    max_pool_case("indices", (2, 9, 6, 7), kernel_size=3, stride=2, padding=1, return_indices=True),
    max_pool_case("one-pixel", (2, 1, 1, 1), kernel_size=1),
    # Windows that share nothing: few channels, whole vectors and an odd end, pixels that no window reads, many taps.
    max_pool_case("tiles-few-channels", (2, 6, 8, 10), kernel_size=2),
    max_pool_case("tiles-odd", (2, 37, 9, 7), kernel_size=(2, 3)),
    max_pool_case("tiles-many-taps", (1, 3, 18, 35), kernel_size=17),
    max_pool_case("tiles", (2, 5, 5, 6, 7), kernel_size=2),
    max_pool_case("large", (4, 48, 28, 28), kernel_size=3, stride=2, padding=1, large=True),
    max_pool_case("3", (2, 16, 15), kernel_size=3, stride=2, padding=1),
    max_pool_case("ceil-dilated", (1, 5, 16), kernel_size=3, stride=2, dilation=2, ceil_mode=True),
    max_pool_case("ceil-over-image", (2, 5, 2), kernel_size=3, stride=2, ceil_mode=True),
    max_pool_case(
        "ceil-over-image", (1, 5, 1, 3, 2), kernel_size=(2, 2, 4), stride=3, padding=(0, 1, 0), ceil_mode=True
    ),
    max_pool_case("2x2x2", (1, 9, 4, 6, 5), kernel_size=2),
    max_pool_case("padded", (2, 3, 5, 4, 5), kernel_size=(3, 2, 3), stride=2, padding=1, ceil_mode=True),
    avg_pool_case("2x2", (2, 9, 8, 6), kernel_size=2, exact=True),
    avg_pool_case("2x4-overlap", (1, 17, 7, 9), kernel_size=(2, 4), stride=1, exact=True),
    avg_pool_case("3x3-padded", (2, 8, 7, 7), kernel_size=3, stride=2, padding=1),
    avg_pool_case("exclude-pad", (1, 15, 7, 8), kernel_size=3, stride=2, padding=1, count_include_pad=False),
    avg_pool_case("ceil", (1, 3, 8, 6), kernel_size=3, stride=2, padding=1, ceil_mode=True),
    avg_pool_case(
        "ceil-exclude-pad",
        (1, 3, 8, 6),
        kernel_size=(3, 2),
        stride=2,
        padding=1,
        ceil_mode=True,
        count_include_pad=False,
    ),
    avg_pool_case("ceil-over-image", (2, 9, 2, 2), kernel_size=5, stride=4, padding=1, ceil_mode=True, exact=True),
    avg_pool_case("ceil-over-image", (2, 5, 2), kernel_size=3, stride=2, ceil_mode=True, exact=True),
    avg_pool_case(
        "ceil-over-image",
        (1, 5, 1, 3, 2),
        kernel_size=(2, 3, 4),
        stride=3,
        padding=(0, 1, 0),
        ceil_mode=True,
        count_include_pad=False,
    ),
    avg_pool_case("stride-over-kernel", (1, 33, 9, 9), kernel_size=2, stride=3, exact=True),
    avg_pool_case("large", (4, 48, 28, 28), kernel_size=2, large=True, exact=True),
    avg_pool_case("3", (2, 7, 17), kernel_size=3, stride=2, padding=1),
    avg_pool_case("4", (2, 16, 16), kernel_size=4, exact=True),
    avg_pool_case("2x2x2", (1, 9, 4, 6, 4), kernel_size=2, exact=True),
    avg_pool_case(
        "padded", (1, 3, 5, 4, 5), kernel_size=(3, 2, 3), stride=2, padding=1, ceil_mode=True, count_include_pad=False
    ),
    _adaptive_avg_case("global", (2, 17, 5, 6), 1),
    _adaptive_avg_case("global-exact", (2, 9, 4, 4), (1, 1), exact=True),
    _adaptive_avg_case("global-large", (2, 3, 47, 45), 1),
    _adaptive_avg_case("uneven", (1, 8, 7, 9), (3, 5)),
    _adaptive_avg_case("grow", (1, 3, 3, 4), (5, 7)),
    _adaptive_avg_case("keep", (1, 3, 5, 4), (None, 2)),
    _adaptive_avg_case("uneven", (2, 7, 11), 4),
    _adaptive_avg_case("uneven", (1, 5, 4, 5, 6), (2, 3, 4)),
    *(_adaptive_max_case("indices", (2, 3, 5, 6, 4)[: n + 2], 3, return_indices=True) for n in (1, 2, 3)),
    max_pool_case("indices", (2, 3, 9), kernel_size=2, return_indices=True),
    max_pool_case("indices", (1, 3, 4, 5, 4), kernel_size=2, return_indices=True),
    _adaptive_max_case("global", (2, 16, 5, 6), 1),
    _adaptive_max_case("uneven", (1, 9, 7, 9), (3, 5)),
    _adaptive_max_case("grow", (1, 3, 3, 4), (5, 7)),
    _adaptive_max_case("uneven", (2, 7, 11), 4),
    _adaptive_max_case("uneven", (1, 5, 4, 5, 6), (2, 3, 4)),
)
