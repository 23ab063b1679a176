"""What a file holds, told also where it is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper, parser  # noqa: E402

import striate.onnx  # noqa: E402
from striate.io.port import Port  # noqa: E402


def small_model() -> onnx.ModelProto:
    """Make a convolution by an initialiser, its result scaled by a constant and handed to an operator that nobody knows."""
    weight = numpy_helper.from_array(np.ones((2, 3, 1, 1), np.float32), "w")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.ones(5, np.float64))),
        helper.make_node("Fly", ["a"], ["b"], name="wing", domain="sky"),
        helper.make_node("Fly", ["b"], ["y"], domain="sky"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, None, -1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, None)],
        [weight],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("sky", 2)]
    return helper.make_model(graph, opset_imports=opsets, producer_name="kite", producer_version="3", ir_version=8)


def test_description_of_a_file_that_load_refuses(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(small_model().SerializeToString())
    for source in (path, small_model()):
        found = striate.onnx.describe(source)
        assert (found.producer, found.ir_version) == ("kite 3", 8)
        assert found.opsets == {"ai.onnx": 17, "sky": 2}
        assert found.inputs == (Port("x", "float32", ("batch", 3, None, None)),)
        assert found.outputs == (Port("y", "float16", None),)
        assert found.nodes == {"Fly": 2, "Conv": 1, "Constant": 1}
        assert (found.n_weights, found.weight_bytes) == (6 + 5, 6 * 4 + 5 * 8)
        assert found.unsupported == {"Fly (domain 'sky', opset 2)": ["wing", "y"]}
    with pytest.raises(striate.onnx.OnnxError, match="expected operators that striate supports, got 1 others: Fly"):
        striate.onnx.load(path)


def test_a_module_knows_its_ports() -> None:
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[n, 2] x, int64 k) => (float[n, 2] y) { y = Relu(x) }'
    module = striate.onnx.load(parser.parse_model(text))
    assert [str(port) for port in module.input_ports] == ["x: float32 n×2", "k: int64 number"]
    assert module.output_ports == (Port("y", "float32", ("n", 2)),)


def test_values_that_are_no_tensors_are_ports() -> None:
    text = '<ir_version: 8, opset_import: ["" : 17]> g (seq(float[n]) x, string[n] s) => (int64 n) { n = SequenceLength(x) }'
    found = striate.onnx.describe(parser.parse_model(text))
    assert [port.dtype for port in found.inputs] == ["sequence", "string"]


def test_describe_names_what_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "no.onnx").write_bytes(b"not a model at all")
    with pytest.raises(striate.onnx.OnnxError, match=r"no\.onnx: expected an ONNX model, got 18 bytes"):
        striate.onnx.describe(tmp_path / "no.onnx")
    with pytest.raises(FileNotFoundError):
        striate.onnx.describe(tmp_path / "missing.onnx")
