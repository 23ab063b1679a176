"""Files broken at random: whatever comes, it runs or it is refused in the words of OnnxError."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

onnx = pytest.importorskip("onnx")
from onnx import AttributeProto, ModelProto, helper, numpy_helper, parser  # noqa: E402

import striate  # noqa: E402
import striate.onnx  # noqa: E402

EXTREMES = [0, 1, -1, 2, -2, 7, 255, 2**31 - 1, -(2**31), 2**31, 2**40, 2**62, 2**63 - 1, -(2**63)]


def build(text: str, **weights: Any) -> ModelProto:
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["" : 18, "own" : 1]> {text}')
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items())
    return model


def ramp(*shape: int) -> Any:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape) / 7


BASES = {
    "network": build(
        """g (float[1,3,8,8] x) => (float[1,n] y) {
            c = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w, b) r = Relu(c)
            p = MaxPool<kernel_shape=[2,2], strides=[2,2], ceil_mode=1>(r)
            t = ConvTranspose<strides=[2,2]>(p, v) q = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(t)
            f = Flatten<axis=1>(q) y = Softmax<axis=1>(f) }""",
        w=ramp(4, 3, 3, 3),
        b=ramp(4),
        v=ramp(4, 2, 2, 2),
    ),
    "shapes": build(
        """g (float[1,3,8,8] x) => (float[m] y) {
            s = Shape(x) i = Constant<value = int64[2] {0, 1}>() k = Gather<axis=0>(s, i) t = Concat<axis=0>(k, n)
            r = Reshape(x, t) a = Slice(r, n0, n5, n2) e = Expand(a, big) p = Pad(e, pads)
            l = Tile(p, reps) z = Resize<mode="linear">(l, none, scales) u = Unsqueeze(z, n0) q = Squeeze(u, n0)
            h, j = TopK(q, n1) o = OneHot(j, d, v01) y = ReduceSum<keepdims=0>(o) }""",
        n=np.int64([-1]),
        n0=np.int64([0]),
        n1=np.int64([1]),
        n2=np.int64([2]),
        n5=np.int64([5]),
        big=np.int64([1, 3, 5]),
        pads=np.int64([0, 0, 1, 0, 0, 1]),
        reps=np.int64([1, 1, 2]),
        none=np.zeros(0, np.float32),
        scales=np.float32([1, 1, 2]),
        d=np.int64(3),
        v01=np.float32([0, 1]),
    ),
    "control": build(
        """g (float[1,3,8,8] x) => (float[1,3,8,8] y) {
            c = Constant<value = bool {1}>() m = Constant<value = int64 {2}>()
            l = Loop (m, c, x) <body = b (int64 i, bool d, float[1,3,8,8] v) => (bool d2, float[1,3,8,8] w) {
                d2 = Identity(d) w = Add(v, x) }>
            f = own.half(l)
            y = If (c) <then_branch = t () => (float[1,3,8,8] o) { o = Neg(f) }, else_branch = e () => (float[1,3,8,8] o2) { o2 = Abs(f) }> }
        <opset_import: ["" : 18], domain: "own">
        half (a) => (b) { h = Constant<value = float {0.5}>() b = Mul(a, h) }"""
    ),
    "recurrent": build(
        """g (float[1,3,8,8] x) => (float[8,1,1,4] y) {
            k = Constant<value = int64[3] {8, 1, 24}>() s = Reshape(x, k) y, h, c = LSTM<hidden_size=4>(s, w, r, b)
            q = GRU<hidden_size=4, direction="reverse">(s, w3, r3) }""",
        w=ramp(1, 16, 24),
        r=ramp(1, 16, 4),
        b=ramp(1, 32),
        w3=ramp(1, 12, 24),
        r3=ramp(1, 12, 4),
    ),
}
X = ramp(1, 3, 8, 8)


def attempt(content: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of NumPy, about numbers that are not
        try:
            module = striate.onnx.load(content)
            with striate.no_grad():
                module(*[X] * len(module.inputs))
        except (striate.onnx.OnnxError, striate.DTypeError):
            pass


@pytest.mark.parametrize("name", BASES)
def test_base_runs(name: str) -> None:
    module = striate.onnx.load(BASES[name].SerializeToString())
    with striate.no_grad():
        module(X)


@given(name=st.sampled_from(sorted(BASES)), data=st.data())
def test_bytes(name: str, data: st.DataObject) -> None:
    content = bytearray(BASES[name].SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        kind = data.draw(st.sampled_from(["set", "cut", "insert", "repeat", "end"]))
        if kind == "set":
            content[at] = data.draw(st.integers(0, 255))
        elif kind == "cut":
            del content[at : at + data.draw(st.integers(1, 16))]
        elif kind == "insert":
            content[at:at] = data.draw(st.binary(min_size=1, max_size=8))
        elif kind == "repeat":
            content[at:at] = content[at : at + data.draw(st.integers(1, 64))]
        else:
            del content[at + 1 :]
        content = content or bytearray(b"\0")
    attempt(bytes(content))


def messages(message: Any) -> Iterator[Any]:
    """Yield a message and all inside it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if not hasattr(value, "ListFields") else [value]:
                yield from messages(part)


