"""Law: strides, alignment and emptiness of inputs change nothing; inputs are only read, within their bounds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import striate
from cases import Case
from laws.harness import (
    FLOAT32,
    Array,
    as_tuple,
    assert_within,
    check_gradients_agree,
    drawn,
    every,
    is_differentiable,
    problem,
    reference_gradients,
    run_with_gradients,
    tensors,
)

_GUARD = 8


def _guarded(array: Array, order: tuple[int, ...], step: int, shift: int) -> tuple[Array, Array]:
    """Lay an array out with axes in `order`, every `step`-th element used, `shift` elements into a guarded buffer."""
    size = array.size * step
    buffer = np.empty(size + 2 * _GUARD + shift, array.dtype)
    buffer.fill(np.nan if array.dtype.kind == "f" else 1)
    inside = buffer[_GUARD + shift : _GUARD + shift + size]
    inner = inside[::step].reshape([array.shape[axis] for axis in order])
    view = inner.transpose(np.argsort(order)) if order else inner
    view[...] = array
    return view, buffer


def _row_major(array: Array) -> tuple[int, ...]:
    return tuple(range(array.ndim))


def _channels_last(array: Array) -> tuple[int, ...]:
    return (0, *range(2, array.ndim), 1) if array.ndim > 2 else tuple(range(array.ndim))


def _reversed(array: Array) -> tuple[int, ...]:
    return tuple(reversed(range(array.ndim)))


LAYOUTS: dict[str, tuple[Callable[[Array], tuple[int, ...]], int, int]] = {
    "row-major": (_row_major, 1, 0),
    "channels-last": (_channels_last, 1, 0),
    "axes-reversed": (_reversed, 1, 0),
    "every-third": (_row_major, 3, 0),
    "channels-last-every-second": (_channels_last, 2, 1),
    "unaligned": (_channels_last, 1, 3),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@every(small=True)
def test_memory_layout_of_inputs_is_free(case: Case, layout: str) -> None:
    buffers: list[tuple[Array, Array]] = []
    views: list[Array] = []
    order, step, shift = LAYOUTS[layout]

    def make(array: Array) -> object:
        view, buffer = _guarded(array, order(array), step, shift)
        buffers.append((buffer, buffer.copy()))
        views.append(view)
        return striate.from_numpy(view)

    is_exact = not case.excused and not case.gradient_excused
    given = drawn(case, "integer" if is_exact else "real")
    if is_differentiable(case):
        outputs, gradients = run_with_gradients(case, given, FLOAT32, make)
    else:
        outputs, gradients = (
            tuple(y.numpy() for y in as_tuple(case.run(striate.ops, tensors(case, given.arrays, FLOAT32, make)))),
            {},
        )
    assert_within(case, outputs, given.expected, case.bounds(FLOAT32, given.expected, given.arrays), FLOAT32)
    if is_exact:
        for k, expected in (reference_gradients(case, "integer") if gradients else {}).items():
            assert_within(case, (gradients[k],), (expected,), (np.zeros(expected.shape),), FLOAT32)
    else:
        check_gradients_agree(case, given, gradients, reference_gradients(case) if gradients else {})
    for k in case.writes:
        views[k][...] = given.arrays[k]
    for buffer, before in buffers:
        assert buffer.tobytes() == before.tobytes(), f"{case!r}: wrote to an input or beside it"


@every(lambda case: case.batch, small=True)
def test_memory_of_an_empty_batch(case: Case) -> None:
    empty = case.with_empty_batch()
    given = problem(empty)
    if is_differentiable(case):
        outputs, gradients = run_with_gradients(empty, given)
    else:
        outputs, gradients = (
            tuple(y.numpy() for y in as_tuple(case.run(striate.ops, tensors(empty, given.arrays, FLOAT32)))),
            {},
        )
    for y, expected in zip(outputs, given.expected, strict=True):
        assert y.shape == expected.shape
        assert y.size == 0
    for k, g in gradients.items():
        assert not g.any(), f"{case!r}: the gradient of input {k} over an empty batch is not zero"
