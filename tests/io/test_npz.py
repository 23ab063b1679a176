"""NumPy's archives: what NumPy wrote, what NumPy reads, and files that are none."""

from __future__ import annotations

import io
import os
import re
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import striate
from striate.io import npz
from striate.io.errors import FileError

DTYPES = ["float32", "float64", "float16", "int8", "uint8", "int32", "int64", "bool"]
SHAPES = [(), (0,), (5,), (3, 4), (2, 0, 4, 5), (2, 3, 4, 5), (2, 1, 1, 3, 1, 2)]


def some(dtype: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 100, shape).astype(dtype)


def npy(header: str | bytes, data: bytes = b"", version: int = 1) -> bytes:
    raw = header.encode() if isinstance(header, str) else header
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(raw)) + raw + data


def plain(shape: str, data: bytes = bytes(8), descr: str = "'<f4'") -> bytes:
    return npy(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}", data)


def archive(content: bytes, member: str = "w.npy", method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as written:
        written.writestr(member, content)
    return file.getvalue()


def of_numpy(*arrays: Any, **named: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, *arrays, **named)
    return file.getvalue()


def edited(content: bytes, at: int, value: bytes) -> bytes:
    """The archive with bytes of its only entry in the directory changed."""
    at += content.index(b"PK\x01\x02")
    return content[:at] + value + content[at + len(value) :]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("is_deflated", [False, True])
def test_load_reads_numpy(tmp_path: Path, dtype: str, shape: tuple[int, ...], is_deflated: bool) -> None:
    x = some(dtype, shape)
    arrays = {"a.weight": x, "ключ": np.asarray(x, order="F"), "swapped": x.astype(x.dtype.newbyteorder(">"))}
    (np.savez_compressed if is_deflated else np.savez)(tmp_path / "a.npz", **arrays)
    found = npz.load(tmp_path / "a.npz")
    assert list(found) == list(arrays)
    for value in found.values():
        assert str(value.dtype) == dtype
        assert value.shape == shape
        np.testing.assert_array_equal(value.numpy(), x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_save_is_read_by_numpy(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    x = some(dtype, shape)
    tensors = {"a.weight": striate.tensor(x), "ключ": striate.from_numpy(x.T).permute(*reversed(range(x.ndim)))}
    npz.save(tensors, tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as found:
        assert list(found) == list(tensors)
        for key in tensors:
            np.testing.assert_array_equal(found[key], x)
            assert found[key].dtype == x.dtype
    assert os.listdir(tmp_path) == ["a.npz"]


def test_save_leaves_the_memory_of_a_model_its_own(tmp_path: Path) -> None:
    x = striate.ones(3)
    npz.save({"x": x}, tmp_path / "a.npz")
    assert not x._array.is_exposed


def test_headers_of_others_are_read(tmp_path: Path) -> None:
    for header in (
        "{'shape': (2,), 'descr': '<f4', 'fortran_order': False}",
        "{'descr':'<f4','fortran_order':False,'shape':(2,)}\n",
        "{'descr': '<f4', 'fortran_order': True, 'shape': (1L, 2L), }          \n",
    ):
        for version in (1, 2, 3):
            (tmp_path / "a").write_bytes(archive(npy(header, struct.pack("<2f", 1, 2), version)))
            assert npz.load(tmp_path / "a")["w"].reshape(2).tolist() == [1, 2]


DEFLATED = archive(plain("(2,)"), method=zipfile.ZIP_DEFLATED)
BAD: dict[str, tuple[bytes, str]] = {
    "empty file": (b"", "a file with content.*got an empty one"),
    "text": (b"hello", "the end of a zip archive"),
    "other members": (archive(b"x", "w.txt"), r"members that end with .npy.*'w.txt'"),
    "no array": (archive(b"hello, world"), "a .npy file of version 1 to 3 as key 'w'.*b'hello, w'"),
    "empty array": (archive(b""), "a .npy file of version 1 to 3"),
    "cut magic": (archive(b"\x93NUMPY\x01\x00"), "a .npy file of version 1 to 3"),
    "version 4": (archive(npy("{}", version=4)), "a .npy file of version 1 to 3"),
    "objects": (
        of_numpy(w=np.array([{"a": 1}], object)),
        "numbers as key 'w'.*pickled objects.*nothing pickled is read",
    ),
    "texts": (of_numpy(w=np.array(["a"])), "float32, .* for key 'w'.*'<U1'"),
    "uint16": (of_numpy(w=np.zeros(2, np.uint16)), "for key 'w'.*'<u2'; convert it with .astype"),
    "complex": (of_numpy(w=np.zeros(2, np.complex64)), "for key 'w'.*'<c8'"),
    "dates": (of_numpy(w=np.zeros(2, "M8[s]")), "for key 'w'.*M8"),
    "named fields": (of_numpy(w=np.zeros(2, [("a", "f4")])), "plain numbers in the header of key 'w'"),
    "a call": (archive(plain("(2,)", descr="__import__('os').system('touch ran')")), "in the header of key 'w'"),
    "a comprehension": (archive(plain("tuple(2 for i in 'a')")), "in the header of key 'w'"),
    "nesting": (archive(plain("(" * 9000)), "in the header of key 'w'"),
    "negative size": (archive(plain("(-2,)")), "in the header of key 'w'"),
    "no size": (archive(plain("2")), "in the header of key 'w'"),
    "size of letters": (archive(plain("(2L2,)")), "whole numbers as sizes"),
    "endless size": (archive(plain("(" + "9" * 5000 + ",)")), "whole numbers as sizes"),
    "no shape": (archive(npy("{'descr': '<f4', 'fortran_order': False}")), "in the header of key 'w'"),
    "shape as type": (archive(npy("{'descr': (2,), 'fortran_order': False, 'shape': '<f4'}")), "in the header"),
    "text behind": (archive(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), } + 1")), "in the header"),
    "empty header": (archive(npy("")), "a .npy file|in the header of key 'w'"),
    "long header": (archive(npy("{" + " " * 20_000 + "}")), "a header inside the .* bytes of key 'w'.*one of 20002"),
    "header beyond": (archive(plain("(2,)")[:40]), "a header inside the 40 bytes of key 'w'"),
    "more elements": (archive(plain("(3,)")), r"12 bytes for shape \(3,\) of float32 as key 'w'.*got 8"),
    "fewer elements": (archive(plain("(1,)")), r"4 bytes for shape \(1,\) of float32 as key 'w'.*got 8"),
    "enormous": (archive(plain("(4611686018427387904,)")), r"at most 2\^62 bytes, for key 'w'"),
    "enormous empty": (archive(plain("(0, 4611686018427387904)", b"")), r"at most 2\^62 bytes, for key 'w'"),
    "wrapping product": (archive(plain("(4294967296, 4294967296, 4)")), r"at most 2\^62 bytes, for key 'w'"),
    "nine axes": (archive(plain("(1, 1, 1, 1, 1, 1, 1, 1, 2)")), "at most 8 axes for key 'w'"),
    "bool of 2": (archive(plain("(2,)", b"\x01\x02", "'|b1'")), "0 or 1 as each bool of key 'w'"),
    "zip bomb": (archive(bytes(1 << 27), method=zipfile.ZIP_DEFLATED), "64 MiB and 16 times the file.*for key 'w'"),
    "bomb that lies": (
        edited(archive(plain("(65536,)", bytes(1 << 26)), method=zipfile.ZIP_DEFLATED), 24, b"\x00\x00\x04\x00"),
        "262144 bytes as 'w.npy'.*got more",
    ),
    "size that lies": (
        edited(archive(plain("(2,)"), method=zipfile.ZIP_DEFLATED), 24, b"\xff"),
        "255 bytes as 'w.npy'.*got 7",
    ),
    "damaged stream": (DEFLATED[:35] + b"\x07" + DEFLATED[36:], "deflated bytes as 'w.npy'"),
    "checksum": (archive(plain("(2,)", b"abcdefgh")).replace(b"abcdefgh", b"abcdefgi"), "match their checksum"),
    "encrypted": (edited(archive(plain("(2,)")), 8, b"\x01"), "'w.npy' encrypted"),
    "leads out": (archive(plain("(2,)"), "../w.npy"), "names of members inside the archive"),
}


@pytest.mark.parametrize("case", BAD)
def test_refusal(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content, match = BAD[case]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(FileError) as caught:
            npz.load("file")
        assert tracemalloc.get_traced_memory()[1] < len(content) + (100 << 20)
    finally:
        tracemalloc.stop()
    assert re.search(f"^npz file: expected (?s:.*)({match})", str(caught.value)), str(caught.value)
    assert "in 'file', got" in str(caught.value)
    assert os.listdir(tmp_path) == ["file"], "a file ran code"


def test_every_cut_of_a_file_is_refused(tmp_path: Path) -> None:
    whole = of_numpy(w=np.ones((2, 3), np.float32), b=np.arange(3))
    for n in range(len(whole)):
        (tmp_path / "cut").write_bytes(whole[:n])
        with pytest.raises(FileError, match="npz file: expected"):
            npz.load(tmp_path / "cut")


@given(data=st.data(), is_deflated=st.booleans(), has_checksum=st.booleans())
def test_any_bytes_load_or_are_refused(
    data: st.DataObject, is_deflated: bool, has_checksum: bool, tmp_path_factory: Any
) -> None:
    path = tmp_path_factory.getbasetemp() / "mutant"
    content = bytearray(archive(plain("(2,)"), method=zipfile.ZIP_DEFLATED if is_deflated else zipfile.ZIP_STORED))
    if not has_checksum:
        at = content.index(b"PK\x01\x02") + 16
        content[at : at + 4] = bytes(4)
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        npz.load(path)
    except FileError as error:
        assert str(error).startswith("npz file: expected")  # noqa: PT017  # any other error, or a crash, is what is looked for


def test_refusals_of_save(tmp_path: Path) -> None:
    x = striate.ones(2)
    for key in ("", "/w", "../w", "a/../w", "a\\b", "a\0b"):
        with pytest.raises(ValueError, match="keys that are names inside an archive, got .*; rename it"):
            npz.save({key: x}, tmp_path / "a.npz")
    with pytest.raises(striate.DTypeError, match="dtypes that NumPy has, got bfloat16 for key 'w'; save .safetensors"):
        npz.save({"w": x.to(striate.bfloat16)}, tmp_path / "a.npz")
    with pytest.raises(FileNotFoundError):
        npz.save({"w": x}, tmp_path / "missing" / "a.npz")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(OSError, match="folder.npz"):
        npz.save({"w": x}, tmp_path / "folder.npz")
    assert os.listdir(tmp_path) == ["folder.npz"]
    with pytest.raises(FileNotFoundError):
        npz.load(tmp_path / "missing")
