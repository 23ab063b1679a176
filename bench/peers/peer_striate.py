"""striate itself, as run.py sees it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import memory_ops
import numpy as np

import striate
from striate import ops, train

Array = np.ndarray[Any, Any]
FUNCTIONS = SimpleNamespace(**vars(ops) | {"no_grad": striate.no_grad, "grad": striate.autograd.grad})


def _own(array: Array) -> striate.Tensor:
    """Return a tensor in striate's layout.

    A clone: memory that NumPy can see is exposed, and packed weights are not kept for it.
    """
    return ops.clone(ops.relayout(ops.tensor(array)) if array.ndim == 4 else ops.tensor(array))


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
