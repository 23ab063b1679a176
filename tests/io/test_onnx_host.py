"""ONNX models whose nodes need values: programs that are cut there."""

from __future__ import annotations

import copy
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
sys.path.insert(0, str(Path(__file__).parent))
from onnx_text import build, reference  # noqa: E402

import striate  # noqa: E402
import striate.onnx  # noqa: E402
from striate import train  # noqa: E402
from striate.compile import Program, compile_step  # noqa: E402
from striate.onnx import OnnxError  # noqa: E402


def f32(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def listed(results: Any) -> list[Any]:
    return list(results) if isinstance(results, tuple) else [results]


def check(model: Any, *calls: tuple[Any, ...], rtol: float = 1e-5) -> Program:
    """Compiled for the first inputs, a model gives for all of them what the onnx package's evaluator gives."""
    module = striate.onnx.load(model)
    program = striate.compile(module, *calls[0])
    for inputs in calls:
        wanted = reference(model, *inputs)
        for _ in range(2):
            for got, expected in zip(listed(program(*inputs)), wanted, strict=True):
                assert got.shape == expected.shape
                assert str(got.dtype) == str(expected.dtype)
                atol = rtol * np.abs(expected).max(initial=1e-6)
                np.testing.assert_allclose(got.numpy(), expected, rtol=rtol, atol=atol)
        with striate.no_grad():
            eager = listed(module(*inputs))
        for got, expected in zip(listed(program(*inputs)), eager, strict=True):
            if str(got.dtype) in ("int64", "bool"):
                assert np.array_equal(got.numpy(), expected.numpy())
    return program


#: A detector: convolutions, boxes and scores, the best of them, suppressed where they overlap, and features at these.
DETECTOR = """detector (float[1,3,h,w] x) => (float[k,4] boxes, float[k] score, int64[k] label, float[k,5] head) {
    c = Conv<kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2]>(x, w1, b1) r = Relu(c)
    raw = Conv<kernel_shape=[1,1]>(r, w2, b2)
    s1 = Constant<value_ints=[1,6,-1]>() flat = Reshape(raw, s1)
    parts = Constant<value_ints=[4,2]>() place, logit = Split<axis=1>(flat, parts)
    t = Transpose<perm=[0,2,1]>(place)
    two = Constant<value_ints=[2,2]>() centre, size0 = Split<axis=2>(t, two)
    size1 = Abs(size0) size = Add(size1, one) low = Sub(centre, size) high = Add(centre, size)
    all = Concat<axis=2>(low, high) p = Sigmoid(logit)
    limit = Constant<value_ints=[10]>() overlap = Constant<value_floats=[0.4]>() least = Constant<value_floats=[0.6]>()
    found = NonMaxSuppression(all, p, limit, overlap, least)
    i1 = Constant<value_ints=[1]>() i2 = Constant<value_ints=[2]>() last = Constant<value_ints=[1]>()
    labels = Gather<axis=1>(found, i1) label = Squeeze(labels, last)
    picked = Gather<axis=1>(found, i2) at = Squeeze(picked, last)
    zero = Constant<value_ints=[0]>() rows = Squeeze(all, zero) boxes = Gather<axis=0>(rows, at)
    pt = Transpose<perm=[0,2,1]>(p) pr = Squeeze(pt, zero)
    pair0 = Concat<axis=1>(picked, labels) score = GatherND(pr, pair0)
    m = MatMul(boxes, w3) head = Relu(m)
}"""


def detector() -> Any:
    weights = {
        "w1": f32(8, 3, 3, 3) * 0.3,
        "b1": f32(8),
        "w2": f32(6, 8, 1, 1),
        "b2": np.float32([0, 0, 0, 0, -1.5, -1.5]),
        "w3": f32(4, 5),
        "one": np.float32(0.5),
    }
    return build(DETECTOR, weights)


def images() -> list[tuple[Any, ...]]:
    """Images with different numbers of boxes, none and one among them, of two sizes."""
    return [(f32(1, 3, 16, 12, seed=s) * scale,) for s, scale in ((1, 2.0), (2, 1.0), (3, 0.5), (4, 0.0), (5, 3.0))] + [
        (f32(1, 3, 10, 20, seed=6) * 2,)
    ]


def test_detector_gives_any_number_of_boxes() -> None:
    calls = images()
    program = check(detector(), *calls)
    counts = {program(x)[0].shape[0] for (x,) in calls}
    assert len(counts) >= 4
    assert 0 in counts
    assert program.host_nodes == ("NonMaxSuppression 'found'",)
    assert len(program._variants) <= 3
    ops = [node.op for node in program.graphs[0].nodes]
    assert ops.count("conv2d") == 2
    assert "relu" not in ops
    assert [node.op for node in program.graphs[1].nodes].count("index") >= 2


def test_detector_compiled_without_a_box() -> None:
    calls = images()
    program = check(detector(), calls[3], *calls)
    assert program(*calls[3])[0].shape == (0, 4)


def test_detector_in_two_threads() -> None:
    calls = images()[:4]
    program = striate.compile(striate.onnx.load(detector()), *calls[0])
    expected = [[y.numpy().copy() for y in program(*x)] for x in calls]
    wrong: list[int] = []

    def work() -> None:
        found = [(i, [y.numpy() for y in program(*calls[i])]) for i in (*range(4), *range(4))]
        wrong.extend(i for i, ys in found if not all(map(np.array_equal, ys, expected[i])))

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_detector_is_explained_and_not_saved(tmp_path: Path) -> None:
    program = striate.compile(striate.onnx.load(detector()), *images()[0])
    found = program.explain(measure=True)
    (host,) = [row for row in found.rows if row.algorithm == "Python"]
    assert host.op == "NonMaxSuppression 'found'"
    assert host.measured_ms is not None
    assert sorted(found.rows[i].op for i in host.sources) == ["concat", "sigmoid"]
    refusal = "got host nodes that only Python has: NonMaxSuppression 'found'"
    with pytest.raises(ValueError, match=f"^save: expected operators of the core, {refusal}"):
        program.save(tmp_path / "p.safetensors")
    with pytest.raises(ValueError, match=f"^onnx.save: expected operators that ONNX has, {refusal}"):
        striate.onnx.save(program, tmp_path / "m.onnx", *images()[0])
    with pytest.raises(
        striate.RecordError, match=r"node 'found' \(NonMaxSuppression\): expected an operator of the core"
    ):
        striate.onnx.save(striate.onnx.load(detector()), tmp_path / "m.onnx", *images()[0])
    assert list(tmp_path.iterdir()) == []


#: Nodes that need values, with what comes before and behind them: (graph, weights, inputs of several calls).
GRAPHS: dict[str, tuple[str, dict[str, Any], list[tuple[Any, ...]]]] = {
    "TopK": (
        """g (float[n,m] x) => (float[n,3] y, int64[n,3] i) {
            r = Mul(x, x) k = Constant<value_ints=[3]>() v, i = TopK(r, k) y = Sqrt(v) }""",
        {},
        [(f32(2, 5),), (f32(4, 9),), (f32(1, 3),)],
    ),
    "TopK of as many as there are": (
        """g (float[n] x) => (float[k] y) {
            s = Shape(x) h = Constant<value_ints=[7]>() k = Min(s, h) v, i = TopK(x, k) y = Neg(v) }""",
        {},
        [(f32(5),), (f32(3),), (f32(20),)],
    ),
    "NonZero": (
        """g (float[n,m] x) => (float[k] y, int64[r,k] at) {
            z = Relu(x) at = NonZero(z) t = Transpose(at) v = GatherND(x, t) y = Add(v, v) }""",
        {},
        [(f32(3, 4),), (f32(5, 2),), (np.float32([[-1, -2]]),), (np.float32([[-1, 2]]),)],
    ),
    "sizes of a result": (
        """g (float[n] x) => (float[k,2] y) {
            z = Relu(x) at = NonZero(z) s = Shape(at) o = Constant<value_ints=[1]>() k = Gather(s, o)
            two = Constant<value_ints=[2]>() t = Concat<axis=0>(k, two)
            one = Constant<value_floats=[1.0]>() e = Expand(one, t) v0 = Gather(x, at)
            m = Constant<value_ints=[-1,1]>() v = Reshape(v0, m) y = Mul(v, e) }""",
        {},
        [(f32(9),), (f32(4),), (np.float32([1, 2, 3]),)],
    ),
    "Compress": (
        """g (float[n,3] x) => (float[k,3] y) {
            a = Constant<value_ints=[0]>() i = Constant<value = int64 {0}>() c0 = Gather<axis=1>(x, i) z = Constant<value = float {0.0}>()
            c = Greater(c0, z) p = Compress<axis=0>(x, c) y = Tanh(p) }""",
        {},
        [(f32(6, 3),), (f32(9, 3),)],
    ),
    "OneHot": (
        """g (float[n,m] x) => (float[n,6] y) {
            i = ArgMax<axis=1, keepdims=0>(x) d = Constant<value = int64 {6}>() v = Constant<value_floats=[0.0, 2.0]>()
            h = OneHot(i, d, v) y = Add(h, h) }""",
        {},
        [(f32(2, 5),), (f32(4, 6),)],
    ),
    "Range to a computed limit": (
        """g (float[n] x) => (float[k] y) {
            z = Constant<value = float {0.0}>() one = Constant<value = float {1.0}>() a = Abs(x) l = ReduceSum<keepdims=0>(a)
            r = Range(z, l, one) y = Mul(r, l) }""",
        {},
        [(f32(5),), (f32(12),), (np.float32([0, 0]),)],
    ),
    "Resize to computed sizes": (
        """g (float[1,2,h,w] x, float[2] s) => (float[1,2,k,l] y) {
            e = Constant<value = float[0] {}>() i = Cast<to=7>(s) nc = Constant<value_ints=[1,2]>() t = Concat<axis=0>(nc, i)
            r = Resize<mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor">(x, e, e, t)
            y = Relu(r) }""",
        {},
        [(f32(1, 2, 4, 6), np.float32([8, 3])), (f32(1, 2, 5, 2), np.float32([5, 7]))],
    ),
    "Slice and Reshape by values": (
        """g (float[n,m] x, int64[1] b, int64[2] s) => (float[p,q] y) {
            e = Constant<value_ints=[2]>() a = Constant<value_ints=[0]>() c = Slice(x, b, e, a) r = Reshape(c, s) y = Neg(r) }""",
        {},
        [
            (f32(4, 6), np.int64([0]), np.int64([3, 4])),
            (f32(4, 6), np.int64([1]), np.int64([2, -1])),
            (f32(2, 4), np.int64([0]), np.int64([8, 1])),
        ],
    ),
    "RoiAlign": (
        """g (float[1,2,h,w] x, float[k,4] b, int64[k] i) => (float[k,2,2,2] y) {
            r = Relu(x) p = RoiAlign<output_height=2, output_width=2, sampling_ratio=2>(r, b, i) y = Neg(p) }""",
        {},
        [
            (np.abs(f32(1, 2, 8, 8)), np.float32([[0, 0, 4, 4]]), np.int64([0])),
            (np.abs(f32(1, 2, 6, 9)), np.float32([[0, 1, 4, 5], [1, 1, 6, 3], [2, 0, 3, 5]]), np.int64([0, 0, 0])),
        ],
    ),
    "If whose branches read values": (
        """g (float[n] x) => (float[n] y) {
            t = ReduceSum<keepdims=0>(x) z = Constant<value = float {0.0}>() c = Greater(t, z) a = Abs(x)
            b = If (c) <then_branch = p () => (float[n] u) { u = Mul(a, w) },
                        else_branch = q () => (float[n] v) { m = Neg(x) v = Sub(m, a) }>
            y = Sqrt(b) }""",
        {"w": np.float32(3)},
        [(np.float32([1, 2]),), (np.float32([-1, -2, -3]),), (np.float32([5]),)],
    ),
    "Loop until a condition": (
        """g (float[n] x, int64 most) => (float[n] y, float[r,n] all) {
            t = Constant<value = bool {1}>() h = Mul(x, x)
            v, all = Loop (most, t, h) <body = b (int64 i, bool c, float[n] v0) => (bool c2, float[n] v1, float[n] s) {
                v1 = Add(v0, v0) m = ReduceMax<keepdims=0>(v1) top = Constant<value = float {50.0}>() c2 = Less(m, top) s = Neg(v1) }>
            y = Relu(v) }""",
        {},
        [(np.float32([1, 2]), np.int64(3)), (np.float32([1, 2]), np.int64(9)), (np.float32([3, 1, 2]), np.int64(1))],
    ),
    "Loop of constant rounds around NonZero": (
        """g (float[n] x) => (float[k] y) {
            m = Constant<value = int64 {2}>() t = Constant<value = bool {1}>()
            v = Loop (m, t, x) <body = b (int64 i, bool c, float[p] v0) => (bool c2, float[q] v1) {
                c2 = Identity(c) one = Constant<value = float {1.0}>() s = Sub(v0, one) r = Relu(s) at = NonZero(r)
                f = Constant<value_ints=[-1]>() j = Reshape(at, f) v1 = Gather(r, j) }>
            y = Add(v, v) }""",
        {},
        [(np.float32([1, 2, 3, 4]),), (np.float32([5, 6, 7, 1, 9]),)],
    ),
    "Scan over any length": (
        """g (float[2] s0, float[n,2] x) => (float[2] s, float[n,2] all) {
            s, all = Scan(s0, x) <num_scan_inputs = 1, body = b (float[2] a, float[2] v) => (float[2] c, float[2] d) {
                c = Add(a, v) d = Tanh(c) }> }""",
        {},
        [(f32(2), f32(3, 2)), (f32(2), f32(5, 2)), (f32(2), f32(2, 2))],
    ),
    "sequence at a computed place": (
        """g (float[4,2] x, int64 i) => (float[p,2] y) {
            q = SplitToSequence<axis=0>(x) v = SequenceAt(q, i) y = Neg(v) }""",
        {},
        [(f32(4, 2), np.int64(1)), (f32(4, 2), np.int64(-1))],
    ),
    "sequence of computed lengths": (
        """g (float[n,2] x, int64[k] l) => (float[m,2] y) {
            r = Relu(x) q = SplitToSequence<axis=0>(r, l) i = Constant<value = int64 {1}>() v = SequenceAt(q, i) y = Neg(v) }""",
        {},
        [(f32(4, 2), np.int64([1, 3])), (f32(4, 2), np.int64([3, 1])), (f32(5, 2), np.int64([1, 2, 2]))],
    ),
    "operators of integers that the core lacks": (
        """g (int32[n] x) => (int32[n] y) { s = Constant<value = int32[1] {3}>() b = BitwiseAnd(x, s) y = Add(b, b) }""",
        {},
        [(np.int32([1, 5, 7]),), (np.int32([2, 9]),)],
    ),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_program_of(name: str) -> None:
    text, weights, calls = GRAPHS[name]
    check(build(text, weights, opset=18 if "Bitwise" in text else 17), *calls)


@pytest.mark.parametrize(
    "name",
    [
        "TopK",
        "TopK of as many as there are",
        "NonZero",
        "Range to a computed limit",
        "Loop until a condition",
        "RoiAlign",
    ],
)
def test_values_and_sizes_follow_in_one_record(name: str) -> None:
    text, weights, calls = GRAPHS[name]
    program = striate.compile(striate.onnx.load(build(text, weights)), *calls[0])
    for inputs in calls[:2]:
        program(*inputs)
    assert len(program._variants) == 1


def test_a_single_size_is_a_number_like_others() -> None:
    text = """g (float[n,m] x) => (float[n,m] y, int64 k) {
        s = Shape(x) i = Constant<value = int64 {1}>() k = Gather(s, i) f = Cast<to=1>(k) y = Div(x, f) }"""
    assert check(build(text), (f32(2, 3),), (f32(4, 5),)).host_nodes == ()


def test_what_a_node_recorded_in_vain_is_gone() -> None:
    text, _, calls = GRAPHS["Loop until a condition"]
    program = striate.compile(striate.onnx.load(build(text)), *calls[0])
    assert program.host_nodes == ("Loop 'v'",)
    assert [[node.op for node in graph.nodes] for graph in program.graphs] == [["mul"], ["relu"]]


def test_branches_of_different_axes_record_again() -> None:
    text = """g (float[n] x, bool c) => (float y) {
        b = If (c) <then_branch = p () => (float[1,n] u) { a = Constant<value_ints=[0]>() u = Unsqueeze(x, a) },
                    else_branch = q () => (float[n] v) { v = Neg(x) }>
        y = ReduceSum<keepdims=0>(b) }"""
    program = check(build(text), *[(f32(3 + i), np.array(c)) for i, c in enumerate((True, False, True, False))])
    assert len(program._variants) == 2


def test_weights_inside_of_branches_are_seen_when_they_change() -> None:
    text = """g (float[n,64] x, bool c) => (float[n,70] y) {
        b = If (c) <then_branch = p () => (float[n,70] u) { u = MatMul(x, w) },
                    else_branch = q () => (float[n,70] v) { m = MatMul(x, w) v = Neg(m) }>
        y = Relu(b) }"""
    module = striate.onnx.load(build(text, {"w": f32(64, 70)}))
    (weight,) = module.buffers()
    x = f32(4, 64)
    program = striate.compile(module, x, np.array(True))
    for seed, c in enumerate((True, False, True)):
        striate.assign(weight, striate.tensor(f32(64, 70, seed=seed)))
        assert np.array_equal(program(x, np.array(c)).numpy(), module(x, np.array(c)).numpy())


def test_rounds_are_counted_in_each_call() -> None:
    text, _, _ = GRAPHS["Loop until a condition"]
    module = striate.onnx.load(build(text.replace("float {50.0}", "float {1e30}")))
    program = striate.compile(module, np.float32([0, 0]), np.int64(2))
    for _ in range(3):
        program(np.float32([0, 0]), np.int64(40_000))
    with pytest.raises(OnnxError, match=r"node 'v' \(Loop\): expected at most 100,000 rounds of all loops in one run"):
        program(np.float32([0, 0]), np.int64(200_000))


def test_a_program_stays_in_eval_mode_while_the_module_trains() -> None:
    text = """g (float[n] x, bool c) => (float[n] y) {
        y = If (c) <then_branch = p () => (float[n] u) { r = Constant<value = float {0.9}>() u = Dropout(x, r) },
                    else_branch = q () => (float[n] v) { v = Neg(x) }> }"""
    module = striate.onnx.load(build(text))
    x = np.ones(50, np.float32)
    program = striate.compile(module, x, np.array(True))
    module.train()
    module(x, np.array(False))
    assert np.array_equal(program(x, np.array(True)).numpy(), x)


def test_a_copied_module_compiles() -> None:
    text, weights, calls = GRAPHS["If whose branches read values"]
    model = build(text, weights)
    module = copy.deepcopy(striate.onnx.load(model))
    np.testing.assert_allclose(striate.compile(module, *calls[0])(*calls[1]).numpy(), reference(model, *calls[1])[0])


def test_errors_name_the_node() -> None:
    text, _, calls = GRAPHS["TopK"]
    program = striate.compile(striate.onnx.load(build(text)), *calls[0])
    with pytest.raises(OnnxError, match=r"node 'v' \(TopK\): expected k from 0 to 2, got 3; choose fewer"):
        program(f32(4, 2))


def test_results_that_no_tensor_holds_are_refused() -> None:
    text = "g (float[n] x) => (float[n] y) { s = Cast<to=5>(x) a = Abs(s) y = Cast<to=1>(a) }"
    module = striate.onnx.load(build(text))
    assert module(np.float32([-2])).numpy().tolist() == [2]
    with pytest.raises(
        striate.RecordError, match=r"node 's' \(Cast\): expected results that a tensor holds .*, got int16; run"
    ):
        striate.compile(module, np.float32([1]))


def test_training_steps_name_the_node_and_run_eagerly() -> None:
    text = """g (float[n,3] x) => (float[n,2] y) {
        k = Constant<value_ints=[2]>() v, i = TopK(x, k) m = MatMul(v, w) y = Relu(m) }"""
    module = striate.onnx.load(build(text, {"w": f32(2, 2)})).train()
    step = compile_step(module, striate.nn.MSELoss(), train.SGD(module.parameters(), lr=0.1))
    before = module.state_dict()["w"].numpy().copy()
    step(striate.tensor(f32(4, 3)), striate.tensor(f32(4, 2)))
    assert step.reason is not None
    assert step.reason.startswith(
        "node 'v' (TopK): expected an operator of the core in this record, got one that only Python"
    )
    assert not np.array_equal(module.state_dict()["w"].numpy(), before)
