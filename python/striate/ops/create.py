"""Tensors from data, and tensors of constants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from striate import _core
from striate.autograd.dim import Dim
from striate.autograd.op import Op, public, register
from striate.autograd.tape import recorders
from striate.autograd.tensor import Tensor

DType = _core.DType
Size = int | Sequence[int]


def _shape(size: tuple[Size, ...]) -> list[int]:
    sizes = size[0] if len(size) == 1 and not isinstance(size[0], int) else size
    return [n if isinstance(n, int) else int(n) for n in sizes]  # type: ignore[call-overload]


def _numpy_dtype(dtype: DType) -> np.dtype[Any]:
    if dtype == DType.bfloat16:
        raise _core.DTypeError(
            "tensor: expected a dtype that NumPy has, got bfloat16; make it float32 and convert with .to()"
        )
    return np.dtype(str(dtype))


def _plain(data: Any) -> Any:
    """Make plain numbers of sizes that a record follows, which leaves guards; NumPy would read them without."""
    if isinstance(data, list | tuple):
        return type(data)([_plain(value) for value in data]) if type(data) in (list, tuple) else data
    return int(data) if isinstance(data, Dim) else data


@public
def tensor(data: Any, dtype: DType | None = None, *, requires_grad: bool = False) -> Tensor:
    """Copy data into a new tensor.

    Parameters
    ----------
    data : array_like or Tensor
        Python floats become float32 and ints int64; NumPy arrays keep their dtype.
    dtype : DType, optional
    requires_grad : bool

    Returns
    -------
    Tensor
        Row-major, in memory of its own.

    Raises
    ------
    DTypeError
        Data of a type that no dtype holds.
    """
    if isinstance(data, Tensor):
        data = data.detach().numpy()
    elif recorders:
        data = _plain(data)
    source = np.asarray(data)
    if not isinstance(data, np.ndarray | np.generic) and source.dtype == np.float64:
        source = source.astype(np.float32)
    if dtype is not None:
        source = source.astype(_numpy_dtype(dtype), copy=False)
    borrowed = _core.from_numpy(np.ascontiguousarray(source).reshape(source.shape))
    array = _core.empty(source.shape, borrowed.dtype)
    np.copyto(array.fill_view(), source)
    result = Tensor._wrap(array)
    return result.requires_grad_() if requires_grad else result


@public
def from_numpy(array: Any) -> Tensor:
    """Make a tensor on the memory of an ndarray, which stays alive as long as the tensor.

    Writing to the ndarray changes the tensor, so nothing derived from it is cached. Byte-swapped, unaligned or negatively
    strided arrays are copied.

    Raises
    ------
    DTypeError
        A dtype that striate does not have.
    """
    return Tensor._wrap(_core.from_numpy(np.asarray(array)))


@public
def empty(*size: Size, dtype: DType = DType.float32) -> Tensor:
    """Return a tensor of undefined content."""
    return Tensor._wrap(_core.empty(_shape(size), dtype))


def _filled(*, shape: Sequence[int], value: float, dtype: DType) -> Any:
    array = _core.empty(shape, dtype)
    array.fill_view()[...] = value
    return array


def _filled_like(x: Any, *, value: float, dtype: DType) -> Any:
    array = _core.empty_like(x, dtype)
    array.fill_view()[...] = value
    return array


_full = register(Op("full", _filled))
_full_like = register(Op("full_like", _filled_like))


@public
def full(size: Size, fill_value: float, *, dtype: DType | None = None, requires_grad: bool = False) -> Tensor:
    """Return a tensor filled with one value; a Python float makes float32, an int int64, a bool bool."""
    if dtype is None:
        dtype = (
            DType.bool
            if isinstance(fill_value, bool)
            else DType.int64
            if isinstance(fill_value, int)
            else DType.float32
        )
    shape = (size,) if isinstance(size, int) else tuple(_shape((size,)))
    result: Tensor = _full(shape=shape, value=fill_value, dtype=dtype)
    return result.requires_grad_() if requires_grad else result


@public
def zeros(*size: Size, dtype: DType = DType.float32, requires_grad: bool = False) -> Tensor:
    """Return a tensor of zeros."""
    return full(_shape(size), 0, dtype=dtype, requires_grad=requires_grad)


@public
def ones(*size: Size, dtype: DType = DType.float32, requires_grad: bool = False) -> Tensor:
    """Return a tensor of ones."""
    return full(_shape(size), 1, dtype=dtype, requires_grad=requires_grad)


@public
def full_like(x: Tensor, fill_value: float, *, dtype: DType | None = None) -> Tensor:
    """Return a tensor filled with one value, of the shape, dtype and memory layout of `x`."""
    return _full_like(x, value=fill_value, dtype=dtype or x.dtype)  # type: ignore[no-any-return]


@public
def zeros_like(x: Tensor, *, dtype: DType | None = None) -> Tensor:
    """Return zeros of the shape, dtype and memory layout of `x`."""
    return full_like(x, 0, dtype=dtype)


@public
def ones_like(x: Tensor, *, dtype: DType | None = None) -> Tensor:
    """Return ones of the shape, dtype and memory layout of `x`."""
    return full_like(x, 1, dtype=dtype)


@public
def arange(start: float, end: float | None = None, step: float = 1, *, dtype: DType | None = None) -> Tensor:
    """Return start, start + step, … below end; integers make int64, floats float32."""
    first, last = (0, start) if end is None else (start, end)
    first, last, step = _plain((first, last, step))
    return tensor(np.arange(first, last, step).tolist(), dtype=dtype)
