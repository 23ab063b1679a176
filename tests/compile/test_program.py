"""Programs for inference: the same numbers as eager calls, from one call."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import numpy as np
import pytest

import striate
from striate import Tensor, nn
from striate.compile import Program

rng = np.random.default_rng(0)


def drawn(*shape: int) -> Tensor:
    return striate.tensor(rng.standard_normal(shape).astype(np.float32))


class Block(nn.Module):
    """Convolutions with and without bias, batch-norm, a shortcut, pooling, flattening, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.second_norm = nn.BatchNorm2d(8)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(8 * 4 * 4, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first_norm(self.first(x)).relu()
        y = (self.second_norm(self.second(y)) + y).relu()
        return self.head(striate.flatten(self.pool(y), 1))


def trained(model: nn.Module, *shape: int) -> nn.Module:
    """Give running statistics and batch-norm weights other values than 0 and 1."""
    for _ in range(3):
        model(drawn(*shape))
    for name, p in model.named_parameters():
        if "norm" in name:
            striate.assign(p, striate.tensor(rng.uniform(0.5, 1.5, p.shape).astype(np.float32)))
    return model.eval()


def eager(model: Any, *inputs: Tensor) -> np.ndarray:
    with striate.no_grad():
        return model(*inputs).numpy()


def assert_close(y: np.ndarray, expected: np.ndarray) -> None:
    """Folding batch-norm rounds weights anew: a few units in the last place of the largest sum."""
    assert y.shape == expected.shape
    assert np.abs(y - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.fixture
def block() -> nn.Module:
    return trained(Block(), 4, 3, 8, 8)


def ops_of(program: Program) -> list[str]:
    return [node.op for node in program.graph.nodes]


def test_program_equals_eager(block: nn.Module) -> None:
    x = drawn(4, 3, 8, 8)
    program = striate.compile(block, x)
    for _ in range(3):  # traced, then twice from the arena
        assert_close(program(x).numpy(), eager(block, x))


def test_calls_are_equal_to_the_bit(block: nn.Module) -> None:
    x = drawn(2, 3, 8, 8)
    program = striate.compile(block, x)
    first = program(x).numpy().copy()
    for n_threads in (1, 2, 3):
        with striate.threads(n_threads):
            for _ in range(2):
                assert np.array_equal(program(x).numpy(), first)


def test_results_outlive_the_next_call(block: nn.Module) -> None:
    x, other = drawn(2, 3, 8, 8), drawn(2, 3, 8, 8)
    program = striate.compile(block, x)
    program(x)
    y = program(x)
    kept = y.numpy().copy()
    program(other)
    assert np.array_equal(y.numpy(), kept)


def test_batch_norm_and_relu_are_gone(block: nn.Module) -> None:
    program = striate.compile(block, drawn(1, 3, 8, 8))
    ops = ops_of(program)
    assert "batch_norm_eval" not in ops
    assert ops.count("conv2d") == 2
    assert "reshape" not in ops  # the linear layer's weight is in the order of memory


def test_other_sizes_are_planned_anew(block: nn.Module) -> None:
    program = striate.compile(block, drawn(4, 3, 8, 8))
    for n in (1, 7, 4, 0):
        x = drawn(n, 3, 8, 8)
        y = program(x).numpy()
        assert y.shape == (n, 10)
        if n:
            assert_close(y, eager(block, x))


def test_other_image_sizes() -> None:
    model = trained(
        nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()), 1, 3, 8, 8
    )
    program = striate.compile(model, drawn(1, 3, 8, 8))
    for h, w in ((8, 8), (5, 9), (17, 3)):
        x = drawn(2, 3, h, w)
        assert_close(program(x).numpy(), eager(model, x))


def test_small_images_in_one_window() -> None:
    program = striate.compile(lambda x: striate.max_pool2d(x, 3, stride=2, ceil_mode=True), drawn(1, 3, 8, 8))
    x = drawn(2, 3, 2, 2)
    graph = program.graph
    assert np.array_equal(program(x).numpy(), x.numpy().max((2, 3), keepdims=True))
    assert program.graph is graph  # of the record with larger images
    with pytest.raises(striate.ShapeError, match="max_pool2d: expected a padded input"):
        program(drawn(2, 3, 1, 2))


def test_sizes_that_a_record_does_not_hold_for_are_recorded(block: nn.Module) -> None:
    class Sized(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2.0 if x.shape[0] > 2 else x * 3.0

    model = Sized()
    program = striate.compile(model, drawn(4, 2))
    for n in (4, 1, 4, 2, 5):
        x = drawn(n, 2)
        assert np.array_equal(program(x).numpy(), eager(model, x))


def test_a_changed_weight_is_seen(block: nn.Module) -> None:
    x = drawn(2, 3, 8, 8)
    program = striate.compile(block, x)
    before = program(x).numpy().copy()
    striate.assign(block.head.bias, block.head.bias.detach() + 1.0)
    after = program(x).numpy()
    assert np.abs(after - before).min() > 0.5
    assert_close(after, eager(block, x))


def test_modes_come_back_and_dropout_is_off() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
    model.train()
    model[0].eval()
    x = drawn(3, 4)
    program = striate.compile(model, x)
    assert [module.training for module in model.modules()] == [True, False, True]
    assert np.array_equal(program(x).numpy(), eager(model[0], x))


class Pair(NamedTuple):
    low: Tensor
    high: Tensor


def test_results_keep_their_structure() -> None:
    def function(x: Tensor, y: Tensor) -> Any:
        return {"sum": x + y, "list": [x, (y, x * y)], "pair": Pair(x - 1.0, x + 1.0)}

    x, y = drawn(2, 3), drawn(2, 3)
    program = striate.compile(function, x, y)
    found = program(x, y)
    assert list(found) == ["sum", "list", "pair"]
    assert isinstance(found["pair"], Pair)
    assert np.array_equal(found["list"][1][1].numpy(), (x * y).numpy())
    assert np.array_equal(found["list"][0].numpy(), x.numpy())


def test_an_array_is_taken_as_it_is(block: nn.Module) -> None:
    x = rng.standard_normal((2, 3, 8, 8)).astype(np.float32)
    program = striate.compile(block, x)
    assert_close(program(x).numpy(), eager(block, striate.tensor(x)))


def test_threads_get_the_bits_of_one(block: nn.Module) -> None:
    inputs = [drawn(2, 3, 8, 8) for _ in range(8)]
    program = striate.compile(block, inputs[0])
    expected = [program(x).numpy().copy() for x in inputs]
    wrong: list[int] = []

    def work(i: int) -> None:
        results = [program(inputs[i]).numpy() for _ in range(20)]
        wrong.extend(i for y in results if not np.array_equal(y, expected[i]))

    workers = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_memory_is_planned_near_its_bound(block: nn.Module) -> None:
    x = drawn(4, 3, 8, 8)
    program = striate.compile(block, x)
    program(x)
    memory = program.memory()
    assert 0 < memory["least_bytes"] <= memory["arena_bytes"] <= 1.15 * memory["least_bytes"]


def test_a_second_call_takes_no_memory_from_the_system(block: nn.Module) -> None:
    x = drawn(4, 3, 8, 8)
    program = striate.compile(block, x)
    for _ in range(3):
        program(x)
    before = striate.memory.stats()
    for _ in range(50):
        program(x)
    after = striate.memory.stats()
    assert after["n_system_allocations"] == before["n_system_allocations"]
    assert after["in_use_bytes"] == before["in_use_bytes"]


def test_many_shapes_leave_memory_flat(block: nn.Module) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
    program = striate.compile(model, drawn(1, 3, 8, 8))
    program.set_cache_bytes(1 << 20)
    for i in range(200):
        program(drawn(1, 3, 8 + i % 50, 8 + i // 4))
    assert program.memory()["n_plans"] < 100


def test_refusals(block: nn.Module) -> None:
    x = drawn(1, 3, 8, 8)
    program = striate.compile(block, x)
    with pytest.raises(ValueError, match="expected 1 inputs, got 2"):
        program(x, x)
    with pytest.raises(striate.ShapeError, match="conv2d"):
        program(drawn(1, 4, 8, 8))
    with pytest.raises(striate.DTypeError, match="conv2d"):
        program(drawn(1, 3, 8, 8).to(striate.float64))
    assert_close(program(x).numpy(), eager(block, x))
    with pytest.raises(TypeError, match="expected an example of every input"):
        striate.compile(block)
    with pytest.raises(TypeError, match="got int"):
        striate.compile(lambda x: 3, x)
    with pytest.raises(striate.RecordError, match="item"):
        striate.compile(lambda x: x * float(x.sum().item()), x)
