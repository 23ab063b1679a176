"""Gradients where finite differences say nothing: at kinks and ties, by the rule torch has too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import striate

ops = striate.ops
ROWS: tuple[tuple[str, Callable[[Any], Any], list[Any], list[Any]], ...] = (
    ("relu", lambda x: ops.relu(x), [-1.0, 0.0, 2.0], [0.0, 0.0, 1.0]),
    ("relu6", lambda x: ops.relu6(x), [0.0, 3.0, 6.0, 7.0], [0.0, 1.0, 0.0, 0.0]),
    ("leaky_relu", lambda x: ops.leaky_relu(x, negative_slope=0.5), [-1.0, 0.0, 1.0], [0.5, 0.5, 1.0]),
    ("abs", lambda x: ops.abs(x), [-3.0, 0.0, 2.0], [-1.0, 0.0, 1.0]),
    ("clip", lambda x: ops.clip(x, min=-1.0, max=1.0), [-2.0, -1.0, 0.0, 1.0, 2.0], [0.0, 1.0, 1.0, 1.0, 0.0]),
    ("prod", lambda x: ops.prod(x), [2.0, 0.0, 3.0], [0.0, 6.0, 0.0]),
    ("prod-two-zeros", lambda x: ops.prod(x), [2.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
    ("prod-dim", lambda x: ops.prod(x, dim=1), [[2.0, 0.0], [4.0, 5.0]], [[0.0, 2.0], [5.0, 4.0]]),
    ("max_pool1d-tie", lambda x: ops.max_pool1d(x, 2), [[[5.0, 5.0, 1.0, 1.0]]], [[[1.0, 0.0, 1.0, 0.0]]]),
    ("max_pool1d-overlap", lambda x: ops.max_pool1d(x, 2, stride=1), [[[1.0, 7.0, 2.0]]], [[[0.0, 2.0, 0.0]]]),
    ("pow-zero-base", lambda x: ops.pow(x, 2), [0.0, -3.0], [0.0, -6.0]),
    ("sign", lambda x: ops.sign(x), [-2.0, 0.0, 3.0], [0.0, 0.0, 0.0]),
    ("softplus-far", lambda x: ops.softplus(x), [90.0, -90.0], [1.0, 0.0]),
    ("sigmoid-far", lambda x: ops.sigmoid(x), [200.0, -200.0], [0.0, 0.0]),
    ("log_softmax-far", lambda x: ops.log_softmax(x, dim=0)[0], [1000.0, 0.0], [0.0, 0.0]),
)


@pytest.mark.parametrize(("function", "x", "expected"), [r[1:] for r in ROWS], ids=[r[0] for r in ROWS])
def test_closed_form_gradient(function: Callable[[Any], Any], x: list[Any], expected: list[Any]) -> None:
    for dtype in (striate.float32, striate.float64):
        tensor = striate.tensor(x, dtype=dtype, requires_grad=True)
        function(tensor).sum().backward()
        np.testing.assert_allclose(tensor.grad.numpy(), expected, rtol=0, atol=1e-30)


@pytest.mark.parametrize("op", ["max", "min"])
def test_closed_form_gradient_of_ties_is_whole(op: str) -> None:
    x = striate.tensor([[3.0, 3.0, 1.0, 1.0]], requires_grad=True)
    getattr(ops, op)(x, dim=1).sum().backward()
    assert x.grad.numpy().sum() == 1.0


def test_closed_form_of_shared_operand() -> None:
    x = striate.tensor([3.0, -2.0], requires_grad=True)
    (x * x + x).sum().backward()
    assert x.grad.numpy().tolist() == [7.0, -3.0]
