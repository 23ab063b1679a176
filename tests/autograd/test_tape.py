"""What the tape promises: sums, hooks, safety of saved tensors, and that memory goes when the record goes."""

from __future__ import annotations

import gc
import threading
import weakref

import numpy as np
import pytest

import striate
from striate import Tensor
from striate.autograd.op import registry


def _leaf(*values: float) -> Tensor:
    return striate.tensor(list(values), dtype=striate.float64, requires_grad=True)


def test_accumulation_over_uses_and_calls() -> None:
    x = _leaf(1.0, 2.0)
    (x * x + x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [3.0, 5.0]
    (x * 2.0).sum().backward()
    assert x.grad.tolist() == [5.0, 7.0]
    x.grad = None
    x.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1.0, 1.0]


def test_backward_of_a_leaf_is_its_own_gradient() -> None:
    x = _leaf(3.0)
    x.backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1.0]


def test_backward_takes_a_gradient() -> None:
    x = _leaf(1.0, 2.0)
    (x * 3.0).backward(striate.tensor([1.0, 10.0], dtype=striate.float64))
    assert x.grad is not None
    assert x.grad.tolist() == [3.0, 30.0]


@pytest.mark.parametrize(
    ("gradient", "error", "message"),
    [
        (None, RuntimeError, r"backward: expected a gradient for a tensor of shape \(2,\), got none"),
        ([1.0], striate.ShapeError, r"backward: expected a gradient of shape \(2,\), got \(1,\)"),
        ([1, 2], striate.DTypeError, "backward: expected a gradient of dtype float64, got int64"),
    ],
)
def test_refusal_gradient_that_does_not_fit(gradient: list[float] | None, error: type[Exception], message: str) -> None:
    y = _leaf(1.0, 2.0) * 2.0
    given = None
    if gradient is not None:
        given = striate.tensor(gradient, dtype=None if isinstance(gradient[0], int) else striate.float64)
    with pytest.raises(error, match=message):
        y.backward(given)


def test_refusal_backward_without_record() -> None:
    with pytest.raises(RuntimeError, match="depends on one with requires_grad=True"):
        striate.ones(1).backward()
    with striate.no_grad():
        y = _leaf(1.0) * 2.0
    with pytest.raises(RuntimeError, match="requires_grad=True"):
        y.backward()


def test_refusal_second_backward() -> None:
    x = _leaf(2.0)
    y = (x * x).sum()
    y.backward()
    with pytest.raises(RuntimeError, match=r"got one that was already used \(at sum\); pass retain_graph=True"):
        y.backward()
    z = (x * x).sum()
    z.backward(retain_graph=True)
    z.backward()
    assert x.grad is not None
    assert x.grad.tolist() == [12.0]


def test_refusal_second_backward_through_a_shared_part() -> None:
    x = _leaf(2.0)
    shared = x * x
    (shared * 2.0).sum().backward()
    with pytest.raises(RuntimeError, match="already used"):
        (shared * 3.0).sum().backward()


def test_hook_of_a_leaf_runs_once_with_the_whole_gradient() -> None:
    x = _leaf(1.0, 2.0)
    seen: list[list[float]] = []
    remove = x.register_hook(lambda g: seen.append(g.tolist()))
    (x * x + x).sum().backward()
    assert seen == [[3.0, 5.0]]
    remove()
    x.sum().backward()
    assert len(seen) == 1


def test_hook_replaces_a_gradient() -> None:
    x = _leaf(1.0, 2.0)
    y = x * 2.0
    y.register_hook(lambda g: g * 10.0)
    x.register_hook(lambda g: g + 1.0)
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [21.0, 21.0]


def test_retain_grad_keeps_an_intermediate_gradient() -> None:
    x = _leaf(1.0, 2.0)
    y = x * 2.0
    y.retain_grad()
    (y * y).sum().backward()
    assert y.grad is not None
    assert y.grad.tolist() == [4.0, 8.0]


def test_refusal_of_leaves() -> None:
    y = _leaf(1.0) * 2.0
    with pytest.raises(RuntimeError, match="requires_grad_: expected a leaf"):
        y.requires_grad_()
    with pytest.raises(striate.DTypeError, match="requires_grad: expected a floating-point tensor, got int64"):
        striate.tensor([1]).requires_grad_()
    with pytest.raises(RuntimeError, match="register_hook: expected a tensor that requires grad"):
        striate.ones(1).register_hook(lambda g: None)
    with pytest.raises(RuntimeError, match=r"numpy: expected .*; use .detach\(\).numpy\(\)"):
        y.numpy()


def test_no_grad_records_nothing_and_nests() -> None:
    x = _leaf(1.0)
    with striate.no_grad():
        assert (x * 2.0).is_leaf
        with striate.enable_grad():
            assert not (x * 2.0).is_leaf
        assert not striate.is_grad_enabled()
    assert striate.is_grad_enabled()

    @striate.no_grad()
    def double(t: Tensor) -> Tensor:
        return t * 2.0

    assert not double(x).requires_grad


