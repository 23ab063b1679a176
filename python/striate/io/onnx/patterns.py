"""Activations and layer-norms that exporters write out as arithmetic become one node again, which fuses and runs faster."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import defs, helper

from striate.io.onnx.graph import Plan
from striate.io.onnx.mode import Mode
from striate.io.onnx.node import Node

Found = tuple[str, list[str], dict[str, Any], list[Node]] | None  # operator, operands, attributes, nodes it stands for


class _Matcher:
    """Who makes and who reads each value of a plan."""

    def __init__(self, plan: Plan) -> None:
        self._constants = plan.constants
        self._maker = {name: node for node in plan.nodes for name in node.outputs if name}
        self._readers = {name: len(nodes) for name, nodes in plan.readers().items()}
        self._kept = set(plan.outputs)

    def constant(self, name: str) -> float | None:
        """Return a constant of one element, or None."""
        value = self._constants.get(name)
        return float(value.reshape(())) if isinstance(value, np.ndarray) and _is_number(value) else None

    def integers(self, name: str) -> list[int] | None:
        """Return a constant of integers, or None."""
        value = self._constants.get(name)
        return (
            [int(n) for n in value.reshape(-1)] if isinstance(value, np.ndarray) and value.dtype.kind == "i" else None
        )

    def are_rows(self, first: str, second: str) -> bool:
        """Say whether two constants are vectors of one length."""
        a, b = self._constants.get(first), self._constants.get(second)
        return isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and a.ndim == 1 and a.shape == b.shape

    def maker(self, name: str, op_type: str, n_readers: int = 1) -> Node | None:
        """Return the node of this operator that makes a value which only so many read."""
        node = self._maker.get(name)
        is_so = node is not None and node.op_type == op_type and not node.domain
        if not is_so or name in self._kept or self._readers.get(name, 0) != n_readers:
            return None
        return node

    def by_constant(self, node: Node, expected: float) -> str | None:
        """Return the other operand of a binary node of which one is this number."""
        for i in (0, 1):
            number = self.constant(node.inputs[i])
            if number is not None and math.isclose(number, expected, rel_tol=1e-6):
                other: str = node.inputs[1 - i]
                return other
        return None

    def bounds(self, node: Node) -> tuple[float | None, float | None]:
        """Return the limits of a Clip."""
        if node.since < 11:
            return node.attributes.get("min"), node.attributes.get("max")
        low, high = [self.constant(name) for name in (*node.inputs[1:], "", "")[:2]]
        return low, high


def _is_number(value: Any) -> bool:
    return bool(value.size == 1 and value.dtype.kind == "f")


def _shifted_clip(match: _Matcher, name: str) -> tuple[str, list[Node]] | None:
    """Match min(max(x + 3, 0), 6)."""
    clip = match.maker(name, "Clip")
    if clip is None or match.bounds(clip) != (0.0, 6.0):
        return None
    add = match.maker(clip.inputs[0], "Add")
    x = None if add is None else match.by_constant(add, 3.0)
    return None if add is None or x is None else (x, [add, clip])


def _hard_sigmoid(match: _Matcher, node: Node) -> Found:
    """Match min(max(x + 3, 0), 6) / 6."""
    if node.op_type == "Div" and match.by_constant(node, 6.0) == node.inputs[0]:
        inner = node.inputs[0]
    elif node.op_type == "Mul" and (scaled := match.by_constant(node, 1 / 6)) is not None:
        inner = scaled
    else:
        return None
    found = _shifted_clip(match, inner)
    return None if found is None else ("HardSigmoid", [found[0]], {"alpha": 1 / 6, "beta": 0.5}, [*found[1], node])


def _hard_swish(match: _Matcher, node: Node) -> Found:
    """Match x · min(max(x + 3, 0), 6) / 6, divided before or after the product."""
    if node.op_type == "Mul":
        for x, other in (node.inputs, node.inputs[::-1]):
            gate = match.maker(other, "HardSigmoid")
            if gate is not None and gate.inputs[0] == x and _is_standard(gate):
                return "HardSwish", [x], {}, [gate, node]
    is_sixth = node.op_type == "Div" and match.by_constant(node, 6.0) == node.inputs[0]
    inner = node.inputs[0] if is_sixth else match.by_constant(node, 1 / 6) if node.op_type == "Mul" else None
    product = None if inner is None else match.maker(inner, "Mul")
    if product is None:
        return None
    for x, other in (product.inputs, product.inputs[::-1]):
        found = _shifted_clip(match, other)
        if found is not None and found[0] == x:
            return "HardSwish", [x], {}, [*found[1], product, node]
    return None


def _is_standard(gate: Node) -> bool:
    return math.isclose(gate.attributes["alpha"], 1 / 6, rel_tol=1e-4) and gate.attributes["beta"] == 0.5


def _swish(match: _Matcher, node: Node) -> Found:
    """Match x · sigmoid(x)."""
    if node.op_type == "Mul":
        for x, other in (node.inputs, node.inputs[::-1]):
            gate = match.maker(other, "Sigmoid")
            if gate is not None and gate.inputs[0] == x:
                return "Swish", [x], {"alpha": 1.0}, [gate, node]
    return None


def _mish(match: _Matcher, node: Node) -> Found:
    """Match x · tanh(softplus(x))."""
    if node.op_type == "Mul":
        for x, other in (node.inputs, node.inputs[::-1]):
            tanh = match.maker(other, "Tanh")
            inner = None if tanh is None else match.maker(tanh.inputs[0], "Softplus")
            if tanh is not None and inner is not None and inner.inputs[0] == x:
                return "Mish", [x], {}, [inner, tanh, node]
    return None


def _error_gate(match: _Matcher, name: str) -> tuple[str, list[Node]] | None:
    """Match 1 + erf(x / √2)."""
    add = match.maker(name, "Add")
    erf_name = None if add is None else match.by_constant(add, 1.0)
    erf = None if erf_name is None else match.maker(erf_name, "Erf")
    if add is None or erf is None:
        return None
    for op_type, factor in (("Div", math.sqrt(2)), ("Mul", math.sqrt(0.5))):
        scale = match.maker(erf.inputs[0], op_type)
        x = None if scale is None else match.by_constant(scale, factor)
        if scale is not None and x is not None and (op_type == "Mul" or x == scale.inputs[0]):
            return x, [scale, erf, add]
    return None


def _gelu(match: _Matcher, node: Node) -> Found:
    """Match ½ x (1 + erf(x / √2)), the half applied first, last, or to the gate."""
    if node.op_type != "Mul":
        return None
    product = match.by_constant(node, 0.5)
    inner = None if product is None else match.maker(product, "Mul")
    if inner is not None:
        for x, other in (inner.inputs, inner.inputs[::-1]):
            found = _error_gate(match, other)
            if found is not None and found[0] == x:
                return "Gelu", [x], {"approximate": "none"}, [*found[1], inner, node]
    for left, right in (node.inputs, node.inputs[::-1]):
        half = match.maker(left, "Mul")
        x = None if half is None else match.by_constant(half, 0.5)
        found = _error_gate(match, right)
        if half is not None and found is not None and found[0] == x:
            return "Gelu", [found[0]], {"approximate": "none"}, [*found[1], half, node]
        gate = None if half is None or x is None else _error_gate(match, x)
        if half is not None and gate is not None and gate[0] == right:
            return "Gelu", [right], {"approximate": "none"}, [*gate[1], half, node]
    return None


def _mean(match: _Matcher, name: str, n_readers: int = 1) -> Node | None:
    """Match a mean over the last axis that keeps it."""
    node = match.maker(name, "ReduceMean", n_readers)
    if node is None or not node.attributes["keepdims"]:
        return None
    axes = node.attributes.get("axes") if len(node.inputs) < 2 else match.integers(node.inputs[1])
    return node if axes == [-1] else None


def _normalized(match: _Matcher, div: Node) -> tuple[str, float, list[Node]] | None:
    """Match (x − mean) / √(variance + eps) over the last axis."""
    centred = match.maker(div.inputs[0], "Sub", n_readers=2)
    mean = None if centred is None else _mean(match, centred.inputs[1])
    root = match.maker(div.inputs[1], "Sqrt")
    add = None if root is None else match.maker(root.inputs[0], "Add")
    if centred is None or mean is None or mean.inputs[0] != centred.inputs[0] or root is None or add is None:
        return None
    for name, other in (add.inputs, add.inputs[::-1]):
        eps = match.constant(other)
        variance = _mean(match, name)
        square = None if variance is None else match.maker(variance.inputs[0], "Pow")
        is_of_centred = (
            square is not None and square.inputs[0] == div.inputs[0] and match.constant(square.inputs[1]) == 2
        )
        if eps is not None and variance is not None and square is not None and is_of_centred:
            return centred.inputs[0], eps, [mean, centred, square, variance, add, root]
    return None


def _layer_norm(match: _Matcher, node: Node) -> Found:
    """Match (x − mean) / √(variance + eps) · scale + shift over the last axis."""
    if node.op_type != "Add":
        return None
    for product, shift in (node.inputs, node.inputs[::-1]):
        mul = match.maker(product, "Mul")
        for quotient, scale in () if mul is None else (mul.inputs, mul.inputs[::-1]):
            div = match.maker(quotient, "Div")
            found = None if div is None else _normalized(match, div)
            if mul is not None and div is not None and found is not None and match.are_rows(scale, shift):
                x, eps, parts = found
                return "LayerNormalization", [x, scale, shift], {"axis": -1, "epsilon": eps}, [*parts, div, mul, node]
    return None


_PATTERNS: list[Callable[[_Matcher, Node], Found]] = [_layer_norm, _hard_swish, _hard_sigmoid, _swish, _mish, _gelu]


def join(plan: Plan, mode: Mode) -> None:
    """Replace what an activation was written out as by one node, again until nothing matches."""
    for pattern in _PATTERNS:
        match = _Matcher(plan)
        replaced: dict[int, Node] = {}
        gone: set[int] = set()
        for node in plan.nodes:
            found = pattern(match, node) if not node.domain and node.inputs else None
            if found is None or any(id(part) in gone for part in found[3]):
                continue
            op_type, operands, attributes, parts = found
            proto = helper.make_node(op_type, operands, list(node.outputs), name=node.name, **attributes)
            replaced[id(node)] = Node(proto, {"": defs.onnx_opset_version()}, mode, lambda graph: graph)
            gone.update(id(part) for part in parts)
        if replaced:
            plan.replace(replaced, gone)
