"""Schedules against torch's recorded rates (tests/fixtures/make_torch.py), and their refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from striate.train import schedule

_RECORDED = json.loads((Path(__file__).parents[1] / "fixtures" / "torch_schedules.json").read_text())


@pytest.mark.parametrize("expression", _RECORDED)
def test_rates_equal_torchs(expression: str) -> None:
    own = eval(expression, {"schedule": schedule})
    assert [own(step) for step in range(20)] == pytest.approx(_RECORDED[expression], rel=1e-12, abs=1e-17)


@pytest.mark.parametrize("expression", _RECORDED)
def test_schedules_are_functions_of_the_step(expression: str) -> None:
    own = eval(expression, {"schedule": schedule})
    forward = [own(step) for step in range(30)]
    assert [own(step) for step in reversed(range(30))] == forward[::-1]
    assert min(forward) >= 0


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: schedule.Step(0.1, 0), "Step: expected step_size of at least 1, got 0"),
        (lambda: schedule.MultiStep(0.1, [5, 3]), "MultiStep: expected rising milestones"),
        (lambda: schedule.Cosine(0.1, 0), "Cosine: expected t_max of at least 1"),
        (lambda: schedule.OneCycle(0.1, 10, 1.5), "OneCycle: expected pct_start from 0 to 1"),
        (lambda: schedule.Sequential([schedule.Constant(0.1)], [3]), "Sequential: expected 0 rising milestones"),
    ],
)
def test_refusals(make: Callable[[], object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make()
