"""The memory of a program: what results may share, what errors leave behind, what a change of conditions costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import striate
from striate import Tensor, _core
from striate.autograd import record

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
