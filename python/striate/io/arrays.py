"""Bytes of a file as tensors in memory of their own, and how much memory a file may ask for."""

from __future__ import annotations

import math
import mmap
import os
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from striate import _core
from striate.autograd import Tensor, no_grad
from striate.io.errors import Source, quoted

MAX_AXES = 8
NAMES = {str(dtype) for dtype in _core.DType.__members__.values()}
SUPPORTED = "float32, float64, float16, bfloat16, int8, uint8, int32, int64 or bool"


def byte_dtype(name: str, order: Literal["<", ">"] = "<") -> np.dtype[Any]:
    """Return NumPy's type for the stored elements of a striate dtype; bfloat16 is read as its bits."""
    return np.dtype("uint16" if name == "bfloat16" else name).newbyteorder(order)


def owned(array: NDArray[Any], name: str) -> Tensor:
    """Copy an array from `byte_dtype(name)` into a tensor.

    Parameters
    ----------
    array : ndarray
        Any strides, alignment and byte order.
    name : str
        The striate dtype.

    Returns
    -------
    Tensor
        Of 3 to 5 axes channels-last, else row-major. Every value comes out with its bits; NaNs of bfloat16 come out quiet.
    """
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if name == "bfloat16":  # float32 whose lower half is zero; NumPy has no bfloat16
        array = (array.astype(np.uint32) << 16).view(np.float32)
    own = _core.empty(
        array.shape, _core.DType.__members__["float32" if name == "bfloat16" else name], channels_last=True
    )
    _core.assign(own, _core.from_numpy(array))
    tensor = Tensor._wrap(own)
    if name == "bfloat16":
        with no_grad():
            tensor = tensor.to(_core.DType.bfloat16)
    return tensor


def mapped(source: Source) -> memoryview:
    """Return the bytes of a file; they are unmapped when the last view of them is gone.

    Raises
    ------
    FileError
        An empty file.
    OSError
        A file that cannot be opened.
    """
    with open(source.path, "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            source.refuse("a file with content", "an empty one", "fetch it again")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def checked_bytes(source: Source, key: str, shape: tuple[int, ...], itemsize: int) -> int:
    """Return the bytes that the elements of a shape take.

    Raises
    ------
    FileError
        More than 8 axes, a negative size, or more than 2^62 bytes.
    """
    if len(shape) > MAX_AXES:
        source.refuse(f"at most {MAX_AXES} axes for {key}", f"{len(shape)}", "merge axes before saving")
    # The sizes of an empty array must be numbers that a shape can hold, too.
    if min(shape, default=0) < 0 or math.prod(max(n, 1) for n in shape) * itemsize > 1 << 62:
        source.refuse(
            f"sizes from 0 up, and at most 2^62 bytes, for {key}",
            f"shape {quoted(shape)}",
            "the file is damaged; fetch it again",
        )
    return math.prod(shape) * itemsize


class Budget:
    """Bytes of memory that the tensors of one file may take: 64 MiB, and 16 times the file.

    Small files can say that they hold large tensors: views of one number, or deflated zeros. Weights do not.

    Parameters
    ----------
    source : Source
        For the texts of errors.
    file_bytes : int
    """

    def __init__(self, source: Source, file_bytes: int) -> None:
        self._source = source
        self._limit = (64 << 20) + 16 * file_bytes
        self._left = self._limit

    def take(self, key: str, n_bytes: int) -> None:
        """Count a tensor, before memory is taken for it.

        Raises
        ------
        FileError
            More bytes than are left.
        """
        self._left -= n_bytes
        if self._left < 0:
            self._source.refuse(
                f"at most {self._limit} bytes of tensors, 64 MiB and 16 times the file",
                f"{n_bytes} for {key} beyond them",
                "save copies of views that repeat elements, and arrays without compression",
            )
