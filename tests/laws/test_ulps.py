"""Law: element-wise functions keep their bound in units in the last place over all exponents and both signs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cases import Case, Input
from laws.harness import FLOAT32, Array, assert_within, every, rng_of, run


def _all_exponents(rng: np.random.Generator) -> Array:
    """Draw eight numbers of every binade of float32, both signs."""
    exponents = np.repeat(np.arange(-126, 128), 8)
    values = np.ldexp(1 + rng.random(exponents.size), exponents).astype(np.float32)
    return np.concatenate([values, -values]).astype(np.float64)


def _dense(rng: np.random.Generator) -> Array:
    """Draw where functions bend."""
    return rng.uniform(-100, 100, 20_000).astype(np.float32).astype(np.float64)


@every(lambda case: case.ulps and len(case.inputs) == 1, small=True)
def test_ulps_over_all_exponents(case: Case) -> None:
    rng = rng_of(case)
    x = np.concatenate([_all_exponents(rng), _dense(rng), _dense(rng) / 16])
    (row,) = case.inputs
    assert row is not None
    if row.uniform is not None and row.uniform[0] > 0:
        x = np.abs(x)
    if case.op in ("sin", "cos"):
        x = x[np.abs(x) < 2.0**13]  # beyond, the argument itself is uncertain by more than a period's 2⁻¹¹
    swept = replace(case, inputs=(Input(shape=x.shape),))
    expected = swept.expected([x])
    top = float(np.finfo(np.float32).max)
    overflows = np.abs(expected[0]) > top * (1 - 2.0**-20)  # at the edge, infinity is right as well
    rounded = np.where(overflows, np.copysign(np.inf, expected[0]), expected[0])
    got = np.where(overflows, rounded, run(swept, [x])[0].astype(np.float64)).astype(np.float32)
    assert_within(swept, (got,), (rounded,), swept.bounds(FLOAT32, expected, [x]), FLOAT32)
