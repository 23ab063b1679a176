"""Resize."""

from __future__ import annotations

from typing import Any

import numpy as np

from cases.case import Case, real
from oracle import bound, resample

Array = np.ndarray


def _bound(f: bound.Format, y: Array, x: Array, **attributes: Any) -> Array:
    """Per axis: a read position errs by 3 roundings of a number up to its size.

    Bilinear weights have slope 1 in the position and two act, so y errs by 6·u·(size + 1)·max|x|. The antialias filter
    has slope 1/support over at most 2·support + 2 taps and is divided by its sum, at least half its support: 8
    times more. Then the sums.
    """
    if attributes.get("mode", "nearest") == "nearest":
        return bound.exact(f, y)
    size = sum(s + 1 for s in x.shape[2:])
    slope = 48 if attributes.get("antialias") else 6
    n_terms = 2 * max(x.shape[2:]) + 4 if attributes.get("antialias") else 12
    top = np.abs(x).max(initial=0.0)
    return np.full(y.shape, slope * f.u * size * top) + bound.dot(f, n_terms, np.full(y.shape, top))


def _resize(label: str, shape: tuple[int, ...], *, exact: bool = False, large: bool = False, **attributes: Any) -> Case:
    return Case(
        op="interpolate",
        label=label,
        inputs=(real(*shape),),
        attributes=attributes,
        oracle=resample.interpolate,
        bound=_bound,
        linear=(0,) if exact else (),
        excused="" if exact else "weights are rounded",
        batch=(0,),
        large=large,
        meet=64,
    )


CASES = (
    _resize("nearest-double", (2, 9, 3, 4), scale_factor=2, mode="nearest", exact=True),
    _resize("nearest-size", (1, 17, 5, 7), size=(8, 3), mode="nearest", exact=True),
    _resize("nearest-half", (1, 3, 8, 6), scale_factor=0.5, mode="nearest", exact=True),
    _resize("nearest-1d", (2, 3, 7), size=11, mode="nearest", exact=True),
    _resize("nearest-3d", (1, 3, 2, 3, 4), scale_factor=2, mode="nearest", exact=True),
    _resize("bilinear-double", (2, 8, 4, 5), scale_factor=2, mode="bilinear", align_corners=False, exact=True),
    _resize("bilinear-size", (1, 15, 5, 7), size=(9, 4), mode="bilinear", align_corners=False),
    _resize("bilinear-shrink", (1, 3, 12, 9), size=(5, 4), mode="bilinear", align_corners=False),
    _resize("bilinear-corners", (2, 9, 4, 5), size=(7, 9), mode="bilinear", align_corners=True, exact=True),
    _resize("bilinear-corners-uneven", (1, 16, 5, 6), size=(8, 11), mode="bilinear", align_corners=True),
    _resize("bilinear-corners-one", (1, 3, 4, 4), size=(1, 6), mode="bilinear", align_corners=True),
    _resize(
        "bilinear-large", (2, 33, 28, 28), scale_factor=2, mode="bilinear", align_corners=False, exact=True, large=True
    ),
    _resize("antialias-shrink", (1, 3, 13, 17), size=(5, 4), mode="bilinear", align_corners=False, antialias=True),
    _resize("antialias-grow", (2, 8, 4, 5), size=(9, 7), mode="bilinear", align_corners=False, antialias=True),
    _resize("antialias-half", (1, 9, 8, 8), size=(4, 4), mode="bilinear", align_corners=False, antialias=True),
    _resize("antialias-corners", (1, 3, 12, 9), size=(5, 4), mode="bilinear", align_corners=True, antialias=True),
)
