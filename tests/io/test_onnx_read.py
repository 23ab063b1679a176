"""ONNX models as modules: training, compiling, dynamic sizes, control flow, half floats, external data, old opsets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent))
from onnx_text import build, reference  # noqa: E402

import striate  # noqa: E402
import striate.onnx  # noqa: E402
from striate import nn, train  # noqa: E402
from striate.onnx import NotDifferentiable, OnnxError  # noqa: E402

RNG = np.random.default_rng(0)


def f32(*shape: int) -> Any:
    return np.random.default_rng(sum(shape) + len(shape)).standard_normal(shape).astype(np.float32)


def agree(model: Any, *inputs: Any, rtol: float = 1e-5) -> None:
    """Eager and compiled equal the onnx package's own evaluator."""
    module = striate.onnx.load(model)
    wanted = reference(model, *inputs)
    with striate.no_grad():
        eager = module(*inputs)
    for results in (eager, striate.compile(module, *inputs)(*inputs)):
        for got, expected in zip(results if isinstance(results, tuple) else (results,), wanted, strict=True):
            assert got.shape == expected.shape
            np.testing.assert_allclose(got.numpy(), expected, rtol=rtol, atol=rtol * np.abs(expected).max(initial=1e-6))


SMALL = """small (float[n,2,6,6] x) => (float[n,3] y) {
    c = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, conv_weight, conv_bias)
    b = BatchNormalization(c, bn_weight, bn_bias, bn_running_mean, bn_running_var)
    r = Relu(b)
    p = GlobalAveragePool(r)
    f = Flatten(p)
    y = Gemm<transB=1>(f, fc_weight, fc_bias)
}"""


def small() -> tuple[Any, nn.Module]:
    """Return an ONNX network and the same one built of layers."""

    class Net(nn.Module):
        def __init__(self) -> None:
            self.conv = nn.Conv2d(2, 4, 3, padding=1)
            self.bn = nn.BatchNorm2d(4)
            self.fc = nn.Linear(4, 3)

        def forward(self, x: Any) -> Any:
            pooled = striate.mean(self.bn(self.conv(x)).relu(), dim=(2, 3))
            return self.fc(pooled)

    net = Net()
    with striate.no_grad():
        striate.assign(net.bn.running_mean, striate.tensor(f32(4)))
        striate.assign(net.bn.running_var, striate.tensor(np.abs(f32(4)) + 0.5))
    weights = {k: v.numpy().copy() for k, v in net.state_dict().items() if k != "bn.num_batches_tracked"}
    model = build(SMALL, weights)
    for node in model.graph.node:  # names with dots are not in the notation
        for i, name in enumerate(node.input):
            node.input[i] = name.replace("_", ".", 1)
    return model, net


def test_names_of_weights_are_kept() -> None:
    model, net = small()
    module = striate.onnx.load(model)
    wanted = [k for k in net.state_dict() if k != "bn.num_batches_tracked"]
    assert sorted(module.state_dict()) == sorted(wanted)
    assert {k for k, _ in module.named_parameters()} == {k for k, _ in net.named_parameters()}


@pytest.mark.parametrize("trains", [False, True], ids=["frozen", "trained"])
def test_gradients_and_statistics(trains: bool) -> None:
    model, net = small()
    module = striate.onnx.load(model, train_batch_norm=trains).train()
    net.train()
    net.bn.train(trains)
    x = striate.tensor(f32(5, 2, 6, 6))
    for network in (module, net):
        (network(x).square()).sum().backward()
    for (key, ours), (_, theirs) in zip(sorted(module.named_parameters()), sorted(net.named_parameters()), strict=True):
        np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), rtol=2e-5, atol=1e-5, err_msg=key)
    mean = module.state_dict()["bn.running_mean"].numpy()
    np.testing.assert_allclose(mean, net.bn.running_mean.numpy(), rtol=1e-6)
    before = next(t for t in model.graph.initializer if t.name == "bn.running_mean")
    assert np.array_equal(mean, numpy_helper.to_array(before)) is not trains


