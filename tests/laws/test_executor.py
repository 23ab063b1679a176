"""Law: calls that come at once, after a pause, with other numbers of threads or after a fork are right to the bit."""

from __future__ import annotations

import os
import threading
import time

import numpy as np
import pytest

import striate

Array = np.ndarray


@pytest.fixture
def call() -> tuple[striate.Tensor, striate.Tensor, Array]:
    """x, weight and what one thread makes of them."""
    rng = np.random.default_rng(0)
    x = striate.tensor(rng.standard_normal((4, 16, 20, 20)).astype(np.float32))
    weight = striate.tensor(rng.standard_normal((16, 16, 3, 3)).astype(np.float32))
    with striate.threads(1):
        return x, weight, np.array(striate.conv2d(x, weight, padding=1).numpy())


def _wrong(call: tuple[striate.Tensor, striate.Tensor, Array], n_calls: int) -> int:
    x, weight, expected = call
    return sum(not np.array_equal(striate.conv2d(x, weight, padding=1).numpy(), expected) for _ in range(n_calls))


@pytest.mark.parametrize("n_threads", [2, 3, 7])
def test_calls_in_a_row_and_after_sleep(call: tuple[striate.Tensor, striate.Tensor, Array], n_threads: int) -> None:
    with striate.threads(n_threads):
        wrong = _wrong(call, 300)
        for _ in range(10):  # longer than helpers stay awake
            time.sleep(0.003)
            wrong += _wrong(call, 1)
    assert wrong == 0


def test_concurrent_callers(call: tuple[striate.Tensor, striate.Tensor, Array]) -> None:
    wrong: list[int] = []
    with striate.threads(3):
        callers = [threading.Thread(target=lambda: wrong.append(_wrong(call, 200))) for _ in range(4)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    assert wrong == [0, 0, 0, 0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_computes(call: tuple[striate.Tensor, striate.Tensor, Array]) -> None:
    with striate.threads(2):
        assert _wrong(call, 10) == 0
        child = os.fork()
        if child == 0:
            os._exit(1 if _wrong(call, 10) else 0)
        assert os.waitpid(child, 0)[1] == 0
