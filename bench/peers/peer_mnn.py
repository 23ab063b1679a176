"""MNN, forward only, with Winograd; input and output stay in the session, in its packed layout, as inside a network."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _tools
import MNN
import MNN.expr
import MNN.nn
import numpy as np

Array = np.ndarray[Any, Any]


class Peer:
    """What run.py measures, by MNN."""

    def __init__(self, library: str, n_threads: int) -> None:
        self.version = f"MNN {MNN.version()}"
        self.settings = {"numThread": n_threads, "precision": "high", "backend": "CPU"}
        self.run: Callable[[], Any] = lambda: None
        self.kept: Any = None

    def conv(self, pass_: str, layer: dict[str, Any], x: Array, weight: Array, grad_y: Array) -> list[Array] | None:
        """Set `run` and return its result; its layer has one group, or a group for each channel."""
        o, c, groups = weight.shape[0], x.shape[1], layer["groups"]
        is_depthwise = 1 < groups == c == o
        if pass_ != "forward" or not (groups == 1 or is_depthwise):
            return None
        window = [[layer[key]] * 2 for key in ("kernel_size", "stride", "padding", "dilation")]
        # A convolution of expressions would take its weight for an input, and not transform it ahead.
        module = MNN.nn.conv(c, o, *window, is_depthwise, True, MNN.expr.Padding_Mode.CAFFE)
        found = [list(p.shape) for p in module.parameters]
        bias = MNN.expr.const(np.zeros(o, np.float32), [o], MNN.expr.NCHW)
        filters = MNN.expr.const(weight, found[1], MNN.expr.NCHW)
        module.load_parameters([bias, filters])
        module.train(False)
        at = MNN.expr.placeholder(list(x.shape), MNN.expr.NC4HW4)
        with tempfile.TemporaryDirectory() as folder:
            file = str(Path(folder) / "one.mnn")
            MNN.expr.save([module(at)], file)
            net = MNN.Interpreter(file)
        session = net.createSession(self.settings)
        net.getSessionInput(session).copyFrom(_tensor(x))
        self.run = lambda: net.runSession(session)
        self.run()
        y = np.empty_like(grad_y)
        host = _tensor(y)
        net.getSessionOutput(session).copyToHostTensor(host)
        self.kept = net, session
        return [np.array(host.getNumpyData()).reshape(grad_y.shape)]

    def network(self, row: dict[str, Any], x: Array, folder: Path) -> list[Array]:
        """Set `run` and return its results."""
        file = folder / "network.mnn"
        # The converter itself: `MNN.tools` would install a package that reports what is converted.
        _tools.mnnconvert(
            [
                "",
                "-f",
                "ONNX",
                "--modelFile",
                str(folder / "network.onnx"),
                "--MNNModel",
                str(file),
                "--bizCode",
                "bench",
            ]
        )
        net = MNN.Interpreter(str(file))
        session = net.createSession(self.settings)
        net.getSessionInput(session).copyFrom(_tensor(x))
        self.run = lambda: net.runSession(session)
        self.run()
        self.kept = net, session
        found = []
        for _, y in sorted(net.getSessionOutputAll(session).items()):
            host = _tensor(np.empty(y.getShape(), np.float32))
            y.copyToHostTensor(host)
            found.append(np.array(host.getNumpyData()).reshape(y.getShape()))
        return found


def _tensor(array: Array) -> Any:
    return MNN.Tensor(array.shape, MNN.Halide_Type_Float, array, MNN.Tensor_DimensionType_Caffe)