def numbers(model: ModelProto) -> list[tuple[Any, str, int | None]]:
    """Return where a model holds whole numbers: (message, field, place in it or None)."""
    found: list[tuple[Any, str, int | None]] = []
    for message in messages(model):
        for field, value in message.ListFields():
            if field.cpp_type in (field.CPPTYPE_INT32, field.CPPTYPE_INT64):
                found += (
                    [(message, field.name, None)]
                    if isinstance(value, int)
                    else [(message, field.name, i) for i in range(len(value))]
                )
    return found


@given(name=st.sampled_from(sorted(BASES)), data=st.data())
def test_numbers(name: str, data: st.DataObject) -> None:
    """Attributes, sizes, element types and versions become extremes."""
    model = ModelProto()
    model.CopyFrom(BASES[name])
    places = numbers(model)
    for _ in range(data.draw(st.integers(1, 3))):
        message, field, at = data.draw(st.sampled_from(places))
        value = data.draw(st.sampled_from(EXTREMES))
        if message.DESCRIPTOR.fields_by_name[field].cpp_type == message.DESCRIPTOR.fields_by_name[field].CPPTYPE_INT32:
            value = max(min(value, 2**31 - 1), -(2**31))
        if at is None:
            setattr(message, field, value)
        else:
            getattr(message, field)[at] = value
    attempt(model.SerializeToString())


@given(name=st.sampled_from(sorted(BASES)), data=st.data())
def test_constants(name: str, data: st.DataObject) -> None:
    """What shapes are computed from becomes extremes, or another shape."""
    model = ModelProto()
    model.CopyFrom(BASES[name])
    if not model.graph.initializer:
        return
    tensor = data.draw(st.sampled_from(list(model.graph.initializer)))
    array = numpy_helper.to_array(tensor).copy()
    if data.draw(st.booleans()) and array.size:
        at = data.draw(st.integers(0, array.size - 1))
        value = data.draw(st.sampled_from(EXTREMES) if array.dtype.kind == "i" else st.floats(width=32))
        array.reshape(-1)[at] = value
    else:
        shape = data.draw(st.lists(st.integers(0, 3), max_size=4))
        array = np.resize(array, shape)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    attempt(model.SerializeToString())


@given(name=st.sampled_from(sorted(BASES)), data=st.data())
def test_wiring(name: str, data: st.DataObject) -> None:
    """Nodes read and make other values, are other operators, or lose attributes."""
    model = ModelProto()
    model.CopyFrom(BASES[name])
    nodes = [message for message in messages(model) if isinstance(message, onnx.NodeProto)]
    names = sorted({name for node in nodes for name in [*node.input, *node.output]})
    operators = sorted({node.op_type for base in BASES.values() for node in base.graph.node})
    for _ in range(data.draw(st.integers(1, 3))):
        node = data.draw(st.sampled_from(nodes))
        kind = data.draw(st.sampled_from(["input", "output", "operator", "attribute", "text"]))
        if kind == "input" and node.input:
            node.input[data.draw(st.integers(0, len(node.input) - 1))] = data.draw(st.sampled_from(names))
        elif kind == "output" and node.output:
            node.output[data.draw(st.integers(0, len(node.output) - 1))] = data.draw(st.sampled_from(names))
        elif kind == "operator":
            node.op_type = data.draw(st.sampled_from(operators))
        elif kind == "attribute" and node.attribute:
            del node.attribute[data.draw(st.integers(0, len(node.attribute) - 1))]
        elif kind == "text" and node.attribute:
            attribute = data.draw(st.sampled_from(list(node.attribute)))
            attribute.CopyFrom(
                helper.make_attribute(attribute.name, data.draw(st.sampled_from(["", "linear", "SAME_UPPER"])))
            )
            attribute.type = AttributeProto.STRING
    attempt(model.SerializeToString())
