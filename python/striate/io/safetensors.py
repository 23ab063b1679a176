"""Read and write safetensors files, by the C++ core.

References
----------
Hugging Face, "Safetensors", the format: 8 bytes of header length, a JSON header, one buffer without holes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from striate import _core
from striate.autograd import Tensor
from striate.io.errors import FileError

__all__ = ["load", "metadata", "save"]

Path = str | os.PathLike[str]


def load(path: Path) -> dict[str, Tensor]:
    """Read every tensor of a file into memory of its own.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    dict of str to Tensor
        In the order of the data; tensors of 3 to 5 axes are stored channels-last, others row-major.

    Raises
    ------
    FileError
        A file that breaks the format, or holds a dtype that striate does not have; the text names file, key and byte.
    OSError
        A file that cannot be opened (FileNotFoundError and the like).
    """
    arrays, _ = _read(path)
    tensors = {}
    for key, mapped in arrays.items():
        own = _core.empty(mapped.shape, mapped.dtype, channels_last=True)
        _core.assign(own, mapped)
        tensors[key] = Tensor._wrap(own)
    return tensors


def metadata(path: Path) -> dict[str, str]:
    """Return the text entries of a file's header; raises as `load`."""
    return _read(path)[1]


def _read(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    try:
        return _core.read_safetensors(os.fspath(path))
    except ValueError as error:
        raise FileError(str(error)) from error


def save(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors to a file whose bytes depend on nothing but the arguments.

    The file appears whole or not at all: it is written beside `path`, flushed to the disk and renamed, and the
    folder is flushed.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        Any layout and dtype; stored in logical order.
    path : str or path
        A file already there is replaced.
    metadata : mapping of str to str, optional

    Raises
    ------
    ValueError
        A tensor called `__metadata__`.
    OSError
        A folder that is missing or cannot be written, a full disk.
    """
    _core.write_safetensors(
        os.fspath(path), [(key, tensor._array) for key, tensor in tensors.items()], dict(metadata or {})
    )
