"""Compiled training steps: the bits of eager steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import striate
from striate import Tensor, nn, train
from striate.compile import TrainingStep, VerifyError, compile_step

Build = Callable[[Any], train.Optimizer]

OPTIMIZERS: dict[str, Build] = {
    "sgd": lambda p: train.SGD(p, lr=0.1),
    "momentum": lambda p: train.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-3, nesterov=True),
    "dampening": lambda p: train.SGD(p, lr=0.1, momentum=0.9, dampening=0.5),
    "adam": lambda p: train.Adam(p, lr=1e-2),
    "adamw": lambda p: train.AdamW(p, lr=1e-2),
    "rmsprop": lambda p: train.RMSprop(p, lr=1e-3, momentum=0.9, centered=True),
}


def network() -> nn.Module:
    striate.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(8 * 16, 5),
    )


def batches(*sizes: int) -> list[tuple[Tensor, Tensor]]:
    rng = np.random.default_rng(0)
    return [
        (
            striate.tensor(rng.standard_normal((n, 3, 8, 8)).astype(np.float32)),
            striate.tensor(rng.integers(0, 5, n)),
        )
        for n in sizes
    ]


def everything(model: nn.Module, optimizer: train.Optimizer) -> list[np.ndarray]:
    moments = [v for own in optimizer.state.values() for v in own.values()]
    tensors = [*model.parameters(), *model.buffers(), *[v for v in moments if isinstance(v, Tensor)]]
    return [x.detach().numpy().copy() for x in tensors] + [np.array([v for v in moments if isinstance(v, int)])]


def run(build: Build, *, is_eager: bool = False, n_verified: int = 0, max_grad_norm: float | None = None) -> Any:
    """Train on batches of two sizes with a falling learning rate; return losses and all state."""
    model = network()
    optimizer = build(model.parameters())
    striate.manual_seed(1)
    step = TrainingStep(
        model,
        nn.CrossEntropyLoss(),
        optimizer,
        max_grad_norm=max_grad_norm,
        clip=train.clip_grad_norm_,
        n_verified=n_verified,
        is_eager=is_eager,
    )
    losses = []
    for i, (x, y) in enumerate(batches(16, 16, 7, 16, 7)):
        optimizer.set_lr(0.05 / (i + 1))
        losses.append(step(x, y)[0].item())
    if not is_eager:
        assert step.reason is None
    return losses, everything(model, optimizer), striate.default_generator().get_state()


def assert_equal(a: Any, b: Any) -> None:
    assert a[0] == b[0]
    assert a[2] == b[2]
    for x, y in zip(a[1], b[1], strict=True):
        assert np.array_equal(x, y)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_compiled_steps_equal_eager_ones_to_the_bit(name: str) -> None:
    assert_equal(run(OPTIMIZERS[name]), run(OPTIMIZERS[name], is_eager=True))


@pytest.mark.parametrize("name", ["momentum", "dampening", "adam"])
def test_verified_steps_leave_the_same_state(name: str) -> None:
    assert_equal(run(OPTIMIZERS[name], n_verified=2), run(OPTIMIZERS[name], is_eager=True))


@pytest.mark.parametrize("max_grad_norm", [0.1, 1e6])
def test_clipping_is_part_of_the_step(max_grad_norm: float) -> None:
    build = OPTIMIZERS["momentum"]
    compiled = run(build, max_grad_norm=max_grad_norm)
    assert_equal(compiled, run(build, is_eager=True, max_grad_norm=max_grad_norm))
    assert (compiled[0] == run(build)[0]) == (max_grad_norm == 1e6)


def test_steps_equal_those_of_a_hand_written_loop() -> None:
    found = run(OPTIMIZERS["adam"])
    model, loss = network(), nn.CrossEntropyLoss()
    optimizer = OPTIMIZERS["adam"](model.parameters())
    striate.manual_seed(1)
    losses = []
    for i, (x, y) in enumerate(batches(16, 16, 7, 16, 7)):
        optimizer.set_lr(0.05 / (i + 1))
        optimizer.zero_grad()
        value = loss(model(x), y)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    assert_equal(found, (losses, everything(model, optimizer), striate.default_generator().get_state()))


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_threads_do_not_change_bits(n_threads: int) -> None:
    expected = run(OPTIMIZERS["momentum"])
    with striate.threads(n_threads):
        assert_equal(run(OPTIMIZERS["momentum"]), expected)


def test_optimizer_steps_are_one_node_in_place() -> None:
    model = network()
    step = compile_step(
        model, nn.CrossEntropyLoss(), train.SGD(model.parameters(), lr=0.1, momentum=0.9), batches(4)[0]
    )
    assert step.graph is not None
    ops = [node.op for node in step.graph.nodes]
    assert ops.count("sgd_step") == 1
    assert ops.count("assign") == 2  # batches counted by batch-norm, and draws by the generator


def test_an_example_changes_nothing() -> None:
    model = network()
    optimizer = OPTIMIZERS["momentum"](model.parameters())
    before, generator = everything(model, optimizer), striate.default_generator().get_state()
    compile_step(model, nn.CrossEntropyLoss(), optimizer, batches(4)[0])
    after = everything(model, optimizer)
    assert all(np.array_equal(a, b) for a, b in zip(before, after[: len(before) - 1], strict=False))
    assert striate.default_generator().get_state() == generator


def test_a_changed_hyper_parameter_is_recorded_anew() -> None:
    def both(is_eager: bool) -> Any:
        model = network()
        optimizer = train.SGD(model.parameters(), lr=0.1, momentum=0.9)
        step = TrainingStep(model, nn.CrossEntropyLoss(), optimizer, is_eager=is_eager)
        striate.manual_seed(1)
        losses = []
        for i, (x, y) in enumerate(batches(8, 8, 8, 8)):
            if i == 2:
                optimizer.param_groups[0]["momentum"] = 0.5
            losses.append(step(x, y)[0].item())
        return losses, everything(model, optimizer), striate.default_generator().get_state()

    assert_equal(both(False), both(True))


def test_loaded_moments_are_recorded_anew() -> None:
    model = network()
    optimizer = train.Adam(model.parameters(), lr=1e-2)
    step = compile_step(model, nn.CrossEntropyLoss(), optimizer)
    data = batches(8, 8, 8)
    step(*data[0])
    saved = {key: x.clone() for key, x in model.state_dict().items()}, optimizer.state_dict()
    moments = {
        k: {n: v.clone() if isinstance(v, Tensor) else v for n, v in own.items()}
        for k, own in saved[1]["state"].items()
    }
    generator = striate.default_generator().get_state()
    first = step(*data[1])[0].item(), step(*data[2])[0].item(), everything(model, optimizer)
    model.load_state_dict(saved[0])
    optimizer.load_state_dict({"state": moments, "param_groups": saved[1]["param_groups"]})
    striate.default_generator().set_state(generator)
    again = step(*data[1])[0].item(), step(*data[2])[0].item(), everything(model, optimizer)
    assert first[:2] == again[:2]
    assert all(np.array_equal(a, b) for a, b in zip(first[2], again[2], strict=True))


def test_a_step_that_cannot_be_recorded_runs_eagerly(caplog: pytest.LogCaptureFixture) -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.layer(x)
            return y * 2.0 if y.sum().item() > 0 else y

    striate.manual_seed(0)
    model = Gated()
    optimizer = train.SGD(model.parameters(), lr=0.1)
    step = compile_step(model, nn.CrossEntropyLoss(), optimizer)
    x, y = striate.rand(6, 4), striate.tensor([0, 1, 0, 1, 0, 1])
    first = step(x, y)[0].item()
    assert step(x, y)[0].item() < first
    assert step.reason is not None
    assert "item" in step.reason
    assert "run eagerly" in caplog.text
    assert optimizer.state[model.layer.weight]["n_steps"] == 2


def test_a_loss_that_is_not_finite_changes_no_parameter() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 5))
    optimizer = train.Adam(model.parameters(), lr=0.1)
    step = compile_step(model, nn.CrossEntropyLoss(), optimizer)
    x, y = batches(4)[0]
    step(x, y)
    before = everything(model, optimizer)
    with pytest.raises(FloatingPointError, match="expected finite values for the loss, got nan"):
        step(x * float("nan"), y)
    assert all(np.array_equal(a, b) for a, b in zip(before, everything(model, optimizer), strict=True))
    step(x, y)


def test_a_step_that_differs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 5))
    optimizer = train.SGD(model.parameters(), lr=0.1)
    calls = []

    def loss(scores: Tensor, y: Tensor) -> Tensor:  # another one each time it is called by Python
        calls.append(None)
        return striate.cross_entropy(scores * float(len(calls)), y)

    step = compile_step(model, loss, optimizer, verify=True)
    with pytest.raises(VerifyError, match="expected the loss as after an eager step"):
        step(*batches(4)[0])


def test_a_wrong_gradient_is_refused() -> None:
    striate.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 48, 1), nn.BatchNorm2d(48), nn.ReLU(), nn.Flatten(), nn.Linear(48 * 64, 5))
    calls = []

    def loss(scores: Tensor, y: Tensor) -> Tensor:
        calls.append(None)  # the second is recorded: the same value, another gradient
        wrong = scores * 1.01
        return striate.cross_entropy(scores.detach() + wrong - wrong.detach() if len(calls) == 2 else scores, y)

    step = compile_step(model, loss, train.SGD(model.parameters(), lr=0.1, momentum=0.9), verify=True)
    with pytest.raises(VerifyError, match=r"expected 0\.weight as after an eager step"):
        step(*batches(4)[0])


def test_a_relu_at_zero_is_no_difference() -> None:
    """A third of the pixels are their channel's mean: on which side of the ReLU they come is left to rounding."""
    striate.manual_seed(0)
    rng = np.random.default_rng(0)
    levels = rng.permutation(np.arange(3 * 256) % 3 - 1).reshape(3, 1, 16, 16)
    x = rng.standard_normal((1, 24, 1, 1)) + levels * rng.standard_normal((1, 24, 1, 1))
    target = striate.tensor(rng.standard_normal((3, 48, 16, 16)).astype(np.float32))
    model = nn.Sequential(nn.Conv2d(24, 48, 1), nn.BatchNorm2d(48), nn.ReLU())
    optimizer = train.SGD(model.parameters(), lr=0.1, momentum=0.9)
    step = compile_step(model, lambda y, target: (y * target).mean(), optimizer, verify=True)
    for _ in range(3):
        step(striate.tensor(x.astype(np.float32)), target)
    assert step.reason is None


