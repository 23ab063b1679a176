"""striate itself, as run.py sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import striate
from striate import ops

Array = np.ndarray[Any, Any]


class Peer:
    """Convolution by striate."""

    def __init__(self, library: str, n_threads: int) -> None:
        striate.threads(n_threads)
        self.version = f"striate {striate.machine.info()['version']}, {striate.machine.active_isa()}"
        self.run: Callable[[], Any] = lambda: None

    def prepare(self, pass_: str, layer: dict[str, Any], x: Array, weight: Array, grad_y: Array) -> Array:
        """Set `run` and return its result."""
        # Clones: memory that NumPy can see is exposed, and packed weights are not kept for it.
        xs, ws, gs = (ops.clone(ops.relayout(ops.tensor(a))) for a in (x, weight, grad_y))
        window = {key: layer[key] for key in ("stride", "padding", "dilation", "groups")}
        if pass_ == "forward":
            self.run = lambda: ops.conv2d(xs, ws, **window)
            return np.array(ops.conv2d(xs, ws, **window).numpy())
        at = xs if pass_ == "grad_input" else ws
        y = ops.conv2d(*(t.requires_grad_() if t is at else t for t in (xs, ws)), **window)
        self.run = lambda: striate.autograd.grad(y, at, gs, retain_graph=True)
        return np.array(striate.autograd.grad(y, at, gs, retain_graph=True)[0].numpy())

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
