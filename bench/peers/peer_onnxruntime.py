"""ONNX Runtime, forward only; inputs and output are bound once, so that no copy is timed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import one_node
import onnxruntime

Array = np.ndarray[Any, Any]


class Peer:
    """What run.py measures, by ONNX Runtime."""

    def __init__(self, library: str, n_threads: int) -> None:
        self.version = f"onnxruntime {onnxruntime.__version__}"
        self.options = onnxruntime.SessionOptions()
        self.options.intra_op_num_threads = n_threads
        self.options.log_severity_level = 3
        self.run: Callable[[], Any] = lambda: None
        self.kept: Any = None

    def conv(self, pass_: str, layer: dict[str, Any], x: Array, weight: Array, grad_y: Array) -> list[Array] | None:
        """Set `run` and return its result."""
        return self._load(one_node.conv(layer, x, weight, grad_y.shape), [x], grad_y) if pass_ == "forward" else None

    def memory_op(self, pass_: str, row: dict[str, Any], tensors: list[Array], grad_y: Array) -> list[Array] | None:
        """Set `run` and return its result."""
        model = one_node.memory_op(row, tensors, grad_y.shape) if pass_ == "forward" else None
        return self._load(model, tensors, grad_y) if model else None

    def _load(self, model: bytes, tensors: list[Array], grad_y: Array) -> list[Array]:
        session = onnxruntime.InferenceSession(model, self.options, providers=["CPUExecutionProvider"])
        binding = session.io_binding()
        y = np.empty_like(grad_y)
        for i, x in enumerate(tensors):
            binding.bind_cpu_input(f"x{i}", x)
        binding.bind_output("y", "cpu", 0, np.float32, y.shape, y.ctypes.data)
        self.run = lambda: session.run_with_iobinding(binding)
        self.run()
        self.kept = tensors, y
        return [y]

    def network(self, row: dict[str, Any], x: Array, folder: Path) -> list[Array]:
        """Set `run` and return its results."""
        session = onnxruntime.InferenceSession(
            str(folder / "network.onnx"), self.options, providers=["CPUExecutionProvider"]
        )
        ys = session.run(None, {"x0": x})
        binding = session.io_binding()
        binding.bind_cpu_input("x0", x)
        for i, y in enumerate(ys):
            binding.bind_output(f"y{i}", "cpu", 0, np.float32, y.shape, y.ctypes.data)
        self.run = lambda: session.run_with_iobinding(binding)
        self.run()
        self.kept = [x], ys
        return list(ys)
