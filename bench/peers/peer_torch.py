"""PyTorch, contiguous ("torch"), channels last ("torch-channels-last"), or that and compiled ("torch-compile")."""

from __future__ import annotations

import itertools
import os
import shutil
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import memory_ops
import numpy as np
import torch
import whole

Array = np.ndarray[Any, Any]
FUNCTIONS = SimpleNamespace(
    **vars(torch.nn.functional) | {"cat": torch.cat, "no_grad": torch.no_grad, "grad": torch.autograd.grad}
)


class Peer:
    """What run.py measures, by PyTorch."""

    def __init__(self, library: str, n_threads: int) -> None:
        torch.set_num_threads(n_threads)
        self.version = f"torch {torch.__version__}"
        self.compiles = library.endswith("compile")
        if self.compiles and not shutil.which(os.environ.get("CXX", "g++")):
            raise ImportError("torch.compile needs a C++ compiler, and there is none")
        self.format = torch.contiguous_format if library == "torch" else torch.channels_last
        self.flops: float | None = None
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

    def network(self, row: dict[str, Any], x: Array, folder: Path) -> list[Array]:
        """Set `run` and return its results; "torch" also writes the network for the runtimes, and counts its operations."""
        import networks
        from torch._inductor import config
        from torch.utils.flop_counter import FlopCounterMode

        warnings.simplefilter("ignore")
        model = networks.load(row["name"], folder / whole.WEIGHTS).eval().to(memory_format=self.format)
        xs = torch.from_numpy(x).contiguous(memory_format=self.format)
        call = model
        if self.compiles:
            config.freezing = True
            _hold_inductor(config)
            call = torch.compile(model)

        def run() -> tuple[torch.Tensor, ...]:
            with torch.no_grad():
                ys = call(xs)
            return ys if isinstance(ys, tuple) else (ys,)

        self.run = run
        ys = run()
        if not self.compiles and self.format is torch.contiguous_format:
            with FlopCounterMode(display=False) as counter:
                run()
            self.flops = float(counter.get_total_flops())
            _write(model, xs, len(ys), folder)
        return [y.numpy() for y in ys]

    def step(
        self, row: dict[str, Any], batches: list[tuple[Array, Array]], folder: Path, is_eager: bool
    ) -> list[float]:
        """Set `run` to a training step, its optimizer fused, and return the first losses; "torch" also counts operations."""
        import networks
        from torch._inductor import config
        from torch.utils.flop_counter import FlopCounterMode

        model = networks.load(row["name"], folder / whole.WEIGHTS).train().to(memory_format=self.format)
        optimizer = torch.optim.SGD(model.parameters(), lr=whole.LEARNING_RATE, momentum=whole.MOMENTUM, fused=True)
        loss_of = whole.loss_of(torch.nn.functional, row)
        tensors = [(torch.from_numpy(x).contiguous(memory_format=self.format), torch.from_numpy(t)) for x, t in batches]
        data = itertools.cycle(tensors)

        def forward(x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            return loss_of(model(x), target)  # type: ignore[no-any-return]  # a loss of torch, by name

        if not self.compiles and self.format is torch.contiguous_format:
            model.requires_grad_(False).eval()
            with FlopCounterMode(display=False) as counter:
                forward(*tensors[0])
            model.requires_grad_(True).train()
            # Each gradient costs what the forward pass does; the counter errs in those of grouped convolutions.
            self.flops = 3.0 * counter.get_total_flops()
        elif self.compiles:
            _hold_inductor(config)
            forward = torch.compile(forward)

        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.eval()  # other libraries draw other numbers

        def run() -> float:
            optimizer.zero_grad()
            loss = forward(*next(data))
            loss.backward()
            optimizer.step()
            return float(loss.item())

        self.run = run
        return [run() for _ in range(whole.N_COMPARED)]


def _hold_inductor(config: Any) -> None:
    """Have torch.compile use AVX2 only, where the other kernels of PyTorch are held to it."""
    if os.environ.get("ATEN_CPU_CAPABILITY") == "avx2":
        config.cpp.simdlen = 256


def _write(model: Any, x: torch.Tensor, n_outputs: int, folder: Path) -> None:
    """Save the network as ONNX for this batch, and as TorchScript for one image."""
    names = [f"y{i}" for i in range(n_outputs)]
    torch.onnx.export(
        model,
        (x,),
        str(folder / "network.onnx"),
        dynamo=False,
        opset_version=17,
        input_names=["x0"],
        output_names=names,
    )
    torch.jit.trace(model, x[:1], check_trace=False).save(str(folder / "network.pt"))
