"""Read and write NumPy's `.npz`: a zip archive of `.npy` files, whose headers are matched and never evaluated.

References
----------
NumPy, "A simple file format for NumPy arrays" (NEP 1), and `numpy.lib.format`.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import secrets
import struct
import zipfile
from collections.abc import Mapping

import numpy as np

from striate import _core
from striate.autograd import Tensor
from striate.io.archive import Archive, is_plain_name
from striate.io.arrays import SUPPORTED, Budget, byte_dtype, checked_bytes, mapped, owned
from striate.io.errors import Source, quoted

__all__ = ["load", "save"]

Path = str | os.PathLike[str]

_CUT = "the file is damaged or cut off; fetch it again"
_MAX_HEADER_BYTES = 10_000
_FIELD = re.compile(r"\s*'(descr|fortran_order|shape)'\s*:\s*('[^']*'|True|False|\([\d\sL,]*\))\s*(?:,\s*|(?=\}))")
_KINDS = {
    "f4": "float32",
    "f8": "float64",
    "f2": "float16",
    "i1": "int8",
    "u1": "uint8",
    "i4": "int32",
    "i8": "int64",
    "b1": "bool",
}


def load(path: Path) -> dict[str, Tensor]:
    """Read every array of an `.npz` file into memory of its own.

    Parameters
    ----------
    path : str or path
        What `numpy.savez` or `numpy.savez_compressed` wrote, or `save`.

    Returns
    -------
    dict of str to Tensor
        In the order of the file; tensors of 3 to 5 axes are stored channels-last, others row-major.

    Raises
    ------
    FileError
        A file that breaks the format, holds objects or a dtype that striate does not have, or asks for much more memory than
        it has bytes; the text names file and key. Nothing pickled is read.
    OSError
        A file that cannot be opened.

    Notes
    -----
    Do not write to the file while it is read.
    """
    source = Source("npz file", os.fspath(path))
    data = mapped(source)
    archive = Archive(source, data)
    budget = Budget(source, len(data))
    tensors = {}
    for name, member in archive.members.items():
        if not name.endswith(".npy"):
            source.refuse("members that end with .npy", quoted(name), "this is no file of numpy.savez")
        key = name.removesuffix(".npy")
        budget.take(f"key {quoted(key)}", member.n_bytes)
        tensors[key] = _array(source, f"key {quoted(key)}", archive.read(name, member.n_bytes))
    return tensors


def _array(source: Source, key: str, content: memoryview) -> Tensor:
    """Read one `.npy` file."""
    version = content[6] if len(content) >= 12 and bytes(content[:6]) == b"\x93NUMPY" else 0
    if version not in (1, 2, 3):
        source.refuse(f"a .npy file of version 1 to 3 as {key}", quoted(bytes(content[:8])), _CUT)
    form = struct.Struct("<H" if version == 1 else "<I")
    (n_header,) = form.unpack_from(content, 8)
    start = 8 + form.size
    if n_header > min(_MAX_HEADER_BYTES, len(content) - start):
        source.refuse(f"a header inside the {len(content)} bytes of {key}", f"one of {n_header} bytes", _CUT)
    kind, is_fortran, shape = _header(source, key, str(content[start : start + n_header], "latin-1"))
    start += n_header
    dtype = byte_dtype(_KINDS[kind[1:]], ">" if kind[0] == ">" else "<")
    n_bytes = checked_bytes(source, key, shape, dtype.itemsize)
    if n_bytes != len(content) - start:
        source.refuse(f"{n_bytes} bytes for shape {shape} of {dtype.name} as {key}", f"{len(content) - start}", _CUT)
    elements = np.frombuffer(content, dtype, math.prod(shape), start) if n_bytes else np.empty(0, dtype)
    if dtype.kind == "b" and n_bytes and elements.view(np.uint8).max() > 1:
        source.refuse(f"0 or 1 as each bool of {key}", "another byte", _CUT)
    return owned(elements.reshape(shape, order="F" if is_fortran else "C"), dtype.name)


def _header(source: Source, key: str, text: str) -> tuple[str, bool, tuple[int, ...]]:
    """Return type, whether the first axis is the fastest, and shape."""
    found: dict[str, str] = {}
    position = 1
    while part := _FIELD.match(text, position):
        found[part[1]] = part[2]
        position = part.end()
    kind, order, shape = (found.get(name, "") for name in ("descr", "fortran_order", "shape"))
    is_whole = text[:1] == "{" and text[position:].strip() == "}"
    if not is_whole or order not in ("True", "False") or shape[:1] != "(" or kind[:1] != "'":
        source.refuse(
            f"descr, fortran_order and shape of plain numbers in the header of {key}",
            quoted(text),
            "save plain arrays with numpy.savez",
        )
    kind = kind[1:-1]
    if kind[1:2] == "O":
        source.refuse(f"numbers as {key}", "pickled objects", "save arrays of numbers; nothing pickled is read")
    if kind[1:] not in _KINDS or kind[0] not in "<>|=":
        source.refuse(f"{SUPPORTED} for {key}", quoted(kind), "convert it with .astype(...) and save again")
    sizes = [size.strip().rstrip("L") for size in shape[1:-1].split(",") if size.strip()]
    if not all(size.isdecimal() and len(size) < 20 for size in sizes):
        source.refuse(f"whole numbers as sizes of {key}", quoted(shape), _CUT)
    return kind, order == "True", tuple(map(int, sizes))


def save(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors to an `.npz` file that NumPy reads; it appears whole or not at all.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        Any layout; stored in logical order, uncompressed.
    path : str or path
        A file already there is replaced.

    Raises
    ------
    DTypeError
        A bfloat16 tensor: NumPy has no such type.
    ValueError
        A key that is empty, or that would lead out of the folder where the archive is unpacked.
    OSError
        A folder that is missing or cannot be written, a full disk.
    """
    for key, tensor in tensors.items():
        if not is_plain_name(key):
            raise ValueError(
                f"npz file: expected keys that are names inside an archive, got {quoted(key)}; rename it, or save .safetensors"
            )
        if tensor.dtype == _core.DType.bfloat16:
            raise _core.DTypeError(
                f"npz file: expected dtypes that NumPy has, got bfloat16 for key {quoted(key)}; "
                "save .safetensors, or convert with .to(float32)"
            )
    partial = f"{os.fspath(path)}.{secrets.token_hex(4)}.partial"
    try:
        with open(partial, "xb") as file:
            with zipfile.ZipFile(file, "w") as archive:
                for key, tensor in tensors.items():
                    # Of a copy: NumPy's view of a model's memory would forbid caches of what is made from it.
                    array = tensor.detach().clone().numpy()
                    with archive.open(zipfile.ZipInfo(f"{key}.npy"), "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, array, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(partial)
        raise
