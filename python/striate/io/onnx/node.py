"""One node of an imported graph: its attributes checked against ONNX's schema, and what computes it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, NodeProto, defs, helper, numpy_helper

from striate import _core
from striate.autograd import Dim, ReadError, RecordError, Tensor, is_grad_enabled
from striate.autograd.op import Op
from striate.autograd.tape import Recorder, recorder
from striate.io.onnx.mode import Mode
from striate.io.onnx.recorded import by_host_call
from striate.io.onnx.value import (
    DTYPES,
    HALVES,
    NotDifferentiable,
    OnnxError,
    as_array,
    as_tensor,
    check_text,
    has_dims,
    is_tensor_kind,
    widen,
)

Handler = Callable[..., Any]

#: What computes an operator on tensors, by (domain, operator).
handlers: dict[tuple[str, str], Handler] = {}
#: Operators that take any value: sequences, optionals, texts.
unbound: set[str] = set()
#: What computes an operator when all its operands are on the host: shape arithmetic, which follows sizes while recording.
host_handlers: dict[str, Handler] = {}
#: What refuses a result that is too large, before the host computes it.
size_checks: dict[str, Handler] = {}

#: Operators whose results have no gradient, whatever computes them.
FLAT = frozenset(
    [
        "ArgMax",
        "ArgMin",
        "And",
        "Or",
        "Xor",
        "Not",
        "Equal",
        "Greater",
        "GreaterOrEqual",
        "Less",
        "LessOrEqual",
        "IsNaN",
        "IsInf",
        "Shape",
        "Size",
        "NonZero",
        "NonMaxSuppression",
        "OneHot",
        "EyeLike",
        "ConstantOfShape",
        "Range",
        "Constant",
        "BitShift",
        "BitwiseAnd",
        "BitwiseOr",
        "BitwiseXor",
        "BitwiseNot",
        "Ceil",
        "Floor",
        "Round",
        "Sign",
        "Hardmax",
        "Unique",
        "QuantizeLinear",
        "DynamicQuantizeLinear",
        "QLinearConv",
        "QLinearMatMul",
        "ConvInteger",
        "MatMulInteger",
        "Bernoulli",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
        "Multinomial",
        "HannWindow",
        "HammingWindow",
        "BlackmanWindow",
        "MelWeightMatrix",
        "StringNormalizer",
        "TfIdfVectorizer",
        "StringConcat",
        "StringSplit",
        "RegexFullMatch",
        "LabelEncoder",
        "ImageDecoder",
        "OptionalHasElement",
        "SequenceLength",
        "BitCast",
    ]
)

#: Operators that give other results at every call.
RANDOM = frozenset(
    ["Bernoulli", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Dropout"]
)

#: Operands of shape arithmetic have no more elements than this.
_FEW = 4096


def operator(*names: str, domain: str = "", takes_anything: bool = False) -> Callable[[Handler], Handler]:
    """Register what computes operators: `handler(node, *values)`, None for an operand that was not given.

    Operands are tensors or arrays that could be tensors, unless the operator takes anything.
    """

    def note(handler: Handler) -> Handler:
        for name in names:
            handlers[domain, name] = handler
            if takes_anything:
                unbound.add(name)
        return handler

    return note


def host_operator(*names: str) -> Callable[[Handler], Handler]:
    """Register what computes operators of which all operands are on the host."""

    def note(handler: Handler) -> Handler:
        for name in names:
            host_handlers[name] = handler
        return handler

    return note


def is_on_host(value: Any) -> bool:
    """Say whether a value is no tensor."""
    return value is not None and not isinstance(value, Tensor)


@functools.cache
def schema_of(domain: str, op_type: str, opset: int) -> Any:
    """Return ONNX's schema of an operator, or None."""
    if not 0 < opset < 2**31:
        return None
    try:
        return defs.get_schema(op_type, opset, domain)
    except defs.SchemaError:
        return None


@functools.cache
def has_reference(op_type: str) -> bool:
    """Say whether the onnx package computes an operator in NumPy."""
    from onnx.reference.ops._op_list import load_op

    try:
        load_op("", op_type, None)
    except Exception:  # the onnx package raises several kinds for what it does not have
        return False
    return True