def test_fine_tuning_by_fit() -> None:
    striate.manual_seed(0)  # some weights to begin with learn more slowly than the bar
    model, _ = small()
    module = striate.onnx.load(model)
    x, labels = f32(64, 2, 6, 6), np.arange(64) % 3
    x[np.arange(64), 0] += labels[:, None, None]
    x = np.ascontiguousarray(x.transpose(0, 2, 3, 1))  # as a loader hands images out
    batches = [(x[i : i + 16], labels[i : i + 16]) for i in range(0, 64, 16)]
    run = train.fit(
        module,
        batches,
        optimizer=train.SGD(module.parameters(), lr=0.2, momentum=0.9),
        loss=nn.CrossEntropyLoss(),
        epochs=6,
    )
    assert run.history[-1]["loss"] < 0.6 * run.history[0]["loss"]


def test_backward_through_a_node_without_gradient_names_it() -> None:
    model = build("g (float[2,2] x) => (float[] y) { d = Det(x)  y = ReduceSum<keepdims=0>(d) }", opset=22)
    model.graph.node[0].name = "the_determinant"
    module = striate.onnx.load(model)
    x = striate.tensor(np.float32([[2, 1], [1, 3]]), requires_grad=True)
    y = module(x)
    assert float(y.detach()) == 5.0
    with pytest.raises(
        NotDifferentiable, match=r"node 'the_determinant' \(Det\), whose gradient striate does not have"
    ):
        y.backward()
    assert module.operators() == {"differentiable": ["ReduceSum"], "flat": [], "none yet": ["Det"]}


def test_flat_operators_give_no_gradient() -> None:
    module = striate.onnx.load(build("g (float[2,3] x) => (int64[2] y) { y = ArgMax<axis=1, keepdims=0>(x) }"))
    x = striate.tensor(f32(2, 3), requires_grad=True)
    assert not module(x).requires_grad
    assert module.operators()["flat"] == ["ArgMax"]


