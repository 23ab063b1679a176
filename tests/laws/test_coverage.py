"""Law: every op in the registry is reached by a case, or stands here with the reason why not."""

from __future__ import annotations

from typing import Any

import pytest

import striate
from cases import CASES
from laws.harness import LANDED, drawn, is_differentiable, run, run_with_gradients
from striate.autograd import Op, registry

pytestmark = LANDED
NOT_REACHED: dict[str, str] = {}


def test_coverage_of_cases_by_ops() -> None:
    missing = sorted({case.op for case in CASES if not hasattr(striate.ops, case.op)})
    assert not missing, f"cases name ops that do not exist: {missing}"


def test_coverage_of_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    reached: set[str] = set()
    original = Op.__call__

    def spy(self: Op, *inputs: Any, **attributes: Any) -> Any:
        reached.add(self.name)
        return original(self, *inputs, **attributes)

    monkeypatch.setattr(Op, "__call__", spy)
    for case in CASES:
        if case.large:
            continue
        if is_differentiable(case):
            run_with_gradients(case, drawn(case))
        else:
            run(case, drawn(case).arrays)
    missing = sorted(set(registry) - reached - set(NOT_REACHED))
    assert not missing, f"no case reaches {missing}; add a Case, or a reason to NOT_REACHED"
    stale = sorted(set(NOT_REACHED) & reached | set(NOT_REACHED) - set(registry))
    assert not stale, f"NOT_REACHED is out of date: {stale}"
