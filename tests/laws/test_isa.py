"""Law: every instruction set this machine has keeps the oracle's bound, exactness, and the gradients."""

from __future__ import annotations

import pytest

import striate
from cases import Case
from laws.harness import (
    FLOAT32,
    assert_within,
    check_gradients_agree,
    check_oracle,
    drawn,
    every,
    is_differentiable,
    reference_gradients,
    run_with_gradients,
)
from oracle import bound


@pytest.mark.parametrize("name", striate.machine.available_isas())
@every()
def test_isa_keeps_the_bounds(case: Case, name: str) -> None:
    given = drawn(case)
    with striate.isa(name):
        check_oracle(case, given, FLOAT32)
        if not is_differentiable(case):
            return
        if case.excused or case.gradient_excused:
            _, gradients = run_with_gradients(case, given)
    if case.excused or case.gradient_excused:
        check_gradients_agree(case, given, gradients, reference_gradients(case))
        return
    whole = drawn(case, "integer")
    with striate.isa(name):
        outputs, gradients = run_with_gradients(case, whole)
    assert_within(case, outputs, whole.expected, [bound.exact(FLOAT32, y) for y in whole.expected], FLOAT32)
    for k, expected in reference_gradients(case, "integer").items():
        assert_within(case, (gradients[k],), (expected,), (bound.exact(FLOAT32, expected),), FLOAT32)
