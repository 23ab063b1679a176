"""OpenCV's dnn module, forward only, its older engine, which has Winograd; the output's copy to NumPy is in the time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import one_node

Array = np.ndarray[Any, Any]


class Peer:
    """What run.py measures, by OpenCV."""

    def __init__(self, library: str, n_threads: int) -> None:
        cv2.setNumThreads(n_threads)
        self.version = f"opencv {cv2.__version__}"
        self.run: Callable[[], Any] = lambda: None

    def conv(self, pass_: str, layer: dict[str, Any], x: Array, weight: Array, grad_y: Array) -> list[Array] | None:
        """Set `run` and return its result."""
        if pass_ != "forward":
            return None
        model = np.frombuffer(one_node.conv(layer, x, weight, grad_y.shape), np.uint8)
        net = cv2.dnn.readNetFromONNX(model, engine=cv2.dnn.ENGINE_CLASSIC)
        net.enableWinograd(True)
        net.setInput(x)
        self.run = net.forward
        return [np.array(net.forward())]
