"""Law: a case proves something: neither its results nor its gradients are mostly zero or constant."""

from __future__ import annotations

import numpy as np
import pytest

from cases import Case
from laws.harness import drawn, every, is_differentiable, reference_gradients


@every(lambda case: not case.constant)
@pytest.mark.parametrize("kind", ["real", "integer"])
def test_not_vacuous_results(case: Case, kind: str) -> None:
    if kind == "integer" and case.excused:
        pytest.skip("never asked for integers")
    for y in drawn(case, kind).expected:
        assert y.size > 0
        assert np.mean(y != 0) >= 0.25, f"{case!r}: {np.mean(y == 0):.0%} zeros"
        assert y.size < 4 or np.ptp(y.astype(np.float64)) > 0, f"{case!r}: constant"


@every(is_differentiable, lambda case: not case.flat)
def test_not_vacuous_gradients(case: Case) -> None:
    for k, g in reference_gradients(case).items():
        assert g.any() or not g.size, f"{case!r}: the gradient of input {k} is zero"
