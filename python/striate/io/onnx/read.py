"""Read ONNX files as Modules."""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto, defs

from striate import _core
from striate.autograd import Tensor
from striate.io.onnx import operators  # noqa: F401  (fills the table of handlers)
from striate.io.onnx.functions import expand
from striate.io.onnx.graph import Plan
from striate.io.onnx.growth import check_growth
from striate.io.onnx.mode import Mode
from striate.io.onnx.node import RANDOM, Node, read_tensor, schema_of, storage_dtype
from striate.io.onnx.patterns import join
from striate.io.onnx.value import OnnxError, as_tensor, declared, is_tensor_kind, limited, widen
from striate.io.onnx.wire import without_weights
from striate.nn import Module, Parameter
from striate.ops import to

__all__ = ["OnnxModule", "load"]

Source = str | os.PathLike[str] | bytes | ModelProto

#: Files of older opsets are read as far as their operators have not changed up to this one.
OLDEST_OPSET = 6

#: Operands that a model learns, by operator; any that is a float initialiser of these becomes a Parameter.
_LEARNED = {
    "Add": (0, 1),
    "BatchNormalization": (1, 2),
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "GRU": (1, 2, 3),
    "Gather": (0,),
    "Gemm": (0, 1, 2),
    "GroupNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LSTM": (1, 2, 3, 7),
    "LayerNormalization": (1, 2),
    "MatMul": (0, 1),
    "Mul": (0, 1),
    "PRelu": (1,),
    "RMSNormalization": (1,),
    "RNN": (1, 2, 3),
}
#: Operands that change by statistics, not by gradients.
_STATISTICS = {"BatchNormalization": (3, 4)}

#: Constants are folded while they have no more bytes than this, beyond what they are made of.
_MOST_FOLDED = 2**26


class OnnxModule(Module):
    """An ONNX model: runs eagerly, trains, and compiles to a Program; made by `load`.

    Weights are parameters under the names of the file (with a `_` behind where a Module has that name itself), other large
    float initialisers and statistics are buffers. Call it with one value for each name of `inputs`: tensors or arrays, lists of
    these for sequences. Results come as one value or a tuple, as Tensors where a Tensor can hold them and else as arrays;
    float16 and bfloat16 are computed in float32 and handed out as they are declared.

    Attributes
    ----------
    inputs, outputs : tuple of str
        Names, in the order of the file.
    input_ports, output_ports : tuple of striate.io.port.Port
        The same with dtypes and shapes, as the file declares them.
    producer : str
    opset : int
        Version of ONNX's operator set that the file asks for.
    """

    def __init__(self, plan: Plan, mode: Mode, opset: int, producer: str, source: str) -> None:
        self.inputs = tuple(plan.inputs)
        self.outputs = tuple(plan.outputs)
        self.input_ports = tuple(declared(name, plan.types.get(name)) for name in plan.inputs)
        self.output_ports = tuple(declared(name, plan.types.get(name)) for name in plan.outputs)
        self.producer = producer
        self.opset = opset
        self._source = source
        self._plan = plan
        self._mode = mode
        self._held: dict[str, str] = {}
        self._storage = [storage_dtype(_elem_type(plan, name)) for name in plan.outputs]
        self._kinds = [_elem_type(plan, name) for name in plan.inputs]
        self._take_weights()
        self.eval()

    def _take_weights(self) -> None:
        """Turn initialisers into parameters and buffers; what is left are host constants."""
        readers = self._plan.readers()
        for name, array in list(self._plan.constants.items()):
            uses = readers.get(name, [])
            if not isinstance(array, np.ndarray) or array.dtype.kind != "f" or not is_tensor_kind(array) or not uses:
                continue
            is_learned = array.ndim > 0 and all(
                i in _LEARNED.get(node.op_type, ()) and node.domain == "" for node, i in uses
            )
            is_statistic = all(i in _STATISTICS.get(node.op_type, ()) for node, i in uses)
            if is_learned:
                self._hold(name, Parameter(_own(array)))
            elif is_statistic or array.size > 4096:
                self._hold(name, _own(array))
        self._plan.own_constants()

    def _hold(self, name: str, value: Tensor) -> None:
        key = name
        while hasattr(type(self), key) or key in self.__dict__ or not key:
            key += "_"
        if isinstance(value, Parameter):
            self.register_parameter(key, value)
        else:
            self.register_buffer(key, value)
        del self._plan.constants[name]
        self._held[name] = key

    def forward(self, *given: Any) -> Any:
        """Run the model on one value for each input."""
        if len(given) != len(self.inputs):
            raise TypeError(
                f"{self._source}: expected {len(self.inputs)} inputs ({', '.join(self.inputs)}), got {len(given)}; "
                "pass one value for each"
            )
        self._mode.start(self.training)
        values: dict[str, Any] = dict(self._plan.constants)
        own = self.__dict__
        for name, key in self._held.items():
            values[name] = own[key]
        for name, kind, value in zip(self.inputs, self._kinds, given, strict=True):
            values[name] = self._accept(name, kind, value)
        results = [
            _handed_out(value, storage) for value, storage in zip(self._plan.run_on(values), self._storage, strict=True)
        ]
        return results[0] if len(results) == 1 else tuple(results)

    def _accept(self, name: str, kind: int, value: Any) -> Any:
        if value is None or isinstance(value, list):
            return [self._accept(name, kind, v) for v in value] if value is not None else None
        if not isinstance(value, Tensor):
            array = widen(np.asarray(value))
            if kind in _NUMPY_KINDS and array.dtype != _NUMPY_KINDS[kind] and not isinstance(value, np.ndarray):
                array = array.astype(_NUMPY_KINDS[kind])  # Python numbers have no dtype of their own
            if not is_tensor_kind(array):
                return array
            value = as_tensor(array)
        elif value.dtype in (_core.DType.float16, _core.DType.bfloat16):
            value = to(value, _core.DType.float32)
        wanted = _NUMPY_KINDS.get(kind)
        if wanted is not None and str(value.dtype) != str(wanted):
            raise _core.DTypeError(
                f"{self._source}: expected {wanted} for input {name!r}, got {value.dtype}; convert it with .to({wanted})"
            )
        return value

    def operators(self) -> dict[str, list[str]]:
        """Return the operators of the model by what `backward` can do.

        Returns
        -------
        dict
            "differentiable", "flat" (no gradient by nature: comparisons, shapes, rounding) and "none yet", whose nodes make
            `backward` raise NotDifferentiable. Each a sorted list of operators.
        """
        groups: dict[str, set[str]] = {"differentiable": set(), "flat": set(), "none yet": set()}
        for node in self._plan.walk():
            groups[node.gradient].add(node.op_type)
        return {group: sorted(names) for group, names in groups.items()}

    def extra_repr(self) -> str:
        """Return what `repr` shows between the brackets."""
        return f"{self._source}, {len(self._plan.nodes)} nodes, inputs={self.inputs}, outputs={self.outputs}"