def test_gradients_are_not_kept() -> None:
    model = network()
    step = compile_step(model, nn.CrossEntropyLoss(), train.SGD(model.parameters(), lr=0.1))
    for x, y in batches(4, 4):
        step(x, y)
        assert all(p.grad is None for p in model.parameters())


def test_frozen_parameters_stay() -> None:
    model = network()
    first = next(iter(model.parameters()))
    first.requires_grad_(False)
    before = first.numpy().copy()
    step = compile_step(model, nn.CrossEntropyLoss(), train.SGD(model.parameters(), lr=0.1), verify=True)
    for x, y in batches(4, 4, 4):
        step(x, y)
    assert step.reason is None
    assert np.array_equal(first.numpy(), before)


def test_memory_is_planned_near_its_bound() -> None:
    model = network()
    step = compile_step(model, nn.CrossEntropyLoss(), train.SGD(model.parameters(), lr=0.1))
    for x, y in batches(16, 16, 16):
        step(x, y)
    memory = step.memory()
    assert 0 < memory["least_bytes"] <= memory["arena_bytes"] <= 1.15 * memory["least_bytes"]


def test_a_changed_constant_is_recorded_anew() -> None:
    """The class weights of a loss are no state of the model."""

    def losses(is_eager: bool) -> list[float]:
        model = network()
        weight = striate.ones(5)
        step = TrainingStep(
            model,
            lambda scores, y: striate.cross_entropy(scores, y, weight * 2.0),  # folded when it is recorded
            train.SGD(model.parameters(), lr=0.1),
            is_eager=is_eager,
        )
        striate.manual_seed(1)
        found = []
        for i, (x, y) in enumerate(batches(8, 8, 8, 8)):
            if i == 2:
                striate.assign(weight, striate.tensor([1.0, 2.0, 3.0, 4.0, 5.0]))
            found.append(step(x, y)[0].item())
        return found

    assert losses(False) == losses(True)