SHAPES = {
    "reshape by a computed size": (
        """g (float[n,3,h,w] x) => (float[n,m] y) {
            s = Shape(x) i = Constant<value = int64 {0}>() n0 = Gather(s, i)
            a = Constant<value = int64[1] {0}>() n1 = Unsqueeze(n0, a)
            r = Constant<value = int64[1] {-1}>() t = Concat<axis=0>(n1, r) y = Reshape(x, t) }""",
        [(2, 3, 4, 5), (5, 3, 2, 7)],
    ),
    "tokens": (
        """g (float[n,3,h,w] x) => (float[n,l,3] y) {
            s = Shape(x) a = Constant<value_ints=[2]>() b = Constant<value_ints=[4]>() hw = Slice(s, a, b)
            p = ReduceProd<keepdims=1>(hw) z = Constant<value_ints=[0]>() o = Constant<value_ints=[2]>()
            nc = Slice(s, z, o) t = Concat<axis=0>(nc, p) f = Reshape(x, t) y = Transpose<perm=[0,2,1]>(f) }""",
        [(2, 3, 4, 5), (3, 3, 6, 2)],
    ),
    "resize to another's size": (
        """g (float[1,2,h,w] x, float[1,2,k,l] z) => (float[1,2,k,l] y) {
            s = Shape(z) e = Constant<value = float[0] {}>()
            r = Resize<mode="linear", coordinate_transformation_mode="half_pixel">(x, e, e, s) y = Add(r, z) }""",
        [((1, 2, 3, 4), (1, 2, 6, 8)), ((1, 2, 5, 3), (1, 2, 7, 9))],
    ),
    "nearest pixels of another's size": (
        """g (float[1,2,h,w] x, float[1,2,k,l] z) => (float[1,2,k,l] y) {
            s = Shape(z) e = Constant<value = float[0] {}>()
            r = Resize<mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor">(x, e, e, s)
            y = Add(r, z) }""",
        [((1, 2, 3, 4), (1, 2, 6, 8)), ((1, 2, 5, 3), (1, 2, 7, 9)), ((1, 2, 5, 3), (1, 2, 15, 9))],
    ),
    "nearest pixels, rounded": (
        """g (float[1,2,h,w] x, float[1,2,k,l] z) => (float[1,2,k,l] y) {
            s = Shape(z) e = Constant<value = float[0] {}>()
            r = Resize<mode="nearest", coordinate_transformation_mode="half_pixel">(x, e, e, s) y = Add(r, z) }""",
        [((1, 2, 3, 4), (1, 2, 6, 8)), ((1, 2, 5, 3), (1, 2, 7, 9)), ((1, 2, 5, 4), (1, 2, 5, 4))],
    ),
    "padding from the other end": (
        'g (float[n,3] x) => (float[m,3] y) { p = Constant<value_ints=[1,0,2,0]>() y = Pad<mode="wrap">(x, p) }',
        [(4, 3), (2, 3), (7, 3)],
    ),
    "places of maxima": (
        """g (float[n,2,h,w] x) => (float[n,2,k,l] y, int64[n,2,k,l] i) {
            y, i = MaxPool<kernel_shape=[2,2], strides=[2,2]>(x) }""",
        [(1, 2, 4, 6), (3, 2, 6, 4)],
    ),
    "samples of a grid": (
        "g (float[n,2,4,5] x, float[n,k,l,2] z) => (float[n,2,k,l] y) { y = GridSample(x, z) }",
        [((1, 2, 4, 5), (1, 3, 2, 2)), ((3, 2, 4, 5), (3, 5, 4, 2))],
    ),
    "rows put in constant places": (
        """g (float[n,3] x) => (float[n,3] y) {
            i = Constant<value = int64[2,1] {0, 1}>() u = Constant<value = float[2,3] {1, 2, 3, 4, 5, 6}>()
            y = ScatterND(x, i, u) }""",
        [(2, 3), (5, 3)],
    ),
    "sequences turned round": (
        """g (float[t,2,3] x) => (float[t,2,3] y) {
            l = Constant<value = int64[2] {2, 1}>() y = ReverseSequence(x, l) }""",
        [(3, 2, 3), (5, 2, 3)],
    ),
    "running sums": (
        "g (float[n,3] x) => (float[n,3] y) { a = Constant<value = int64 {0}>() y = CumSum(x, a) }",
        [(3, 3), (5, 3)],
    ),
    "gathered rows of a batch": (
        """g (float[n,4,3] x) => (float[n,2,3] y) {
            i = Constant<value = int64[2] {3, -1}>() y = Gather<axis=1>(x, i) }""",
        [(1, 4, 3), (3, 4, 3)],
    ),
    "what dropout keeps": (
        "g (float[n,3] x) => (float[n,3] y, bool[n,3] m) { y, m = Dropout(x) }",
        [(1, 3), (4, 3)],
    ),
    "expanded to another's shape": (
        "g (float[a,3] x, float[b,c] z) => (float[d,e] y) { s = Shape(z) y = Expand(x, s) }",
        [((4, 3), (1, 1)), ((4, 3), (4, 3)), ((1, 3), (5, 3))],
    ),
    "a fixed size alone": (
        """g (float[n,4,h,w] x) => (float[m,2,h,w] y) {
            s = Shape(x) one = Constant<value = int64 {1}>() c = Gather(s, one) two = Constant<value = int64 {2}>()
            half = Div(c, two) a = Constant<value_ints=[0]>() k = Unsqueeze(half, a) t = Constant<value_ints=[-1]>()
            z = Constant<value_ints=[0]>() z2 = Constant<value_ints=[2]>() z4 = Constant<value_ints=[4]>()
            hw = Slice(s, z2, z4) q = Concat<axis=0>(t, k, hw) w = Relu(x) f = Add(w, w) y = Reshape(f, q) }""",
        [(2, 4, 3, 3), (1, 4, 5, 2)],
    ),
    "halves of the channels": (
        """g (float[n,4,h,w] x) => (float[n,2,h,w] y) {
            s = Shape(x) i = Constant<value_ints=[1]>() c = Gather(s, i) two = Constant<value_ints=[2]>()
            half = Div(c, two) z = Constant<value_ints=[0]>() y = Slice(x, z, half, i) }""",
        [(2, 4, 3, 3), (1, 4, 5, 2)],
    ),
    "zeros of the batch's size": (
        """g (float[n,3] x) => (float[n,5] y) {
            s = Shape(x) i = Constant<value_ints=[0]>() n0 = Gather(s, i) two = Constant<value_ints=[2]>()
            t = Concat<axis=0>(n0, two) z = ConstantOfShape(t) y = Concat<axis=1>(x, z) }""",
        [(2, 3), (4, 3)],
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_dynamic_sizes_in_one_program(name: str) -> None:
    text, shapes = SHAPES[name]
    model = build(text)
    module = striate.onnx.load(model)
    program = None
    for shape in shapes:
        inputs = [f32(*s) for s in (shape if isinstance(shape[0], tuple) else (shape,))]
        program = program or striate.compile(module, *inputs)
        got = program(*inputs)
        for y, wanted in zip(got if isinstance(got, tuple) else (got,), reference(model, *inputs), strict=True):
            np.testing.assert_allclose(y.numpy(), wanted, rtol=1e-5, atol=1e-6)


def test_sizes_follow_the_input_without_recording_again() -> None:
    text, shapes = SHAPES["tokens"]
    program = striate.compile(striate.onnx.load(build(text)), f32(*shapes[0]))
    program(f32(*shapes[1]))
    assert len(program._variants) == 1


BRANCHES = """g (bool c, float[n] x) => (float[n] y) {
    y = If (c) <then_branch = a () => (float[n] t) { t = Relu(x) }, else_branch = b () => (float[n] e) { e = Neg(x) }>
}"""


def test_if_takes_the_branch_of_its_condition() -> None:
    module = striate.onnx.load(build(BRANCHES))
    x = np.float32([-1, 2])
    program = striate.compile(module, np.array(True), x)
    for function in (module, program):
        np.testing.assert_array_equal(function(np.array(True), x).numpy(), [0, 2])
        np.testing.assert_array_equal(function(np.array(False), x).numpy(), [1, -2])
    assert program.host_nodes == ("If 'y'",)


def test_if_on_a_constant_compiles() -> None:
    text = BRANCHES.replace("bool c, ", "").replace("y = If", "c = Constant<value = bool {0}>() y = If")
    program = striate.compile(striate.onnx.load(build(text)), np.float32([-1, 2]))
    np.testing.assert_array_equal(program(np.float32([-1, 2])).numpy(), [1, -2])


def test_loop_of_constant_trips_compiles_and_differentiates() -> None:
    text = """g (float[n] x) => (float[n] y, float[3,n] all) {
        m = Constant<value = int64 {3}>() t = Constant<value = bool {1}>()
        y, all = Loop (m, t, x) <body = b (int64 i, bool c, float[n] v) => (bool c2, float[n] w, float[n] s) {
            c2 = Identity(c) w = Add(v, v) s = Identity(w) }>
    }"""
    module = striate.onnx.load(build(text))
    x = striate.tensor(f32(4), requires_grad=True)
    y, collected = module(x)
    np.testing.assert_allclose(y.detach().numpy(), 8 * f32(4), rtol=1e-6)
    np.testing.assert_allclose(collected.detach().numpy(), np.stack([2 * f32(4), 4 * f32(4), 8 * f32(4)]), rtol=1e-6)
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [8] * 4)
    again, _ = striate.compile(module, f32(4))(f32(4))
    np.testing.assert_allclose(again.numpy(), 8 * f32(4), rtol=1e-6)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.BFLOAT16], ids=["float16", "bfloat16"])