_NUMPY_KINDS: dict[int, Any] = {
    TensorProto.FLOAT: np.dtype(np.float32),
    TensorProto.FLOAT16: np.dtype(np.float32),
    TensorProto.BFLOAT16: np.dtype(np.float32),
    TensorProto.DOUBLE: np.dtype(np.float64),
    TensorProto.INT8: np.dtype(np.int8),
    TensorProto.UINT8: np.dtype(np.uint8),
    TensorProto.INT32: np.dtype(np.int32),
    TensorProto.INT64: np.dtype(np.int64),
    TensorProto.BOOL: np.dtype(np.bool_),
}


def _elem_type(plan: Plan, name: str) -> int:
    found = plan.types.get(name)
    return found.tensor_type.elem_type if found is not None and found.HasField("tensor_type") else 0


def _handed_out(value: Any, storage: Any) -> Any:
    """Return a result as users get it."""
    if isinstance(value, list):
        return [_handed_out(v, storage) for v in value]
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        if array.dtype == object and not array.size:
            return array
        try:
            value = as_tensor(array)
        except _core.DTypeError:
            return array
    if storage is not None and isinstance(value, Tensor) and value.dtype.is_floating_point:
        return to(value, storage)
    return value


def _own(array: Any) -> Tensor:
    """Copy weights into memory of their own, images and filters channels-last."""
    given = _core.from_numpy(array)
    own = _core.empty(array.shape, given.dtype, channels_last=True)
    _core.assign(own, given)
    return Tensor._wrap(own)


def load(source: Source, *, train_batch_norm: bool = False) -> OnnxModule:
    """Read an ONNX model.

    Parameters
    ----------
    source : str, path, bytes or onnx.ModelProto
        Opsets 6 to the newest that the installed onnx package knows, and older ones whose operators mean the same. External
        data is read from the folder of the file and from nowhere else.
    train_batch_norm : bool, default False
        Let batch-norms of the file use and learn the statistics of batches while the module is in training mode. Otherwise
        they stay as they are when it is fine-tuned.

    Returns
    -------
    OnnxModule
        In eval mode.

    Raises
    ------
    OnnxError
        A file that is no ONNX model, is damaged, asks for more than memory holds, or has operators that striate does not
        support, all of which the text names; a ValueError.
    OSError
        A file that cannot be opened (FileNotFoundError and the like).

    Notes
    -----
    What is computed from constants alone is computed once. Operators outside the convolution family that striate has no
    kernels for run in NumPy, by the onnx package. Where nodes need values that are not known before (how many boxes are kept,
    which branch is taken), a program from `striate.compile` runs them in Python between its pieces.

    Examples
    --------
    >>> import striate.onnx
    >>> from onnx import parser
    >>> model = striate.onnx.load(parser.parse_model('<ir_version: 8, opset_import: ["" : 17]> g (float[n] x) => (float[n] y) { y = Relu(x) }'))
    >>> model(striate.tensor([-1.0, 2.0])).numpy().tolist()
    [0.0, 2.0]
    """
    what, proto, weights, folder = parse(source)
    with named(what):
        return _build(what, proto, Weights(weights, folder), train_batch_norm)