class Node:
    """One node, ready to run.

    Attributes
    ----------
    op_type, domain, name : str
    opset : int
        Version of the operator set that the file asks for.
    since : int
        Version of this operator's definition.
    attributes : dict
        Those given, and the defaults of the others; an optional one without a default is absent.
    has_graphs : bool
        Whether attributes are graphs: If, Loop, Scan.
    inputs, outputs : tuple of str
        Names of values; "" for one that is not given or not wanted.
    mode : Mode
    """

    __slots__ = (
        "_host",
        "_proto",
        "_reference",
        "attributes",
        "domain",
        "handler",
        "has_graphs",
        "inputs",
        "mode",
        "name",
        "op_type",
        "opset",
        "outputs",
        "since",
    )

    def __init__(self, proto: NodeProto, opsets: dict[str, int], mode: Mode, read_graph: Callable[..., Any]) -> None:
        for text in (proto.op_type, proto.domain, proto.name, *proto.input, *proto.output):
            check_text(text)
        self.op_type = proto.op_type
        self.domain = "" if proto.domain == "ai.onnx" else proto.domain
        self.name = proto.name or (proto.output[0] if proto.output else "")
        self.inputs = tuple(proto.input)
        self.outputs = tuple(proto.output)
        self.mode = mode
        self.opset = opsets.get(self.domain, 0)
        schema = schema_of(self.domain, self.op_type, self.opset)
        self.since = schema.since_version if schema is not None else 0
        self.attributes = self._read_attributes(proto, schema, read_graph)
        if schema is not None:
            self._check_counts(schema)
        self.handler = handlers.get((self.domain, self.op_type))
        self._host = host_handlers.get(self.op_type) if self.domain == "" else None
        self._proto: NodeProto | None = None
        self.has_graphs = any(a.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for a in proto.attribute)
        if not self.has_graphs:
            self._proto = NodeProto()  # a part of a message would keep all of it alive
            self._proto.CopyFrom(proto)
        self._reference: Any = None

    @property
    def label(self) -> str:
        """What messages call this node."""
        return f"node {self.name!r} ({self.op_type})"

    @property
    def is_supported(self) -> bool:
        """Whether something here computes this operator."""
        if self.handler is not None:
            return True
        return self.domain == "" and self.since > 0 and not self.has_graphs and has_reference(self.op_type)

    @property
    def gradient(self) -> str:
        """One of "differentiable", "flat" (no gradient by nature) and "none yet"."""
        if self.op_type in FLAT:
            return "flat"
        return "differentiable" if self.handler is not None else "none yet"

    def _read_attributes(self, proto: NodeProto, schema: Any, read_graph: Callable[..., Any]) -> dict[str, Any]:
        attributes: dict[str, Any] = {}
        known = schema.attributes if schema is not None else {}
        for name, attribute in known.items():
            if attribute.default_value.name:
                attributes[name] = _plain(helper.get_attribute_value(attribute.default_value))
        for given in proto.attribute:
            check_text(given.name)
            if given.ref_attr_name:
                raise OnnxError(
                    f"{self.label}: expected a value for attribute {given.name!r}, got a reference to {given.ref_attr_name!r} "
                    "outside a function; the file is damaged"
                )
            if schema is not None:
                if given.name not in known:
                    raise OnnxError(
                        f"{self.label}: expected attributes of {self.op_type} in opset {self.opset} "
                        f"({', '.join(sorted(known)) or 'none'}), got {given.name!r}; the file is damaged or of another opset"
                    )
                if given.type != int(known[given.name].type.value):
                    wanted = known[given.name].type.name
                    raise OnnxError(
                        f"{self.label}: expected attribute {given.name!r} of type {wanted}, got "
                        f"{AttributeProto.AttributeType.Name(given.type)}; the file is damaged"
                    )
            if given.type == AttributeProto.GRAPH:
                attributes[given.name] = read_graph(given.g)
            elif given.type == AttributeProto.TENSOR:
                attributes[given.name] = read_tensor(given.t, f"attribute {given.name!r} of {self.label}")
            else:
                try:
                    attributes[given.name] = _plain(helper.get_attribute_value(given))
                except (ValueError, UnicodeDecodeError) as error:
                    raise OnnxError(
                        f"{self.label}: expected a readable attribute {given.name!r}, got: {error}; the file is damaged"
                    ) from error
        for name, attribute in known.items():
            if attribute.required and name not in attributes:
                raise OnnxError(
                    f"{self.label}: expected attribute {name!r}, which {self.op_type} requires, got none; the file is damaged"
                )
        return attributes

    def _check_counts(self, schema: Any) -> None:
        if not schema.min_input <= len(self.inputs) <= schema.max_input:
            raise OnnxError(
                f"{self.label}: expected {schema.min_input} to {schema.max_input} inputs, got {len(self.inputs)}; "
                "the file is damaged"
            )
        if not schema.min_output <= len(self.outputs) <= schema.max_output:
            raise OnnxError(
                f"{self.label}: expected {schema.min_output} to {schema.max_output} outputs, got {len(self.outputs)}; "
                "the file is damaged"
            )
        for parameter, given in zip(schema.inputs, self.inputs, strict=False):
            if not given and parameter.option == defs.OpSchema.FormalParameterOption.Single:
                raise OnnxError(
                    f"{self.label}: expected input {parameter.name!r}, which {self.op_type} requires, got none; "
                    "the file is damaged"
                )

    # Running.

    def __call__(self, values: Sequence[Any]) -> tuple[Any, ...]:
        """Compute the node on values; raises OnnxError naming it."""
        recording = recorder()
        try:
            result = self._compute(values) if recording is None else self._record(values, recording)
        except RecordError as error:
            text = str(error)
            raise (error if text.startswith("node ") else type(error)(f"{self.label}: {text}")) from error
        except NotDifferentiable:
            raise
        except OnnxError as error:
            text = str(error)
            raise OnnxError(text if text.startswith("node ") else f"{self.label}: {text}") from error
        except Exception as error:  # of a row, of NumPy, or of the onnx package, which names no type of its own
            raise OnnxError(f"{self.label}: {error or type(error).__name__}") from error
        results = result if isinstance(result, tuple) else (result,)
        return tuple([_settled(r) for r in results])

    def _compute(self, values: Sequence[Any]) -> Any:
        if self.has_graphs:  # the last value is the table of what its graphs may capture
            return self.handler(self, *values)  # type: ignore[misc]
        if self.op_type in unbound and self.handler is not None:
            return self.handler(self, *values)
        given = [v for v in values if v is not None]
        all_on_host = all(map(is_on_host, given)) and bool(given)
        if all_on_host and all(np.size(v) <= _FEW for v in given if isinstance(v, np.ndarray)):
            if self._host is not None:
                result = self._host(self, *values)
                if result is not NotImplemented:
                    return result
            if self._has_host_form():
                return self._on_host(values)
        if self.handler is not None and all(_is_tensor_like(v) for v in given):
            try:
                return self.handler(self, *values)
            except _core.DTypeError:
                if not self._has_host_form():
                    raise
        return self._on_host(values)

    def _record(self, values: Sequence[Any], recording: Recorder) -> Any:
        """Compute by operators of the record, or as a call into Python where values must be known."""
        mark = recording.mark()
        try:
            return self._compute(values)
        except ReadError as error:
            if not recording.takes_host_calls:
                raise RecordError(
                    "expected an operator of the core in this record, got one that only Python computes, from values that are "
                    "not known before; run the model eagerly, or only this part of it"
                ) from error
            recording.rewind(mark)
        if self.has_graphs:
            plans = [plan for plan in self.attributes.values() if hasattr(plan, "captures")]
            captured = {name: values[-1][name] for plan in plans for name in plan.captures}
            values = [*values[:-1], captured]
        return by_host_call(self, values)

    def _has_host_form(self) -> bool:
        return self._proto is not None and self.domain == "" and has_reference(self.op_type)

    def _on_host(self, values: Sequence[Any]) -> Any:
        """Compute by the onnx package's NumPy implementation."""
        if not self._has_host_form():
            raise OnnxError(
                f"expected operands that {self.op_type} has an implementation for, got "
                f"{', '.join(_described(v) for v in values)}; convert them first"
            )
        if (check := size_checks.get(self.op_type)) is not None:
            check(self, *values)
        if self.op_type in FLAT or not is_grad_enabled() or not any(_wants_gradient(v) for v in values):
            return self._evaluate([as_array(v) for v in values])
        return self._without_gradient(values)

    def _evaluate(self, arrays: Sequence[Any]) -> Any:
        if self._reference is None:
            from onnx.reference import ReferenceEvaluator

            self._reference = ReferenceEvaluator(self._proto, opsets={"": self.opset})
        feeds = dict(zip(self.inputs, arrays, strict=False))
        with np.errstate(all="ignore"):
            results = self._reference.run(None, {k: v for k, v in feeds.items() if k})
        return tuple(results)

    def _without_gradient(self, values: Sequence[Any]) -> Any:
        """Compute on the host; `backward` through a result of floats raises."""
        results: list[Any] = []
        tensors = [v for v in values if isinstance(v, Tensor)]

        def forward(*_: Any) -> Any:
            results.extend(self._evaluate([as_array(v) for v in values]))
            return tuple([as_tensor(r)._array for r in results if _is_float(r)])

        def refuse(*_: Any) -> Any:
            raise NotDifferentiable(
                f"backward: expected nodes that have a gradient, got {self.label}, whose gradient striate does not have yet; "
                "detach before it, or freeze what comes before it"
            )

        floats = list(Op(f"onnx.{self.op_type}", forward, refuse)(*tensors))
        return tuple([floats.pop(0) if _is_float(r) else r for r in results])


