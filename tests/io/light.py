"""The `light_*` networks of the onnx package with weights drawn at random in place of their constant ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx

NAMES = (
    "bvlc_alexnet",
    "densenet121",
    "inception_v1",
    "inception_v2",
    "resnet50",
    "shufflenet",
    "squeezenet",
    "vgg19",
    "zfnet512",
)


def path(name: str) -> Path:
    return Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / f"light_{name}.onnx"


def drawn(name: str, seed: int = 0) -> Any:
    """Return the model with Kaiming weights, scales and variances about 1, and its scores instead of probabilities."""
    rng = np.random.default_rng(seed)
    model = onnx.load(path(name))
    graph = model.graph
    shapes = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    kept = []
    for node in graph.node:
        if node.op_type == "ConstantOfShape" and node.input[0] in shapes:
            shape = tuple(int(n) for n in shapes[node.input[0]])
            if len(shape) > 1:
                values = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
            else:
                values = rng.uniform(0.5, 1.5, shape)
            graph.initializer.append(onnx.numpy_helper.from_array(values.astype(np.float32), node.output[0]))
        else:
            kept.append(node)
    if kept[-1].op_type == "Softmax":
        graph.output[0].name = kept.pop().input[0]
        graph.output[0].type.tensor_type.ClearField("shape")
    del graph.node[:]
    graph.node.extend(kept)
    return model


def example(model: Any, seed: int = 0) -> Any:
    """Return an input of the model's own shape."""
    constants = {t.name for t in model.graph.initializer}
    value = next(v for v in model.graph.input if v.name not in constants)
    shape = tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
