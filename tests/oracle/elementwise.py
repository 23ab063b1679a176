"""Element-wise arithmetic and comparison; broadcasting is NumPy's."""

from __future__ import annotations

import math

import numpy as np

Array = np.ndarray

add, sub, mul, div, pow = np.add, np.subtract, np.multiply, np.divide, np.power
neg, abs, exp, log, sqrt, square = np.negative, np.absolute, np.exp, np.log, np.sqrt, np.square
sign, floor, ceil, sin, cos = np.sign, np.floor, np.ceil, np.sin, np.cos
maximum, minimum = np.maximum, np.minimum
eq, ne, lt, le, gt, ge = np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal
logical_and, logical_or, logical_not = np.logical_and, np.logical_or, np.logical_not
logical_xor, isnan, isinf, isfinite = np.logical_xor, np.isnan, np.isinf, np.isfinite
expm1, log1p = np.expm1, np.log1p
erf = np.vectorize(math.erf, otypes=[np.float64])
where = np.where


def reciprocal(x: Array) -> Array:
    """1 / x."""
    return 1.0 / x


def rsqrt(x: Array) -> Array:
    """1 / √x."""
    return 1.0 / np.sqrt(x)


def round(x: Array) -> Array:
    """Round to the nearest integer, halves to even."""
    return np.rint(x)
