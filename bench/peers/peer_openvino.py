"""OpenVINO, forward only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import openvino
from one_conv import model

Array = np.ndarray[Any, Any]


class Peer:
    """Convolution by OpenVINO."""

    def __init__(self, library: str, n_threads: int) -> None:
        self.version = f"openvino {openvino.__version__}"
        self.core = openvino.Core()
        self.settings = {
            "INFERENCE_NUM_THREADS": n_threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }
        self.run: Callable[[], Any] = lambda: None

    def prepare(self, pass_: str, layer: dict[str, Any], x: Array, weight: Array, grad_y: Array) -> Array:
        """Set `run` and return its result."""
        read = self.core.read_model(model(layer, x, weight, grad_y.shape), b"")
        request = self.core.compile_model(read, "CPU", self.settings).create_infer_request()
        request.set_input_tensor(openvino.Tensor(x, shared_memory=True))
        self.run = request.infer
        self.run()
        self.kept = x
        return np.array(request.get_output_tensor().data)