def test_half_floats_compute_in_float32(kind: int) -> None:
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    weight = f32(4, 3).astype(dtype)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", kind, [2, 4])],
        [helper.make_tensor_value_info("y", kind, [2, 3])],
        [numpy_helper.from_array(weight, "w")],
    )
    module = striate.onnx.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    x = f32(2, 4).astype(dtype)
    with striate.no_grad():
        y = module(x)
    assert str(y.dtype) == str(dtype)
    assert module.state_dict()["w"].dtype == striate.float32
    wanted = (x.astype(np.float32) @ weight.astype(np.float32)).astype(dtype).astype(np.float32)
    np.testing.assert_array_equal(y.to(striate.float32).numpy(), wanted)


def test_written_out_activations_become_one_node() -> None:
    text = """g (float[n] x) => (float[n] a, float[n] b, float[n] c, float[n] d, float[n] e, float[n] f) {
        three = Constant<value = float {3.0}>() zero = Constant<value = float {0.0}>() six = Constant<value = float {6.0}>()
        x3 = Add(x, three) x6 = Clip(x3, zero, six) xx = Mul(x, x6) a = Div(xx, six)
        s = Sigmoid(x) b = Mul(x, s)
        sp = Softplus(x) th = Tanh(sp) c = Mul(x, th)
        r = Constant<value = float {1.4142135}>() one = Constant<value = float {1.0}>() h = Constant<value = float {0.5}>()
        q = Div(x, r) er = Erf(q) e1 = Add(er, one) xe = Mul(x, e1) d = Mul(xe, h)
        y3 = Add(three, x) y6 = Clip(y3, zero, six) e = Div(y6, six)
        hs = HardSigmoid<alpha = 0.16666667, beta = 0.5>(x) f = Mul(hs, x)
    }"""
    model = build(text)
    x = np.linspace(-5, 5, 41, dtype=np.float32)
    agree(model, x, rtol=2e-6)
    graph = striate.compile(striate.onnx.load(model), x).graph
    assert sorted(node.op for node in graph.nodes) == ["gelu", "hardsigmoid", "hardswish", "hardswish", "mish", "silu"]


