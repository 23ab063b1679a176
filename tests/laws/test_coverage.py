"""Law: every op in the registry is reached by a case, or stands here with the reason why not."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest

import striate
import write_cases
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

#: What `law_replay` checks on other processors are forward passes and first gradients.
NOT_REPLAYED: dict[str, str] = NOT_REACHED | {
    "full": "makes zeros that no checked result reads; it fills as full_like does, which is checked",
    **{
        f"{kind}max_pool{n}d_pick": "of second derivatives: laws/test_second_gradient.py"
        for kind in ("", "adaptive_")
        for n in (1, 2, 3)
    },
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


def checked_rows(program: write_cases.Program) -> set[str]:
    """The rows of a replayed case that a result which it checks was made by, on any way."""
    rows, wanted = [], set()
    for line in program.lines:
        kind, name, *numbers = line.split()
        if kind == "check":
            wanted.add(int(name))
        elif kind == "row":
            n_inputs = int(numbers[0])
            n_outputs = int(numbers[1 + n_inputs])
            inputs = {int(number) for number in numbers[1 : 1 + n_inputs]}
            rows.append((name, inputs, {int(number) for number in numbers[2 + n_inputs : 2 + n_inputs + n_outputs]}))
    found = set()
    for name, inputs, outputs in reversed(rows):
        if wanted & outputs:
            wanted |= inputs
            found.add(name)
    return found


def test_coverage_of_replayed_rows() -> None:
    replayed = {row for record in write_cases.programs().values() for row in checked_rows(record())}
    missing = sorted(REGISTERED - replayed - set(NOT_REPLAYED))
    assert not missing, f"law_replay checks no result of {missing}; add a Case, or a reason to NOT_REPLAYED"
    stale = sorted(set(NOT_REPLAYED) & replayed | set(NOT_REPLAYED) - REGISTERED)
    assert not stale, f"NOT_REPLAYED is out of date: {stale}"
