"""How far a floating-point result may lie from the oracle's, derived from the number of roundings, never tuned.

Write u for the unit roundoff and `tiny` for the smallest normal number: results below it may be flushed to zero, so an
operation may add an absolute error of `tiny` besides its relative error u. γ_K = K·u/(1 − K·u) bounds K roundings in a
row (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., §3.1), for any order or tree of a sum of K terms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Format:
    """A floating-point format: unit roundoff and smallest normal number."""

    name: str
    u: float
    tiny: float


FLOAT32 = Format("float32", 2.0**-24, 2.0**-126)
FLOAT64 = Format("float64", 2.0**-53, 2.0**-1022)


def gamma(f: Format, n_roundings: float) -> float:
    """γ_K = K·u / (1 − K·u)."""
    assert n_roundings * f.u < 0.5
    return n_roundings * f.u / (1 - n_roundings * f.u)


def exact(f: Format, y: Array) -> Array:
    """No rounding at all: the op moves or chooses elements."""
    return np.zeros(np.shape(y))


def roundings(f: Format, n: float, size: Array) -> Array:
    """n roundings in a row of numbers as large as size: γ_n·size + n·tiny."""
    return gamma(f, n) * np.abs(size) + n * f.tiny


def dot(f: Format, n_terms: int, absolute: Array) -> Array:
    """A sum of n products, `absolute` its sum of magnitudes: γ_n·absolute + n·tiny, in any order, fused or not."""
    return gamma(f, max(n_terms, 1)) * absolute + max(n_terms, 1) * f.tiny


def ulps(f: Format, n: float, y: Array) -> Array:
    """n units in the last place of y, 2u·2^⌊log₂|y|⌋ or that of the smallest normal number; tiny if flushed."""
    magnitude = np.maximum(np.abs(y), f.tiny)
    with np.errstate(invalid="ignore"):
        _, exponent = np.frexp(magnitude)
    return n * 2 * f.u * np.ldexp(1.0, exponent - 1) + f.tiny


def softmax(f: Format, x: Array, y: Array, dim: int) -> Array:
    """y = e/Σe, e = exp(x − max).

    The difference errs by u·|x − max|, which exp turns into a relative error and adds 2 ulp (4u) to; the sum of C such
    terms errs by γ_{C−1}, the division by one rounding; numerator and denominator both count.
    """
    spread = np.abs(x - x.max(axis=dim, keepdims=True))
    count = x.shape[dim] + 10
    relative = gamma(f, count) + 1.01 * f.u * (spread + (y * spread).sum(axis=dim, keepdims=True))
    return relative * y + count * f.tiny


def log_softmax(f: Format, x: Array, y: Array, dim: int) -> Array:
    """y = (x − max) − ln Σe.

    u·|x − max| for the difference, the relative error of Σe (exp: 2 ulp and its argument; C − 1 additions), 2 ulp
    of the logarithm, one rounding of the result.
    """
    spread = np.abs(x - x.max(axis=dim, keepdims=True))
    p = np.exp(y)
    total = x.shape[dim] + 6
    log_sum = np.abs(np.log(np.exp(-spread).sum(axis=dim, keepdims=True)))
    sum_error = gamma(f, total) + 1.01 * f.u * (p * spread).sum(axis=dim, keepdims=True)
    return 1.01 * (f.u * spread + sum_error + 4 * f.u * log_sum + f.u * np.abs(y)) + total * f.tiny


def logsumexp(f: Format, x: Array, y: Array, dim: object, keepdim: bool) -> Array:
    """y = max + ln Σ exp(x − max): the relative error of the sum, 2 ulp of its logarithm, one rounding of y."""
    top = x.max(axis=dim, keepdims=True)
    spread = top - x
    e = np.exp(-spread)
    total = e.sum(axis=dim, keepdims=True)
    sum_error = gamma(f, x.size / max(total.size, 1) + 6) + 1.01 * f.u * (e / total * spread).sum(
        axis=dim, keepdims=True
    )
    bound = sum_error + 4 * f.u * np.log(total)
    bound = bound.reshape(np.shape(y))
    return 1.01 * (bound + f.u * np.abs(y)) + 2 * f.tiny


def variance(f: Format, x: Array, y: Array, axes: object, keepdim: bool) -> Array:
    """Merged (mean, M2) pairs: relative error ≤ γ_{n+4}·κ, κ² = Σx²/Σ(x − mean)² the condition number
    (Chan, Golub, LeVeque 1983, table 1); written without the division, and with its second-order term."""
    n = x.size / max(np.size(y), 1)
    square = np.mean(x * x, axis=axes, keepdims=True).reshape(np.shape(y))
    g = gamma(f, n + 4)
    return g * np.sqrt(np.maximum(y, 0) * square) + g * np.abs(y) + g * g * square + (n + 4) * f.tiny


def normalised(
    f: Format, x: Array, axes: tuple[int, ...], eps: float, weight: Array | float = 1.0, bias: Array | float = 0.0
) -> Array:
    """(x − m)·weight/√(v + eps) + bias over batch statistics.

    The mean errs by γ_n·mean|x|, the variance as in `variance`; |d(v + eps)^−½| ≤ ½·dv·(v + eps)^−3⁄2; then 8 u.
    An implementation may fold m, weight and bias into a scale and a shift: |x|, |m| and |bias| count, not differences.
    """
    n = np.prod([x.shape[a] for a in axes])
    m = x.mean(axis=axes, keepdims=True)
    v = x.var(axis=axes, keepdims=True)
    scale = np.abs(weight) / np.sqrt(v + eps)
    d_mean = gamma(f, n + 2) * np.abs(x).mean(axis=axes, keepdims=True)
    d_var = variance(f, x, v, axes, True)
    slope = 0.5 * d_var / (v + eps)
    size = (np.abs(x) + np.abs(m)) * scale + np.abs(bias)
    return d_mean * scale + slope * np.abs(x - m) * scale + gamma(f, 8) * size + 1.01 * slope**2 * size + 8 * f.tiny
