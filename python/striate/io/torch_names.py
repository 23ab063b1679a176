"""What the names in a pickle of `torch.save` stand for: descriptions of tensors, and the few functions that make them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np

from striate.io.unpickle import Construct, Name, Unfit

_MAX_ITEMS = 64

# Storage classes → element type and its bytes; those that striate lacks are refused with the key of their tensor.
STORAGES = {
    "FloatStorage": ("float32", 4),
    "DoubleStorage": ("float64", 8),
    "HalfStorage": ("float16", 2),
    "BFloat16Storage": ("bfloat16", 2),
    "CharStorage": ("int8", 1),
    "ByteStorage": ("uint8", 1),
    "ShortStorage": ("int16", 2),
    "IntStorage": ("int32", 4),
    "LongStorage": ("int64", 8),
    "BoolStorage": ("bool", 1),
    "ComplexFloatStorage": ("complex64", 8),
    "ComplexDoubleStorage": ("complex128", 16),
    "QInt8Storage": ("qint8", 1),
    "QUInt8Storage": ("quint8", 1),
    "QInt32Storage": ("qint32", 4),
    "QUInt4x2Storage": ("quint4x2", 1),
    "QUInt2x4Storage": ("quint2x4", 1),
    "UntypedStorage": ("untyped bytes", 1),
}
# Names of dtypes as they stand in checkpoints, by themselves or in tensors whose storage has no type.
DTYPES = (
    *("float32", "float64", "float16", "bfloat16", "int8", "uint8", "int16", "int32", "int64", "bool"),
    *("uint16", "uint32", "uint64", "complex32", "complex64", "complex128", "qint8", "quint8", "qint32"),
    *("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn_x2"),
)


@dataclass(frozen=True, slots=True)
class Storage:
    """Elements of one type: all of a storage, or a view of them (files before torch 0.4)."""

    key: str
    type_name: str
    itemsize: int
    n_elements: int
    first: int = 0


@dataclass(frozen=True, slots=True)
class TensorPlace:
    """Where the elements of a tensor lie in a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    type_name: str


@dataclass(frozen=True, slots=True)
class Refused:
    """A tensor of a kind that striate does not have."""

    what: str


@dataclass(frozen=True, slots=True)
class NumpyType:
    """What a NumPy scalar's bytes mean."""

    text: str


# What the functions named in a pickle would return, of arguments that are checked by type and not trusted by value.


def _is_sizes(value: Any) -> TypeGuard[tuple[int, ...]]:
    # Tensors have few axes; without a limit, one long tuple that is named often would keep this loop busy for years.
    return type(value) is tuple and len(value) <= _MAX_ITEMS and all(type(n) is int for n in value)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> Any:
    if type(storage) is not Storage or type(offset) is not int or not _is_sizes(shape) or not _is_sizes(strides):
        raise Unfit
    # `rest`: whether it learns, its hooks, and what is still to be done to its values.
    if len(rest) > 2 and rest[2]:
        return Refused("a tensor that is to be negated or conjugated when it is read")
    return TensorPlace(storage, offset, shape, strides, storage.type_name)


def _tensor_of_dtype(
    storage: Any, offset: Any, shape: Any, strides: Any, learns: Any, hooks: Any, dtype: Any, *rest: Any
) -> Any:
    place = _tensor(storage, offset, shape, strides, learns, hooks, *rest)
    if type(dtype) is not Name or dtype.text.removeprefix("torch.") not in DTYPES:
        raise Unfit
    if type(place) is Refused or storage.type_name != "untyped bytes":
        return Refused("a tensor of two types")
    # None of the dtypes saved in this way is one of striate's.
    return Refused(dtype.text)


def _parameter(data: Any, *rest: Any) -> Any:
    if type(data) not in (TensorPlace, Refused):
        raise Unfit
    return data


def _with_attributes(function: Any, kind: Any, arguments: Any, state: Any) -> Any:
    if type(function) is not Name or type(kind) is not Name or type(arguments) is not tuple:
        raise Unfit
    construct = FUNCTIONS[function.text]
    is_tensor = construct in (_tensor, _parameter) and kind.text in ("torch.Tensor", "torch.nn.parameter.Parameter")
    if not is_tensor or construct is None or len(arguments) > _MAX_ITEMS:
        raise Unfit
    return construct(*arguments)


def _pairs(items: Any = None) -> dict[Any, Any]:
    """Return an OrderedDict's or Counter's content; Python 2 writes the items of an OrderedDict as a list."""
    if items is None:
        return {}
    if type(items) is dict:
        return items
    if type(items) is not list:
        raise Unfit
    for pair in items:
        if type(pair) not in (list, tuple) or len(pair) != 2 or type(pair[0]) not in (str, int):
            raise Unfit
    made = dict(items)
    items.clear()  # a list is made for one dict; one that were copied again and again would fill the memory
    return made


def _size(sizes: Any) -> tuple[int, ...]:
    if not _is_sizes(sizes):
        raise Unfit
    return sizes


def _device(kind: Any, index: Any = None) -> str:
    if type(kind) is not str or type(index) not in (int, type(None)):
        raise Unfit
    return kind if index is None else f"{kind}:{index}"


def _layout(text: Any) -> str:
    if type(text) is not str:
        raise Unfit
    return text


def _encoded(text: Any, encoding: Any) -> bytes:
    if type(text) is not str or encoding != "latin1":
        raise Unfit
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError as error:
        raise Unfit from error


def _numpy_type(text: Any, align: Any = False, copy: Any = True) -> NumpyType:
    if text not in ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"):
        raise Unfit
    return NumpyType(text)


def _numpy_scalar(kind: Any, raw: Any) -> Any:
    if type(kind) is not NumpyType or type(raw) is not bytes or len(raw) != np.dtype(kind.text).itemsize:
        raise Unfit
    return np.frombuffer(raw, np.dtype(kind.text))[0].item()


def _refused(what: str) -> Construct:
    return lambda *arguments: Refused(what)


FUNCTIONS: dict[str, Construct | None] = {
    "collections.OrderedDict": _pairs,
    "collections.Counter": _pairs,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_dtype,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _with_attributes,
    "torch._utils._rebuild_qtensor": _refused("a quantised tensor"),
    "torch._utils._rebuild_sparse_tensor": _refused("a sparse tensor"),
    "torch._utils._rebuild_nested_tensor": _refused("a nested tensor"),
    "torch._utils._rebuild_meta_tensor_no_storage": _refused("a tensor without values"),
    "torch.Tensor": None,
    "torch.nn.parameter.Parameter": None,
    "torch.Size": _size,
    "torch.device": _device,
    "torch.serialization._get_layout": _layout,
    "torch.per_tensor_affine": None,
    "torch.per_channel_affine": None,
    "_codecs.encode": _encoded,
    "numpy.dtype": _numpy_type,
    "numpy.core.multiarray.scalar": _numpy_scalar,
    "numpy._core.multiarray.scalar": _numpy_scalar,
    **{f"torch.{name}": None for name in DTYPES},
    **{f"{module}.{name}": None for module in ("torch", "torch.cuda", "torch.storage") for name in STORAGES},
}


def with_state(value: Any, state: Any) -> Any:
    """Ignore the attributes of an OrderedDict (`_metadata` of a state_dict), and take the byte order of a NumPy type."""
    if type(value) is dict and type(state) is dict:
        return value
    if type(value) is NumpyType and type(state) is tuple and len(state) > 1 and state[1] in ("<", ">", "|", "="):
        return NumpyType(state[1] + value.text.lstrip("<>|="))
    raise Unfit
