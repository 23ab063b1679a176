"""Laws of oracle, exactness, adjoint and emptiness again, over geometries that Hypothesis draws."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cases import Case, geometry
from laws.harness import FLOAT32, FLOAT64, Array, assert_within, check_oracle, problem, run_with_gradients
from oracle import bound


def _check(case: Case) -> None:
    whole = problem(case, "integer")
    outputs, gradients = run_with_gradients(case, whole)
    if case.excused:
        check_oracle(case, problem(case), FLOAT32)
    else:
        assert_within(case, outputs, whole.expected, [bound.exact(FLOAT32, y) for y in whole.expected], FLOAT32)
        _, reference = run_with_gradients(case, whole, FLOAT64)
        for k, g in gradients.items():
            assert_within(case, (g,), (reference[k],), (np.zeros(g.shape),), FLOAT32)
    for k in case.linear:
        _check_adjoint(case, k, whole.arrays, outputs[0], whole.grads[0], gradients[k])


def _check_adjoint(
    case: Case, k: int, arrays: list[Array | None], y: Array, grad_y: Array | None, grad_x: Array
) -> None:
    x = arrays[k]
    assert x is not None
    at_zero = case.expected([a if i != k or a is None else np.zeros_like(a) for i, a in enumerate(arrays)])[0]
    forward = float(np.sum((y - at_zero) * grad_y))
    assert forward == float(np.sum(x * grad_x.astype(np.float64))), f"{case!r}: not adjoint in input {k}"


@pytest.mark.parametrize("n_axes", [1, 2, 3])
@given(data=st.data())
def test_geometry_of_convolution(n_axes: int, data: st.DataObject) -> None:
    _check(data.draw(geometry.conv_cases(n_axes)))


@pytest.mark.parametrize("n_axes", [1, 2, 3])
@given(data=st.data())
def test_geometry_of_transposed_convolution(n_axes: int, data: st.DataObject) -> None:
    _check(data.draw(geometry.conv_transpose_cases(n_axes)))


@pytest.mark.parametrize("n_axes", [1, 2, 3])
@given(data=st.data())
def test_geometry_of_pooling(n_axes: int, data: st.DataObject) -> None:
    _check(data.draw(geometry.pool_cases(n_axes)))


@pytest.mark.parametrize(
    "family",
    [
        geometry.product_cases,
        geometry.broadcast_cases,
        geometry.reduce_cases,
        geometry.move_cases,
        geometry.row_cases,
    ],
    ids=lambda family: family.__name__,
)
@given(data=st.data())
def test_geometry_of_the_rest(family: Callable[[], st.SearchStrategy[Case]], data: st.DataObject) -> None:
    _check(data.draw(family()))
