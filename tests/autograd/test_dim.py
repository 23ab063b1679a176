"""Sizes with an origin: arithmetic, canonical forms, guards."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import striate
from striate.autograd import Dim, record
from striate.autograd.dim import maximum, minimum


def _dims(*shape: int) -> tuple[list[Any], Any]:
    """Return the Dims of an input of this shape, and the graph that holds their guards."""
    x = striate.zeros(shape)
    with record(inputs=[x]) as recording:
        return list(x.shape), recording.graph


expressions = st.recursive(
    st.one_of(st.integers(-5, 5), st.sampled_from(["a", "b", "c"])),
    lambda inner: st.tuples(st.sampled_from(["+", "-", "*", "//", "min", "max"]), inner, inner),
    max_leaves=8,
)


def _evaluate(e: Any, names: dict[str, Any]) -> Any:
    if not isinstance(e, tuple):
        return names[e] if isinstance(e, str) else e
    sign, left, right = e[0], _evaluate(e[1], names), _evaluate(e[2], names)
    match sign:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case "//":
            return left // right
        case "min":
            return minimum(left, right)
    return maximum(left, right)


@given(e=expressions, shape=st.tuples(*[st.integers(1, 9)] * 3), other=st.tuples(*[st.integers(1, 9)] * 3))
def test_expression_follows_its_inputs(e: Any, shape: tuple[int, ...], other: tuple[int, ...]) -> None:
    dims, _ = _dims(*shape)
    try:
        dim = _evaluate(e, dict(zip("abc", dims, strict=True)))
    except ZeroDivisionError:
        return
    expected = _evaluate(e, dict(zip("abc", shape, strict=True)))
    assert int.__add__(dim, 0) == expected
    if not isinstance(dim, Dim):
        return
    assert dim.expression.evaluate([shape]) == expected
    try:
        elsewhere = _evaluate(e, dict(zip("abc", other, strict=True)))
        found = dim.expression.evaluate([other])
    except (ZeroDivisionError, striate.ShapeError):
        return
    assert found == elsewhere


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda n, c, h: h + 0, "i0.2"),
        (lambda n, c, h: h - h, "0"),
        (lambda n, c, h: (h + 2 - 3) // 1 + 1, "i0.2"),
        (lambda n, c, h: (h - 1) // 2 + 1, "((i0.2 + 1) // 2)"),
        (lambda n, c, h: (h + 2 - 3) // 2 + 1, "((i0.2 + 1) // 2)"),
        (lambda n, c, h: n * c * h // (n * c), "i0.2"),
        (lambda n, c, h: (4 * h + 3) // 2, "2*i0.2 + 1"),
        (lambda n, c, h: h * 2 - c, "-i0.1 + 2*i0.2"),
        (lambda n, c, h: h % 4, "-4*(i0.2 // 4) + i0.2"),
        (lambda n, c, h: h**2, "i0.2*i0.2"),
        (lambda n, c, h: minimum(h, h + 1), "i0.2"),
        (lambda n, c, h: maximum(h, c), "max(i0.1, i0.2)"),
        (lambda n, c, h: -h, "-i0.2"),
    ],
)
def test_canonical_form(make: Any, text: str) -> None:
    (n, c, h), _ = _dims(2, 3, 8)
    dim = make(n, c, h)
    assert str(getattr(dim, "expression", dim)) == text


@pytest.mark.parametrize(
    ("use", "guards"),
    [
        (lambda h: h == 8, ["i0.0 - 8 == 0"]),
        (lambda h: h != 1, ["i0.0 - 1 != 0"]),
        (lambda h: h > 3, ["-i0.0 + 3 < 0"]),
        (lambda h: h < 3, ["-i0.0 + 3 <= 0"]),
        (lambda h: h / 2, ["i0.0 - 8 == 0"]),
        (lambda h: float(h), ["i0.0 - 8 == 0"]),
        (lambda h: int(h), ["i0.0 - 8 == 0"]),
        (lambda h: [0] * h, ["i0.0 - 8 == 0"]),
        (lambda h: h * 0.5, ["i0.0 - 8 == 0"]),
        (lambda h: bool(h), ["i0.0 != 0"]),
        (lambda h: h == -1, []),
        (lambda h: h >= 0, []),
        (lambda h: h + 1 > h, []),
        (lambda h: h == h + 0, []),
        (lambda h: h + 1, []),
    ],
)
def test_guards_where_the_number_leaves_the_expression(use: Any, guards: list[str]) -> None:
    (h,), graph = _dims(8)
    use(h)
    assert graph.guards == guards


def test_guards_hold_or_not_for_other_inputs() -> None:
    (h, w), graph = _dims(8, 8)
    assert h == w
    assert graph.guards_hold([(5, 5)])
    assert not graph.guards_hold([(5, 6)])


def test_refusal_evaluate_without_its_input() -> None:
    (h,), _ = _dims(8)
    with pytest.raises(striate.ShapeError, match="expected a shape for input 0 with axis 0, got none"):
        h.expression.evaluate([])
    with pytest.raises(ZeroDivisionError):
        h // 0
    assert repr(h) == "8"
    assert repr(h.expression) == "Dim(8, i0.0)"


@pytest.mark.parametrize(
    "make",
    [
        lambda x: striate.arange(x.shape[1]) + 0.0,
        lambda x: striate.tensor([x.shape[1], 2]) + 0.0,
        lambda x: striate.tensor(x.shape[1]) + 0.0,
    ],
    ids=["arange", "tensor", "number"],
)
def test_numbers_made_of_sizes_leave_a_guard(make: Any) -> None:
    program = striate.compile(lambda x: (x, make(x)), striate.zeros(2, 3))
    for n in (3, 5):
        x = striate.zeros(1, n)
        np.testing.assert_array_equal(program(x)[1].numpy(), make(x).numpy())
