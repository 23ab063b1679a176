"""PyTorch, contiguous ("torch") or channels last ("torch-channels-last")."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import memory_ops
import numpy as np
import torch

Array = np.ndarray[Any, Any]
FUNCTIONS = SimpleNamespace(
    **vars(torch.nn.functional) | {"cat": torch.cat, "no_grad": torch.no_grad, "grad": torch.autograd.grad}
)


class Peer:
    """What run.py measures, by PyTorch."""

    def __init__(self, library: str, n_threads: int) -> None:
        torch.set_num_threads(n_threads)
        self.version = f"torch {torch.__version__}"
        self.format = torch.channels_last if library.endswith("channels-last") else torch.contiguous_format
        self.run: Callable[[], Any] = lambda: None

    def conv(self, pass_: str, layer: dict[str, Any], x: Array, weight: Array, grad_y: Array) -> list[Array]:
        """Set `run` and return its result."""
        xs, ws, gs = (torch.from_numpy(a).to(memory_format=self.format) for a in (x, weight, grad_y))
        stride, padding, dilation = ([layer[key]] * 2 for key in ("stride", "padding", "dilation"))
        if pass_ == "forward":

            @torch.no_grad()
            def run() -> Any:
                return torch.conv2d(xs, ws, None, stride, padding, dilation, layer["groups"])
        else:
            mask = [pass_ == "grad_input", pass_ == "grad_weight", False]

            def run() -> Any:
                return torch.ops.aten.convolution_backward(
                    gs, xs, ws, None, stride, padding, dilation, False, [0, 0], layer["groups"], mask
                )[mask.index(True)]

        self.run = run
        return [run().numpy()]

    def memory_op(self, pass_: str, row: dict[str, Any], tensors: list[Array], grad_y: Array) -> list[Array] | None:
        """Set `run` and return its results."""
        is_contiguous = self.format is torch.contiguous_format
        if pass_ == "step":
            return self._step(row, tensors, grad_y) if is_contiguous else None
        if grad_y.ndim < 4 and not is_contiguous:
            return None
        *xs, g = (
            torch.from_numpy(a).contiguous(memory_format=self.format if a.ndim == 4 else torch.contiguous_format)
            for a in (*tensors, grad_y)
        )
        self.run = memory_ops.call(FUNCTIONS, row, pass_, xs, g)
        return [y.detach().numpy() for y in self.run()]

    def _step(self, row: dict[str, Any], tensors: list[Array], grad_y: Array) -> list[Array]:
        """Set `run` to the faster of PyTorch's two ways to update all parameters in one call."""
        ways = {}
        for way in ("fused", "foreach"):
            params = [torch.from_numpy(p.copy()) for p in tensors]
            grads = [torch.from_numpy(g) for g in memory_ops.split(tensors, grad_y)]
            optimizer = memory_ops.optimizer(torch.optim, row, params, grads, **{way: True})
            result = np.concatenate([p.detach().numpy().ravel() for p in params])
            begin = time.perf_counter()
            for _ in range(10):
                optimizer.step()
            ways[time.perf_counter() - begin] = optimizer.step, result
        self.run, result = ways[min(ways)]
        return [result]
