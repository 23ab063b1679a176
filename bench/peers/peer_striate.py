"""striate itself, as run.py sees it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import memory_ops
import numpy as np
import stacks
import whole

import striate
from striate import models, nn, ops, train

Array = np.ndarray[Any, Any]
SETTLING_IMAGES = 4
FUNCTIONS = SimpleNamespace(**vars(ops) | {"no_grad": striate.no_grad, "grad": striate.autograd.grad})


def _own(array: Array) -> striate.Tensor:
    """Return a tensor in striate's layout.

    A clone: memory that NumPy can see is exposed, and packed weights are not kept for it.
    """
    return ops.clone(ops.relayout(ops.tensor(array)) if array.ndim == 4 else ops.tensor(array))


def _build(name: str) -> nn.Module:
    striate.manual_seed(0)
    if name in stacks.NAMES:
        return stacks.build(nn, name)  # type: ignore[no-any-return]  # layers of any library
    return getattr(models, "LeNet" if name == "lenet" else name)()  # type: ignore[no-any-return]  # a builder


def _settle(model: nn.Module, row: dict[str, Any]) -> None:
    """Give norms weights and biases that differ, and the statistics of a few images, as training would."""
    rng = np.random.default_rng(2)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        assert norm.weight is not None and norm.bias is not None
        n = norm.weight.shape[0]
        ops.assign(norm.weight, ops.tensor(rng.uniform(0.8, 1.2, n).astype(np.float32)))
        ops.assign(norm.bias, ops.tensor(rng.uniform(-0.2, 0.2, n).astype(np.float32)))
        norm.training, norm.momentum = True, 1.0
    if norms:
        with striate.no_grad():
            model(_own(whole.images(row, SETTLING_IMAGES)))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.training, norm.momentum = False, momentum


def _write(model: nn.Module, folder: Path) -> None:
    """Save all weights; of clones, since memory that NumPy can see is exposed."""
    np.savez(folder / whole.WEIGHTS, **{key: ops.clone(w.detach()).numpy() for key, w in model.state_dict().items()})


class Peer:
    """What run.py measures, by striate."""

    def __init__(self, library: str, n_threads: int) -> None:
        striate.threads(n_threads)
        self.version = f"striate {striate.machine.info()['version']}, {striate.machine.active_isa()}"
        self.run: Callable[[], Any] = lambda: None

    def conv(self, pass_: str, layer: dict[str, Any], x: Array, weight: Array, grad_y: Array) -> list[Array]:
        """Set `run` and return its result."""
        xs, ws, gs = map(_own, (x, weight, grad_y))
        window = {key: layer[key] for key in ("stride", "padding", "dilation", "groups")}
        if pass_ == "forward":
            self.run = lambda: ops.conv2d(xs, ws, **window)
            return [np.array(ops.conv2d(xs, ws, **window).numpy())]
        at = xs if pass_ == "grad_input" else ws
        y = ops.conv2d(*(t.requires_grad_() if t is at else t for t in (xs, ws)), **window)
        self.run = lambda: striate.autograd.grad(y, at, gs, retain_graph=True)
        return [np.array(striate.autograd.grad(y, at, gs, retain_graph=True)[0].numpy())]

    def memory_op(self, pass_: str, row: dict[str, Any], tensors: list[Array], grad_y: Array) -> list[Array]:
        """Set `run` and return its results."""
        xs = [_own(x) for x in tensors]
        if pass_ == "step":
            grads = [_own(g) for g in memory_ops.split(tensors, grad_y)]
            self.run = memory_ops.optimizer(train, row, xs, grads).step
            return [np.concatenate([p.detach().numpy().ravel() for p in xs])]
        self.run = memory_ops.call(FUNCTIONS, row, pass_, xs, _own(grad_y))
        return [np.array(y.detach().numpy()) for y in self.run()]

    def network(self, row: dict[str, Any], x: Array, folder: Path) -> list[Array]:
        """Write the network's weights, set `run` to a compiled pass, and return its results."""
        model = _build(row["name"])
        _settle(model, row)
        _write(model, folder)
        xs = _own(x)
        program = striate.compile(model.eval(), xs)
        self.run = lambda: program(xs)
        ys = program(xs)
        return [np.array(y.numpy()) for y in (ys if isinstance(ys, tuple) else (ys,))]

    def step(
        self, row: dict[str, Any], batches: list[tuple[Array, Array]], folder: Path, is_eager: bool
    ) -> list[float]:
        """Write the network's weights, set `run` to a training step, and return the first losses."""
        model = _build(row["name"])
        _write(model, folder)
        for module in model.modules():
            module.training = not isinstance(module, nn.Dropout)  # other libraries draw other numbers
        optimizer = train.SGD(model.parameters(), lr=whole.LEARNING_RATE, momentum=whole.MOMENTUM)
        loss_of = whole.loss_of(ops, row)
        data = itertools.cycle([(_own(x), ops.tensor(target)) for x, target in batches])
        compiled = None if is_eager else striate.compile_step(model, loss_of, optimizer)

        def run() -> float:
            x, target = next(data)
            if compiled is not None:
                return compiled(x, target)[0].item()
            optimizer.zero_grad()
            loss = loss_of(model(x), target)
            loss.backward()
            optimizer.step()
            return loss.item()

        self.run = run
        losses = [run() for _ in range(whole.N_COMPARED)]
        if compiled is not None and compiled.reason is not None:
            raise SystemExit(
                f"peer_striate: expected a compiled step of {row['name']}, got eager ones: {compiled.reason}"
            )
        return losses

    def machine(self) -> dict[str, Any]:
        """What striate knows of the machine and of its build."""
        return striate.machine.info()

    def limits(self) -> dict[str, float]:
        """Multiply-add peak, operations a second, and bandwidth beyond the caches, bytes a second.

        `alone_flops` is n times the peak of one thread: where n threads reach much less, the machine does other work.
        """
        n_threads = striate.machine.thread_count()
        peak = striate._core.measure_fma(striate.float32, 0.03)
        bandwidth = striate._core.measure_stream("triad", 64 << 20, 3)
        with striate.threads(1):
            alone = striate._core.measure_fma(striate.float32, 0.02)
        return {"peak_flops": peak, "bandwidth_bytes": bandwidth, "alone_flops": alone * n_threads}

    def streams(self, n_bytes: int) -> dict[str, float]:
        """Bytes a second of the plainest loops over this much memory, the best of several runs of each."""
        arrays = {"copy": 2, "copy_nt": 2, "triad": 3, "read": 1}
        repeats = min(200, max(5, (1 << 29) // n_bytes))
        return {name: striate._core.measure_stream(name, n_bytes // n, repeats) for name, n in arrays.items()}
