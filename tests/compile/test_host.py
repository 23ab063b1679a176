"""Programs that are cut where Python computes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import striate
from striate import Tensor, _core, nn, ops, train
from striate.autograd import host_call
from striate.autograd.record import record
from striate.compile import compile_step

rng = np.random.default_rng(7)


def drawn(*shape: int) -> Tensor:
    return striate.tensor(rng.standard_normal(shape).astype(np.float32))


def eager(function: Callable[..., Any], *inputs: Tensor) -> Any:
    with striate.no_grad():
        return function(*inputs)


def assert_same(found: Any, expected: Any) -> None:
    if isinstance(expected, tuple | list):
        for a, b in zip(found, expected, strict=True):
            assert_same(a, b)
    else:
        assert found.dtype == expected.dtype
        assert np.array_equal(found.numpy(), expected.numpy())


def positive_rows(x: Tensor) -> np.ndarray:
    return np.flatnonzero(x.numpy().sum(1) > 0)


def kept(x: Tensor) -> Tensor:
    """Keep rows of positive sums; how many, the numbers say."""
    (places,) = host_call("positive", positive_rows, striate.relu(x * 2.0) - 1.0)
    return x[places] * 3.0 + 1.0


def test_a_host_call_runs_between_pieces() -> None:
    program = striate.compile(kept, drawn(6, 3))
    assert program.host_nodes == ("positive",)
    assert [[node.op for node in graph.nodes] for graph in program.graphs] == [
        ["mul", "relu", "sub"],
        ["index", "mul", "add"],
    ]
    for n in (6, 9, 1, 4):
        x = drawn(n, 3)
        assert_same(program(x), eager(kept, x))


def test_sizes_after_a_host_call_follow_its_values() -> None:
    def mask(pattern: list[int]) -> Tensor:
        rows = rng.uniform(0.5, 1.5, (len(pattern), 3)) * np.array(pattern)[:, None] * 4
        return striate.tensor(rows.astype(np.float32))

    program = striate.compile(kept, mask([1, 0, 1, 1]))
    counts = set()
    for pattern in ([1, 1, 1, 1], [0, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 1, 1, 0, 1]):
        x = mask(pattern)
        y = program(x)
        counts.add(y.shape[0])
        assert_same(y, eager(kept, x))
    assert counts == {4, 0, 1}
    assert len(program._variants) == 1  # planned, not recorded again


def several(x: Tensor, w: Tensor) -> tuple[Tensor, ...]:
    """Three host calls; `early` is made before all of them and read behind the last."""
    early = striate.relu(x) + 1.0
    order, top = host_call("sorted", lambda t: (np.argsort(t.numpy()[:, 0]), t.numpy().max(0)), early)
    middle = early[order] * top
    (total,) = host_call("total", lambda t: np.cumsum(t.numpy(), 0), middle)
    (same,) = host_call("scaled", lambda t, n: t.numpy() * np.float32(n), total, x.shape[0])
    return ops.matmul(same, w) + early.sum(), middle - early, top, x


def test_several_host_calls_and_values_that_cross_them() -> None:
    w = drawn(3, 5)
    program = striate.compile(several, drawn(4, 3), w)
    assert program.host_nodes == ("sorted", "total", "scaled")
    assert len(program.graphs) == 3  # nothing lies between the last two
    for n in (4, 7, 2):
        x = drawn(n, 3)
        for _ in range(2):
            assert_same(program(x, w), eager(several, x, w))
    assert len(program._variants) == 1


def test_sizes_are_operands_of_host_calls() -> None:
    def function(x: Tensor) -> Tensor:
        (y,) = host_call("counted", lambda n, half: np.arange(n + half, dtype=np.float32), x.shape[0], x.shape[0] // 2)
        return y + 1.0

    program = striate.compile(function, drawn(4, 2))
    for n in (4, 9):
        assert np.array_equal(program(drawn(n, 2)).numpy(), np.arange(n + n // 2) + 1)
    assert len(program._variants) == 1


def test_convolutions_are_fused_on_both_sides() -> None:
    first, second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1)

    def function(x: Tensor) -> Tensor:
        y = striate.relu(first(x))
        (scale,) = host_call("scale", lambda t: np.abs(t.numpy()).max((1, 2, 3), keepdims=True), y)
        return striate.relu(second(y / scale))

    x = drawn(2, 3, 9, 7)
    program = striate.compile(function, x)
    assert [row.fused for row in program.explain().rows if row.op == "conv2d"] == [("bias", "relu"), ("bias", "relu")]
    y, expected = program(x).numpy(), eager(function, x).numpy()
    assert np.abs(y - expected).max() <= 1e-5 * np.abs(expected).max()


def test_a_result_may_be_an_operand_or_a_weight_itself() -> None:
    weight = nn.Parameter(drawn(3))

    def function(x: Tensor) -> Tensor:
        (a,) = host_call("chosen", lambda t: t if t.numpy().sum() > 0 else weight, x)
        return a * 2.0 + weight

    up = striate.tensor([1.0, 2.0, 3.0])
    program = striate.compile(function, -up)
    for x in (up, -up, up):
        assert_same(program(x), eager(function, x))


def test_a_model_of_host_calls_alone() -> None:
    program = striate.compile(lambda x: host_call("flip", lambda t: t.numpy()[::-1].copy(), x)[0], drawn(3))
    x = drawn(5)
    assert np.array_equal(program(x).numpy(), x.numpy()[::-1])
    assert program.graphs == []


def test_constants_reach_host_calls_as_they_are_now() -> None:
    weight = nn.Parameter(drawn(4))

    def function(x: Tensor) -> Tensor:
        (y,) = host_call("sum", lambda w, t: w.numpy() + t.numpy(), weight, x)
        return y * 2.0

    x = drawn(4)
    program = striate.compile(function, x)
    program(x)
    striate.assign(weight, drawn(4))
    assert_same(program(x), eager(function, x))


def test_a_changed_weight_is_seen() -> None:
    linear = nn.Linear(3, 3)

    def function(x: Tensor) -> Tensor:
        (y,) = host_call("round", lambda t: np.round(t.numpy()), x * 4.0)
        return linear(y)

    x = drawn(2, 3)
    program = striate.compile(function, x)
    before = program(x).numpy().copy()
    striate.assign(linear.bias, linear.bias.detach() + 1.0)
    after = program(x).numpy()
    assert np.abs(after - before).min() > 0.5
    assert len(program._variants) == 1  # the old record is gone


def test_threads_get_the_bits_of_one() -> None:
    inputs = [drawn(3 + i, 3) for i in range(4)]
    program = striate.compile(kept, inputs[0])
    expected = [eager(kept, x) for x in inputs]
    wrong: list[int] = []

    def work(i: int) -> None:
        results = [program(inputs[i]).numpy() for _ in range(30)]
        wrong.extend(i for y in results if not np.array_equal(y, expected[i].numpy()))

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_guards_on_what_a_host_call_returns_record_again() -> None:
    def function(x: Tensor) -> Tensor:
        y = kept(x)
        return y * 2.0 if y.shape[0] > 2 else y * 5.0

    up = striate.tensor(np.full((4, 3), 2, np.float32))
    program = striate.compile(function, up)
    for x in (up, -up, up, -up):
        assert_same(program(x), eager(function, x))
    assert len(program._variants) == 2


@pytest.mark.parametrize(
    "other",
    [lambda t: t.numpy()[None], lambda t: t.numpy().astype(np.float64), lambda t: (t.numpy(), t.numpy())],
    ids=["axes", "dtype", "number"],
)
def test_results_of_another_kind_record_again(other: Callable[[Tensor], Any]) -> None:
    def function(x: Tensor) -> list[Tensor]:
        return [y + 1 for y in host_call("kind", lambda t: other(t) if t.numpy()[0] < 0 else t.numpy() * 1, x)]

    up = striate.tensor([1.0, 2.0])
    program = striate.compile(function, up)
    for x in (up, -up, up):
        assert_same(program(x), eager(function, x))
    assert len(program._variants) == 2


def test_host_calls_see_no_recording_and_no_gradients() -> None:
    seen = []

    def look(x: Tensor) -> Tensor:
        seen.append((striate.autograd.is_recording(), striate.autograd.is_grad_enabled(), float(x.sum().item())))
        return x * 1.0

    def function(x: Tensor) -> Tensor:
        return host_call("look", look, x + 1.0)[0] + 1.0

    x = striate.tensor([1.0, 2.0])
    program = striate.compile(function, x)
    with record(inputs=[striate.zeros(1)]) as recording:
        program(x)
        recording.returns()
    assert seen == [(False, False, 5.0)] * 2


def test_errors_of_a_host_call_come_out_as_they_are() -> None:
    def check(x: Tensor) -> np.ndarray:
        if x.numpy()[0] < 0:
            raise ArithmeticError("negative")
        return x.numpy() * 2

    program = striate.compile(lambda x: host_call("check", check, x)[0] + 1.0, striate.tensor([1.0]))
    with pytest.raises(ArithmeticError, match="negative"):
        program(striate.tensor([-1.0]))
    assert program(striate.tensor([2.0])).numpy().tolist() == [5.0]


def test_rewinding_forgets_nodes_guards_and_host_calls() -> None:
    x = drawn(3, 2)
    with record(inputs=[x], takes_host_calls=True) as recording:
        y = x * 2.0
        before = str(recording.graph)
        mark = recording.mark()
        (z,) = host_call("gone", lambda t: t.numpy() * 2, y + drawn(2))
        assert z.shape[0] > 2
        striate.rand(3)
        recording.rewind(mark)
        assert str(recording.graph) == before
        recording.returns(y + 1.0)
    assert recording.host_calls == []
    assert recording.generators == {}
    assert [node.op for node in recording.graph.nodes] == ["mul", "add"]


def test_pieces_have_their_guards_and_drop_what_nobody_needs() -> None:
    x = drawn(4, 3)
    with record(inputs=[x], takes_host_calls=True) as recording:
        y = striate.relu(x)
        _unused = y * 7.0
        assert x.shape[0] > 2
        (z,) = host_call("all", lambda t: t.numpy() * 1, y)
        assert z.shape[0] > 3
        recording.returns(y + z)
    call = recording.host_calls[0]
    first, second = _core.cut(recording.graph, [_core.HostCall(call.n_nodes, list(call.operands), list(call.results))])
    assert [node.op for node in first.graph.nodes] == ["relu"]
    assert first.graph.guards == ["-i0.0 + 2 < 0"]
    assert [node.op for node in second.graph.nodes] == ["add"]
    assert "-i1.0 + 3 < 0" in second.graph.guards
    assert second.inputs[-1] == first.results[0] == call.operands[0]
    assert [second.graph.value(i).name for i in second.graph.inputs] == ["input0", "all#1", f"value{call.operands[0]}"]
    assert [str(n) for n in second.graph.value(second.graph.inputs[2]).shape] == ["i0.0", "i0.1"]
    first.graph.validate()
    second.graph.validate()


def test_cuts_that_do_not_fit_are_refused() -> None:
    x = drawn(2)
    with record(inputs=[x]) as recording:
        recording.returns(x + 1.0)
    graph = recording.graph
    with pytest.raises(ValueError, match="cut: expected host calls in the order of nodes, got one after 9 of 1 nodes"):
        _core.cut(graph, [_core.HostCall(9, [], [])])
    with pytest.raises(
        ValueError, match="cut: expected results of host calls among the inputs, got a result; add them"
    ):
        _core.cut(graph, [_core.HostCall(1, [], list(graph.results))])
    with record(states=[x]) as recording:
        recording.returns(x + 1.0)
    with pytest.raises(
        ValueError, match="cut: expected a graph of inputs only .*, got 1 states and 0 scalars; keep random"
    ):
        _core.cut(recording.graph, [])
    with pytest.raises(
        ValueError, match="graph: expected a mark of this graph, got one with more values, nodes or guards"
    ):
        _core.Graph().rewind(graph.mark())


# What it tells.


def test_explain_names_host_nodes() -> None:
    program = striate.compile(kept, drawn(6, 3))
    x = striate.tensor(np.full((5, 3), 2, np.float32))
    found = program.explain(x, measure=True)
    assert [row.op for row in found.rows] == ["mul", "relu", "sub", "positive", "index", "mul", "add"]
    host = found.rows[3]
    assert host.algorithm == "Python"
    assert host.shape == (5,)
    assert host.n_bytes == 5 * 3 * 4 + 5 * 8
    assert host.measured_ms is not None
    assert host.measured_ms > 0
    assert "the program is cut here" in host.note
    assert host.sources == (2,)
    assert found.rows[4].sources == (3,)
    assert found.rows[4].shape == (5, 3)
    assert "positive" in str(found)
    assert program.explain(x).rows[3].measured_ms is None


def test_sources_reach_over_host_nodes() -> None:
    rows = striate.compile(several, drawn(4, 3), drawn(3, 5)).explain().rows
    names = [row.op for row in rows]
    early = names.index("add")
    last = max(i for i, row in enumerate(rows) if row.op in ("sub", "sum"))
    assert early in rows[last].sources
    assert rows[names.index("scaled")].sources == (names.index("total"),)


def test_plot_draws_host_nodes(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    striate.compile(kept, drawn(6, 3)).explain(measure=True).plot(tmp_path / "program.svg")
    assert (tmp_path / "program.svg").stat().st_size > 0


def test_memory_is_that_of_all_pieces() -> None:
    program = striate.compile(kept, drawn(6, 3))
    program(drawn(6, 3))
    memory = program.memory()
    assert memory["n_plans"] == memory["n_arenas"] == 2
    program.set_cache_bytes(1 << 20)
    for _ in range(100):
        program(drawn(int(rng.integers(1, 500)), 3))
    assert program.memory()["n_plans"] < 300
    assert repr(program) == "Program(6 nodes, 1 inputs, host nodes: positive)"


# Refusals.


def test_a_cut_program_has_no_single_graph() -> None:
    program = striate.compile(kept, drawn(6, 3))
    with pytest.raises(
        ValueError, match=r"expected one in a single piece, got one cut at host nodes \(positive\); read graphs"
    ):
        _ = program.graph


def test_saving_names_host_nodes(tmp_path: Path) -> None:
    program = striate.compile(several, drawn(4, 3), drawn(3, 5))
    with pytest.raises(
        ValueError, match="save: expected operators of the core, got host nodes .*: sorted, total, scaled; save"
    ):
        program.save(tmp_path / "cut.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_random_draws_beside_host_nodes_are_refused() -> None:
    with pytest.raises(
        striate.RecordError, match=r"expected no states .* beside host nodes \(positive\), got random0; draw"
    ):
        striate.compile(lambda x: kept(x + striate.rand(3)), drawn(6, 3))


def test_results_without_elements_are_filled() -> None:
    def function(x: Tensor) -> Tensor:
        (places,) = host_call("positive", lambda t: np.flatnonzero(t.numpy() > 0), x)
        return ops.cat([striate.zeros(2, 3, places.shape[0]), striate.full((2, 3, places.shape[0]), 7.0)], dim=2)

    up = striate.tensor([1.0, 2.0])
    program = striate.compile(function, up)
    for x in (up, -up):
        assert_same(program(x), eager(function, x))


def test_results_that_are_no_tensors_are_refused() -> None:
    with pytest.raises(
        TypeError, match="words: expected tensors or arrays as results of a host call, got str; convert"
    ):
        host_call("words", lambda x: "yes", drawn(2))
    with pytest.raises(striate.DTypeError, match="from_numpy: expected float32"):
        striate.compile(lambda x: host_call("words", lambda t: np.array(["a"]), x)[0], drawn(2))


def test_there_is_no_gradient() -> None:
    x = nn.Parameter(drawn(3))
    y, places = host_call("both", lambda t: (t.numpy() * 2, np.flatnonzero(t.numpy())), x)
    assert not places.requires_grad
    with pytest.raises(RuntimeError, match="got the host call 'both', which has none; detach before it"):
        y.sum().backward()


def test_training_steps_refuse_and_run_eagerly() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            self.linear = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            (scaled,) = host_call("scaled", lambda t: t.numpy() / 2, x)
            return self.linear(scaled)

    model = Net()
    optimizer = train.SGD(model.parameters(), lr=0.1)
    step = compile_step(model, nn.CrossEntropyLoss(), optimizer)
    before = model.linear.weight.detach().numpy().copy()
    step(drawn(4, 3), striate.tensor([0, 1, 1, 0]))
    assert step.reason is not None
    assert step.reason.startswith("scaled: expected an operator of the core in this record, got one that only Python")
    assert np.abs(model.linear.weight.detach().numpy() - before).max() > 0