def test_a_written_out_layer_norm_becomes_one_node() -> None:
    text = """g (float[n,5,8] x) => (float[n,5,8] y) {
        m = ReduceMean<axes=[-1]>(x) d = Sub(x, m) two = Constant<value = float {2.0}>() p = Pow(d, two)
        v = ReduceMean<axes=[-1]>(p) eps = Constant<value = float {1e-5}>() a = Add(v, eps) r = Sqrt(a) q = Div(d, r)
        k = Mul(q, scale) y = Add(k, shift) }"""
    model = build(text, {"scale": f32(8), "shift": f32(8) + 1})
    module = striate.onnx.load(model)
    assert [node.op_type for node in module._plan.nodes] == ["LayerNormalization"]
    assert {name for name, _ in module.named_parameters()} == {"scale", "shift"}
    agree(model, f32(3, 5, 8))


def test_a_product_and_an_addition_become_one_linear_layer() -> None:
    model = build(
        "g (float[n,5,8] x) => (float[n,5,6] y) { p = MatMul(x, w) y = Add(p, b) }", {"w": f32(8, 6), "b": f32(6)}
    )
    agree(model, f32(3, 5, 8))
    program = striate.compile(striate.onnx.load(model), f32(3, 5, 8))
    assert [node.op for node in program.graph.nodes] == ["linear"]


def test_an_activation_whose_parts_are_read_elsewhere_stays() -> None:
    model = build("g (float[n] x) => (float[n] y, float[n] s) { s = Sigmoid(x) y = Mul(x, s) }")
    agree(model, f32(7))


def test_constants_are_folded_once() -> None:
    text = """g (float[n,4] x) => (float[n,3] y) { t = Transpose(w) s = Mul(t, k) y = MatMul(x, s) }"""
    model = build(text, {"w": f32(3, 4), "k": np.float32(2)})
    module = striate.onnx.load(model)
    assert [node.op_type for node in module._plan.nodes] == ["MatMul"]
    agree(model, f32(2, 4))
    assert [key for key, _ in module.named_parameters()] == ["s"]


def test_name_of_a_module_attribute_gets_an_underscore() -> None:
    module = striate.onnx.load(
        build("g (float[n,4] x) => (float[n,3] y) { y = MatMul(x, forward) }", {"forward": f32(4, 3)})
    )
    assert list(module.state_dict()) == ["forward_"]


def external(
    folder: Path, location: str = "weights.bin", offset: int | str = 0, length: int | str | None = None
) -> Path:
    model = build("g (float[n,4] x) => (float[n,300] y) { y = MatMul(x, w) }")
    weight = f32(4, 300)
    (folder / "weights.bin").write_bytes(b"\0" * 16 + weight.tobytes())
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 300], data_location=TensorProto.EXTERNAL)
    entries = {"location": location, "offset": str(offset)} | ({} if length is None else {"length": str(length)})
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    model.graph.initializer.append(tensor)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data(tmp_path: Path) -> None:
    path = external(tmp_path, offset=16, length=4800)
    x = f32(2, 4)
    np.testing.assert_allclose(striate.onnx.load(path)(x).detach().numpy(), x @ f32(4, 300), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"location": "../weights.bin"}, r"only relative paths without '\.\.' are read"),
        ({"location": "/etc/hostname"}, "only relative paths"),
        ({"location": "a/../weights.bin"}, "only relative paths"),
        ({"location": ""}, "only relative paths"),
        ({"location": "missing.bin"}, "expected external data in .*missing.bin, got: No such file"),
        ({"location": "link.bin"}, "got a link, .*link.bin; copy the file there"),
        ({"location": "folder/w.bin"}, "got a link, .*folder"),
        ({"location": "real"}, "expected external data in a regular file"),
        ({"offset": -1}, "expected external data inside the file's 4,816 bytes, got offset -1"),
        ({"offset": 10**30}, "expected external data inside"),
        ({"offset": 16, "length": 10**9}, "expected external data inside the file's 4,816 bytes"),
        ({"offset": "many"}, "expected offset and length as numbers"),
        ({"offset": 16, "length": 4}, "expected 4800 bytes of data for shape .*, got 4"),
    ],
)
def test_refusal_of_external_data(tmp_path: Path, arguments: dict[str, Any], text: str) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "w.bin").write_bytes(b"\0" * 4800)
    inside = tmp_path / "model"
    (inside / "real").mkdir(parents=True)
    (inside / "link.bin").symlink_to(tmp_path / "outside" / "w.bin")
    (inside / "folder").symlink_to(tmp_path / "outside")
    with pytest.raises(OnnxError, match=text):
        striate.onnx.load(external(inside, **arguments))


