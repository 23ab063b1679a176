"""gradcheck must pass right gradients and, above all, fail wrong ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import striate
from striate import Tensor
from striate.autograd import GradientError, Op, gradcheck
from striate.autograd.op import registry

Vjp = Callable[..., Any]


def _leaf(*shape: int) -> Tensor:
    return striate.tensor(np.random.default_rng(0).standard_normal(shape), requires_grad=True)


def _square(vjp: Vjp) -> Op:
    mul = registry["mul"].forward
    return Op("square_under_test", lambda x: mul(x, x), vjp, saves_inputs=(0,))


def test_right_gradient_passes_in_both_orders() -> None:
    row = _square(lambda node, g: (g * node.inputs[0] * 2.0,))
    assert gradcheck(row, [_leaf(3, 4)], order=2)


def test_gradients_of_several_inputs_and_results() -> None:
    def function(x: Tensor, y: Tensor) -> list[Tensor]:
        return [x * y, (x + y).sum()]

    assert gradcheck(function, [_leaf(3, 1), _leaf(1, 4)], order=2)


def test_wrong_factor_is_reported_with_its_ratio() -> None:
    row = _square(lambda node, g: (g * node.inputs[0],))
    with pytest.raises(GradientError, match=r"gradient of input 0, shape \(3, 4\) \(order 1\).* ratio 2"):
        gradcheck(row, [_leaf(3, 4)])


def test_one_wrong_element_is_found() -> None:
    mask = striate.tensor(np.where(np.arange(60) == 17, 1.001, 1.0))
    row = _square(lambda node, g: (g * node.inputs[0] * 2.0 * mask,))
    with pytest.raises(GradientError, match="the vjp of an operator on its way is wrong"):
        gradcheck(row, [_leaf(60)])


def test_second_order_finds_a_gradient_that_is_not_made_of_rows() -> None:
    row = _square(lambda node, g: (g * node.inputs[0].detach() * 2.0,))
    assert gradcheck(row, [_leaf(4)])
    with pytest.raises(GradientError, match="order 2"):
        gradcheck(row, [_leaf(4)], order=2)


def test_wrong_shape_is_reported() -> None:
    row = _square(lambda node, g: ((g * node.inputs[0] * 2.0).sum(),))
    with pytest.raises(GradientError, match=r"expected a gradient of shape \(4,\) for input 0"):
        gradcheck(row, [_leaf(4)])


def test_missing_dependence_is_reported() -> None:
    with pytest.raises(GradientError, match="depends on the inputs"):
        gradcheck(lambda x: x.detach() * 2.0, [_leaf(4)])


def test_forgotten_input_is_reported() -> None:
    mul = registry["mul"].forward
    row = Op("mul_under_test", mul, lambda node, g: (g * node.inputs[1], None), saves_inputs=(0, 1))
    with pytest.raises(GradientError, match=r"gradient of input 1.*got 0 along a random direction"):
        gradcheck(row, [_leaf(4), _leaf(4)])


def test_refusal_gradcheck() -> None:
    with pytest.raises(ValueError, match=r"expected at least one float64 input, got .*float32"):
        gradcheck(lambda x: x * 2.0, [striate.ones(3, requires_grad=True)])
    with pytest.raises(ValueError, match="expected order 1 or 2, got 3"):
        gradcheck(lambda x: x * 2.0, [_leaf(3)], order=3)


def test_other_dtypes_are_held_constant() -> None:
    index = striate.tensor([[0, 2], [1, 1]])
    assert gradcheck(lambda x, i: striate.gather(x, i, 1), [_leaf(2, 3), index], order=2)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.reshape(6, -1),
        lambda x: x.permute(2, 0, 1),
        lambda x: x.expand(2, 2, 3, 4),
        lambda x: x[1:, ::2, None, -1],
        lambda x: x[[0, 1, 0], :, [3, 3, 3]],
        lambda x: x[:, ::-1],
        lambda x: striate.concat([x, x[:1]], 0),
        lambda x: striate.stack([x, x], 1),
        lambda x: x.split([1, 3], 2),
        lambda x: x.flip(0, 2),
        lambda x: x.repeat(2, 1, 3),
        lambda x: striate.pixel_shuffle(x.reshape(1, 4, 3, 2), 2),
        lambda x: striate.pixel_unshuffle(x.reshape(1, 3, 4, 2), 2),
        lambda x: striate.tril(x, 1),
        lambda x: striate.triu(x, -1),
        lambda x: striate.scatter_add(x, striate.tensor([[[0, 0, 1, 1]] * 3] * 2), x, 0),
        lambda x: x.flatten().unsqueeze(0).squeeze(),
    ],
)
@pytest.mark.parametrize("order", [1, 2])
def test_gradient_of_shape_ops(function: Any, order: int) -> None:
    # Squared, so that second derivatives are not zero.
    def squared(x: Tensor) -> list[Tensor]:
        y = function(x)
        return [v * v for v in (y if isinstance(y, tuple) else (y,))]

    assert gradcheck(squared, [_leaf(2, 3, 4)], order=order, n_directions=1)
