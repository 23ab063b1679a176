"""Law: a linear op and its gradient are adjoint, ⟨A x, g⟩ = ⟨x, Aᵀ g⟩, exactly on integers."""

from __future__ import annotations

import numpy as np
import pytest

from cases import Case
from laws.harness import drawn, every, run, run_with_gradients


@every(lambda case: case.linear and not case.excused)
def test_adjoint_of_linear_op(case: Case) -> None:
    given = drawn(case, "integer")
    outputs, gradients = run_with_gradients(case, given)
    for k in case.linear:
        x = given.arrays[k]
        assert x is not None
        if k not in gradients:
            pytest.skip("an integer op has no gradient")
        without = list(given.arrays)
        without[k] = np.zeros_like(x)
        at_zero = run(case, without)
        forward = sum(
            float(np.sum((y.astype(np.float64) - z) * g))
            for y, z, g in zip(outputs, at_zero, given.grads, strict=True)
            if g is not None
        )
        assert forward == float(np.sum(x * gradients[k].astype(np.float64))), f"{case!r}: not adjoint in input {k}"