def test_external_data_needs_a_path(tmp_path: Path) -> None:
    with pytest.raises(OnnxError, match="expected weights inside the model, got external data in 'weights.bin'"):
        striate.onnx.load(external(tmp_path).read_bytes())


X = f32(2, 3, 5, 6)
#: Operators as older opsets have them: (graph, weights, opset, inputs, what NumPy makes of these or None for the reference).
OLD: dict[str, tuple[str, dict[str, Any], int, list[Any], Any]] = {
    "Add 6 along an axis": (
        "g (float[2,3,5,6] x) => (float[2,3,5,6] y) { y = Add<broadcast=1, axis=1>(x, b) }",
        {"b": f32(3)},
        6,
        [X],
        X + f32(3)[:, None, None],
    ),
    "BatchNormalization 9": (
        "g (float[2,3,5,6] x) => (float[2,3,5,6] y) { y = BatchNormalization(x, s, b, m, v) }",
        {
            "s": f32(3, 1, 1).ravel(),
            "b": f32(3, 1, 1).ravel() + 1,
            "m": f32(3, 1, 1).ravel(),
            "v": np.abs(f32(3, 1, 1).ravel()),
        },
        9,
        [X],
        (X - f32(3, 1, 1)) / np.sqrt(np.abs(f32(3, 1, 1)) + 1e-5) * f32(3, 1, 1) + f32(3, 1, 1) + 1,
    ),
    "Clip 6": (
        "g (float[2,3,5,6] x) => (float[2,3,5,6] y) { y = Clip<min=-0.5, max=0.5>(x) }",
        {},
        6,
        [X],
        np.clip(X, -0.5, 0.5),
    ),
    "Dropout 7": ("g (float[2,3,5,6] x) => (float[2,3,5,6] y) { y = Dropout<ratio=0.5>(x) }", {}, 7, [X], X),
    "Pad 2": (
        "g (float[2,3,5,6] x) => (float[2,3,7,7] y) { y = Pad<pads=[0,0,1,0,0,0,1,1], value=2.0>(x) }",
        {},
        7,
        [X],
        np.pad(X, ((0, 0), (0, 0), (1, 1), (0, 1)), constant_values=2),
    ),
    "PRelu 7": (
        "g (float[2,3,5,6] x) => (float[2,3,5,6] y) { y = PRelu(x, s) }",
        {"s": f32(3, 1, 1)},
        7,
        [X],
        np.where(X > 0, X, X * f32(3, 1, 1)),
    ),
    "ReduceSum 11": (
        "g (float[2,3,5,6] x) => (float[2,3,1,1] y) { y = ReduceSum<axes=[2,3]>(x) }",
        {},
        11,
        [X],
        X.sum((2, 3), keepdims=True),
    ),
    "ReduceMean 13": (
        "g (float[2,3,5,6] x) => (float[2,5,6] y) { y = ReduceMean<axes=[-3], keepdims=0>(x) }",
        {},
        13,
        [X],
        X.mean(1),
    ),
    "Resize 10": (
        'g (float[2,3,5,6] x) => (float[2,3,10,12] y) { y = Resize<mode="nearest">(x, s) }',
        {"s": np.float32([1, 1, 2, 2])},
        10,
        [X],
        X.repeat(2, 2).repeat(2, 3),
    ),
    "Slice 1": (
        "g (float[2,3,5,6] x) => (float[2,2,5,3] y) { y = Slice<axes=[1,3], starts=[1,-4], ends=[9,-1]>(x) }",
        {},
        9,
        [X],
        X[:, 1:, :, -4:-1],
    ),
    "Softmax 11": (
        "g (float[2,3,5,6] x) => (float[2,3,5,6] y) { y = Softmax<axis=1>(x) }",
        {},
        11,
        [X],
        (np.exp(X) / np.exp(X).sum((1, 2, 3), keepdims=True)),
    ),
    "Split 2": (
        "g (float[2,3,5,6] x) => (float[2,3,5,2] y, float[2,3,5,4] z) { y, z = Split<axis=3, split=[2,4]>(x) }",
        {},
        11,
        [X],
        None,
    ),
    "Squeeze 1": (
        "g (float[2,1,3] x) => (float[2,3] y) { y = Squeeze<axes=[1]>(x) }",
        {},
        11,
        [f32(2, 1, 3)],
        f32(2, 1, 3)[:, 0],
    ),
    "TopK 1": ("g (float[2,6] x) => (float[2,2] y, int64[2,2] i) { y, i = TopK<k=2>(x) }", {}, 9, [f32(2, 6)], None),
    "Unsqueeze 11": (
        "g (float[2,3] x) => (float[1,2,1,3] y) { y = Unsqueeze<axes=[0,2]>(x) }",
        {},
        11,
        [f32(2, 3)],
        f32(2, 3)[None, :, None],
    ),
    "Upsample 7": (
        'g (float[2,3,5,6] x) => (float[2,3,10,18] y) { y = Upsample<mode="nearest", scales=[1.0,1.0,2.0,3.0]>(x) }',
        {},
        7,
        [X],
        X.repeat(2, 2).repeat(3, 3),
    ),
    "Upsample 9": (
        'g (float[2,3,5,6] x) => (float[2,3,10,12] y) { y = Upsample<mode="nearest">(x, s) }',
        {"s": np.float32([1, 1, 2, 2])},
        9,
        [X],
        X.repeat(2, 2).repeat(2, 3),
    ),
    "GroupNormalization 18": (
        "g (float[2,4,3,3] x) => (float[2,4,3,3] y) { y = GroupNormalization<num_groups=2>(x, s, b) }",
        {"s": f32(2), "b": f32(2) + 1},
        18,
        [f32(2, 4, 3, 3)],
        None,
    ),
}