def test_no_grad_is_a_setting_of_the_thread() -> None:
    seen: list[bool] = []
    with striate.no_grad():
        worker = threading.Thread(target=lambda: seen.append(striate.is_grad_enabled()))
        worker.start()
        worker.join()
    assert seen == [True]


def test_grad_returns_and_leaves_grad_alone() -> None:
    x, y = _leaf(2.0), _leaf(3.0)
    z = x * y
    gx, gy, gx_again = striate.autograd.grad(z, [x, y, x])
    assert gx is not None
    assert gy is not None
    assert gx_again is not None
    assert (gx.tolist(), gy.tolist(), gx_again.tolist()) == ([3.0], [2.0], [3.0])
    assert x.grad is None


def test_grad_of_an_intermediate() -> None:
    x = _leaf(2.0)
    y = x * x
    (g,) = striate.autograd.grad(y * y, y)
    assert g is not None
    assert g.tolist() == [8.0]


def test_refusal_grad_of_an_unused_input() -> None:
    x, unused = _leaf(2.0), _leaf(1.0)
    with pytest.raises(RuntimeError, match="got none that depends on input 1; pass allow_unused=True"):
        striate.autograd.grad(x * x, [x, unused])
    assert striate.autograd.grad(x * x, [x, unused], allow_unused=True)[1] is None


def test_create_graph_gives_second_and_third_derivatives() -> None:
    x = _leaf(3.0)
    (first,) = striate.autograd.grad(x * x * x, x, create_graph=True)
    assert first is not None
    (second,) = striate.autograd.grad(first, x, create_graph=True)
    assert second is not None
    (third,) = striate.autograd.grad(second, x)
    assert third is not None
    assert (first.item(), second.item(), third.item()) == (27.0, 18.0, 6.0)


def test_refusal_saved_tensor_changed_in_place() -> None:
    x = _leaf(1.0, 2.0)
    y = striate.tensor([3.0, 4.0], dtype=striate.float64)
    z = (x * y).sum()
    striate.assign(y, y + 1.0)
    with pytest.raises(
        RuntimeError, match=r"mul: expected input 1 as it was .*version 0\), got version 1; do not change"
    ):
        z.backward()


def test_change_in_place_of_what_no_gradient_needs_is_fine() -> None:
    x = _leaf(1.0, 2.0)
    y = striate.tensor([3.0, 4.0], dtype=striate.float64)
    z = (x + y).sum()
    striate.assign(y, y * 0.0)
    z.backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1.0, 1.0]


def test_results_that_nobody_used_count_as_zero() -> None:
    x = _leaf(1.0, 2.0, 3.0)
    x.split([1, 2])[1].sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 1.0, 1.0]


def test_memory_saved_tensors_go_with_backward() -> None:
    x = _leaf(*range(8))
    y = x * 2.0
    z = (y * y).sum()
    saved = weakref.ref(y._array)
    del y
    gc.disable()
    try:
        assert saved() is not None
        z.backward()
        assert saved() is None, "backward keeps what it no longer needs"
    finally:
        gc.enable()


def test_memory_record_goes_with_its_result() -> None:
    x = _leaf(*range(8))
    y = (x * x).sum()
    node = weakref.ref(y._node)
    gc.disable()
    try:
        del y
        assert node() is None, "the record holds itself in a cycle"
    finally:
        gc.enable()


def test_memory_deep_record_is_used_and_freed() -> None:
    depth = 10_000
    x = striate.ones(1, requires_grad=True)
    y = x
    for _ in range(depth):
        y = y + 1.0
    y.backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1.0]
    y = x
    for _ in range(depth):
        y = y * 1.0
    del y  # never used: freeing it must not recurse either


def test_threads_tapes_do_not_mix() -> None:
    results: dict[int, list[float]] = {}

    def work(k: int) -> None:
        x = _leaf(float(k), 1.0)
        for _ in range(50):
            x.grad = None
            y = x
            for _ in range(5):
                y = y * x
            y.sum().backward()
        assert x.grad is not None
        results[k] = x.grad.tolist()

    workers = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert results == {k: [6.0 * k**5, 6.0] for k in range(6)}


def test_threads_one_leaf_in_many_forwards() -> None:
    x = _leaf(2.0)
    found: list[float] = []

    def work() -> None:
        (g,) = striate.autograd.grad((x * x).sum(), x)
        assert g is not None
        found.append(g.item())

    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert found == [4.0] * 8


def test_registry_refuses_a_name_twice() -> None:
    with pytest.raises(ValueError, match="register: expected a new operator name, got 'add' again"):
        striate.autograd.register(registry["add"])


def test_node_describes_its_inputs() -> None:
    x = striate.zeros(2, 3, requires_grad=True)
    node = striate.relu(x)._node
    assert node is not None
    assert node.shapes == ((2, 3),)
    assert node.dtypes == (striate.float32,)
    assert node.dtypes[0] is striate.float32
    assert node.needs == [True]
    np.testing.assert_array_equal(node.output.detach().numpy(), np.zeros((2, 3), np.float32))
