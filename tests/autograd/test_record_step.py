"""A whole training step as one graph: forward, backward, running statistics, optimizer. Replayed, it gives the same bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import striate
from autograd.replay import Replay
from striate import Tensor
from striate.autograd import record
from striate.ops import optim

Params = dict[str, Tensor]


def _random(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> Tensor:
    return striate.tensor((rng.standard_normal(shape) * scale).astype(np.float32))


class Net:
    """A small convolutional net with everything that makes recording hard: statistics, pooling, flattening, moments."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.params: Params = {
            "conv1.weight": _random(rng, 8, 1, 3, 3, scale=0.3),
            "conv1.bias": striate.zeros(8),
            "bn.weight": striate.ones(8),
            "bn.bias": striate.zeros(8),
            "conv2.weight": _random(rng, 12, 8, 3, 3, scale=0.1),
            "linear.weight": _random(rng, 5, 108, scale=0.1),
            "linear.bias": striate.zeros(5),
        }
        self.moments = {f"{name}.moment": striate.zeros_like(p) for name, p in self.params.items()}
        self.buffers = {"bn.mean": striate.zeros(8), "bn.var": striate.ones(8)}
        for p in self.params.values():
            p.requires_grad_()

    @property
    def states(self) -> Params:
        return {**self.params, **self.moments, **self.buffers}

    def forward(self, x: Tensor) -> Tensor:
        p = self.params
        x = striate.conv2d(x, p["conv1.weight"], p["conv1.bias"], padding=1)
        x = striate.batch_norm(
            x, self.buffers["bn.mean"], self.buffers["bn.var"], p["bn.weight"], p["bn.bias"], training=True
        )
        x = striate.max_pool2d(striate.relu(x), 2)
        x = striate.relu(striate.conv2d(x, p["conv2.weight"], stride=2, padding=1))
        return striate.linear(x.flatten(1), p["linear.weight"], p["linear.bias"])

    def step(self, x: Tensor, target: Tensor, lr: Any) -> Tensor:
        for p in self.params.values():
            p.grad = None
        error = self.forward(x) - target
        loss = (error * error).sum()
        loss.backward()
        params = list(self.params.values())
        grads = [p.grad for p in params]
        assert all(g is not None for g in grads)
        optim.sgd(params, grads, list(self.moments.values()), lr=lr, momentum=0.9, weight_decay=1e-4)  # type: ignore[arg-type]
        return loss


def _batches(sizes: list[int]) -> list[tuple[Tensor, Tensor]]:
    rng = np.random.default_rng(1)
    return [(_random(rng, n, 1, 12, 12), _random(rng, n, 5)) for n in sizes]


@pytest.fixture(scope="module")
def graph() -> Any:
    net = Net()
    x, target = _batches([6])[0]
    lr = striate.full((), 0.01)
    with record(inputs={"x": x, "target": target}, states=net.states, scalars={"lr": lr}) as recording:
        recording.returns(net.step(x, target, lr))
    return recording.graph


@pytest.mark.skipif(not hasattr(striate, "conv2d"), reason="conv2d has not landed")
def test_replayed_training_step_gives_the_bits_of_eager(graph: Any) -> None:
    rates = [2**-9, 2**-10, 2**-8, 2**-10]  # float32 holds them exactly
    batches = _batches([6, 6, 6, 3])  # the last one is short
    eager = Net()
    started = Net()
    replay = Replay(graph)
    for i in graph.states:  # recording has taken a step already: start again
        replay.states[i] = started.states[graph.value(i).name]._array
    for (x, target), rate in zip(batches, rates, strict=True):
        loss = eager.step(x, target, rate)
        (replayed,) = replay(x, target, scalars=[striate.full((), rate)])
        assert replayed.item() == loss.item()
        for name, tensor in eager.states.items():
            np.testing.assert_array_equal(replay.state(name), tensor.detach().numpy(), err_msg=name)


@pytest.mark.skipif(not hasattr(striate, "conv2d"), reason="conv2d has not landed")
def test_recorded_training_step_is_whole_and_general(graph: Any) -> None:
    ops = [node.op for node in graph.nodes]
    assert graph.fixed_ops == []
    assert ops.count("assign") == len(graph.states)
    assert {"conv2d", "conv2d_grad_weight", "conv2d_grad_input", "batch_norm_grad", "sgd_step"} <= set(ops)
    assert [graph.value(i).name for i in graph.states if graph.latest(i) == i] == []
    graph.validate()


@pytest.mark.skipif(not hasattr(striate, "conv2d"), reason="conv2d has not landed")
def test_recorded_training_step_has_one_hash(graph: Any) -> None:
    net = Net()
    x, target = _batches([6])[0]
    lr = striate.full((), 0.01)
    with record(inputs={"x": x, "target": target}, states=net.states, scalars={"lr": lr}) as recording:
        recording.returns(net.step(x, target, lr))
    assert str(recording.graph) == str(graph)
    assert recording.graph.hash() == graph.hash()


def test_adam_needs_its_step_count_as_a_state() -> None:
    p, g = striate.ones(3), striate.ones(3)
    m, v, steps = striate.zeros(3), striate.zeros(3), striate.full((), 0)

    def step(count: Any) -> None:
        optim.adam([p], [g], [m], [v], n_steps=count, lr=0.1)

    def run(count: Any) -> Any:
        with record(inputs=[g], states={"p": p, "m": m, "v": v, "steps": steps}) as recording:
            striate.assign(steps, steps + 1)
            step(steps if count is None else count)
        return recording.graph

    with pytest.raises(striate.RecordError, match="adam: expected n_steps as a tensor while recording, got 1"):
        run(1)
    replay = Replay(run(None))
    start = [striate.tensor(replay.state(name)) for name in ("p", "m", "v")]
    for count in (3, 4):  # the count goes on from where recording left it
        replay(g)
        optim.adam([start[0]], [g], [start[1]], [start[2]], n_steps=count, lr=0.1)
        np.testing.assert_array_equal(replay.state("p"), start[0].numpy())
