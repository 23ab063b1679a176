"""Law: batch_norm moves the running statistics by `momentum` towards the batch in training, and reads them in evaluation."""

from __future__ import annotations

import numpy as np
import pytest

import striate
from laws.harness import FLOAT32, Array
from oracle import bound, norm


def _draw(shape: tuple[int, ...]) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(sum(shape))
    x, mean, var = rng.normal(1, 2, shape), rng.normal(size=shape[1]), rng.uniform(0.5, 2, shape[1])
    return x.astype(np.float32), mean.astype(np.float32), var.astype(np.float32)


@pytest.mark.parametrize("shape", [(2, 1), (4, 9, 5, 6), (3, 17, 31), (8, 33, 16, 17), (2, 3, 3, 4, 5)])
@pytest.mark.parametrize("momentum", [0.1, 1.0, 0.0])
def test_running_statistics_move_by_momentum(shape: tuple[int, ...], momentum: float) -> None:
    x, mean, var = _draw(shape)
    running_mean, running_var = striate.tensor(mean), striate.tensor(var)
    version = running_mean.data_version
    striate.ops.batch_norm(striate.tensor(x), running_mean, running_var, None, None, training=True, momentum=momentum)
    assert running_mean.data_version > version
    wide = x.astype(np.float64)
    axes = (0, *range(2, x.ndim))
    expected = norm.batch_norm_running(wide, mean.astype(float), var.astype(float), momentum=momentum)
    n = x.size // shape[1]
    batch_mean = bound.dot(FLOAT32, n + 1, momentum * np.abs(wide).mean(axis=axes))
    batch_var = momentum * bound.variance(FLOAT32, wide, wide.var(axis=axes), axes, False) * n / (n - 1)
    for got, want, old, limit in zip(
        (running_mean, running_var), expected, (mean, var), (batch_mean, batch_var), strict=True
    ):
        mixed = bound.roundings(FLOAT32, 6, np.abs(want) + np.abs(old))
        assert np.all(np.abs(got.numpy() - want) <= limit + mixed)


def test_running_statistics_of_evaluation_stay() -> None:
    x, mean, var = _draw((4, 9, 5, 6))
    running_mean, running_var = striate.tensor(mean), striate.tensor(var)
    striate.ops.batch_norm(striate.tensor(x), running_mean, running_var, None, None, training=False)
    assert np.array_equal(running_mean.numpy(), mean)
    assert np.array_equal(running_var.numpy(), var)
