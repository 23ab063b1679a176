"""Programs in files: the same bits after a round trip, and one kind of error for every file that is none."""

from __future__ import annotations

import contextlib
import copy
import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import striate
from striate import Tensor, _core, nn, ops
from striate.compile import Program
from striate.io import safetensors

ENTRY = "striate_program"
rng = np.random.default_rng(0)


def drawn(*shape: int) -> Tensor:
    return striate.tensor(rng.standard_normal(shape).astype(np.float32))


class Residual(nn.Module):
    """Convolutions with batch-norm, a shortcut, a depthwise and a grouped one, pooling, dropout, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.SiLU())
        self.grouped = nn.Conv2d(8, 8, 3, padding="same", groups=2)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(8, 5))

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        y = (self.grouped(self.depthwise(y)) + y).relu()
        return self.head(self.pool(y))


class Fork(nn.Module):
    """Concatenation, interpolation, transposed convolution: sizes that follow from others in many ways."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(2, 4, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(4, 4, 2, stride=2)

    def forward(self, x: Tensor) -> dict[str, Any]:
        low = ops.leaky_relu(self.down(x), 0.1)
        high = ops.interpolate(low, size=x.shape[2:], mode="bilinear")
        joined = ops.concat([high, self.up(low)], 1)
        return {"joined": joined, "parts": [low, (ops.clip(high, None, 0.25),)]}