def group_norm_18() -> Any:
    x = f32(2, 4, 3, 3).astype(np.float64).reshape(2, 2, -1)
    y = (x - x.mean(2, keepdims=True)) / np.sqrt(x.var(2, keepdims=True) + 1e-5)
    return (y * f32(2)[:, None] + (f32(2) + 1)[:, None]).reshape(2, 4, 3, 3)


@pytest.mark.parametrize("name", OLD)
def test_older_definition(name: str) -> None:
    text, weights, opset, inputs, wanted = OLD[name]
    model = build(text, weights, opset)
    if name == "GroupNormalization 18":
        wanted = group_norm_18()
    expected = [wanted] if wanted is not None else reference(model, *inputs)
    with striate.no_grad():
        results = striate.onnx.load(model)(*inputs)
    for got, want in zip(results if isinstance(results, tuple) else (results,), expected, strict=True):
        np.testing.assert_allclose(got.numpy(), want, rtol=1e-5, atol=1e-6)


def test_refusal_lists_all_unsupported_operators() -> None:
    model = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Strange", ["x"], ["a"], name="first", domain="my.ops"),
                helper.make_node(
                    "Adam",
                    ["r", "t", "a", "g", "v", "h"],
                    ["b", "v2", "h2"],
                    name="second",
                    domain="ai.onnx.preview.training",
                ),
            ],
            "g",
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in "xrtgvh"],
            [helper.make_tensor_value_info("b", TensorProto.FLOAT, [1])],
        ),
        opset_imports=[
            helper.make_opsetid("", 17),
            helper.make_opsetid("my.ops", 3),
            helper.make_opsetid("ai.onnx.preview.training", 1),
        ],
    )
    with pytest.raises(
        OnnxError,
        match="got 2 others: Adam .domain 'ai.onnx.preview.training', opset 1. at 'second'; Strange .domain 'my.ops', opset 3. at 'first'",
    ):
        striate.onnx.load(model)


