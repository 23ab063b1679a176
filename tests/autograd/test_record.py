"""Recordings: what is in them, what they refuse, and that replaying one gives the same bits as running it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import striate
from autograd.replay import Replay
from striate import RecordError, Tensor, _core
from striate.autograd import Op, record
from striate.autograd.op import registry


def _random(*shape: int, seed: int = 0) -> Tensor:
    return striate.tensor(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def _graph(function: Callable[..., Tensor], *inputs: Tensor) -> Any:
    with record(inputs=inputs) as recording:
        recording.returns(function(*inputs))
    return recording.graph


def test_text_of_a_small_graph() -> None:
    x, w = _random(2, 3), striate.zeros(3)

    def step() -> Any:
        with record(inputs={"x": x}, states={"w": w}) as recording:
            y = striate.relu(x + w)
            striate.assign(w, y.sum(dim=0))
            recording.returns(y.sum(), w)
        return recording.graph

    graph = step()
    assert str(graph).splitlines() == [
        '%0 = input "x" : float32(i0.0, i0.1)',
        '%1 = state "w" : float32(3,)',
        "%2 = add(%0, %1) : float32(i0.0, 3)",
        "%3 = relu(%2) : float32(i0.0, 3)",
        "%4 = sum(%3; dim=[0], keepdim=false) : float32(3,)",
        "%5 = assign(%1, %4) : float32(3,)",
        "%6 = sum(%3; dim=[], keepdim=false) : float32()",
        "guard i0.1 - 3 == 0",
        "return %6, %5",
    ]
    assert graph.hash() == step().hash()
    assert graph.fixed_ops == []


def test_hash_sees_attributes_and_constants() -> None:
    x = _random(2, 6)
    one = _graph(lambda x: x.reshape(-1), x)
    assert one.hash() != _graph(lambda x: x.reshape(6, 2), x).hash()
    first, second = (_graph(lambda x, k=k: x + striate.full((), k), x) for k in (1.0, 2.0))
    assert first.hash() != second.hash()
    tables = [_graph(lambda x, k=k: x + striate.tensor([k]), x) for k in (1.0, 2.0)]
    assert str(tables[0]) == str(tables[1])
    assert tables[0].hash() != tables[1].hash()


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.reshape(x.shape[0], -1),
        lambda x: x.flatten(1).relu(),
        lambda x: x.permute(0, 2, 3, 1)[:, 1:, ::2],
        lambda x: striate.concat([x, x + 1.0], 1),
        lambda x: striate.stack([x, x], 2).sum(dim=(1, 2)),
        lambda x: x.split(x.shape[1] // 2, 1)[0] * 2.0,
        lambda x: x[..., : x.shape[-1] // 2] - x[..., x.shape[-1] // 2 :],
        lambda x: x.unsqueeze(1).expand(-1, 4, -1, -1, -1).sum(dim=1, keepdim=True),
        lambda x: striate.pixel_shuffle(x, 2),
        lambda x: x.flip(3).repeat(1, 1, 2, 1),
        lambda x: striate.max_pool2d(x, 2),
        lambda x: striate.max_pool2d(x, 3, stride=2, padding=1, ceil_mode=True),
        lambda x: striate.adaptive_max_pool2d(x, (1, None)),
        lambda x: striate.avg_pool2d(x, 3, padding=1),
        lambda x: striate.adaptive_avg_pool2d(x, 2),
        lambda x: striate.group_norm(x, 2),
        lambda x: striate.instance_norm(x),
        lambda x: striate.layer_norm(x, x.shape[1:]),
        lambda x: striate.interpolate(x, (5, 7), mode="bilinear"),
        lambda x: striate.pad(x, (1, 2, 0, 3)),
        lambda x: striate.gelu(x, approximate="tanh") + striate.softplus(x),
        lambda x: striate.conv2d(x, striate.ones(3, 4, 3, 3), padding="same"),
        lambda x: striate.conv_transpose2d(x, striate.ones(4, 3, 2, 2), stride=2),
        lambda x: x.mean(dim=1),
        lambda x: x[:, [0, 2]] * striate.ones_like(x[:, [0, 2]]),
    ],
)
def test_replay_at_other_sizes(function: Callable[[Tensor], Tensor]) -> None:
    graph = _graph(function, _random(2, 4, 8, 8))
    assert graph.fixed_ops == []
    for shape in ((2, 4, 8, 8), (3, 4, 8, 8), (3, 4, 12, 10), (2, 8, 14, 16)):
        x = _random(*shape, seed=1)
        if not graph.guards_hold([shape]):
            assert shape != (3, 4, 12, 10), graph.guards
            continue
        np.testing.assert_array_equal(Replay(graph)(x)[0], function(x).numpy())


def _line(error: pytest.ExceptionInfo[RecordError]) -> str:
    return re.findall(r"test_record\.py:(\d+)", str(error.value))[0]


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("bool", lambda x: bool(x.sum())),
        ("int", lambda x: int(x.sum())),
        ("float", lambda x: float(x.sum())),
        ("item", lambda x: x.sum().item()),
        ("numpy", lambda x: x.numpy()),
        ("tolist", lambda x: x.tolist()),
        ("iteration", lambda x: list(x)),
        ("numpy", lambda x: np.asarray(x)),
        ("index", lambda x: x[x.to(striate.bool)]),
    ],
)
def test_refusal_reads_of_values(name: str, read: Callable[[Tensor], Any]) -> None:
    x = _random(3, 3)
    with (
        pytest.raises(
            RecordError, match=f"^{name}: expected operators on tensors while recording, got a read"
        ) as error,
        record(inputs=[x]),
    ):
        read(x)
    assert re.search(r"test_record\.py:\d+; compute with operators", str(error.value))
    read(x)  # outside all of it is fine
    assert not striate.autograd.tape.recorders


def test_refusal_names_the_line() -> None:
    def run() -> None:
        with record(inputs=[_random(3)]) as recording:
            y = striate.ones(3) * 2.0
            recording.returns(y)
            y.tolist()

    with pytest.raises(RecordError) as error:
        run()
    assert int(_line(error)) == run.__code__.co_firstlineno + 4


def test_reads_of_constants_are_fine() -> None:
    x, table = _random(3), striate.tensor([1.0, 2.0, 3.0])
    with record(inputs=[x]):
        y = x + table
        assert table.tolist() == [1.0, 2.0, 3.0]
        assert "recorded" in repr(y)


def test_refusal_change_by_other_means_than_assign() -> None:
    def run(x: Tensor, w: Tensor) -> None:
        with record(inputs=[x], states=[w]):
            _core.assign(w._array, x._array)
            striate.add(w, x)

    with pytest.raises(RecordError, match="that only assign changes, got state 'state0' at version 1 instead of 0"):
        run(_random(3), striate.zeros(3))


def test_refusal_view_of_a_state_from_before_its_assign() -> None:
    def run(x: Tensor, w: Tensor) -> None:
        with record(inputs=[x], states=[w]):
            view = w.reshape(2, 2)
            striate.assign(w, x)
            striate.relu(view)

    with pytest.raises(RecordError, match="make views of them again afterwards"):
        run(_random(4), striate.zeros(4))


def test_refusal_assign_of_another_tensor() -> None:
    x, w = _random(3), striate.zeros(3)
    with (
        pytest.raises(RecordError, match=r"assign: expected a state of the recording, got another tensor at .*:\d+"),
        record(inputs=[x]),
    ):
        striate.assign(w, x)
    short = striate.zeros(2)
    message = r"assign: expected float32\(3,\) for state 'w', got float32\(2,\)"
    with pytest.raises(striate.ShapeError, match=message), record(inputs=[x], states={"w": w}):
        striate.assign(w, short)


def test_refusal_nesting_and_names() -> None:
    x = _random(3)
    with pytest.raises(RecordError, match="no recording under way"), record(inputs=[x]), record(inputs=[x]):
        pass
    with pytest.raises(ValueError, match="expected each tensor once"):
        record(inputs=[x, x])
    with pytest.raises(ValueError, match="expected each name once, got 'x' again"):
        record(inputs={"x": x}, states={"x": _random(3)})
    with pytest.raises(striate.ShapeError, match="expected scalar 'scalar0' without axes"):
        record(scalars=[x])


def test_recording_sees_its_own_thread_only() -> None:
    import threading

    x = _random(3)
    with record(inputs=[x]) as recording:
        worker = threading.Thread(target=lambda: (x + 1.0).tolist())
        worker.start()
        worker.join()
        recording.returns(x * 2.0)
    assert [node.op for node in recording.graph.nodes] == ["mul"]


def test_recording_ends_with_an_error_inside() -> None:
    x = _random(3)
    with pytest.raises(ZeroDivisionError), record(inputs=[x]):
        raise ZeroDivisionError
    assert isinstance((x + 1.0).tolist(), list)


def test_scalars_and_states_change_between_replays() -> None:
    x, w, lr = _random(3), striate.zeros(3), striate.full((), 0.5)
    with record(inputs=[x], states={"w": w}, scalars={"lr": lr}) as recording:
        striate.assign(w, w + x * lr)
        recording.returns(w)
    start = w.numpy().copy()
    replay = Replay(recording.graph)
    for rate in (0.25, 2.0):
        start = start + x.numpy() * np.float32(rate)
        np.testing.assert_array_equal(replay(x, scalars=[striate.full((), rate)])[0], start)
    np.testing.assert_array_equal(replay.state("w"), start)


def test_gradients_are_recorded() -> None:
    x, w = _random(4, 3), _random(3, seed=1).requires_grad_()

    def step() -> Tensor:
        w.grad = None
        (striate.relu(x * w) * 2.0).sum().backward()
        assert w.grad is not None
        return w.grad

    with record(inputs=[x], states={"w": w}) as recording:
        recording.returns(step())
    recorded = Replay(recording.graph)
    np.testing.assert_array_equal(recorded(x)[0], step().numpy())
    x = _random(7, 3, seed=2)
    np.testing.assert_array_equal(recorded(x)[0], step().numpy())


#: Rows without shape function: their sizes are fixed in a record, and the graph says so.
WITHOUT_SHAPE: set[str] = set()


def test_shape_function_of_every_row() -> None:
    missing = {name for name in registry if not _core.has_shape_function(name)}
    assert missing <= WITHOUT_SHAPE, f"{sorted(missing - WITHOUT_SHAPE)}: add shape functions in cpp/program/shapes.cpp"
    assert not WITHOUT_SHAPE - missing


def test_graph_names_ops_of_fixed_shape() -> None:
    x = _random(2, 3)
    row = Op("without_shape_function", lambda a: registry["relu"].forward(a))
    with record(inputs=[x]) as recording:
        recording.returns(row(x))
    assert recording.graph.fixed_ops == ["without_shape_function"]
    assert str(recording.graph).splitlines()[1].endswith("float32(2, 3) fixed")


@pytest.mark.parametrize("draw", ["dropout", "dropout2d", "randn"])
def test_random_draws_go_on_from_a_state(draw: str) -> None:
    generator = striate.Generator(-3)

    def function(x: Tensor) -> Tensor:
        if draw == "randn":
            return x + striate.randn(x.shape, generator=generator) * striate.rand(x.shape, generator=generator)
        op = getattr(striate.ops, draw)
        return op(op(x, 0.5, True, generator), 0.3, True, generator)

    x = _random(4, 8, 3, 3)
    generator.take()
    with record(inputs={"x": x}) as recording:
        recording.returns(function(x))
    assert recording.generators == {"random0": generator}
    replay = Replay(recording.graph)
    for _ in range(3):  # eager and replay go on from the same place
        np.testing.assert_array_equal(replay(x)[0], function(x).numpy())
    assert replay.state("random0").tolist() == [-3, generator.get_state()[1]]
    assert recording.graph.fixed_ops == []


def test_loss_and_softmax_at_other_sizes() -> None:
    x, target = _random(4, 5), striate.tensor([0, 2, 4, 1])
    x.requires_grad_()

    def step(x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        loss = striate.cross_entropy(x, target, reduction="sum")
        (g,) = striate.autograd.grad(loss + (striate.softmax(x, 1) * x).sum(), x)
        assert g is not None
        return loss, g

    with record(inputs=[x, target]) as recording:
        recording.returns(*step(x, target))
    assert recording.graph.fixed_ops == []
    x, target = _random(7, 5, seed=3).requires_grad_(), striate.tensor([0, 2, 4, 1, 1, 1, 3])
    for replayed, expected in zip(Replay(recording.graph)(x, target), step(x, target), strict=True):
        np.testing.assert_array_equal(replayed, expected.detach().numpy())