class Gated(nn.Module):
    """What comes before pointwise convolutions joins them."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(6)
        self.wide = nn.Conv2d(6, 12, 1)
        self.depthwise = nn.Conv2d(12, 12, 3, stride=2, padding=1, groups=12)
        self.narrow = nn.Conv2d(12, 8, 1)
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = ops.silu(self.wide(ops.relu6(self.norm(x))))
        y = self.narrow(ops.hardswish(self.depthwise(y)))
        return ops.relu(self.last(y * ops.sigmoid(ops.adaptive_avg_pool2d(y, 1))))


def flat() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3))


MODELS: dict[str, tuple[Callable[[], Any], list[tuple[int, ...]]]] = {
    "residual": (Residual, [(2, 3, 16, 16), (1, 3, 16, 16), (3, 3, 21, 9)]),
    "fork": (Fork, [(1, 2, 8, 8), (2, 2, 8, 8)]),
    "gated": (Gated, [(2, 6, 9, 8), (1, 6, 5, 5)]),
    "flat": (flat, [(2, 1, 8, 8), (5, 1, 8, 8)]),
    "volume": (lambda: nn.Sequential(nn.Conv3d(2, 3, 3, padding=1), nn.GELU()), [(1, 2, 4, 5, 6), (2, 2, 3, 3, 3)]),
    "norms": (
        lambda: nn.Sequential(nn.Conv1d(4, 8, 3), nn.GroupNorm(2, 8), nn.Softmax(1)),
        [(2, 4, 9), (1, 4, 5)],
    ),
    "function": (lambda: lambda x: (striate.ones(3) * x.sum(1, keepdim=True), x[:, ::2].T), [(4, 6), (2, 6)]),
}


def compiled(name: str) -> tuple[Program, list[Tensor]]:
    make, shapes = MODELS[name]
    model = make()
    inputs = [drawn(*shape) for shape in shapes]
    if isinstance(model, nn.Module):
        model(inputs[0])
        model.eval()
    return striate.compile(model, inputs[0]), inputs


class Sized(int):
    """A size as the recorder passes it on."""

    expression: Any

    @classmethod
    def of(cls, dim: Any) -> Sized:
        size = cls(dim.value)
        size.expression = dim
        return size


def arrays_of(result: Any) -> list[np.ndarray]:
    if isinstance(result, Tensor):
        return [result.numpy()]
    return [array for part in (result.values() if isinstance(result, dict) else result) for array in arrays_of(part)]


def assert_same_bits(a: Any, b: Any) -> None:
    for x, y in zip(arrays_of(a), arrays_of(b), strict=True):
        assert x.dtype == y.dtype and x.shape == y.shape
        assert x.tobytes() == y.tobytes()


@pytest.mark.parametrize("name", MODELS)
def test_loaded_program_gives_the_same_bits(name: str, tmp_path: Path) -> None:
    program, inputs = compiled(name)
    program.save(tmp_path / "program")
    loaded = striate.load_program(tmp_path / "program")
    assert str(loaded.graph) == str(program.graph)
    assert loaded.graph.hash() == program.graph.hash()
    for x in inputs:
        for _ in range(2):  # traced, then from the arena
            assert_same_bits(loaded(x), program(x))


@pytest.mark.parametrize("name", MODELS)
def test_equal_programs_give_equal_bytes(name: str, tmp_path: Path) -> None:
    program, inputs = compiled(name)
    program.save(tmp_path / "first")
    program(inputs[-1])  # plans are not part of the file
    program.save(tmp_path / "second")
    striate.load_program(tmp_path / "first").save(tmp_path / "third")
    first = (tmp_path / "first").read_bytes()
    assert (tmp_path / "second").read_bytes() == first
    assert (tmp_path / "third").read_bytes() == first


def test_loaded_program_runs_in_another_process(tmp_path: Path) -> None:
    program, inputs = compiled("residual")
    program.save(tmp_path / "program")
    np.save(tmp_path / "x.npy", inputs[0].numpy())
    code = (
        "import numpy, striate\n"
        "program = striate.load_program('program')\n"
        "numpy.save('y.npy', program(numpy.load('x.npy')).numpy())\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert np.array_equal(np.load(tmp_path / "y.npy"), program(inputs[0]).numpy())


def test_results_keep_their_structure(tmp_path: Path) -> None:
    class Pair(NamedTuple):
        low: Tensor
        high: Tensor

    program = striate.compile(lambda x, y: {"sum": x + y, 2: [x, Pair(x - 1.0, y)], "none": []}, drawn(2), drawn(2))
    program.save(tmp_path / "program")
    x, y = drawn(2), drawn(2)
    found = striate.load_program(tmp_path / "program")(x, y)
    assert list(found) == ["sum", 2, "none"] and found["none"] == []
    assert isinstance(found[2], list) and type(found[2][1]) is tuple
    assert_same_bits(found, program(x, y))


def test_weights_are_not_copied(tmp_path: Path) -> None:
    striate.compile(lambda x: striate.linear(x, striate.ones(1024, 1024)), drawn(1, 1024)).save(tmp_path / "program")
    before = striate.memory.stats()["in_use_bytes"]
    graph, _, _ = _core.load_graph(str(tmp_path / "program"))
    assert striate.memory.stats()["in_use_bytes"] - before < 65536
    (weight,) = [graph.value(i).array for i in range(graph.n_values) if graph.value(i).kind == "constant"]
    assert not weight.is_exposed  # so packed forms of it are kept


def test_attributes_come_back(tmp_path: Path) -> None:
    graph = _core.Graph()
    x = striate.zeros(2, 3)._array
    i = graph.add_input('an "input" é\n', x)
    n = graph.value(i).shape[0]
    attributes = {
        "none": None,
        "truth": True,
        "whole": -(2**62),
        "real": 0.1,
        "zero": -0.0,
        "large": 1e300,
        "small": 5e-324,
        "inf": float("inf"),
        "lists": ((1, (2.0,)), (), ("a", None)),
        "word": 'é"\\\u0000',
        "dtype": striate.float16,
        "size": Sized.of(n.multiply(_core.Dim(3))),
        "nan": float("nan"),
    }
    (y,) = graph.add_node("relu", attributes, [i], [x])
    graph.set_results([y])
    _core.save_graph(graph, str(tmp_path / "graph"), {"note": "kept"})
    loaded, metadata, _ = _core.load_graph(str(tmp_path / "graph"))
    assert metadata == {"note": "kept"}
    assert str(loaded) == str(graph)
    found = loaded.nodes[0].attributes
    assert found.keys() == attributes.keys()
    for name, expected in attributes.items():
        expected = getattr(expected, "expression", expected)
        assert type(found[name]) is type(expected)
        assert repr(found[name]) == repr(expected)


def test_states_are_saved_and_owned(tmp_path: Path) -> None:
    count, x = striate.zeros(3), drawn(3)
    with striate.autograd.record(inputs=[x], states={"count": count}) as recording:
        striate.assign(count, count + x)
        recording.returns(count * 2.0)
    _core.save_graph(recording.graph, str(tmp_path / "graph"), {})
    for _ in range(2):  # a run does not change the file
        graph, _, _ = _core.load_graph(str(tmp_path / "graph"))
        program = _core.Program(graph)
        program.run([x._array], [])
        (y,) = program.run([x._array], [])
        assert np.allclose(y.numpy(), 6 * x.numpy())  # the recorded pass has counted once


expressions = st.recursive(
    st.one_of(st.integers(-5, 5), st.sampled_from(["a", "b", "c"])),
    lambda inner: st.tuples(st.sampled_from(["+", "-", "*", "//", "min", "max"]), inner, inner),
    max_leaves=8,
)


@given(e=expressions, other=st.tuples(*[st.integers(1, 9)] * 3))
def test_size_comes_back_as_an_expression(e: Any, other: tuple[int, ...], tmp_path_factory: Any) -> None:
    path = str(tmp_path_factory.getbasetemp() / "size")
    x = striate.zeros(3, 5, 8)._array
    graph = _core.Graph()
    i = graph.add_input("x", x)
    names = dict(zip("abc", graph.value(i).shape, strict=True))

    def evaluate(e: Any) -> Any:
        if not isinstance(e, tuple):
            return names[e] if isinstance(e, str) else _core.Dim(e)
        a, b = evaluate(e[1]), evaluate(e[2])
        match e[0]:
            case "+":
                return a.add(b)
            case "-":
                return a.subtract(b)
            case "*":
                return a.multiply(b)
            case "//":
                return a.floor_divide(b)
            case "min":
                return _core.minimum_dim(a, b)
        return _core.maximum_dim(a, b)

    try:
        dim = evaluate(e)
    except striate.ShapeError:  # a divisor of 0
        return
    graph.set_results(graph.add_node("relu", {"dim": Sized.of(dim)}, [i], [x]))
    _core.save_graph(graph, path, {})
    found = _core.load_graph(path)[0].nodes[0].attributes["dim"]
    assert str(found) == str(dim) and found == dim
    try:
        expected = dim.evaluate([other])
    except striate.ShapeError:
        return
    assert found.evaluate([other]) == expected


# Files that are none.


def split_file(data: bytes) -> tuple[dict[str, Any], bytes]:
    (n,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + n]), data[8 + n :]


def join_file(header: dict[str, Any], rest: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + rest


def edited(data: bytes, edit: Callable[[dict[str, Any]], Any]) -> bytes:
    """The file with its graph changed in place by `edit`."""
    header, rest = split_file(data)
    graph = json.loads(header["__metadata__"][ENTRY])
    edit(graph)
    header["__metadata__"][ENTRY] = json.dumps(graph)
    return join_file(header, rest)


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("valid") / "program"
    compiled("flat")[0].save(path, pin_plan=True)
    return path.read_bytes()


def node(graph: dict[str, Any], op: str) -> Any:
    return next(found for found in graph["nodes"] if found["op"] == op)


def constant(graph: dict[str, Any], i: int = 0) -> Any:
    return [value for value in graph["values"] if value["kind"] == "constant"][i]


def rename_ops(graph: dict[str, Any]) -> None:
    graph["nodes"][0]["op"] = "fly"
    graph["nodes"][-1]["op"] = "swim"


def nest(graph: dict[str, Any]) -> None:
    value: Any = 1
    for _ in range(100):
        value = [value]
    node(graph, "conv2d")["attributes"]["stride"] = value


EDITS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "version": (lambda g: g.update(version=2), "version 1 in entry 'striate_program'.*got version 2"),
    "unknown key": (lambda g: g.update(more=1), "keys of the format only.*'more'"),
    "missing key": (lambda g: g.pop("guards"), "key 'guards'.*none of that name"),
    "kind": (lambda g: constant(g).update(kind="magic"), "a kind of value in value \\d+.*'magic'"),
    "dtype": (lambda g: g["values"][0].update(dtype="float31"), "name of a dtype in value 0.*'float31'"),
    "dtype of a constant": (lambda g: constant(g).update(dtype="int8"), "keys of the format only in value.*'dtype'"),
    "type of a key": (lambda g: g.update(nodes=3), "a list in entry.*got a whole number"),
    "tensor": (lambda g: constant(g).update(tensor="none"), "a tensor of this file.*'none'"),
    "tensor twice": (lambda g: constant(g, 0).update(tensor=constant(g, 1)["tensor"]), "no other value has"),
    "axes": (lambda g: constant(g).update(axes=[0, 0, 1, 2]), "each axis of tensor"),
    "sizes": (lambda g: g["values"][0].update(shape=[2, 1, 2**60, 8]), "a number from 0 to"),
    "many sizes": (lambda g: g["values"][0].update(shape=[2**40, 1, 2**40, 8]), "fit into memory"),
    "negative size": (lambda g: g["values"][0].update(shape=[2, 1, -8, 8]), "a number from 0 to.*-8"),
    "operand out of range": (lambda g: node(g, "conv2d").update(inputs=[99, 1]), "made before their use, got %99"),
    "huge id": (lambda g: node(g, "conv2d").update(inputs=[2**40]), "a number from 0 to.*in node 0 .conv2d."),
    "cycle": (lambda g: node(g, "conv2d")["inputs"].__setitem__(0, g["results"][0]), "made before their use"),
    "missing operand": (lambda g: node(g, "conv2d").update(inputs=[0]), "node 0 .conv2d.: conv2d: expected operands"),
    "null operand": (lambda g: node(g, "linear")["inputs"].__setitem__(1, None), "linear: expected operands"),
    "operand of none": (lambda g: node(g, "linear")["inputs"].append(1), "linear: expected operands"),
    "made twice": (lambda g: node(g, "linear").update(outputs=node(g, "conv2d")["outputs"]), "no other node makes"),
    "not made": (lambda g: g["nodes"].pop(), "a node that makes|made before|tensors, those"),
    "more results": (lambda g: node(g, "linear")["outputs"].append(0), "expected 1 results, got 2"),
    "unknown ops": (rename_ops, "operators of the core.*'fly', 'swim'"),
    "no attribute": (lambda g: node(g, "conv2d")["attributes"].pop("groups"), "node 0 .conv2d.: conv2d: .*'groups'"),
    "wrong attribute": (lambda g: node(g, "conv2d")["attributes"].update(groups="two"), "whole number.*'groups'"),
    "stride 0": (lambda g: node(g, "conv2d")["attributes"].update(stride=[0, 0]), "divisor other than 0"),
    "size text": (
        lambda g: node(g, "conv2d")["attributes"].update(groups={"dim": "i0.9 +"}),
        "a size in node 0.*one of 1 inputs, got i0.9",
    ),
    "attribute object": (
        lambda g: node(g, "conv2d")["attributes"].update(groups={"a": 1}),
        "as the key of an attribute",
    ),
    "real": (lambda g: node(g, "conv2d")["attributes"].update(lo={"real": "big"}), "inf, -inf or nan"),
    "deep": (nest, "nested at most 32 deep"),
    "guard": (lambda g: g["guards"].append([1, "~", 2]), "==, !=, < or <="),
    "input list": (lambda g: g.update(inputs=[], guards=[]), "expected 1 inputs, got 0"),
    "result": (lambda g: g.update(results=[77]), "expected a value from 0"),
    "changes a constant": (
        lambda g: g["nodes"].append({"op": "assign", "attributes": {}, "inputs": [1, 1], "outputs": [0]}),
        "results that no other node makes|states only",
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_refusal_of_a_changed_graph(name: str, valid: bytes, tmp_path: Path) -> None:
    edit, message = EDITS[name]
    path = tmp_path / "changed"
    path.write_bytes(edited(valid, edit))
    with pytest.raises(ValueError, match=f"(?s)program: expected.*{message}") as caught:
        striate.load_program(path)
    assert str(path) in str(caught.value)


def test_refusal_of_other_files(valid: bytes, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        striate.load_program(tmp_path / "missing")
    path = tmp_path / "file"
    path.write_bytes(b"PK")
    with pytest.raises(ValueError, match="safetensors: expected 8 bytes of header length"):
        striate.load_program(path)
    safetensors.save({"x": drawn(2)}, path)
    with pytest.raises(ValueError, match="program: expected metadata entry 'striate_program'"):
        striate.load_program(path)
    header, rest = split_file(valid)
    header["__metadata__"]["striate_structure"] = '{"tuple":[{"tensor":0},{"tensor":1}]}'
    path.write_bytes(join_file(header, rest))
    with pytest.raises(ValueError, match="a structure of 1 results as entry 'striate_structure'.*result 1"):
        striate.load_program(path)
    header["__metadata__"]["striate_structure"] = "[" * 100000
    path.write_bytes(join_file(header, rest))
    with pytest.raises(ValueError, match="a structure of 1 results"):
        striate.load_program(path)
    header["__metadata__"][ENTRY] = "{"
    path.write_bytes(join_file(header, rest))
    with pytest.raises(ValueError, match="program: expected a string at byte 1 of entry 'striate_program'"):
        striate.load_program(path)


def test_refusals_of_a_loaded_program(tmp_path: Path) -> None:
    program, inputs = compiled("flat")
    program.save(tmp_path / "program")
    loaded = striate.load_program(tmp_path / "program")
    with pytest.raises(striate.ShapeError, match="can't record again"):
        loaded(drawn(2, 1, 12, 12))
    with pytest.raises(striate.ShapeError, match="expected 'input0' of 4 axes"):
        loaded(drawn(2, 1))
    with pytest.raises(striate.DTypeError, match="expected float32 for 'input0'"):
        loaded(inputs[0].to(striate.float64))
    with pytest.raises(ValueError, match="expected 1 inputs, got 0"):
        loaded()
    assert_same_bits(loaded(inputs[0]), program(inputs[0]))


def test_refusals_of_save(tmp_path: Path) -> None:
    program = striate.compile(lambda x: x * striate.rand(2), drawn(2))
    with pytest.raises(ValueError, match="keeps no state between calls, got random0"):
        program.save(tmp_path / "program")
    with pytest.raises(TypeError, match="texts and numbers as keys of the result, got tuple"):
        striate.compile(lambda x: {(1, 2): x}, drawn(2)).save(tmp_path / "program")
    with pytest.raises(OSError, match="cannot open"):
        striate.compile(lambda x: x + 1.0, drawn(2)).save(tmp_path / "missing" / "program")
    with pytest.raises(ValueError, match="metadata without 'striate_program'"):
        _core.save_graph(_core.Graph(), str(tmp_path / "program"), {ENTRY: ""})
    graph = _core.Graph()
    i = graph.add_input("x", drawn(2)._array)
    for op in ("fly", "swim", "fly"):
        graph.add_node(op, {}, [i], [drawn(2)._array])
    with pytest.raises(ValueError, match="operators of the core, got 'fly', 'swim'; compute these outside"):
        _core.save_graph(graph, str(tmp_path / "program"), {})
    assert not (tmp_path / "program").exists()


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value inside a JSON value."""
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *[place for key, inner in items for place in places(inner, (*path, key))]]