def _settled(value: Any) -> Any:
    """Return half floats as float32, and a size alone, as NumPy takes it out of an array, as an array of no axes."""
    if isinstance(value, Dim):
        array = np.empty((), dtype=object)
        array[()] = value
        return array
    if type(value) is int:
        return np.array(value, dtype=np.int64)
    return widen(value) if isinstance(value, np.ndarray) else value


def _wants_gradient(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def _is_float(value: Any) -> bool:
    return isinstance(value, np.ndarray) and widen(value[:0] if value.ndim else value).dtype.kind == "f"


def _is_tensor_like(value: Any) -> bool:
    return isinstance(value, Tensor) or (
        isinstance(value, np.ndarray | np.generic)
        and (is_tensor_kind(np.asarray(value)) or has_dims(np.asarray(value)))
    )


def _described(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, list):
        return f"a sequence of {len(value)}"
    return f"{value.dtype} of shape {tuple(value.shape)}"


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return value


_BITS = {
    onnx.TensorProto.UINT4: 4,
    onnx.TensorProto.INT4: 4,
    onnx.TensorProto.FLOAT4E2M1: 4,
    getattr(onnx.TensorProto, "UINT2", -1): 2,
    getattr(onnx.TensorProto, "INT2", -2): 2,
}


def read_tensor(proto: onnx.TensorProto, what: str, data: memoryview | None = None) -> Any:
    """Return the content of a TensorProto, half floats as float32; its sizes are checked against its data first.

    `data` is its raw data where that lies elsewhere; the result is a view of it where no conversion is needed.

    Raises
    ------
    OnnxError
        A negative size, an unknown element type, or data of another length than the sizes ask for.
    """
    shape = tuple(proto.dims)
    if any(n < 0 for n in shape):
        raise OnnxError(f"{what}: expected sizes of at least 0, got {list(shape)}; the file is damaged")
    n_elements = 1
    for n in shape:
        n_elements *= n
    try:
        dtype = helper.tensor_dtype_to_np_dtype(proto.data_type)
    except (KeyError, ValueError, TypeError) as error:
        raise OnnxError(
            f"{what}: expected an element type of ONNX, got number {proto.data_type}; the file is damaged"
        ) from error
    raw = data if data is not None else proto.raw_data if proto.HasField("raw_data") else None
    if raw is not None:
        bits = _BITS.get(proto.data_type, dtype.itemsize * 8)
        wanted, got, unit = (n_elements * bits + 7) // 8, len(raw), "bytes"
    else:
        field = {
            "float_data": len(proto.float_data),
            "int32_data": len(proto.int32_data),
            "int64_data": len(proto.int64_data),
            "double_data": len(proto.double_data),
            "uint64_data": len(proto.uint64_data),
            "string_data": len(proto.string_data),
        }
        got, unit = sum(field.values()), "elements"
        wanted = n_elements * (2 if dtype.kind == "c" else 1)
        if proto.data_type in _BITS:
            wanted = (n_elements * _BITS[proto.data_type] + 7) // 8
    if wanted != got:
        raise OnnxError(
            f"{what}: expected {wanted} {unit} of data for shape {list(shape)} of {dtype}, got {got}; the file is damaged"
        )
    if raw is not None and proto.data_type in DTYPES:
        return np.frombuffer(raw, dtype.newbyteorder("<")).reshape(shape)
    if data is not None:
        proto = onnx.TensorProto(data_type=proto.data_type, dims=proto.dims, raw_data=bytes(data))
    try:
        array = numpy_helper.to_array(proto)
    except (ValueError, TypeError, KeyError, UnicodeDecodeError) as error:
        raise OnnxError(f"{what}: expected readable data, got: {error}; the file is damaged") from error
    return widen(array)


def storage_dtype(elem_type: int) -> Any:
    """Return the half-float DType that values of this type are handed out in, or None."""
    half = HALVES.get(elem_type)
    return half[0] if half is not None else None
