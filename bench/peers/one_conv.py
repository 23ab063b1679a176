"""An ONNX model of one convolution, for the runtimes that read such files."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray[Any, Any]


def model(layer: dict[str, Any], x: Array, weight: Array, y_shape: tuple[int, ...]) -> bytes:
    """Return the file's bytes: input `x`, output `y`, the weight a constant."""
    node = helper.make_node(
        "Conv",
        ["x", "weight"],
        ["y"],
        kernel_shape=[layer["kernel_size"]] * 2,
        strides=[layer["stride"]] * 2,
        pads=[layer["padding"]] * 4,
        dilations=[layer["dilation"]] * 2,
        group=layer["groups"],
    )
    graph = helper.make_graph(
        [node],
        "conv",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, y_shape)],
        [numpy_helper.from_array(weight, "weight")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    return made.SerializeToString()  # type: ignore[no-any-return]  # onnx is not there when this is checked
