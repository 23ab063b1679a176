"""PyTorch, contiguous ("torch") or channels last ("torch-channels-last")."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

Array = np.ndarray[Any, Any]


class Peer:
    """Convolution by PyTorch."""

    def __init__(self, library: str, n_threads: int) -> None:
        torch.set_num_threads(n_threads)
        self.version = f"torch {torch.__version__}"
        self.format = torch.channels_last if library.endswith("channels-last") else torch.contiguous_format
        self.run: Callable[[], Any] = lambda: None

    def prepare(self, pass_: str, layer: dict[str, Any], x: Array, weight: Array, grad_y: Array) -> Array:
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
        return run().numpy()  # type: ignore[no-any-return]  # torch is not there when this is checked