@contextmanager
def named(what: str) -> Iterator[None]:
    """Put the name of the file before what refuses it."""
    try:
        yield
    except OnnxError as error:
        text = str(error)
        raise (error if text.startswith(what) else OnnxError(f"{what}: {text}")) from error.__cause__
    except RecursionError as error:
        raise OnnxError(
            f"{what}: expected graphs and types nested less deep, got too many levels; the file is damaged"
        ) from error


def parse(source: Source) -> tuple[str, ModelProto, dict[str, memoryview], Path | None]:
    """Return (name, message without large weights, these, folder)."""
    if isinstance(source, ModelProto):
        return "model", source, {}, None
    if isinstance(source, bytes):
        return "model", *_message("model", memoryview(source)), None
    path = Path(source)
    what, n_bytes = os.fspath(path), path.stat().st_size
    if n_bytes > 2**31:
        raise OnnxError(
            f"{what}: expected a protobuf message of at most 2 GiB, got {n_bytes:,} bytes; store the weights as external data"
        )
    return what, *_message(what, mapped(path)), path.parent


def mapped(path: Path) -> memoryview:
    """Return the content of a file without reading it yet."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return memoryview(b"")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _message(what: str, content: memoryview) -> tuple[ModelProto, dict[str, memoryview]]:
    weights: dict[str, memoryview] = {}
    try:
        message, weights = without_weights(content)
    except ValueError:  # what is wrong, protobuf says better
        message = bytes(content)
    proto = ModelProto()
    try:
        proto.ParseFromString(message)
    except DecodeError as error:
        raise OnnxError(
            f"{what}: expected an ONNX model, got {len(content):,} bytes that are no protobuf message of one ({error}); "
            "the file is damaged, cut off, or of another kind"
        ) from error
    return proto, weights


def _build(what: str, proto: ModelProto, weights: Weights, train_batch_norm: bool) -> OnnxModule:
    if not proto.HasField("graph") or not (proto.graph.node or proto.graph.output):
        raise OnnxError(f"{what}: expected a model with a graph, got none; the file is empty or of another kind")
    opsets = opsets_of(what, proto)
    proto = expand(proto, opsets)
    mode = Mode(train_batch_norm)
    plan = Plan(proto.graph, opsets, mode, weights.read)
    _refuse_unsupported(what, plan)
    check_growth(plan, proto.graph)
    fold(plan)
    join(plan, mode)
    return OnnxModule(plan, mode, opsets.get("", 0), proto.producer_name, what)


def opsets_of(what: str, proto: ModelProto) -> dict[str, int]:
    """Return the version of each operator set that a file asks for."""
    opsets = {("" if o.domain == "ai.onnx" else o.domain): o.version for o in proto.opset_import}
    newest = defs.onnx_opset_version()
    opset = opsets.setdefault("", 1 if not proto.opset_import and proto.ir_version < 3 else newest)
    if not 1 <= opset <= newest:
        raise OnnxError(f"{what}: expected opset 1 to {newest}, got {opset}; install a newer onnx package")
    return opsets


def unsupported(plan: Plan) -> dict[str, list[str]]:
    """Return the names of the nodes that nothing here computes, by their operator."""
    missing: dict[str, list[str]] = {}
    for node in plan.walk():
        is_old = not node.domain and node.opset < OLDEST_OPSET and _has_changed(node)
        if not node.is_supported or is_old:
            of = f"{node.op_type} (domain {node.domain or 'ai.onnx'!r}, opset {node.opset})"
            missing.setdefault(of, []).append(node.name)
    return missing


def _refuse_unsupported(what: str, plan: Plan) -> None:
    missing = unsupported(plan)
    if missing:
        listed = "; ".join(
            f"{of} at {', '.join(repr(n) for n in names[:3])}{' …' if len(names) > 3 else ''}"
            for of, names in sorted(missing.items())
        )
        raise OnnxError(
            f"{what}: expected operators that striate supports, got {len(missing)} others: {listed}; "
            "replace them, or compute them outside"
        )


def _has_changed(node: Node) -> bool:
    """Say whether an operator of an old opset meant something else than later."""
    later = schema_of("", node.op_type, OLDEST_OPSET)
    return later is None or later.since_version != node.since


def fold(plan: Plan) -> None:
    """Compute once what depends on constants alone."""
    readers = plan.readers()
    done: list[Node] = []
    for node in plan.nodes:
        if node.has_graphs or node.op_type in RANDOM or any(n and n not in plan.constants for n in node.inputs):
            continue
        operands = [plan.constants[name] if name else None for name in node.inputs]
        is_shared = any(
            isinstance(value, np.ndarray)
            and value.dtype.kind == "f"
            and value.size > 4096
            and len(readers.get(name, [])) > 1
            for name, value in zip(node.inputs, operands, strict=True)
        )
        n_bytes = sum(v.nbytes for v in operands if isinstance(v, np.ndarray))
        if is_shared:
            continue  # a weight that is also read as it is stays one parameter
        try:
            with limited(_MOST_FOLDED + 2 * n_bytes):
                results = node(operands)
        except OnnxError:
            continue  # if the run reaches it, it is refused there
        arrays = [r.detach().numpy() if isinstance(r, Tensor) else r for r in results]
        if sum(a.nbytes for a in arrays if isinstance(a, np.ndarray)) > _MOST_FOLDED + 2 * n_bytes:
            continue
        plan.constants.update((name, value) for name, value in zip(node.outputs, arrays, strict=False) if name)
        done.append(node)
    plan.drop(done)
    needed = {name for node in plan.nodes for name in node.inputs} | set(plan.outputs)
    for node in plan.nodes:
        for value in node.attributes.values():
            if isinstance(value, Plan):
                needed.update(value.captures)
    for name in [n for n in plan.constants if n not in needed]:
        del plan.constants[name]


class Weights:
    """Reads initialisers: from the message, from where they lie in the file, or from files beside it."""

    def __init__(self, left_out: dict[str, memoryview], folder: Path | None) -> None:
        self._left_out = left_out
        self._folder = folder
        self._files: dict[str, memoryview] = {}

    def read(self, tensor: TensorProto, what: str) -> Any:
        """Return the content of an initialiser."""
        if tensor.data_location == TensorProto.EXTERNAL:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            return read_tensor(tensor, what, self._external(entries, what))
        # A graph inside may use a name again; what was left out is in no message.
        return read_tensor(tensor, what, None if tensor.HasField("raw_data") else self._left_out.get(tensor.name))

    def _external(self, entries: Mapping[str, str], what: str) -> memoryview:
        location = entries.get("location", "")
        if self._folder is None:
            raise OnnxError(
                f"{what}: expected weights inside the model, got external data in {location!r}; load the file by its path"
            )
        if location not in self._files:
            self._files[location] = mapped(self._inside(location, what))
        content = self._files[location]
        offset, length = self._range(entries, len(content), what)
        return content[offset : offset + length]

    def _inside(self, location: str, what: str) -> Path:
        """Return the path of a regular file in the model's own folder, reached without links."""
        assert self._folder is not None
        parts = Path(location).parts
        is_plain = bool(parts) and not Path(location).is_absolute() and ".." not in parts and "\0" not in location
        if not is_plain:
            raise OnnxError(
                f"{what}: expected external data in a file beside the model, got location {location!r}; "
                "only relative paths without '..' are read"
            )
        path = self._folder
        for part in parts:
            path = path / part
            try:
                found = path.lstat()
            except OSError as error:
                raise OnnxError(
                    f"{what}: expected external data in {path}, got: {error.strerror}; copy it there"
                ) from error
            if stat.S_ISLNK(found.st_mode):
                raise OnnxError(
                    f"{what}: expected external data in a file of the model's folder, got a link, {path}; copy the file there"
                )
        if not stat.S_ISREG(found.st_mode):
            raise OnnxError(f"{what}: expected external data in a regular file, got {path}; copy the data there")
        return path

    def _range(self, entries: Mapping[str, str], n_bytes: int, what: str) -> tuple[int, int]:
        try:
            offset = int(entries.get("offset", "0"))
            length = int(entries.get("length", n_bytes - offset))
        except ValueError as error:
            raise OnnxError(
                f"{what}: expected offset and length as numbers, got: {error}; the file is damaged"
            ) from error
        if offset < 0 or length < 0 or offset + length > n_bytes:
            raise OnnxError(
                f"{what}: expected external data inside the file's {n_bytes:,} bytes, got offset {offset} and length "
                f"{length}; the file is damaged or cut off"
            )
        return offset, length
