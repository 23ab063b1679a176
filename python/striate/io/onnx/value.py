"""What flows through an imported graph: tensors, and host values for what is not one.

A host value is an ndarray, a list of values (a sequence) or None (an absent optional). Shape arithmetic stays on the host:
sizes met while recording are kept as `Dim`s in arrays of objects, so that a record follows its inputs. float16 and bfloat16
are computed in float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, TypeProto, helper

from striate import _core
from striate.autograd import Tensor
from striate.autograd.dim import Dim
from striate.io.errors import FileError
from striate.io.port import Port
from striate.ops import from_numpy

Array = NDArray[Any]

#: Element types that a Tensor computes with, by ONNX's numbers.
DTYPES: dict[int, _core.DType] = {
    TensorProto.FLOAT: _core.DType.float32,
    TensorProto.DOUBLE: _core.DType.float64,
    TensorProto.INT8: _core.DType.int8,
    TensorProto.UINT8: _core.DType.uint8,
    TensorProto.INT32: _core.DType.int32,
    TensorProto.INT64: _core.DType.int64,
    TensorProto.BOOL: _core.DType.bool,
}

#: Element types that are stored only: they are computed in float32.
HALVES: dict[int, tuple[_core.DType, Any]] = {
    TensorProto.FLOAT16: (_core.DType.float16, np.dtype(np.float16)),
    TensorProto.BFLOAT16: (_core.DType.bfloat16, np.dtype(ml_dtypes.bfloat16)),
}

_TENSOR_KINDS = {np.dtype(name) for name in ("float32", "float64", "int8", "uint8", "int32", "int64", "bool")}
_HALF_KINDS = {dtype for _, dtype in HALVES.values()}

#: Most bytes that one result may take, as a share of the machine's memory.
_MEMORY_SHARE = 0.5


class OnnxError(FileError):
    """An ONNX file, or a node of one, that striate refuses; the text names the file or the node, and what to do."""


class NotDifferentiable(RuntimeError):
    """A gradient was asked of a node that has none yet."""


def is_tensor_kind(array: Array) -> bool:
    """Say whether a Tensor can hold the elements of this array."""
    return array.dtype in _TENSOR_KINDS


def has_dims(array: Array) -> bool:
    """Say whether an array holds sizes as objects."""
    return array.dtype == object and array.size > 0 and all(isinstance(v, int) for v in array.flat)


def declared(name: str, declaration: TypeProto | None) -> Port:
    """Return an input or output as a file declares it."""
    kind = declaration.WhichOneof("value") if declaration is not None else None
    if declaration is None or kind != "tensor_type":
        return Port(name, (kind or "unknown").removesuffix("_type"), None)
    tensor = declaration.tensor_type
    if tensor.elem_type == TensorProto.STRING:
        dtype = "string"
    else:
        try:
            dtype = str(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
        except (KeyError, ValueError, TypeError):
            dtype = "unknown"
    if not tensor.HasField("shape"):
        return Port(name, dtype, None)
    sizes = [
        d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else d.dim_param or None for d in tensor.shape.dim
    ]
    return Port(name, dtype, tuple(sizes))


def widen(array: Array) -> Array:
    """Return half floats as float32, and anything else as it is."""
    return array.astype(np.float32) if array.dtype in _HALF_KINDS else array


def as_tensor(value: Any) -> Tensor:
    """Return a value as a Tensor.

    Raises
    ------
    DTypeError
        Elements that no Tensor holds.
    """
    if isinstance(value, Tensor):
        return value
    array = np.asarray(value)
    if has_dims(array):
        array = np.array([int(v) for v in array.flat], dtype=np.int64).reshape(array.shape)
    array = widen(array)
    if not is_tensor_kind(array):
        raise _core.DTypeError(
            f"onnx: expected float, int8, uint8, int32, int64 or bool elements, got {array.dtype}; convert them with Cast"
        )
    if not array.flags.c_contiguous or not array.flags.writeable or not array.dtype.isnative:
        array = np.array(array, dtype=array.dtype.newbyteorder("="), order="C")
    return from_numpy(array)


def as_array(value: Any) -> Any:
    """Return a value on the host: an ndarray, a list of these, or None.

    Raises
    ------
    RecordError
        A tensor whose values are not known while recording.
    """
    if isinstance(value, Tensor):
        return value.detach().numpy()
    if isinstance(value, list):
        return [as_array(v) for v in value]
    if isinstance(value, np.ndarray) and has_dims(value):
        return np.array([int(v) for v in value.flat], dtype=np.int64).reshape(value.shape)
    return value


def ints(value: Any) -> list[int]:
    """Return a value of integers as a list, sizes as Dims where they came from an input."""
    if isinstance(value, Tensor):
        value = value.detach().numpy()
    array = np.asarray(value)
    if array.dtype == object:
        return list(array.reshape(-1))
    return [int(v) for v in array.reshape(-1)]


def check_text(name: Any) -> None:
    """Refuse a name that is no text: protobuf hands bytes out where a file breaks UTF-8."""
    if not isinstance(name, str):
        raise OnnxError(f"names: expected texts in UTF-8, got {bytes(name[:80])!r}; the file is damaged")


def axis_of(axis: int, ndim: int) -> int:
    """Return an axis counted from the first."""
    if not -ndim <= axis < ndim:
        raise OnnxError(f"expected an axis from {-ndim} to {ndim - 1}, got {axis}; the file is damaged")
    return axis + ndim if axis < 0 else axis


def number(value: Any) -> Any:
    """Return a value of one element as a Python number."""
    array = as_array(value)
    if np.size(array) != 1:
        raise OnnxError(f"expected a single number, got an array of shape {np.shape(array)}; pass one element")
    return np.asarray(array).reshape(()).item()


def sizes(values: Sequence[int]) -> Array:
    """Return sizes as an int64 array, or as an array of objects where some follow an input."""
    if any(isinstance(v, Dim) for v in values):
        array = np.empty(len(values), dtype=object)
        array[:] = list(values)
        return array
    return np.array(values, dtype=np.int64)


def memory_limit() -> int:
    """Return the most bytes that one result may take."""
    import os

    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        total = 2**34
    return int(total * _MEMORY_SHARE)


LIMIT = memory_limit()

_limit = ContextVar("limit", default=LIMIT)


@contextmanager
def limited(n_bytes: int) -> Iterator[None]:
    """Let results take no more than this for a while."""
    before = _limit.set(n_bytes)
    try:
        yield
    finally:
        _limit.reset(before)


def check_size(shape: Sequence[int], itemsize: int = 4) -> None:
    """Refuse a shape that is negative or larger than memory, before any is taken."""
    for n in shape:
        if not isinstance(n, Dim) and n < 0:
            raise OnnxError(f"expected sizes of at least 0, got {list(shape)}; the file asks for a negative size")
    n_bytes = math.prod(int.__add__(n, 0) for n in shape) * itemsize
    if n_bytes > _limit.get():
        raise OnnxError(
            f"expected a result of at most {LIMIT:,} bytes (half of this machine's memory), got shape {list(shape)} of "
            f"{n_bytes:,}; the file asks for more than there is"
        )