def test_calls_are_checked() -> None:
    module = striate.onnx.load(build("g (float[n] x, float[n] z) => (float[n] y) { y = Add(x, z) }"))
    with pytest.raises(TypeError, match=r"expected 2 inputs \(x, z\), got 1"):
        module(np.float32([1]))
    with pytest.raises(striate.DTypeError, match="expected float32 for input 'z', got float64"):
        module(np.float32([1]), np.float64([1]))
    with pytest.raises(OnnxError, match=r"node 'y' \(Add\): add: expected shapes that broadcast"):
        module(np.float32([1, 2]), np.float32([1, 2, 3]))


def test_refusal_without_the_onnx_package() -> None:
    code = "import sys; sys.modules['onnx'] = None; import striate.onnx"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "got no onnx; run pip install 'striate[onnx]'" in done.stderr


def test_striate_does_not_import_onnx() -> None:
    code = "import sys, striate; assert 'onnx' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("center", [0, 1])
def test_non_maximum_suppression_against_all_pairs(center: int) -> None:
    rng = np.random.default_rng(center)
    first, size = rng.random((1, 60, 2)), rng.random((1, 60, 2)) * 0.4
    boxes = np.concatenate([first, size if center else first + size], 2).astype(np.float32)
    scores = rng.random((1, 2, 60)).astype(np.float32)
    model = build(
        f"""g (float[1,60,4] b, float[1,2,60] s) => (int64[m,3] y) {{
            k = Constant<value = int64 {{20}}>() i = Constant<value = float {{0.3}}>() t = Constant<value = float {{0.2}}>()
            y = NonMaxSuppression<center_point_box={center}>(b, s, k, i, t) }}"""
    )
    corners = boxes[0].astype(np.float64)
    if center:
        corners = np.concatenate([corners[:, :2] - corners[:, 2:] / 2, corners[:, :2] + corners[:, 2:] / 2], 1)
    wanted = []
    for label in range(2):
        kept: list[int] = []
        for box in np.argsort(-scores[0, label]):
            overlaps = []
            for other in kept:
                sides = np.minimum(corners[box, 2:], corners[other, 2:]) - np.maximum(
                    corners[box, :2], corners[other, :2]
                )
                shared = np.prod(np.maximum(sides, 0))
                areas = sum(np.prod(corners[b, 2:] - corners[b, :2]) for b in (box, other))
                overlaps.append(shared / (areas - shared))
            if scores[0, label, box] > 0.2 and len(kept) < 20 and max(overlaps, default=0) <= 0.3:
                kept.append(int(box))
        wanted += [[0, label, box] for box in kept]
    np.testing.assert_array_equal(striate.onnx.load(model)(boxes, scores).numpy(), wanted)


def test_sizes_divide_towards_zero() -> None:
    text = """g (float[n,3] x) => (int64[1] y) {
        s = Shape(x) i = Constant<value_ints=[0]>() n0 = Gather(s, i) five = Constant<value_ints=[5]>()
        two = Constant<value_ints=[2]>() d = Sub(n0, five) y = Div(d, two) }"""
    program = striate.compile(striate.onnx.load(build(text)), f32(2, 3))
    for n, wanted in ((2, -1), (7, 1), (0, -2), (6, 0)):
        assert program(np.zeros((n, 3), np.float32)).numpy().tolist() == [wanted]


def test_large_constants_are_made_when_the_model_runs() -> None:
    model = build("g () => (float[n] y) { y = ConstantOfShape(n) }", {"n": np.int64([2**30])})
    assert [node.op_type for node in striate.onnx.load(model)._plan.nodes] == ["ConstantOfShape"]


def test_a_graph_inside_may_use_a_name_again() -> None:
    text = """g (bool c, float[2000] x) => (float[2000] y) {
        a = Add(x, w) y = If (c) <then_branch = t () => (float[2000] o) { o = Add(a, w) }, else_branch = e () => (float[2000] p) { p = Neg(a) }> }"""
    model = build(text, {"w": np.ones(2000, np.float32)})
    inner = next(a.g for a in model.graph.node[1].attribute if a.name == "then_branch")
    inner.initializer.append(numpy_helper.from_array(np.full(2000, 5, np.float32), "w"))
    module = striate.onnx.load(model.SerializeToString())
    with striate.no_grad():
        assert module(np.array(True), np.zeros(2000, np.float32)).numpy()[0] == 6
