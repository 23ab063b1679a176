"""An ONNX graph while it is put together: nodes, weights, names. The only file of the writer that knows the onnx package."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from striate import _core
from striate.io.onnx.write_sizes import Size, Sizes, read

if TYPE_CHECKING:
    import onnx

Array = np.ndarray[Any, Any]

#: Tensors of at most so many elements are told apart by their content, and the checker sees them.
SMALL = 1024


class UnwritableError(Exception):
    """A call that ONNX has no nodes for; the text says which and why."""


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor of the ONNX graph.

    Attributes
    ----------
    name : str
    shape : tuple of int or Dim
        A Dim is a size that may change.
    dtype : str
        Name of the striate dtype.
    array : Array of the core, optional
        Of weights.
    """

    name: str
    shape: tuple[Size, ...]
    dtype: str
    array: Any = None


@dataclass(slots=True)
class Call:
    """One recorded operator, ready to be written: what it reads, and what its results are like.

    Attributes
    ----------
    op : str
    attributes : dict
        Sizes in it are ints, or Dims where they may change.
    inputs : list of Value or None
    results : list of (shape, dtype)
    is_read : list of bool
        Which results anybody reads.
    """

    op: str
    attributes: dict[str, Any]
    inputs: list[Value | None]
    results: list[tuple[tuple[Size, ...], str]]
    is_read: list[bool] = field(default_factory=lambda: [True])

    @property
    def x(self) -> Value:
        """The first input."""
        return self.required(0)

    @property
    def shape(self) -> tuple[Size, ...]:
        """The shape of the first result."""
        return self.results[0][0]

    @property
    def dtype(self) -> str:
        """The dtype of the first result."""
        return self.results[0][1]

    def given(self, i: int) -> Value | None:
        """Return input i, or None."""
        return self.inputs[i] if i < len(self.inputs) else None

    def required(self, i: int) -> Value:
        """Return input i, which must be there."""
        found = self.given(i)
        assert found is not None, f"{self.op}: input {i} is missing"
        return found


@dataclass(frozen=True, slots=True)
class Weight:
    """A tensor stored in the model."""

    name: str
    dtype: str
    data: Array
    """Row-major; bfloat16 as uint16."""

    def proto(self) -> onnx.TensorProto:
        """Return it with its data."""
        made = self.proto_without_data()
        made.raw_data = self.data.tobytes()
        return made

    def proto_elsewhere(self, file: str, offset: int) -> onnx.TensorProto:
        """Return it with the place of its data in another file."""
        made = self.proto_without_data()
        made.data_location = made.EXTERNAL
        for key, value in (("location", file), ("offset", offset), ("length", self.data.nbytes)):
            made.external_data.add(key=key, value=str(value))
        return made

    def proto_without_data(self) -> onnx.TensorProto:
        """Return name, type and shape."""
        import onnx

        return onnx.TensorProto(name=self.name, data_type=element_type(self.dtype), dims=self.data.shape)


def newest_opset() -> int:
    """Return the newest opset that the onnx package knows.

    Raises
    ------
    ImportError
        There is no such package.
    """
    try:
        import onnx
    except ImportError as error:
        raise ImportError(
            "onnx.save: expected the onnx package, got no such package; run pip install 'striate[onnx]'"
        ) from error
    return int(onnx.defs.onnx_opset_version())


#: ONNX's numbers for dtypes (TensorProto.DataType).
_ELEMENT_TYPES = {
    "float32": 1,
    "uint8": 2,
    "int8": 3,
    "int32": 6,
    "int64": 7,
    "bool": 9,
    "float16": 10,
    "float64": 11,
    "bfloat16": 16,
}


def element_type(dtype: str) -> int:
    """Return ONNX's number for a dtype."""
    return _ELEMENT_TYPES[dtype]


def stored(array: Any) -> Array:
    """Copy an Array of the core to row-major memory, bfloat16 as uint16."""
    if str(array.dtype) == "bfloat16":
        wide = stored(_core.convert(array, _core.DType.float32))
        return (wide.view(np.uint32) >> 16).astype(np.uint16)
    # A view that does not mark the memory as writable by others: what is derived from it may still be cached.
    return np.array(array.fill_view(), order="C")


