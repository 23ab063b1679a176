"""Law: results and gradients are equal to the bit for any number of threads."""

from __future__ import annotations

import numpy as np

import striate
from cases import Case
from laws.harness import Array, drawn, every, is_differentiable, run, run_with_gradients


def _bits(arrays: list[Array]) -> list[bytes]:
    return [np.ascontiguousarray(a).tobytes() for a in arrays]


@every()
def test_threads_change_no_bit(case: Case) -> None:
    given = drawn(case)
    seen = {}
    for n_threads in (1, 2, 3, 7):
        with striate.threads(n_threads):
            if is_differentiable(case):
                outputs, gradients = run_with_gradients(case, given)
                seen[n_threads] = _bits([*outputs, *gradients.values()])
            else:
                seen[n_threads] = _bits([*run(case, given.arrays)])
    for n_threads, bits in seen.items():
        assert bits == seen[1], f"{case!r}: {n_threads} threads give other bits than one"
