"""Malformed ONNX files by kind, each with what its refusal says. Run it to see how long and how large each gets."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
IMAGE = (1, 4, 8, 8)


class Bad(NamedTuple):
    """A file, the inputs to run it on if it loads, and what the refusal says; "" where it may run."""

    name: str
    content: bytes
    inputs: list[Any]
    text: str


def value(name: str, shape: Any = IMAGE, kind: int = FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def graph(
    nodes: list[NodeProto], constants: dict[str, Any] | None = None, inputs: Any = None, outputs: Any = None
) -> GraphProto:
    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()]
    return helper.make_graph(
        nodes,
        "g",
        [value("x")] if inputs is None else inputs,
        [value("y", None)] if outputs is None else outputs,
        tensors,
    )


def model(of: GraphProto, opset: int = 21, **more: Any) -> ModelProto:
    return helper.make_model(of, opset_imports=[helper.make_opsetid("", opset)], ir_version=10, **more)


def packed(of: GraphProto, opset: int = 21) -> bytes:
    return model(of, opset).SerializeToString()


def node(op: str, inputs: Any = ("x",), outputs: Any = ("y",), **attributes: Any) -> NodeProto:
    return helper.make_node(op, list(inputs), list(outputs), name=f"the_{op}", **attributes)


def ramp(*shape: int) -> Any:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape) / 7


X = [ramp(*IMAGE)]


def good() -> bytes:
    weight = {"w": ramp(4, 4, 3, 3)}
    return packed(graph([node("Conv", ("x", "w"), ("c",), pads=[1] * 4), node("Relu", ("c",))], weight))


def files() -> Iterator[Bad]:
    content = good()
    for n in range(1, len(content), max(1, len(content) // 40)):
        yield Bad(f"cut off after {n} bytes", content[:n], X, "expected|opset")
    other = {
        "nothing": b"",
        "zeros": b"\0" * 4096,
        "text": b"This is no model, but a sentence." * 9,
        "png": b"\x89PNG\r\n\x1a\n" + b"\0" * 64,
        "zip": b"PK\x03\x04" + b"\0" * 64,
        "gzip": b"\x1f\x8b\x08" + b"\0" * 64,
        "pickle": b"\x80\x04\x95\x10\x00\x00\x00cos\nsystem\n.",
        "endless varint": b"\x08" + b"\xff" * 64,
        "a length beyond the end": b"\x3a\xff\xff\xff\xff\x0f",
        "groups in groups": b"\x0b" * 5000,
        "messages in messages": deep(5000),
    }
    for name, data in other.items():
        yield Bad(name, data, X, "expected")
    for opset in (0, -1, 10**9, INT64_MIN):
        yield Bad(f"opset {opset}", packed(graph([node("Relu")]), opset), X, f"expected opset 1 to .*, got {opset}")
    yield Bad("no graph", ModelProto(ir_version=8).SerializeToString(), X, "expected a model with a graph")
    yield Bad("graph without outputs", packed(graph([], outputs=[])), X, "expected a model with a graph")


def deep(n: int) -> bytes:
    data = b""
    for _ in range(n):
        length, size = bytearray(), len(data)
        while size > 127:
            length.append(size & 127 | 128)
            size >>= 7
        data = b"\x3a" + bytes(length) + bytes([size]) + data
    return data


def wiring() -> Iterator[Bad]:
    relu = node("Relu", ("a",))
    yield Bad("a value that nobody makes", packed(graph([relu])), X, "expected input 'a' to be made")
    yield Bad("an output that nobody makes", packed(graph([node("Relu", ("x",), ("z",))])), X, "makes output 'y'")
    yield Bad(
        "a node that reads itself", packed(graph([node("Relu", ("y",))])), X, "got a cycle through node 'the_Relu'"
    )
    loop = [node("Relu", ("b",), ("a",)), node("Neg", ("a",), ("b",)), node("Add", ("a", "x"))]
    yield Bad("a cycle of two", packed(graph(loop)), X, "got a cycle")
    ring = [node("Relu", (f"v{(i + 1) % 500}",), (f"v{i}",)) for i in range(500)] + [node("Relu", ("v0",))]
    yield Bad("a cycle of 500", packed(graph(ring)), X, "got a cycle")
    twice = [node("Relu"), node("Neg")]
    yield Bad("a value made twice", packed(graph(twice)), X, "made once, got 'y' of node 'the_Neg'")
    yield Bad("a node that makes an input", packed(graph([node("Relu", ("x",), ("x",))])), X, "made once, got 'x'")
    double = graph([node("Add", ("x", "w"))], {"w": ramp(1)})
    double.initializer.append(double.initializer[0])
    yield Bad("an initialiser twice", packed(double), X, "got initialiser 'w' again")
    yield Bad(
        "an input twice", packed(graph([node("Relu")], inputs=[value("x"), value("x")])), X * 2, "got input 'x' again"
    )
    yield Bad("an operator without a name", packed(graph([node("")])), X, "expected operators that striate supports")
    yield Bad("an unknown operator", packed(graph([node("Frobnicate")])), X, "Frobnicate")
    yield Bad(
        "a node without outputs",
        packed(graph([node("Relu", ("x",), ())])),
        X,
        "expected 1 to 1 outputs, got 0|makes output",
    )
    for op, n in (
        ("Relu", 0),
        ("Relu", 2),
        ("Conv", 1),
        ("Conv", 9),
        ("Add", 1),
        ("Clip", 7),
        ("Where", 2),
        ("Gemm", 1),
    ):
        yield Bad(
            f"{op} of {n} inputs", packed(graph([node(op, ["x"] * n)])), X, rf"expected \d+ to \d+ inputs, got {n}"
        )
    yield Bad("a required input left out", packed(graph([node("Conv", ("x", ""))])), X, "expected input 'W'")
    long = node("Relu", ("x",), ("z" * 1_000_000,))
    yield Bad("a name of a megabyte", packed(graph([long, node("Neg", ("z" * 1_000_000,))])), X, "")


def attributes() -> Iterator[Bad]:
    weight = {"w": ramp(4, 4, 3, 3)}
    wrong: dict[str, Any] = {
        "strides": 2,
        "pads": "same",
        "group": [1],
        "auto_pad": 1,
        "dilations": 1.5,
        "kernel_shape": "3",
    }
    for name, content in wrong.items():
        yield Bad(
            f"{name} of another type",
            packed(graph([node("Conv", ("x", "w"), **{name: content})], weight)),
            X,
            f"expected attribute '{name}' of type",
        )
    yield Bad(
        "an unknown attribute",
        packed(graph([node("Relu", alpha=1.0)])),
        X,
        "expected attributes of Relu .*, got 'alpha'",
    )
    for op in ("MaxPool", "Concat", "Cast", "LRN", "DepthToSpace"):
        yield Bad(f"{op} without what it requires", packed(graph([node(op)])), X, "which .* requires, got none")
    broken = node("Conv", ("x", "w"))
    broken.attribute.append(AttributeProto(name="auto_pad", type=AttributeProto.STRING, s=b"\xff\xfe"))
    yield Bad("a text that is no UTF-8", packed(graph([broken], weight)), X, "expected a readable attribute 'auto_pad'")
    loose = node("Conv", ("x", "w"))
    loose.attribute.append(AttributeProto(name="group", type=AttributeProto.INT, ref_attr_name="outer"))
    yield Bad("a reference outside a function", packed(graph([loose], weight)), X, "got a reference to 'outer'")

    conv: dict[str, dict[str, Any]] = {
        "strides of 0": {"strides": [0, 1]},
        "negative strides": {"strides": [-1, 1]},
        "too few strides": {"strides": [1]},
        "strides of INT64_MIN": {"strides": [INT64_MIN, 1]},
        "dilations of 0": {"dilations": [0, 0]},
        "dilations of INT64_MAX": {"dilations": [INT64_MAX, 1]},
        "a kernel of another size": {"kernel_shape": [5, 5]},
        "a kernel of another rank": {"kernel_shape": [3]},
        "too few pads": {"pads": [1, 1]},
        "pads that leave nothing": {"pads": [-9, -9, -9, -9]},
        "pads of INT64_MAX": {"pads": [INT64_MAX] * 4},
        "pads of INT64_MIN": {"pads": [INT64_MIN] * 4},
        "no groups": {"group": 0},
        "negative groups": {"group": -4},
        "groups that do not divide": {"group": 3},
        "an unknown auto_pad": {"auto_pad": "SOMEHOW"},
    }
    for name, content in conv.items():
        yield Bad(
            f"Conv: {name}",
            packed(graph([node("Conv", ("x", "w"), **content)], weight)),
            X,
            r"the_Conv' \(Conv\): .*expected",
        )
    for op in ("MaxPool", "AveragePool", "LpPool"):
        pool: dict[str, dict[str, Any]] = {
            "a window of 0": {"kernel_shape": [0, 2]},
            "a negative window": {"kernel_shape": [-2, 2]},
            "a window beyond the image": {"kernel_shape": [99, 99]},
            "strides of 0": {"kernel_shape": [2, 2], "strides": [0, 0]},
            "a window of INT64_MAX": {"kernel_shape": [INT64_MAX, 1]},
            "pads of 2^40": {"kernel_shape": [2, 2], "pads": [2**40] * 4},
        }
        for name, content in pool.items():
            yield Bad(f"{op}: {name}", packed(graph([node(op, **content)])), X, rf"the_{op}' |value 'y'")

    axes: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
        "Concat": ("xx", {"axis": 9}, {}),
        "Softmax": ("x", {"axis": -9}, {}),
        "Flatten": ("x", {"axis": 77}, {}),
        "Gather": ("xi", {"axis": 9}, {"i": np.int64([0])}),
        "ArgMax": ("x", {"axis": 100}, {}),
        "Transpose": ("x", {"perm": [0, 0, 1, 2]}, {}),
        "Split": ("x", {"axis": 9, "num_outputs": 1}, {}),
        "LpNormalization": ("x", {"axis": 12}, {}),
        "Hardmax": ("x", {"axis": 8}, {}),
        "OneHot": ("xdv", {"axis": 40}, {"d": np.int64(3), "v": np.float32([0, 1])}),
    }
    for op, (inputs, content, constants) in axes.items():
        yield Bad(
            f"{op} along an axis there is not",
            packed(graph([node(op, inputs, **content)], constants)),
            X,
            f"the_{op}' ",
        )


def tensors() -> Iterator[Bad]:
    def with_tensor(tensor: TensorProto) -> bytes:
        of = graph([node("Add", ("x", "w"))])
        tensor.name = "w"
        of.initializer.append(tensor)
        return packed(of)

    shapes: dict[str, list[int]] = {
        "a negative size": [-1, 4],
        "INT64_MIN": [INT64_MIN],
        "2^62 × 4": [2**62, 4],
        "2^32 × 2^32": [2**32, 2**32],
        "INT64_MAX": [INT64_MAX],
        "a petabyte": [10**15],
        "more than it has": [5],
        "less than it has": [1],
    }
    for name, dims in shapes.items():
        yield Bad(
            f"weights of {name}",
            with_tensor(TensorProto(data_type=FLOAT, dims=dims, raw_data=b"\0" * 8)),
            X,
            "initialiser 'w': expected",
        )
        yield Bad(
            f"numbers of {name}",
            with_tensor(TensorProto(data_type=FLOAT, dims=dims, float_data=[0, 0])),
            X,
            "initialiser 'w': expected",
        )
    for kind in (0, 999, -5):
        yield Bad(
            f"elements of type {kind}",
            with_tensor(TensorProto(data_type=kind, dims=[1], raw_data=b"\0" * 4)),
            X,
            "expected an element type of ONNX",
        )
    for kind in (TensorProto.STRING, TensorProto.COMPLEX64, TensorProto.UINT16):
        tensor = TensorProto(data_type=kind, dims=[1])
        if kind == TensorProto.STRING:
            tensor.string_data.append(b"\xff\xfe")
        elif kind == TensorProto.COMPLEX64:
            tensor.float_data.extend([1.0, 2.0])
        else:
            tensor.int32_data.append(7)
        yield Bad(f"weights of kind {kind} in an addition", with_tensor(tensor), X, "the_Add' |initialiser 'w'")
    for data in ({"float_data": [1.0]}, {"int64_data": [1]}, {"string_data": [b"a"]}):
        for kind in (TensorProto.INT64, TensorProto.FLOAT, TensorProto.STRING, TensorProto.DOUBLE):
            if (kind, next(iter(data))) in (
                (INT64, "int64_data"),
                (FLOAT, "float_data"),
                (TensorProto.STRING, "string_data"),
            ):
                continue
            yield Bad(
                f"{next(iter(data))} for type {kind}",
                with_tensor(TensorProto(data_type=kind, dims=[1], **data)),
                X,
                "expected",
            )
    outside = TensorProto(data_type=FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    outside.external_data.add(key="location", value="weights.bin")
    yield Bad("external data of a model without a folder", with_tensor(outside), X, "expected .*weights.bin")
    for name, place, dims in (
        ("outside", [99], [4]),
        ("negative", [-99], [4]),
        ("huge", [0], [2**40]),
        ("below 0", [0], [-4]),
    ):
        of = graph([node("Add", ("x", "w"))])
        values, indices = numpy_helper.from_array(np.float32([1]), "w"), numpy_helper.from_array(np.int64(place), "i")
        of.sparse_initializer.add(values=values, indices=indices, dims=dims)
        yield Bad(f"a sparse tensor {name}", packed(of), X, "expected")
    nan = with_tensor(numpy_helper.from_array(np.float32([np.nan])))
    yield Bad("weights that are NaN", nan, X, "")


def found() -> Iterator[Bad]:
    """What fuzzing found, in its smallest form."""
    weight = {"w": ramp(4, 4, 3, 3)}
    content = packed(graph([node("Conv", ("x", "w"), ("c",)), node("Relu", ("c",))], weight))
    yield Bad(
        "an operator's name that is no UTF-8", content.replace(b"Relu", b"R\xffl\x80"), X, "expected texts in UTF-8"
    )
    yield Bad(
        "a value's name that is no UTF-8", content.replace(b"\n\x01c", b"\n\x01\xff"), X, "expected texts in UTF-8"
    )
    empty = packed(graph([node("Conv", ("x", "w"))], {"w": np.zeros((2, 0), np.float32)}))
    yield Bad("weights without elements", empty, X, r"the_Conv' \(Conv\): expected W with 4 axes")
    inner = helper.make_function(
        "own", "f", ["a"], ["b"], [node("Relu", ("a",), ("b",))], [helper.make_opsetid("", 2**31)]
    )
    of = model(graph([helper.make_node("f", ["x"], ["y"], domain="own")]), functions=[inner])
    of.opset_import.append(helper.make_opsetid("own", 1))
    yield Bad("a function of opset 2^31", of.SerializeToString(), X, "expected Relu as in the model's opset 21")
    # The onnx package's shape inference divides by these zeros.
    zero = packed(graph([node("MaxPool", kernel_shape=[2, 2], strides=[0, 0], ceil_mode=1)]))
    yield Bad("strides of 0, rounded up", zero, X, "the_MaxPool' .*strides")


def growth() -> Iterator[Bad]:
    half: list[NodeProto] = [node("Concat", ("x", "x"), ("v0",), axis=0)]
    half += [node("Concat", (f"v{i}", f"v{i}"), (f"v{i + 1}",), axis=0) for i in range(60)] + [node("Relu", ("v60",))]
    yield Bad("concatenations that double", packed(graph(half)), X, "expected at most|at most .* bytes")
    tiles: list[NodeProto] = [node("Tile", ("x", "r"), ("v0",))]
    tiles += [node("Tile", (f"v{i}", "r"), (f"v{i + 1}",)) for i in range(60)] + [node("Relu", ("v60",))]
    yield Bad("tiles that double", packed(graph(tiles, {"r": np.int64([2, 2, 2, 2])})), X, "at most")
    text: list[NodeProto] = [node("StringConcat", ("s", "s"), ("v0",))]
    text += [node("StringConcat", (f"v{i}", f"v{i}"), (f"v{i + 1}",)) for i in range(45)]
    text += [node("Shape", ("v45",), ("y",))]
    of = graph(text)
    of.initializer.append(helper.make_tensor("s", TensorProto.STRING, [1], [b"abcdefgh"]))
    yield Bad("texts that double", packed(of), X, "the_StringConcat'")
    wide: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
        "Tile": ("Tile", "xr", {"r": np.int64([2**40, 1, 1, 1])}, {}),
        "Tile by a negative number": ("Tile", "xr", {"r": np.int64([-2, 1, 1, 1])}, {}),
        "Tile of another rank": ("Tile", "xr", {"r": np.int64([2])}, {}),
        "Expand": ("Expand", "xr", {"r": np.int64([2**40, 4, 8, 8])}, {}),
        "Expand to a negative size": ("Expand", "xr", {"r": np.int64([-7, 4, 8, 8])}, {}),
        "ConstantOfShape": ("ConstantOfShape", "r", {"r": np.int64([2**40])}, {}),
        "ConstantOfShape below 0": ("ConstantOfShape", "r", {"r": np.int64([-5])}, {}),
        "ConstantOfShape that overflows": ("ConstantOfShape", "r", {"r": np.int64([2**62, 2**62])}, {}),
        "Range without steps": ("Range", "abz", {"a": np.int64(0), "b": np.int64(9), "z": np.int64(0)}, {}),
        "Range that is huge": ("Range", "abz", {"a": np.int64(0), "b": np.int64(2**40), "z": np.int64(1)}, {}),
        "Range of NaN": ("Range", "abz", {"a": np.float32(0), "b": np.float32(np.nan), "z": np.float32(1)}, {}),
        "Range without end": ("Range", "abz", {"a": np.float32(0), "b": np.float32(np.inf), "z": np.float32(1)}, {}),
        "Pad": ("Pad", "xr", {"r": np.int64([0, 0, 0, 0, 2**40, 0, 0, 0])}, {}),
        "Pad by INT64_MIN": ("Pad", "xr", {"r": np.int64([INT64_MIN] * 8)}, {}),
        "Pad of another rank": ("Pad", "xr", {"r": np.int64([1, 1])}, {}),
        "Pad in an unknown mode": ("Pad", "xr", {"r": np.int64([1] * 8)}, {"mode": "spiral"}),
        "Pad that reflects too much": ("Pad", "xr", {"r": np.int64([0, 0, 99, 0, 0, 0, 0, 0])}, {"mode": "reflect"}),
        "OneHot": ("OneHot", "idv", {"i": np.int64([1]), "d": np.int64(2**42), "v": np.float32([0, 1])}, {}),
        "OneHot below 0": ("OneHot", "idv", {"i": np.int64([1]), "d": np.int64(-3), "v": np.float32([0, 1])}, {}),
        "TopK": ("TopK", "xk", {"k": np.int64([2**40])}, {}),
        "TopK below 0": ("TopK", "xk", {"k": np.int64([-1])}, {}),
        "HannWindow": ("HannWindow", "k", {"k": np.int64(2**45)}, {}),
        "Reshape to INT64_MIN": ("Reshape", "xr", {"r": np.int64([INT64_MIN, 1])}, {}),
        "Reshape with two unknowns": ("Reshape", "xr", {"r": np.int64([-1, -1])}, {}),
        "Reshape to another size": ("Reshape", "xr", {"r": np.int64([7, 7])}, {}),
        "Reshape keeping an axis there is not": ("Reshape", "xr", {"r": np.int64([1, 4, 8, 8, 0])}, {}),
        "Slice without steps": (
            "Slice",
            "xabcd",
            {k: np.int64([v]) for k, v in zip("abcd", (0, 5, 1, 0), strict=True)},
            {},
        ),
        "Slice by INT64_MIN": (
            "Slice",
            "xabcd",
            {k: np.int64([v]) for k, v in zip("abcd", (0, 5, 1, INT64_MIN), strict=True)},
            {},
        ),
        "Slice along an axis there is not": (
            "Slice",
            "xabc",
            {k: np.int64([v]) for k, v in zip("abc", (0, 5, 9), strict=True)},
            {},
        ),
        "Slice with too few ends": ("Slice", "xab", {"a": np.int64([0, 0]), "b": np.int64([1])}, {}),
        "Split into negative parts": ("Split", "xr", {"r": np.int64([-1, 2])}, {}),
        "Split into other parts": ("Split", "xr", {"r": np.int64([3, 9])}, {}),
        "Gather beyond the end": ("Gather", "xi", {"i": np.int64([99])}, {}),
        "Gather at INT64_MIN": ("Gather", "xi", {"i": np.int64([INT64_MIN])}, {}),
        "GatherElements beyond the end": ("GatherElements", "xi", {"i": np.full(IMAGE, 99)}, {}),
        "GatherND beyond the end": ("GatherND", "xi", {"i": np.int64([[0, 99]])}, {}),
        "ScatterND beyond the end": ("ScatterND", "xiu", {"i": np.int64([[0, 99, 0, 0]]), "u": np.float32([1])}, {}),
        "ScatterElements beyond the end": (
            "ScatterElements",
            "xiu",
            {"i": np.full((1, 1, 1, 1), 99), "u": ramp(1, 1, 1, 1)},
            {},
        ),
        "Resize by 10^9": ("Resize", "xr", {"r": np.float32([1, 1, 1e9, 1e9])}, {}),
        "Resize by NaN": ("Resize", "xr", {"r": np.float32([1, 1, np.nan, 1])}, {}),
        "Resize by −1": ("Resize", "xr", {"r": np.float32([1, 1, -1, 1])}, {}),
        "Resize by 0": ("Resize", "xr", {"r": np.float32([1, 1, 0, 1])}, {}),
        "Resize in an unknown mode": ("Resize", "xr", {"r": np.float32([1, 1, 2, 2])}, {"mode": "magic"}),
        "DepthToSpace by 0": ("DepthToSpace", "x", {}, {"blocksize": 0}),
        "DepthToSpace by −2": ("DepthToSpace", "x", {}, {"blocksize": -2}),
        "SpaceToDepth by 3": ("SpaceToDepth", "x", {}, {"blocksize": 3}),
        "SpaceToDepth by 0": ("SpaceToDepth", "x", {}, {"blocksize": 0}),
        "CenterCropPad": ("CenterCropPad", "xr", {"r": np.int64([1, 4, 2**40, 8])}, {}),
        "Cast to an unknown type": ("Cast", "x", {}, {"to": 999}),
        "an Einsum of other axes": ("Einsum", "x", {}, {"equation": "ij->i"}),
        "an Einsum that is none": ("Einsum", "x", {}, {"equation": "->->,,"}),
        "MatMul of sizes that differ": ("MatMul", "xw", {"w": ramp(5, 5)}, {}),
        "Gemm of images": ("Gemm", "xw", {"w": ramp(5, 5)}, {}),
        "batch-norm of other channels": ("BatchNormalization", "xwwww", {"w": ramp(7)}, {}),
        "ConvTranspose to a petabyte": ("ConvTranspose", "xw", {"w": ramp(4, 4, 3, 3)}, {"strides": [2**24, 2**24]}),
        "ConvTranspose with strides of 0": ("ConvTranspose", "xw", {"w": ramp(4, 4, 3, 3)}, {"strides": [0, 0]}),
        "MaxUnpool to a petabyte": (
            "MaxUnpool",
            "xi",
            {"i": np.zeros(IMAGE, np.int64)},
            {"kernel_shape": [2, 2], "strides": [2**24, 2**24]},
        ),
        "a group-norm of 3 groups": ("GroupNormalization", "xww", {"w": ramp(4)}, {"num_groups": 3}),
        "a group-norm of no groups": ("GroupNormalization", "xww", {"w": ramp(4)}, {"num_groups": 0}),
        "an axis to drop that is not 1": ("Squeeze", "xr", {"r": np.int64([2])}, {}),
        "an axis to insert twice": ("Unsqueeze", "xr", {"r": np.int64([1, 1])}, {}),
        "an axis to insert far away": ("Unsqueeze", "xr", {"r": np.int64([INT64_MAX])}, {}),
    }
    runs = ("Slice by INT64_MIN",)  # of a range that holds nothing
    for name, (op, inputs, constants, content) in wide.items():
        outputs = ("y", "z") if op in ("TopK", "Split") else ("y",)
        yield Bad(
            name,
            packed(graph([node(op, inputs, outputs, **content)], constants)),
            X,
            "" if name in runs else f"the_{op}' |value 'y'",
        )
    for name, a, b in (("by 0", 5, 0), ("of INT64_MIN by −1", INT64_MIN, -1)):
        for op in ("Div", "Mod"):
            of = graph([node(op, "ab")], {"b": np.int64([b])}, inputs=[value("a", [1], INT64)])
            yield Bad(f"{op} {name}", packed(of), [np.int64([a])], "")


def nesting() -> Iterator[Bad]:
    inner = helper.make_graph([node("Relu", ("x",), ("r",))], "leaf", [], [value("r", None)])
    for i in range(60):
        branch = node("If", ("c",), (f"r{i}",), then_branch=inner, else_branch=inner)
        inner = helper.make_graph([branch], f"level{i}", [], [value(f"r{i}", None)])
        if i > 15:  # the two branches double the file
            break
    yield Bad(
        "branches in branches",
        packed(graph([node("If", ("c",), then_branch=inner, else_branch=inner)], {"c": np.array(True)})),
        X,
        "expected at most 10,000 graphs inside of nodes",
    )
    one = helper.make_graph([node("Relu", ("x",), ("r",))], "leaf", [], [value("r", None)])
    small = helper.make_graph([node("Neg", ("x",), ("s",))], "other", [], [value("s", None)])
    for i in range(25):
        branch = node("If", ("c",), (f"r{i}",), then_branch=one, else_branch=small)
        one = helper.make_graph([branch], f"level{i}", [], [value(f"r{i}", None)])
    yield Bad(
        "graphs 26 deep",
        packed(graph([node("If", ("c",), then_branch=one, else_branch=small)], {"c": np.array(True)})),
        X,
        "",
    )
    body = helper.make_graph(
        [node("Identity", ("c",), ("d",)), node("Identity", ("v",), ("w",))],
        "body",
        [value("i", [], INT64), value("c", [], TensorProto.BOOL), value("v", None)],
        [value("d", [], TensorProto.BOOL), value("w", None)],
    )
    endless = graph([node("Loop", ("m", "c", "x"), body=body)], {"m": np.int64(INT64_MAX), "c": np.array(True)})
    yield Bad("a loop without end", packed(endless), X, "the_Loop' .*expected at most")
    collects = helper.make_graph(
        [node("Identity", ("c",), ("d",)), node("Identity", ("v",), ("w",)), node("Tile", ("v", "r"), ("s",))],
        "body",
        [value("i", [], INT64), value("c", [], TensorProto.BOOL), value("v", None)],
        [value("d", [], TensorProto.BOOL), value("w", None), value("s", None)],
    )
    grows = graph(
        [node("Loop", ("m", "c", "x"), ("y", "z"), body=collects)],
        {"m": np.int64(2**40), "c": np.array(True), "r": np.int64([1, 1, 32, 32])},
    )
    yield Bad("a loop that collects without end", packed(grows), X, "the_Loop' .*the loop collects to stay below")
    doubles = helper.make_graph(
        [node("Identity", ("c",), ("d",)), node("Concat", ("v", "v"), ("w",), axis=0)],
        "body",
        [value("i", [], INT64), value("c", [], TensorProto.BOOL), value("v", None)],
        [value("d", [], TensorProto.BOOL), value("w", None)],
    )
    twice = graph([node("Loop", ("m", "c", "x"), body=doubles)], {"m": np.int64(40), "c": np.array(True)})
    yield Bad("a loop that doubles", packed(twice), X, "the_Loop' .*the loop carries to stay below")
    yield Bad(
        "a loop without a body's inputs",
        packed(graph([node("Loop", ("m", "c", "x"), body=small)], {"m": np.int64(3), "c": np.array(True)})),
        X,
        "the_Loop' .*expected a body",
    )
    yield Bad(
        "a condition of four",
        packed(graph([node("If", ("c",), then_branch=small, else_branch=small)], {"c": np.ones(4, bool)})),
        X,
        "the_If' .*expected a single number",
    )

    def calls(*functions: Any) -> bytes:
        of = model(graph([helper.make_node("f0", ["x"], ["y"], domain="own")]), functions=list(functions))
        of.opset_import.append(helper.make_opsetid("own", 1))
        return of.SerializeToString()

    def function(name: str, *nodes: NodeProto) -> Any:
        return helper.make_function(
            "own", name, ["a"], ["b"], list(nodes), [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)]
        )

    def call(name: str, inputs: str, outputs: str) -> NodeProto:
        return helper.make_node(name, [inputs], [outputs], domain="own")

    yield Bad("a function that calls itself", calls(function("f0", call("f0", "a", "b"))), X, "got a circle")
    yield Bad(
        "functions in a circle",
        calls(function("f0", call("f1", "a", "b")), function("f1", call("f0", "a", "b"))),
        X,
        "got a circle",
    )
    chain = [function(f"f{i}", call(f"f{i + 1}", "a", "m"), call(f"f{i + 1}", "m", "b")) for i in range(40)]
    yield Bad(
        "functions that double",
        calls(*chain, function("f40", node("Relu", ("a",), ("b",)))),
        X,
        "expected at most 1000000 nodes",
    )
    line = [function(f"f{i}", call(f"f{i + 1}", "a", "b")) for i in range(900)]
    yield Bad("functions 900 deep", calls(*line, function("f900", node("Relu", ("a",), ("b",)))), X, "deep")
    yield Bad(
        "a function twice",
        calls(function("f0", node("Relu", ("a",), ("b",))), function("f0", node("Neg", ("a",), ("b",)))),
        X,
        "got it twice",
    )
    yield Bad(
        "a function that is missing",
        calls(function("f9", node("Relu", ("a",), ("b",)))),
        X,
        "expected operators that striate supports",
    )


KINDS = (files, wiring, attributes, tensors, found, growth, nesting)


def all_files() -> list[Bad]:
    return [bad for kind in KINDS for bad in kind()]


def attempt(bad: Bad) -> str:
    """Load the file and run it; return the refusal, or "" where it ran."""
    import striate
    import striate.onnx

    try:
        module = striate.onnx.load(bad.content)
        with striate.no_grad():
            module(*bad.inputs)
    except striate.onnx.OnnxError as error:
        return str(error)
    return ""


def memory(of: str) -> int:
    """Return the memory of this process in bytes: VmRSS is what it has, VmHWM the most since `forget_peak`; Linux only."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(of))
    return 1024 * int(line.split()[1])


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def main() -> None:
    write = sys.stdout.write
    attempt(Bad("warm up", good(), X, ""))
    slowest, largest, refused = (0.0, ""), (0, ""), 0
    bad_files = all_files()
    for bad in bad_files:
        gc.collect()
        forget_peak()
        start, before = time.monotonic(), memory("VmRSS")
        text = attempt(bad)
        took, grown = time.monotonic() - start, memory("VmHWM") - before
        slowest, largest = max(slowest, (took, bad.name)), max(largest, (grown, bad.name))
        refused += bool(text)
        if took > 1 or grown > 100e6:
            write(f"{bad.name}: {took:.1f} s, {grown / 1e6:.0f} MB\n")
    write(
        f"{len(bad_files)} malformed files: {refused} refused, {len(bad_files) - refused} ran; the slowest took "
        f"{slowest[0]:.2f} s ({slowest[1]}); memory grew by at most {largest[0] / 1e6:.0f} MB ({largest[1]})\n"
    )


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main()
