"""The memory of a program: what results may share, what errors leave behind, what a change of conditions costs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import striate
from striate import Tensor, _core, models, nn
from striate.autograd import record
from striate.train import SGD

Function = Callable[..., Sequence[Tensor]]


def drawn(*shape: int) -> Tensor:
    return striate.tensor(np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32))


def program_of(function: Function, *inputs: Tensor, states: dict[str, Tensor] | None = None) -> Any:
    with striate.no_grad(), record(inputs=list(inputs), states=states or {}) as recording:
        recording.returns(*function(*inputs))
    return _core.Program(_core.fuse(recording.graph))


def run(program: Any, *inputs: Tensor) -> list[np.ndarray]:
    """Call a program; the arrays are views of its results."""
    return [y.numpy() for y in program.run([x._array for x in inputs], [])]


def in_use() -> int:
    return striate.memory.stats()["in_use_bytes"]


def test_results_may_be_views_of_inputs_and_constants() -> None:
    table = drawn(4, 6)
    x = drawn(4, 6)
    program = program_of(lambda x: [x, x.reshape(6, 4), table, x[1:3]], x)
    for _ in range(3):
        other = drawn(4, 6) * 2.0
        same, flat, constant, part = run(program, other)
        assert np.array_equal(same, other.numpy())
        assert np.array_equal(flat, other.numpy().reshape(6, 4))
        assert np.array_equal(constant, table.numpy())
        assert np.array_equal(part, other.numpy()[1:3])
        assert np.shares_memory(same, other.numpy())


def test_one_value_returned_twice() -> None:
    x = drawn(3, 5)

    def function(x: Tensor) -> list[Tensor]:
        y = x * 2.0
        return [y, y, y.reshape(15), y + 1.0]

    program = program_of(function, x)
    for _ in range(3):
        a, b, flat, more = run(program, x)
        assert np.shares_memory(a, b)
        assert np.shares_memory(a, flat)
        assert not np.shares_memory(a, more)
        assert np.array_equal(a, x.numpy() * 2)
        assert np.array_equal(more, x.numpy() * 2 + 1)


def test_a_view_keeps_what_it_looks_at_beyond_the_next_call() -> None:
    x = drawn(8, 16)
    program = program_of(lambda x: [(x * 2.0 + 1.0)[2:4]], x)
    run(program, x)
    (part,) = run(program, x)
    expected = part.copy()
    for _ in range(3):
        run(program, x * 3.0)
    assert np.array_equal(part, expected)


def test_results_may_be_states() -> None:
    state, x = striate.ones(3), drawn(3)

    def function(x: Tensor) -> list[Tensor]:
        striate.assign(state, state + x)
        return [state, state * 1.0]

    program = program_of(function, x, states={"s": state})
    for i in range(3):
        value, copy = run(program, x)
        assert np.array_equal(value, state.numpy())
        assert np.array_equal(copy, value)
        assert value == pytest.approx(1 + (i + 2) * x.numpy(), rel=1e-6)


def test_nothing_to_compute() -> None:
    def function(x: Tensor) -> list[Tensor]:
        y = striate.conv2d(x, weight, padding=1).relu()
        return [y, y.sum(), striate.cat([y, y], 1), y.reshape(y.shape[0], 4 * 25)]

    weight, x = drawn(4, 3, 3, 3), drawn(2, 3, 5, 5)
    program = program_of(function, x)
    for n in (0, 2, 0, 0):
        x = drawn(n, 3, 5, 5)
        for _ in range(2):
            with striate.no_grad():
                expected = [y.numpy() for y in function(x)]
            for y, e in zip(run(program, x), expected, strict=True):
                assert y.shape == e.shape
                assert np.array_equal(y, e)


def test_an_error_in_the_middle_leaves_nothing() -> None:
    def function(x: Tensor, at: Tensor) -> list[Tensor]:
        y = (x * 2.0 + 1.0).exp()
        return [(y * y)[at] + 1.0]

    x, at, outside = drawn(64, 64), striate.tensor([1, 5, 9]), striate.tensor([1, 5, 900])
    for n_before in (0, 1, 2):  # in the traced pass, the first from the arena, a later one
        program = program_of(function, x, at)
        for _ in range(n_before):
            run(program, x, at)
        expected = function(x, at)[0].numpy()
        before = in_use()
        for _ in range(3):
            with pytest.raises(IndexError, match="900"):
                run(program, x, outside)
        assert (
            in_use() - before <= (n_before == 1) * program.memory()["arena_bytes"]
        )  # the block, kept for the next call
        for _ in range(3):
            assert np.array_equal(run(program, x, at)[0], expected)


def test_weights_are_packed_once_and_outside_of_the_arena() -> None:
    weight, x = drawn(64, 64, 1, 1), drawn(2, 64, 3, 3)
    program = program_of(lambda x: [striate.conv2d(striate.conv2d(x, weight).relu(), weight)], x)
    first = run(program, x)[0].copy()  # packs
    run(program, x)
    settled = in_use()
    for _ in range(5):
        assert np.array_equal(run(program, x)[0], first)
        assert in_use() == settled


def test_conditions_may_change_between_calls() -> None:
    weight, x = drawn(8, 8, 3, 3), drawn(2, 8, 12, 12)

    def function(x: Tensor) -> list[Tensor]:
        return [striate.conv2d(striate.conv2d(x, weight, padding=1).relu(), weight, padding=1)]

    program = program_of(function, x)
    for _ in range(2):
        for n_threads in (1, 3, 2):
            for name in striate.machine.available_isas():
                with striate.threads(n_threads), striate.isa(name), striate.no_grad():
                    assert np.array_equal(run(program, x)[0], function(x)[0].numpy())


def test_a_program_gives_all_its_memory_back() -> None:
    x = drawn(32, 32)
    run(program_of(lambda x: [(x * 2.0).exp() + 1.0], x), x)
    before = in_use()
    program = program_of(lambda x: [(x * 2.0).exp() + 1.0], x)
    for _ in range(3):
        run(program, x)
    del program
    assert in_use() == before


def test_memory_of_the_first_pass_goes_back_to_the_system() -> None:
    x = drawn(1 << 20)
    program = program_of(lambda x: [((x * 2.0).exp() + 1.0).sqrt().sum()], x)
    striate.memory.trim()
    before = striate.memory.stats()
    run(program, x)  # takes 8 MB at its fullest moment
    after = striate.memory.stats()
    assert after["peak_bytes"] - before["in_use_bytes"] >= 8 << 20
    assert after["in_use_bytes"] - before["in_use_bytes"] < 4096
    assert after["cached_bytes"] <= 1 << 20  # small passes use the cache


def test_a_recorded_pass_keeps_little_for_reuse() -> None:
    x = drawn(1 << 20)
    striate.memory.trim()
    cap = striate.memory.stats()["cap_bytes"]
    with striate.no_grad(), record(inputs=[x]) as recording:
        sums = [striate.cat([x] * n, 0).sum() for n in (5, 6, 7, 8, 9)]  # 140 MB, of five classes
        recording.returns(*sums)
        assert striate.memory.stats()["cached_bytes"] <= 64 << 20
    with pytest.raises(ValueError, match="again"), record(inputs=[x, x]):
        pass
    assert striate.memory.stats()["cap_bytes"] == cap
    program = _core.Program(_core.fuse(recording.graph))
    run(program, x)
    assert striate.memory.stats()["cached_bytes"] <= 1 << 20


@pytest.mark.parametrize("name", ["resnet50", "yolo_csp", "squeezenet1_1"])
def test_arenas_of_the_zoo_are_near_their_bound(name: str) -> None:
    x = drawn(1, 3, 64, 64)
    program = striate.compile(getattr(models, name)().eval(), x)
    program(x)
    memory = program.memory()
    assert memory["least_bytes"] <= memory["arena_bytes"] <= 1.05 * memory["least_bytes"]


def test_many_overlapping_lifetimes_share_nothing() -> None:
    generator = np.random.default_rng(5)
    x = drawn(1024)
    for _ in range(20):
        picks = generator.integers(0, 1 << 30, (60, 3))

        def function(x: Tensor, picks: np.ndarray = picks) -> list[Tensor]:
            values = [x, x + 1.0]
            for a, b, size in picks.tolist():
                y = values[-1 - a % min(9, len(values))]
                z = values[-1 - b % min(5, len(values))]
                n = 16 + size % 1008
                values.append(striate.cat([(y * 0.5).sum() + z[: min(n, z.shape[0])], y * 0.25], 0)[:n])
            return values[-3:]

        program = program_of(function, x)
        expected = [y.numpy() for y in function(x)]
        for _ in range(3):
            for y, e in zip(run(program, x), expected, strict=True):
                assert np.array_equal(y, e)


def test_a_weight_that_is_met_once_is_not_kept_packed() -> None:
    weight, x = nn.Conv2d(64, 64, 3).weight, drawn(1, 64, 8, 8)
    settled = []
    with striate.no_grad():
        for _ in range(4):
            striate.conv2d(x, weight, padding=1)
            settled.append(in_use())
    assert settled[1] - settled[0] >= 4 * weight.size
    assert settled[3] == settled[1]
    striate.assign(weight, weight * 2.0)
    with striate.no_grad():
        striate.conv2d(x, weight, padding=1)
    assert in_use() == settled[0]


def small_step() -> tuple[nn.Module, Any, Tensor, Tensor]:
    model = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.Conv2d(64, 64, 3, padding=1), nn.Flatten())
    step = striate.compile_step(model, nn.CrossEntropyLoss(), SGD(list(model.parameters()), lr=1e-3, momentum=0.9))
    return model, step, drawn(2, 3, 8, 8), striate.tensor(np.array([1, 2]))


def test_packed_weights_of_a_training_step_lie_in_its_arena() -> None:
    before = in_use()
    model, step, x, target = small_step()
    for _ in range(4):
        step(x, target)
    held = 2 * sum(4 * p.size for p in model.parameters())  # with momentum; packed they take four times as much, twice
    assert in_use() - before <= 1.2 * (held + step.memory()["arena_bytes"])


def test_validation_between_steps_neither_grows_nor_disturbs_them() -> None:
    model, step, x, target = small_step()
    for _ in range(3):
        step(x, target)
    settled, memory = in_use(), step.memory()
    for _ in range(3):
        program = striate.compile(model, x)
        for _ in range(2):
            program(x)
        assert in_use() > settled
        del program
        step(x, target)
        assert step.memory() == memory
        assert in_use() == settled


def resident_bytes(of: str) -> int:
    """Return how much of a mapped file is resident in this process."""
    total, counts = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split(maxsplit=1)[0]
        if "-" in first and not first.endswith(":"):
            counts = line.endswith(of)
        elif first == "Rss:" and counts:
            total += 1024 * int(line.split()[1])
    return total


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps"), reason="reads /proc/self/smaps")
def test_a_saved_program_does_not_keep_weights_twice(tmp_path: Path) -> None:
    file = str(tmp_path / "program")
    x = drawn(1, 256, 4, 4)
    model = nn.Sequential(nn.Conv2d(256, 256, 3, padding=1), nn.Conv2d(256, 256, 1), nn.Flatten(), nn.Linear(4096, 512))
    striate.compile(model, x).save(file)
    program = striate.load_program(file)
    y = program(x).numpy().copy()
    assert resident_bytes(file) < os.path.getsize(file) / 8
    other = program(drawn(3, 256, 4, 4)).numpy()  # other forms may be packed from the file again
    assert other.shape == (3, 512)
    assert np.array_equal(program(x).numpy(), y)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/statm")
def test_two_thousand_shapes_leave_the_resident_set_flat() -> None:
    model = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1))
    program = striate.compile(model, drawn(1, 3, 8, 8))
    program.set_cache_bytes(4 << 20)
    shapes = np.random.default_rng(3).integers((1, 8, 8), (4, 48, 48), (2000, 3)).tolist()
    resident = []
    for i, (n, h, w) in enumerate(shapes):
        program(striate.zeros(n, 3, h, w))
        if i % 500 == 499:
            resident.append(4096 * int(Path("/proc/self/statm").read_text().split()[1]))
    assert max(resident[1:]) - resident[0] < 4 << 20
    assert program.memory()["n_plans"] < 500
