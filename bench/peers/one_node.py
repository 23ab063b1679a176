"""ONNX models of a single op, for the runtimes that read such files: inputs `x0`, `x1` …, output `y`."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray[Any, Any]


def conv(layer: dict[str, Any], x: Array, weight: Array, y_shape: tuple[int, ...]) -> bytes:
    """Return the file's bytes for a convolution, the weight a constant."""
    node = helper.make_node(
        "Conv",
        ["x0", "weight"],
        ["y"],
        kernel_shape=[layer["kernel_size"]] * 2,
        strides=[layer["stride"]] * 2,
        pads=[layer["padding"]] * 4,
        dilations=[layer["dilation"]] * 2,
        group=layer["groups"],
    )
    return _file([node], [x], {"weight": weight}, y_shape)


def memory_op(row: dict[str, Any], tensors: list[Array], y_shape: tuple[int, ...]) -> bytes | None:
    """Return the file's bytes for the forward pass of a row of ops.toml, None where ONNX has none that runtimes run."""
    constants = {}
    window = {key: [row[key]] * n for key, n in (("kernel_size", 2), ("stride", 2), ("padding", 4)) if key in row}
    window = {{"kernel_size": "kernel_shape", "stride": "strides", "padding": "pads"}[k]: v for k, v in window.items()}
    inputs = [f"x{i}" for i in range(len(tensors))]
    match row["op"]:
        case "max_pool2d":
            nodes = [helper.make_node("MaxPool", inputs, ["y"], **window)]
        case "avg_pool2d":
            nodes = [helper.make_node("AveragePool", inputs, ["y"], count_include_pad=1, **window)]
        case "global_avg_pool2d":
            nodes = [helper.make_node("GlobalAveragePool", inputs, ["y"])]
        case "relu":
            nodes = [helper.make_node("Relu", inputs, ["y"])]
        case "silu":  # both runtimes fuse the two
            nodes = [helper.make_node("Sigmoid", inputs, ["s"]), helper.make_node("Mul", ["x0", "s"], ["y"])]
        case "add":
            nodes = [helper.make_node("Add", inputs, ["y"])]
        case "concat":
            nodes = [helper.make_node("Concat", inputs, ["y"], axis=1)]
        case "interpolate":
            constants = {"scales": np.array([1, 1, 2, 2], np.float32)}
            how = {
                "nearest": {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"},
                "bilinear": {"mode": "linear", "coordinate_transformation_mode": "half_pixel"},
            }[row["mode"]]
            nodes = [helper.make_node("Resize", [*inputs, "", "scales"], ["y"], **how)]
        case "softmax":
            nodes = [helper.make_node("Softmax", inputs, ["y"], axis=1)]
        case "log_softmax":
            nodes = [helper.make_node("LogSoftmax", inputs, ["y"], axis=1)]
        case _:
            return None
    return _file(nodes, tensors, constants, y_shape)


def _file(nodes: list[Any], tensors: list[Array], constants: dict[str, Array], y_shape: tuple[int, ...]) -> bytes:
    graph = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, x.shape) for i, x in enumerate(tensors)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, y_shape)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    return made.SerializeToString()  # type: ignore[no-any-return]  # onnx is not there when this is checked
