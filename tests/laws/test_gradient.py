"""Law: gradients are derivatives: float64 against central differences along one direction, float32 against float64."""

from __future__ import annotations

import math

import numpy as np

from cases import Case
from laws.harness import (
    FLOAT64,
    Problem,
    check_gradients_agree,
    drawn,
    every,
    is_differentiable,
    reference_gradients,
    run,
    run_with_gradients,
)

STEP = 2.0**-16


def check_gradient(case: Case, given: Problem) -> None:
    """Compare ⟨vjp, v⟩ with the derivative of Σ y·g along v.

    D(h) is the central difference; (4·D(h) − D(2h))/3 has an error of order h⁴, which the same with 2h estimates.
    Each y errs by its bound, which the step divides.
    """
    _, gradients = run_with_gradients(case, given, FLOAT64)
    rng = np.random.default_rng(1)
    direction = {k: rng.standard_normal(g.shape) for k, g in gradients.items()}

    def value(step: float) -> float:
        arrays = [a if k not in direction else a + step * direction[k] for k, a in enumerate(given.arrays)]
        outputs = run(case, arrays, FLOAT64)
        return math.fsum(
            float(v) for y, g in zip(outputs, given.grads, strict=True) if g is not None for v in (y * g).flat
        )

    d1, d2, d4 = [(value(h) - value(-h)) / (2 * h) for h in (STEP, 2 * STEP, 4 * STEP)]
    numeric, coarse = (4 * d1 - d2) / 3, (4 * d2 - d4) / 3
    limits = case.bounds(FLOAT64, given.expected, given.arrays)
    rounding = sum(
        float(np.sum(np.abs(g) * limit)) for g, limit in zip(given.grads, limits, strict=True) if g is not None
    )
    spread = sum(
        float(np.sum(np.abs(y * g))) for y, g in zip(given.expected, given.grads, strict=True) if g is not None
    )
    products = sum(float(np.sum(np.abs(g * direction[k]))) for k, g in gradients.items())
    analytic = math.fsum(float(v) for k, g in gradients.items() for v in (g * direction[k]).flat)
    tolerance = abs(numeric - coarse) + 2 * (rounding + 2.0**-52 * spread) / STEP + 2.0**-40 * products
    assert abs(analytic - numeric) <= tolerance, (
        f"{case!r} [{case.id}]: vjp gives {analytic!r}, central differences {numeric!r}, tolerance {tolerance:.3g}"
    )
    assert tolerance <= 1e-3 * (products + 1e-3), f"{case!r}: a tolerance of {tolerance:.3g} proves nothing"


@every(is_differentiable, small=True)
def test_gradient_equals_central_differences(case: Case) -> None:
    check_gradient(case, drawn(case, "smooth"))


@every(is_differentiable)
def test_gradient_of_float32_agrees_with_float64(case: Case) -> None:
    given = drawn(case)
    _, gradients = run_with_gradients(case, given)
    check_gradients_agree(case, given, gradients, reference_gradients(case))
