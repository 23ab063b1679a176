"""Law: what an op cannot do it refuses, and says who refuses, what was expected and what came."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np
import pytest

import striate
from cases.refusal import REFUSALS, Refusal


def _make(*shape: int, dtype: str = "float32", fill: int = 0) -> Any:
    return striate.tensor(np.full(shape, fill, dtype))


@pytest.mark.parametrize("row", REFUSALS, ids=lambda row: row.id)
def test_refusal_says_what_was_expected(row: Refusal) -> None:
    errors = tuple(getattr(striate, name, None) or getattr(builtins, name) for name in row.error.split("|"))
    with pytest.raises(errors, match=rf"(?s)^{row.op}: expected .+, got .+; .+"):
        row.call(_make, striate.ops)
