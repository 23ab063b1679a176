"""OpenVINO, forward only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import one_node
import openvino

Array = np.ndarray[Any, Any]


class Peer:
    """What run.py measures, by OpenVINO."""

    def __init__(self, library: str, n_threads: int) -> None:
        self.version = f"openvino {openvino.__version__}"
        self.core = openvino.Core()
        self.settings = {
            "INFERENCE_NUM_THREADS": n_threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }
        self.run: Callable[[], Any] = lambda: None

    def conv(self, pass_: str, layer: dict[str, Any], x: Array, weight: Array, grad_y: Array) -> list[Array] | None:
        """Set `run` and return its result."""
        return self._load(one_node.conv(layer, x, weight, grad_y.shape), [x]) if pass_ == "forward" else None

    def memory_op(self, pass_: str, row: dict[str, Any], tensors: list[Array], grad_y: Array) -> list[Array] | None:
        """Set `run` and return its result."""
        model = one_node.memory_op(row, tensors, grad_y.shape) if pass_ == "forward" else None
        return self._load(model, tensors) if model else None

    def network(self, row: dict[str, Any], x: Array, folder: Path) -> list[Array]:
        """Set `run` and return its results."""
        return self._load(str(folder / "network.onnx"), [x])

    def _load(self, model: bytes | str, tensors: list[Array]) -> list[Array]:
        read = self.core.read_model(model) if isinstance(model, str) else self.core.read_model(model, b"")
        request = self.core.compile_model(read, "CPU", self.settings).create_infer_request()
        for i, x in enumerate(tensors):
            request.set_tensor(f"x{i}", openvino.Tensor(x, shared_memory=True))
        self.run = request.infer
        self.run()
        self.kept = tensors
        return [np.array(y.data) for y in request.output_tensors]