class Writer:
    """Takes nodes one after the other.

    Parameters
    ----------
    sizes : Sizes
    input_names : sequence of str
    reserved : sequence of str
        Names that nodes and their results do not take.
    opset : int
    """

    def __init__(self, sizes: Sizes, input_names: Sequence[str], reserved: Sequence[str], opset: int) -> None:
        import onnx

        self._onnx = onnx
        self.sizes = sizes
        self.opset = opset
        self.path = ""
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, Weight] = {}
        self._input_names = list(input_names)
        self._taken: set[str] = set(reserved)
        self._constants: dict[tuple[Any, ...], str] = {}
        self._sizes: dict[str, str] = {}

    # Names.

    def unique(self, name: str) -> str:
        """Return the name, with a number where it is taken already."""
        found, n = name, 0
        while found in self._taken:
            n += 1
            found = f"{name}_{n}"
        self._taken.add(found)
        return found

    def weight(self, name: str, array: Array, dtype: str | None = None) -> str:
        """Store a tensor under this name, or a similar one where it is taken, and return the name."""
        return self._store(self.unique(name), array, dtype or str(array.dtype))

    def named_weight(self, name: str, array: Array, dtype: str) -> str:
        """Store a tensor under a reserved name and return it; one that is there already stays."""
        known = self.weights.get(name)
        if known is None:
            return self._store(name, array, dtype)
        return name if np.array_equal(known.data, array, equal_nan=True) else self.weight(name, array, dtype)

    def _store(self, name: str, array: Array, dtype: str) -> str:
        self.weights[name] = Weight(name, dtype, np.ascontiguousarray(array).reshape(array.shape))
        return name

    def constant(self, value: Any, dtype: str | None = None) -> str:
        """Return the name of a small tensor of this content; equal ones are stored once."""
        data = np.array(value, dtype=None if dtype in (None, "bfloat16") else dtype)
        key = (str(data.dtype), data.shape, data.tobytes())
        if key not in self._constants:
            self._constants[key] = self.weight("constant", data)
        return self._constants[key]

    # Nodes.

    def nodes_of(self, op_type: str, *inputs: str | None, n_outputs: int = 1, **attributes: Any) -> list[str]:
        """Append a node and return the names of its outputs; attributes that are None are left out."""
        name = self.unique(f"{self.path}/{op_type}" if self.path else op_type)
        outputs = [self.unique(f"{name}_output_{i}") for i in range(n_outputs)]
        given = {key: value for key, value in attributes.items() if value is not None}
        while inputs and inputs[-1] is None:
            inputs = inputs[:-1]
        self.nodes.append(self._onnx.helper.make_node(op_type, [i or "" for i in inputs], outputs, name=name, **given))
        return outputs

    def node(self, op_type: str, *inputs: str | None, **attributes: Any) -> str:
        """Append a node of one output and return its name."""
        return self.nodes_of(op_type, *inputs, **attributes)[0]

    def cast(self, x: Value, dtype: str) -> str:
        """Return x in another dtype, x itself where it has it."""
        return x.name if x.dtype == dtype else self.node("Cast", x.name, to=element_type(dtype))

    def cast_name(self, name: str, dtype: str) -> str:
        """Convert the tensor of this name to a dtype."""
        return self.node("Cast", name, to=element_type(dtype))

    # Sizes.

    def ints(self, sizes: Sequence[Size]) -> str:
        """Return the name of a vector of sizes, computed where one may change."""
        if all(isinstance(n, int) for n in sizes):
            return self.constant(list(sizes), "int64")
        parts: list[str] = []
        fixed: list[int] = []
        for n in [*sizes, None]:
            if isinstance(n, int):
                fixed.append(n)
                continue
            if fixed:
                parts.append(self.constant(fixed, "int64"))
                fixed = []
            if n is not None:
                parts.append(self.size(n))
        return parts[0] if len(parts) == 1 else self.node("Concat", *parts, axis=0)

    def size(self, size: Size) -> str:
        """Return the name of a vector of one size."""
        if isinstance(size, int):
            return self.constant([size], "int64")
        text = str(size)
        if text not in self._sizes:
            path, self.path = self.path, "sizes"
            self._sizes[text] = read(text, _Compute(self, self._input_names))
            self.path = path
        return self._sizes[text]

    def reshape(self, x: str, old: Sequence[Size], new: Sequence[Size]) -> str:
        """Give a tensor another shape; sizes that may change are copied or inferred where that says enough."""
        if all(isinstance(n, int) for n in new):
            return self.node("Reshape", x, self.constant(list(new), "int64"), allowzero=1 if 0 in new else None)
        spelled: list[int] = []
        for i, n in enumerate(new):
            is_copied = not isinstance(n, int) and i < len(old) and not isinstance(old[i], int) and old[i] == n
            spelled.append(n if isinstance(n, int) else 0 if is_copied else -1)
        if spelled.count(-1) > 1 or 0 in [n for n in new if isinstance(n, int)]:
            return self.node("Reshape", x, self.ints(new), allowzero=1)
        return self.node("Reshape", x, self.constant(spelled, "int64"))

    def scalar(self, value: float, dtype: str) -> str:
        """Return a number of no axes."""
        return self.constant(np.array(value), dtype)

    def filled(self, shape: Sequence[Size], value: float, dtype: str) -> str:
        """Return a tensor of one value."""
        if all(isinstance(n, int) for n in shape) and np.prod(shape, dtype=np.int64) <= SMALL:
            return self.constant(np.full(shape, value), dtype)
        one = self._onnx.numpy_helper.from_array(np.full(1, value, dtype))
        return self.node("ConstantOfShape", self.ints(shape), value=one)

    # The end.

    def rename(self, results: Sequence[str], wanted: Sequence[str]) -> None:
        """Call results by their names; what is no node's own gets an Identity."""
        made = {name for node in self.nodes for name in node.output}
        renamed: dict[str, str] = {}
        copies: list[tuple[str, str]] = []
        for result, name in zip(results, wanted, strict=True):
            if result in made and result not in renamed:
                renamed[result] = name
            else:
                copies.append((result, name))
        for node in self.nodes:
            for names in (node.input, node.output):
                for i, name in enumerate(names):
                    names[i] = renamed.get(name, name)
        self.path = ""
        for result, name in copies:
            node = self._onnx.helper.make_node(
                "Identity", [renamed.get(result, result)], [name], name=self.unique("Identity")
            )
            self.nodes.append(node)

    def value_info(self, name: str, shape: Sequence[Any], dtype: str) -> onnx.ValueInfoProto:
        """Describe an input or output of the model."""
        described = [n if isinstance(n, int | str) else self.sizes.describe(n) for n in shape]
        return self._onnx.helper.make_tensor_value_info(name, element_type(dtype), described)

    def model(
        self,
        inputs: Sequence[onnx.ValueInfoProto],
        outputs: Sequence[onnx.ValueInfoProto],
        weights: Sequence[onnx.TensorProto],
        metadata: Mapping[str, str],
        version: str,
    ) -> onnx.ModelProto:
        """Put the model together, with these protos of its weights."""
        graph = self._onnx.helper.make_graph(self.nodes, "striate", inputs, outputs, list(weights))
        opsets = [self._onnx.helper.make_opsetid("", self.opset)]
        made = self._onnx.helper.make_model(
            graph,
            opset_imports=opsets,
            producer_name="striate",
            producer_version=version,
            ir_version=self._onnx.helper.find_min_ir_version_for(opsets),
        )
        self._onnx.helper.set_model_props(made, dict(metadata))
        return made

    def check(self, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto]) -> None:
        """Run ONNX's checker with full shape inference on the model, its large weights taken for inputs."""
        small = [w.proto() for w in self.weights.values() if w.data.size <= SMALL]
        large = [
            self._onnx.helper.make_tensor_value_info(w.name, element_type(w.dtype), w.data.shape)
            for w in self.weights.values()
            if w.data.size > SMALL
        ]
        self._onnx.checker.check_model(self.model([*inputs, *large], outputs, small, {}, ""), full_check=True)


class _Compute:
    """Sizes as nodes on vectors of one int64."""

    def __init__(self, writer: Writer, input_names: Sequence[str]) -> None:
        self._writer = writer
        self._input_names = input_names
        self._negative: set[str] = set()

    def number(self, n: int) -> str:
        name = self._writer.constant([n], "int64")
        if n < 0:
            self._negative.add(name)
        return name

    def axis(self, axis: tuple[int, int]) -> str:
        return self._writer.node("Shape", self._input_names[axis[0]], start=axis[1], end=axis[1] + 1)

    def combine(self, operation: str, a: str, b: str) -> str:
        node = self._writer.node
        if operation == "//":
            if a in self._negative or b in self._negative:  # Div rounds towards zero
                a = node("Sub", a, node("Mod", a, b))
            return node("Div", a, b)
        made = node({"+": "Add", "*": "Mul", "min": "Min", "max": "Max"}[operation], a, b)
        if a in self._negative or b in self._negative:
            self._negative.add(made)
        return made


#: Writes a call and returns the name of its result, or those of its results; a result that nobody reads may be left out.
Row = Callable[[Writer, Call], "str | Sequence[str | None]"]
