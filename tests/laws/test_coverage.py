"""Law: every op in the registry is reached by a case, or stands here with the reason why not."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest

import striate
from cases import CASES
from laws.harness import drawn, is_differentiable, rng_of, run, run_with_gradients
from laws.test_second_gradient import differentiate_twice
from striate.autograd import Op, registry
from striate.ops import optim  # noqa: F401  # registers rows that the package itself does not import

#: Taken before any test runs: tests may register rows of their own.
REGISTERED = frozenset(registry)
_RANDOM = "random: tests/ops/test_random.py"
_UPDATE = "an effect, not a function: tests/ops/test_optim.py"
NOT_REACHED: dict[str, str] = {
    "adam_step": _UPDATE,
    "batch_norm_update": "an effect, not a function: laws/test_running_statistics.py",
    "dropout": _RANDOM,
    "dropout2d": _RANDOM,
    "mask_scale": _RANDOM,
    "rand": _RANDOM,
    "randint": _RANDOM,
    "randn": _RANDOM,
    "randperm": _RANDOM,
    "rmsprop_step": _UPDATE,
    "sgd_step": _UPDATE,
}


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
        run(case, drawn(case).arrays)
        if is_differentiable(case):
            run_with_gradients(case, drawn(case))
            with contextlib.suppress(RuntimeError):  # a refused second derivative
                arrays = case.draw(rng_of(case))
                differentiate_twice(case, drawn(case), {k: np.asarray(arrays[k]) for k in case.differentiable()})
    missing = sorted(REGISTERED - reached - set(NOT_REACHED))
    assert not missing, f"no case reaches {missing}; add a Case, or a reason to NOT_REACHED"
    stale = sorted(set(NOT_REACHED) & reached | set(NOT_REACHED) - REGISTERED)
    assert not stale, f"NOT_REACHED is out of date: {stale}"
