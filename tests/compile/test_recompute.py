"""Results that are made again in the backward pass: the same bits with less memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import striate
from striate import Tensor, _core, nn, train
from striate.autograd import record
from striate.compile import compile_step


class Residual(nn.Module):
    """Two convolutions beside a path that leaves their input as it is."""

    def __init__(self, activation: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.conv1, self.norm1, self.act1 = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), activation()
        self.conv2, self.norm2, self.act2 = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), activation()

    def forward(self, x: Tensor) -> Tensor:
        y = self.act1(self.norm1(self.conv1(x)))
        return self.act2(self.norm2(self.conv2(y)) + x)


def trained(activation: Callable[[], nn.Module], recompute: bool) -> tuple[list[np.ndarray], Any]:
    striate.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        *[Residual(activation) for _ in range(3)],
        nn.Dropout(0.2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )
    optimizer = train.SGD(model.parameters(), lr=0.05, momentum=0.9)
    step = compile_step(model, nn.CrossEntropyLoss(), optimizer, recompute=recompute)
    rng = np.random.default_rng(0)
    found = []
    for n in (64, 64, 5, 64, 64):
        x = striate.tensor(rng.standard_normal((n, 3, 16, 16)).astype(np.float32))
        loss, _ = step(x, striate.tensor(rng.integers(0, 5, n)))
        found.append(loss.numpy().copy())
    assert step.reason is None
    return found + [x.detach().numpy().copy() for x in (*model.parameters(), *model.buffers())], step


@pytest.mark.parametrize("activation", [nn.ReLU, nn.SiLU, nn.LeakyReLU])
def test_bits_stay_and_memory_falls(activation: Callable[[], nn.Module]) -> None:
    kept, step = trained(activation, False)
    again, other = trained(activation, True)
    for a, b in zip(kept, again, strict=True):
        assert np.array_equal(a, b)
    other.graph.validate()
    assert len(other.graph.nodes) > len(step.graph.nodes)
    values_bytes = 4 * 64 * 8 * 16 * 16  # one value for each channel and pixel, of which each block keeps four
    assert step.memory()["arena_bytes"] - other.memory()["arena_bytes"] >= 2 * values_bytes


def chain(x: Tensor) -> Tensor:
    for _ in range(12):
        x = striate.softmax(x, 1)
    return x


def recorded(function: Callable[[Tensor], list[Tensor]], x: Tensor, states: list[Tensor] | None = None) -> Any:
    with striate.no_grad(), record(inputs=[x], states=states or []) as recording:
        recording.returns(*function(x))
    return _core.fuse(recording.graph)


def test_what_reads_a_state_that_changes_is_kept() -> None:
    rng = np.random.default_rng(1)
    x = striate.tensor(rng.standard_normal((4, 6)).astype(np.float32))
    state = striate.ones(6)

    def function(x: Tensor) -> list[Tensor]:
        y = x * state
        z = chain(y)
        striate.assign(state, state * 2.0)
        return [z + y, z + x]

    graph = recorded(function, x, [state])
    again = _core.recompute(graph)
    assert [node.op for node in again.nodes].count("mul") == [node.op for node in graph.nodes].count("mul")
    striate.assign(state, striate.ones(6))
    program = _core.Program(again)
    for i in range(3):
        y = x * float(2**i)
        expected = (chain(y) + y).numpy()
        assert np.array_equal(program.run([x._array], [])[0].numpy(), expected)


@pytest.mark.parametrize("keeps_operand", [True, False])
def test_only_what_has_its_operands_is_made_again(keeps_operand: bool) -> None:
    x = striate.tensor(np.random.default_rng(2).standard_normal((4, 6)).astype(np.float32))

    def function(x: Tensor) -> list[Tensor]:
        a = striate.softmax(x, 1)
        y = a * a  # read early and late
        z = chain(y)
        out = z / (y + 1.0)
        return [striate.softmax(out, 1), striate.softmax(a if keeps_operand else z, 0)]

    graph = recorded(function, x)
    again = _core.recompute(graph)
    again.validate()
    assert (len(again.nodes) > len(graph.nodes)) == keeps_operand
    for a, b in zip(_core.Program(again).run([x._array], []), function(x), strict=True):
        assert np.array_equal(a.numpy(), b.numpy())


def test_results_are_never_made_twice() -> None:
    x = striate.tensor(np.random.default_rng(3).standard_normal((4, 6)).astype(np.float32))

    def function(x: Tensor) -> list[Tensor]:
        y = x * 2.0
        return [y, chain(y) * y]

    graph = recorded(function, x)
    assert len(_core.recompute(graph).nodes) == len(graph.nodes)
