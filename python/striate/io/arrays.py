"""Bytes of a file as tensors in memory of their own, and how much memory a file may ask for."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from striate import _core
from striate.autograd import Tensor, no_grad
from striate.io.errors import Source

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
        self.limit = (64 << 20) + 16 * file_bytes
        self.left = self.limit

    def take(self, key: str, shape: tuple[int, ...], itemsize: int) -> None:
        """Count a tensor, before memory is taken for it.

        Raises
        ------
        FileError
            More than 8 axes, a negative size, or more bytes than are left.
        """
        if len(shape) > MAX_AXES:
            self._source.refuse(f"at most {MAX_AXES} axes for {key}", f"{len(shape)}", "merge axes before saving")
        if any(n < 0 for n in shape):
            self._source.refuse(f"sizes of at least 0 for {key}", f"{shape}", "the file is damaged; fetch it again")
        # An empty tensor takes nothing, but its other sizes must still be numbers that a shape can hold.
        n_bytes = math.prod(max(n, 1) for n in shape) * itemsize
        self.left -= n_bytes if 0 not in shape else 0
        if self.left < 0 or n_bytes >= 1 << 62:
            self._source.refuse(
                f"tensors of at most {self.limit} bytes together, 64 MiB and 16 times the file",
                f"shape {shape} for {key}",
                "save copies of views that repeat their elements, and arrays without compression",
            )
