"""Statistics of batch-norms, which recorded steps take where a convolution makes its result: against float64."""

from __future__ import annotations

import numpy as np
import pytest

import striate
from striate import nn, train

#: Whose rows tell of themselves: a product, one with several blocks of columns, strides, channels of their own, whole lines of
#: Winograd's tiles; and whose do not: few channels, groups, lines of tiles that hang over the edge.
CONVOLUTIONS = {
    "pointwise": lambda: nn.Conv2d(24, 48, 1, bias=False),
    "wide": lambda: nn.Conv2d(24, 600, 1, bias=False),
    "strided": lambda: nn.Conv2d(24, 64, 5, stride=2, padding=2),
    "depthwise": lambda: nn.Conv2d(24, 48, 3, padding=1, groups=24, bias=False),
    "depthwise5": lambda: nn.Conv2d(48, 48, 5, stride=2, padding=2, groups=48, bias=False),
    "few": lambda: nn.Conv2d(24, 8, 1, bias=False),
    "grouped": lambda: nn.Conv2d(24, 48, 3, padding=1, groups=2, bias=False),
    "winograd": lambda: nn.Conv2d(24, 64, 3, padding=1),
    "winograd of four": lambda: nn.Conv2d(24, 64, 3, padding=2),
    "winograd4 over the edge": lambda: nn.Conv2d(24, 64, 3, padding=1),
    "strided winograd": lambda: nn.Conv2d(24, 64, 3, stride=2, padding=1),
}


def images(channels: int, kind: str) -> np.ndarray:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((3, channels, 30, 29))
    if kind == "far":  # means are hundreds of deviations
        x = 0.01 * x + 3
    if kind == "drifting":  # the first rows tell little of the last
        x = 0.01 * x + np.linspace(-4, 9, x[:, 0].size).reshape(3, 1, 30, 29)
    if kind == "constant":
        x = np.ones_like(x)
    return x.astype(np.float32)


def statistics(name: str, x: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """The mean and variance that a recorded step leaves, and the convolution's result."""
    with striate.machine.algorithm("winograd4" if name.startswith("winograd4") else "auto"):
        return chosen_statistics(name, x)


def chosen_statistics(name: str, x: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    striate.manual_seed(0)
    conv = CONVOLUTIONS[name]()
    norm = nn.BatchNorm2d(conv.out_channels, momentum=1.0)
    model = nn.Sequential(conv, norm, nn.ReLU(), nn.Flatten())
    with striate.no_grad():
        y = conv(striate.tensor(x)).numpy().astype(np.float64)
    step = striate.compile_step(model, lambda y, target: (y * target).mean(), train.SGD(model.parameters(), lr=0.0))
    given = striate.tensor(x), striate.tensor(np.float32(0.0))
    for _ in range(3):  # the first is recorded, not compiled
        step(*given)
    rows = {row.op: row.fused for row in step.explain(*given).rows}
    assert step.reason is None
    assert "moments" in rows["conv2d"]
    return [norm.running_mean.numpy().copy(), norm.running_var.numpy().copy()], y


@pytest.mark.parametrize("kind", ["plain", "far", "drifting"])
@pytest.mark.parametrize("name", list(CONVOLUTIONS))
def test_statistics_are_those_of_the_result(name: str, kind: str) -> None:
    (mean, var), y = statistics(name, images(48 if name == "depthwise5" else 24, kind))
    exact = y.var(axis=(0, 2, 3), ddof=1)
    np.testing.assert_allclose(mean, y.mean(axis=(0, 2, 3)), rtol=1e-6, atol=1e-6 * np.abs(y).max())
    # A sum of n squares in blocks and trees: tens of roundings; means are off by one, which adds its square.
    largest = np.abs(y).max(axis=(0, 2, 3))
    assert np.all(np.abs(var - exact) <= 1e-5 * exact + (4 * 2.0**-24 * largest) ** 2)


def test_statistics_of_a_result_that_would_pass_the_caches() -> None:
    x = np.random.default_rng(2).standard_normal((8, 24, 106, 106)).astype(np.float32)
    (mean, var), y = statistics("pointwise", x)
    assert y.astype(np.float32).nbytes > 16 << 20
    np.testing.assert_allclose(mean, y.mean(axis=(0, 2, 3)), rtol=1e-6, atol=1e-6 * np.abs(y).max())
    np.testing.assert_allclose(var, y.var(axis=(0, 2, 3), ddof=1), rtol=1e-5)


@pytest.mark.parametrize("name", list(CONVOLUTIONS))
def test_a_constant_has_no_variance(name: str) -> None:
    (_, var), y = statistics(name, images(48 if name == "depthwise5" else 24, "constant"))
    exact = y.var(axis=(0, 2, 3), ddof=1)  # not zero where there is padding
    assert np.all(var >= 0)
    assert np.all(np.abs(var - exact) <= 1e-5 * exact + (4 * 2.0**-24 * np.abs(y).max(axis=(0, 2, 3))) ** 2)


@pytest.mark.parametrize("name", list(CONVOLUTIONS))
def test_threads_change_no_bit_of_the_statistics(name: str) -> None:
    x = images(48 if name == "depthwise5" else 24, "plain")
    found = []
    for n in (1, 2, 3):
        with striate.threads(n):
            found.append(statistics(name, x)[0])
    for other in found[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(found[0], other, strict=True))
