"""Law: where every partial sum is an integer below 2²⁴, nothing rounds: results and gradients are right to the bit."""

from __future__ import annotations

import numpy as np

from cases import Case
from laws.harness import (
    FLOAT32,
    assert_within,
    drawn,
    every,
    is_differentiable,
    reference_gradients,
    run,
    run_with_gradients,
)
from oracle import bound


@every(lambda case: not case.excused)
def test_exactness_of_results(case: Case) -> None:
    given = drawn(case, "integer")
    assert_within(
        case, run(case, given.arrays), given.expected, [bound.exact(FLOAT32, y) for y in given.expected], FLOAT32
    )


@every(lambda case: not case.excused and not case.gradient_excused, is_differentiable)
def test_exactness_of_gradients(case: Case) -> None:
    given = drawn(case, "integer")
    _, gradients = run_with_gradients(case, given)
    for k, expected in reference_gradients(case, "integer").items():
        assert np.all(np.abs(expected) < 2**24)
        assert_within(case, (gradients[k],), (expected,), (bound.exact(FLOAT32, expected),), FLOAT32)
