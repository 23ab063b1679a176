"""Large batches, which a program may run a few samples at a time: the bits of one eager call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import striate
from striate import Tensor, nn, ops

SIDE = 160
#: A layer's images are more than 24 MiB: they count as too many for any cache.
BATCH = 16
rng = np.random.default_rng(0)


def drawn(*shape: int) -> Tensor:
    return striate.tensor(rng.standard_normal(shape).astype(np.float32))


WIDE = drawn(16, 8, 1, 1)
DEPTHWISE = drawn(16, 1, 3, 3)
NARROW = drawn(8, 16, 1, 1)
BIAS = drawn(16)
ROW = drawn(1, 16, 1, 1)
LINEAR = drawn(5, 24)


def wide(x: Tensor) -> Tensor:
    return ops.relu6(ops.conv2d(x, WIDE, BIAS))


def several(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Products, windows, additions, concatenation, scaling by a pool, means, resizing; vectors and an image as results."""
    y = wide(x)
    y = ops.silu(ops.conv2d(y, DEPTHWISE, padding=1, groups=16)) + y
    gate = ops.sigmoid(ops.adaptive_avg_pool2d(y, 1) * ROW)
    z = ops.conv2d(y * gate, NARROW) + x
    both = ops.cat([ops.max_pool2d(z, 2), ops.avg_pool2d(y, 2)], dim=1)
    pooled = ops.flatten(ops.adaptive_avg_pool2d(both, 1), 1)
    return (
        ops.linear(pooled, LINEAR),
        ops.mean(both, dim=(2, 3)),
        ops.interpolate(both, scale_factor=0.5, mode="nearest"),
    )


def at_a_time(program: striate.Program, *inputs: Tensor) -> int:
    return int(program._variants[0].core.choices([x.shape for x in inputs]).samples_at_a_time)


def results(value: Any) -> list[np.ndarray]:
    return [y.numpy() for y in (value if isinstance(value, tuple) else (value,))]


@pytest.mark.parametrize("n", [BATCH, BATCH + 1])
@pytest.mark.parametrize("function", [wide, several])
def test_parts_of_a_batch_give_the_bits_of_the_whole(function: Callable[[Tensor], Any], n: int) -> None:
    program = striate.compile(function, drawn(2, 8, 24, 24))
    x = drawn(n, 8, SIDE, SIDE)
    assert 0 < at_a_time(program, x) < n
    for _ in range(2):  # while planning, and from the plan
        found = program(x)
        for y, expected in zip(results(found), results(function(x)), strict=True):
            assert y.shape == expected.shape
            assert np.array_equal(y, expected)
    with striate.threads(3):
        assert all(np.array_equal(a, b) for a, b in zip(results(program(x)), results(found), strict=True))
    explained = program.explain(x, measure=True)
    assert all(row.measured_ms is not None for row in explained.rows)
    assert explained.samples_at_a_time == at_a_time(program, x)
    assert f"{explained.samples_at_a_time} samples at a time" in str(explained)


def test_several_inputs_are_cut_alike() -> None:
    program = striate.compile(lambda a, b: wide(a) * ops.sigmoid(b), drawn(2, 8, 24, 24), drawn(2, 16, 1, 1))
    a, b = drawn(BATCH, 8, SIDE, SIDE), drawn(BATCH, 16, 1, 1)
    assert at_a_time(program, a, b) > 0
    assert np.array_equal(program(a, b).numpy(), (wide(a) * ops.sigmoid(b)).numpy())


#: Where a sample's result depends on other samples, or on how many there are.
MIXING: dict[str, Callable[[Tensor], Any]] = {
    "sum": lambda x: wide(x) - ops.sum(wide(x), dim=0, keepdim=True),
    "mean": lambda x: wide(x) - ops.mean(wide(x), dim=(0, 2, 3), keepdim=True),
    "mean of all": lambda x: wide(x) - ops.mean(wide(x)),
    "softmax": lambda x: ops.softmax(wide(x), dim=0),
    "concat": lambda x: ops.cat([wide(x), wide(x)], dim=0),
    "flip": lambda x: ops.flip(wide(x), (0,)),
    "slice": lambda x: wide(x)[1:],
    "reshape": lambda x: ops.reshape(wide(x), (-1, 32, SIDE, SIDE)),
    "transposed": lambda x: ops.permute(wide(x), (1, 0, 2, 3)),
    "statistics": lambda x: ops.batch_norm(wide(x), None, None, training=True),
    "number": lambda x: wide(x) * float(x.shape[0]),
    "branch": lambda x: wide(x) if x.shape[0] > 10 else wide(x) * 2.0,
    "weights": lambda x: ops.conv2d(x, ops.reshape(ops.sum(x, dim=(0, 2, 3)), (1, 8, 1, 1)) * WIDE),
}


@pytest.mark.parametrize("name", list(MIXING))
def test_samples_that_meet_stay_together(name: str) -> None:
    x = drawn(BATCH, 8, SIDE, SIDE)
    program = striate.compile(MIXING[name], x)
    assert at_a_time(program, x) == 0
    assert np.array_equal(results(program(x))[0], results(MIXING[name](x))[0])


def test_small_batches_and_heavy_weights_stay_together() -> None:
    program = striate.compile(wide, drawn(2, 8, 24, 24))
    assert at_a_time(program, drawn(BATCH, 8, 24, 24)) == 0
    assert at_a_time(program, drawn(1, 8, SIDE, SIDE)) == 0
    model = nn.Conv2d(512, 512, 3, padding=1)
    x = drawn(64, 512, 16, 16)
    assert at_a_time(striate.compile(model, x), x) == 0