junk = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 20),
    st.sampled_from([2**31, -(2**63), 2**62, 10**30, 0.5, "", "i0.0", "(i0.2 // 2)", "float64", "result", "linear"]),
    st.sampled_from([[], {}, [1, 2], [[0, 0], [1, 1]], {"dim": "i0.0*i0.1 - 7"}, {"dtype": "int64"}, {"real": "nan"}]),
)


def load_or_refuse(data: bytes, folder: Path) -> None:
    path = folder / "mutant"
    path.write_bytes(data)
    with contextlib.suppress(ValueError):  # a crash, or any other error, is what these tests look for
        striate.load_program(path)


@settings(deadline=None)
@given(data=st.data())
def test_any_bytes_load_or_are_refused(data: st.DataObject, valid: bytes, tmp_path_factory: Any) -> None:
    mutant = bytearray(valid)
    header_bytes = struct.unpack("<Q", valid[:8])[0] + 8
    for _ in range(data.draw(st.integers(1, 4))):
        mutant[data.draw(st.integers(0, header_bytes - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del mutant[data.draw(st.integers(0, len(mutant))) :]
    load_or_refuse(bytes(mutant), tmp_path_factory.getbasetemp())


@settings(deadline=None)
@given(data=st.data())
def test_any_graph_loads_or_is_refused(data: st.DataObject, valid: bytes, tmp_path_factory: Any) -> None:
    def edit(graph: dict[str, Any]) -> None:
        for _ in range(data.draw(st.integers(1, 3))):
            *path, last = data.draw(st.sampled_from([place for place in places(graph) if place]))
            into: Any = graph
            for key in path:
                into = into[key]
            match data.draw(st.sampled_from(["replace", "remove", "repeat"])):
                case "replace":
                    into[last] = copy.deepcopy(data.draw(junk))
                case "remove":
                    del into[last]
                case _ if isinstance(into, list):
                    into.append(copy.deepcopy(into[last]))

    load_or_refuse(edited(valid, edit), tmp_path_factory.getbasetemp())


def test_a_program_knows_its_model_unless_it_comes_from_a_file(tmp_path: Path) -> None:
    net = nn.Linear(3, 2)
    program = striate.compile(net, striate.zeros(1, 3))
    program.save(tmp_path / "program")
    assert program.model is net
    assert striate.load_program(tmp_path / "program").model is None
