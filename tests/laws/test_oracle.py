"""Law: every result lies within its derived bound of the formula in float64."""

from __future__ import annotations

import pytest

from cases import Case
from laws.harness import FLOAT32, FORMATS, check_oracle, drawn, every
from oracle.bound import Format


@every()
@pytest.mark.parametrize("f", FORMATS, ids=lambda f: f.name)
def test_oracle_bounds(case: Case, f: Format) -> None:
    if f is not FLOAT32 and case.large:
        pytest.skip("float64 has no tiles of its own")
    check_oracle(case, drawn(case), f)
