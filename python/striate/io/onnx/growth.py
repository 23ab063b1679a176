"""How large values become at least, told from the file alone: what doubles and doubles is refused before it runs.

The onnx package infers shapes, too, but in C++ that a damaged file can make divide by zero. Here a size that is not known
counts as 1, and an operator that is not listed ends what is known.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from onnx import GraphProto

from striate.io.onnx.graph import Plan
from striate.io.onnx.node import Node
from striate.io.onnx.value import LIMIT, OnnxError

Shape = list[int]

#: Operators whose result has the shape of their first operand.
_ALIKE = frozenset(
    [
        "Abs",
        "BatchNormalization",
        "Cast",
        "Ceil",
        "Celu",
        "Clip",
        "Cos",
        "CumSum",
        "Dropout",
        "Elu",
        "Erf",
        "Exp",
        "Floor",
        "Gelu",
        "GroupNormalization",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "InstanceNormalization",
        "LRN",
        "LayerNormalization",
        "LeakyRelu",
        "Log",
        "LogSoftmax",
        "Mish",
        "Neg",
        "Not",
        "PRelu",
        "Reciprocal",
        "Relu",
        "Round",
        "Selu",
        "Sigmoid",
        "Sign",
        "Sin",
        "Softmax",
        "Softplus",
        "Softsign",
        "Sqrt",
        "Swish",
        "Tanh",
        "ThresholdedRelu",
    ]
)
#: Operators whose operands broadcast.
_BROADCAST = frozenset(
    [
        "Add",
        "And",
        "Div",
        "Equal",
        "Greater",
        "Less",
        "Max",
        "Mean",
        "Min",
        "Mod",
        "Mul",
        "Or",
        "Pow",
        "Sub",
        "Sum",
        "Where",
        "Xor",
    ]
)


def check_growth(plan: Plan, graph: GraphProto) -> None:
    """Refuse a plan of which a value becomes larger than memory.

    Raises
    ------
    OnnxError
        Naming the value.
    """
    shapes: dict[str, Shape] = {}
    for value in graph.input:
        if value.type.HasField("tensor_type") and value.type.tensor_type.HasField("shape"):
            shapes[value.name] = [max(d.dim_value, 1) for d in value.type.tensor_type.shape.dim]
    for name, array in plan.constants.items():
        if isinstance(array, np.ndarray):
            shapes[name] = list(array.shape)
    for node in plan.nodes:
        try:
            shape = _least(node, shapes, plan.constants)
        except (IndexError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
            continue  # what is wrong, the run says
        if shape is None or not node.outputs:
            continue
        shapes[node.outputs[0]] = shape
        n_bytes = math.prod(shape) * 4
        if n_bytes > LIMIT:
            raise OnnxError(
                f"value {node.outputs[0]!r}: expected at most {LIMIT:,} bytes (half of this machine's memory), got shape "
                f"{shape}; the file asks for more than there is"
            )


def _least(node: Node, shapes: dict[str, Shape], constants: dict[str, Any]) -> Shape | None:
    """Return the least shape of a node's first result, or None."""
    if node.domain or node.has_graphs:
        return None
    operands = [shapes.get(name) for name in node.inputs if name]
    x = operands[0] if operands else None

    def numbers(i: int) -> list[Any] | None:
        value = constants.get(node.inputs[i]) if i < len(node.inputs) else None
        return None if value is None else [n.item() for n in np.asarray(value).reshape(-1)]

    if node.op_type in _ALIKE:
        return x
    if node.op_type in _BROADCAST:
        known = [s for s in operands if s is not None]
        return list(np.broadcast_shapes(*[tuple(s) for s in known])) if known else None
    if node.op_type == "Concat":
        known = [s for s in operands if s is not None]
        axis = node.attributes["axis"]
        return _with(known[0], axis, sum(s[axis] for s in known)) if known else None
    if x is None:
        return None
    if node.op_type == "Tile" and (repeats := numbers(1)) is not None:
        return [n * r for n, r in zip(x, repeats, strict=True)]
    if node.op_type == "Expand" and (wanted := numbers(1)) is not None:
        return list(np.broadcast_shapes(tuple(x), tuple(wanted)))
    if node.op_type == "Pad" and (pads := node.attributes.get("pads") or numbers(1)) and len(pads) == 2 * len(x):
        return [max(n + b + e, 0) for n, b, e in zip(x, pads, pads[len(x) :], strict=False)]
    if node.op_type in ("Resize", "Upsample"):
        scales = node.attributes.get("scales") or numbers(2 if node.op_type == "Resize" and node.since > 10 else 1)
        return [math.floor(n * f) for n, f in zip(x, scales, strict=True)] if scales else None
    if node.op_type == "ConvTranspose" and operands[1] is not None:
        strides = node.attributes.get("strides") or [1] * (len(x) - 2)
        return [x[0], operands[1][1], *[(n - 1) * s + 1 for n, s in zip(x[2:], strides, strict=True)]]
    return None


def _with(shape: Shape, axis: int, n: int) -> Shape:
    changed = list(shape)
    changed[axis] = n
    return changed
