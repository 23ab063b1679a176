"""What backward leaves in `.grad`: the whole gradient, once, in memory of its own."""

from __future__ import annotations

import numpy as np

import striate
from striate.autograd import grad


def test_leaf_gradients_share_no_memory() -> None:
    a = striate.tensor([1.0, 2.0], requires_grad=True)
    b = striate.tensor([3.0, 4.0], requires_grad=True)
    seed = striate.tensor([1.0, -1.0])
    (a + b).backward(seed)
    a.grad.numpy()[0] = 7
    assert b.grad.numpy().tolist() == [1.0, -1.0]
    assert seed.numpy().tolist() == [1.0, -1.0]


def test_leaf_gradient_of_a_sum_can_be_written() -> None:
    x = striate.tensor(np.ones((2, 3), np.float32), requires_grad=True)
    x.sum().backward()
    x.grad.numpy()[0, 0] = 5
    assert x.grad.numpy().tolist() == [[5.0, 1.0, 1.0], [1.0, 1.0, 1.0]]


def test_leaf_that_is_the_output_does_not_keep_the_seed() -> None:
    x = striate.tensor([1.0, 2.0], requires_grad=True)
    seed = striate.tensor([3.0, 4.0])
    x.backward(seed)
    x.backward(seed)
    assert x.grad.numpy().tolist() == [6.0, 8.0]
    assert seed.numpy().tolist() == [3.0, 4.0]


def test_leaf_hook_sees_the_whole_gradient_once() -> None:
    x = striate.tensor([1.0, 2.0], requires_grad=True)
    seen = []
    x.register_hook(lambda g: seen.append(g.tolist()))
    (x * x + x).sum().backward()
    assert seen == [[3.0, 5.0]]


def test_leaf_hook_changes_what_is_kept_and_what_grad_returns() -> None:
    x = striate.tensor([1.0, 2.0], requires_grad=True)
    x.register_hook(lambda g: g * 10.0)
    (x * x).sum().backward()
    assert x.grad.numpy().tolist() == [20.0, 40.0]
    (g,) = grad((x * x).sum(), x)
    assert g is not None
    assert g.numpy().tolist() == [20.0, 40.0]
