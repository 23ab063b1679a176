"""The format, against the `safetensors` package; and files that break it."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

import striate
from striate import _core
from striate.io import safetensors as files
from striate.io.errors import FileError

DTYPES = ["float32", "float64", "float16", "int8", "uint8", "int32", "int64", "bool"]


def _some(dtype: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 2 if dtype == "bool" else 100, shape).astype(dtype)


def _raw(header: dict[str, Any] | str | bytes, data: bytes = b"") -> bytes:
    text = json.dumps(header) if isinstance(header, dict) else header
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw + data


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (5,), (3, 0, 2), (3, 4), (2, 3, 4, 5), (2, 3, 4, 5, 6)])
def test_save_is_read_by_the_reference(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    value = _some(dtype, shape)
    files.save(
        {"weight": striate.tensor(value), "other": striate.ones(2)}, tmp_path / "a.safetensors", {"k": 'v"\\\n é'}
    )
    read = safetensors.numpy.load_file(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(read["weight"], value)
    assert read["weight"].dtype == value.dtype
    with safetensors.safe_open(tmp_path / "a.safetensors", "numpy") as file:
        assert file.metadata() == {"k": 'v"\\\n é'}
    assert files.metadata(tmp_path / "a.safetensors") == {"k": 'v"\\\n é'}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (5,), (3, 4), (2, 3, 4, 5), (2, 0, 4, 5), (2, 1, 1, 3, 1, 2)])
def test_load_reads_the_reference(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    values = {"a.weight": _some(dtype, shape), "ключ": _some(dtype, shape, 1)}
    safetensors.numpy.save_file(values, tmp_path / "a.safetensors")
    read = files.load(tmp_path / "a.safetensors")
    assert set(read) == set(values)
    for key, value in values.items():
        assert str(read[key].dtype) == dtype
        np.testing.assert_array_equal(read[key].numpy(), value)


def test_load_stores_channels_last_in_memory_of_its_own(tmp_path: Path) -> None:
    files.save({"w": striate.tensor(_some("float32", (4, 3, 2, 2)))}, tmp_path / "a")
    array = files.load(tmp_path / "a")["w"]._array
    assert array.is_channels_last
    assert not array.is_exposed


def test_save_writes_logical_order_of_any_layout(tmp_path: Path) -> None:
    value = _some("float32", (2, 3, 4, 5))
    for order in [(0, 1, 2, 3), (0, 2, 3, 1), (3, 1, 0, 2)]:
        stored = np.ascontiguousarray(value.transpose(order)).transpose(np.argsort(order))
        files.save({"w": striate.from_numpy(stored)}, tmp_path / "a")
        np.testing.assert_array_equal(safetensors.numpy.load_file(tmp_path / "a")["w"], value)
    files.save({"w": striate.from_numpy(value[::2, 1:, ::3])}, tmp_path / "a")
    np.testing.assert_array_equal(safetensors.numpy.load_file(tmp_path / "a")["w"], value[::2, 1:, ::3])


def test_bfloat16_keeps_its_bits(tmp_path: Path) -> None:
    bits = np.arange(256, dtype=np.uint16).tobytes()
    raw = _raw({"w": {"dtype": "BF16", "shape": [4, 64], "data_offsets": [0, 512]}}, bits)
    (tmp_path / "a").write_bytes(raw)
    read = files.load(tmp_path / "a")
    assert read["w"].dtype == striate.bfloat16
    files.save(read, tmp_path / "b")
    assert (tmp_path / "b").read_bytes()[-512:] == bits


@pytest.mark.parametrize("dtype", [*DTYPES, "bfloat16"])
@pytest.mark.parametrize("shape", [(), (0,), (5,), (3, 4), (2, 3, 4, 5)])
def test_every_bit_agrees_with_the_reference_both_ways(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    # Of bytes, since NumPy has no bfloat16: random ones, so NaNs with payloads are among them.
    tag = {"float": "F", "bfloat": "BF", "int": "I", "uint": "U", "bool": "BOOL"}[dtype.rstrip("0123456789")]
    itemsize = getattr(striate, dtype).itemsize
    n_bytes = int(np.prod(shape, dtype=int)) * itemsize
    data = np.random.default_rng(1).integers(0, 2 if dtype == "bool" else 256, n_bytes).astype(np.uint8).tobytes()
    tag = tag if dtype == "bool" else f"{tag}{8 * itemsize}"
    (tmp_path / "a").write_bytes(_raw({"w": {"dtype": tag, "shape": shape, "data_offsets": [0, n_bytes]}}, data))
    read = files.load(tmp_path / "a")
    assert str(read["w"].dtype) == dtype
    files.save(read, tmp_path / "b")
    for path in (tmp_path / "a", tmp_path / "b"):
        ((key, found),) = safetensors.deserialize(path.read_bytes())
        assert (key, found["dtype"], tuple(found["shape"]), bytes(found["data"])) == ("w", tag, shape, data)


def test_save_is_a_function_of_its_arguments(tmp_path: Path) -> None:
    a, b = striate.ones(3), striate.zeros(2, dtype=striate.int64)
    files.save({"a": a, "b": b}, tmp_path / "1", {"x": "1", "y": "2"})
    files.save({"b": b, "a": a}, tmp_path / "2", {"y": "2", "x": "1"})
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_misaligned_data_is_read(tmp_path: Path) -> None:
    header = (
        '{"w":{"dtype":"F64","shape":[2],"data_offsets":[1,17]},"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
    )
    for spaces in range(8):
        (tmp_path / "a").write_bytes(_raw(header + " " * spaces, b"\x07" + struct.pack("<dd", 1.5, -2.5)))
        read = files.load(tmp_path / "a")
        assert read["w"].tolist() == [1.5, -2.5]
        assert read["b"].tolist() == [7]


_F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
_MALFORMED: dict[str, tuple[bytes, str]] = {
    "empty file": (b"", "8 bytes of header length at byte 0"),
    "cut length": (b"\x01\x02", "8 bytes of header length at byte 0"),
    "huge length": (struct.pack("<Q", 2**63) + b"{}", "header length of at most 2 at byte 0"),
    "length beyond the file": (struct.pack("<Q", 3) + b"{}", "header length of at most 2 at byte 0"),
    "length over the limit": (struct.pack("<Q", 100_000_001) + b"{" + b" " * 100_000_010, "at most 100000000"),
    "no header": (struct.pack("<Q", 0), "starts with '{' at byte 8"),
    "leading space": (_raw(b" {}"), "starts with '{' at byte 8"),
    "an array": (_raw(b"[]"), "starts with '{' at byte 8"),
    "cut header": (_raw(b'{"w":{"dtype":"F32"'), "',' or '}' at byte 27"),
    "cut string": (_raw(b'{"w'), "ends a string at byte 11"),
    "text after the header": (_raw(b"{}x"), "nothing but spaces .* at byte 10"),
    "trailing comma": (_raw(b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},}', bytes(8)), "a string at byte"),
    "deep nesting": (_raw(b'{"w":' * 100_000), "dtype, shape and data_offsets, each once at byte 14"),
    "deep arrays": (_raw(b'{"w":{"shape":' + b"[" * 100_000), "an integer of at least 0 at byte 23"),
    "duplicate key": (
        _raw(
            b'{"w":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"w":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'
        ),
        "every key once at byte 61 .*key 'w'",
    ),
    "duplicate escaped key": (
        _raw(b'{"w":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"\\u0077":{"dtype":"U8"}}'),
        "every key once at byte 61 .*key 'w'",
    ),
    "duplicate metadata": (_raw(b'{"__metadata__":{"a":"1","a":"2"}}'), "every key of the metadata once at byte 33"),
    "metadata of a number": (_raw(b'{"__metadata__":{"a":1}}'), "a string at byte 29 .*key '__metadata__'.* got '1'"),
    "unknown dtype": (_raw({"w": {**_F32, "dtype": "F99"}}, bytes(8)), "dtype of F32, .*key 'w'.* got 'F99'"),
    "dtype striate lacks": (_raw({"w": {**_F32, "dtype": "U64"}}, bytes(8)), "dtype of F32, .*key 'w'.* got 'U64'"),
    "unknown field": (_raw({"w": {**_F32, "more": 1}}, bytes(8)), "each once .*got 'more'"),
    "duplicate field": (_raw(b'{"w":{"shape":[1],"shape":[2]}}'), "each once at byte 26 .*got 'shape'"),
    "no offsets": (_raw({"w": {"dtype": "F32", "shape": [2]}}), "got no data_offsets"),
    "negative size": (_raw({"w": {**_F32, "shape": [-2]}}, bytes(8)), "an integer of at least 0 .*key 'w'.*got '-'"),
    "fractional size": (_raw({"w": {**_F32, "shape": [2.5]}}, bytes(8)), "',' or ']' .*got '.'"),
    "exponent": (_raw(b'{"w":{"shape":[1e9]}}'), "',' or ']' .*got 'e'"),
    "leading zero": (_raw(b'{"w":{"shape":[01]}}'), "an integer of at least 0 at byte 23"),
    "endless number": (_raw(b'{"w":{"shape":[' + b"9" * 4000 + b"]}}"), r"an integer below 2\^62 at byte 23"),
    "nine axes": (_raw({"w": {"dtype": "U8", "shape": [1] * 9, "data_offsets": [0, 1]}}, bytes(1)), "at most 8 axes"),
    "size overflow": (
        _raw({"w": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 0]}}),
        "data_offsets that hold shape .* of float32",
    ),
    "three offsets": (_raw({"w": {**_F32, "data_offsets": [0, 8, 8]}}, bytes(8)), "two data_offsets"),
    "one offset": (_raw({"w": {**_F32, "data_offsets": [0]}}, bytes(8)), "two data_offsets"),
    "falling offsets": (_raw({"w": {**_F32, "data_offsets": [8, 0]}}, bytes(8)), r"hold shape \(2,\) of float32"),
    "wrong size": (
        _raw({"w": {**_F32, "data_offsets": [0, 4]}}, bytes(4)),
        r"hold shape \(2,\) of float32.*got \[0, 4\]",
    ),
    "offsets beyond the file": (_raw({"w": _F32}, bytes(7)), r"fill the 7 bytes .*got offsets \[0, 8\].*key 'w'"),
    "gap at the start": (
        _raw({"w": {**_F32, "data_offsets": [4, 12]}}, bytes(12)),
        r"the next one at offset 0, got offsets \[4, 12\]",
    ),
    "gap between": (_raw({"a": _F32, "w": {**_F32, "data_offsets": [12, 20]}}, bytes(20)), "the next one at offset 8"),
    "overlap": (_raw({"a": _F32, "w": {**_F32, "data_offsets": [4, 12]}}, bytes(12)), "gap or overlap.* offset 8"),
    "same data twice": (_raw({"a": _F32, "w": _F32}, bytes(8)), "gap or overlap.* offset 8"),
    "data behind the last": (_raw({"w": _F32}, bytes(9)), "the data to end with the last tensor"),
    "bool of 2": (
        _raw({"w": {"dtype": "BOOL", "shape": [2], "data_offsets": [0, 2]}}, b"\x01\x02"),
        "0 or 1 at byte .*key 'w'.*got 2",
    ),
    "raw control character": (_raw(b'{"a\x01":{}}'), "may stand in a JSON string at byte 11.*byte value 1"),
    "bad escape": (_raw(b'{"\\x":{}}'), "an escape of JSON at byte 11"),
    "bad hex": (_raw(b'{"\\u00g0":{}}'), "four hexadecimal digits at byte 14"),
    "half a pair": (_raw(b'{"\\ud800":{}}'), "second half of a surrogate pair"),
    "second half alone": (_raw(b'{"\\udc00":{}}'), "a surrogate pair that is whole"),
    "overlong UTF-8": (_raw(b'{"\xc0\x80":{}}'), "UTF-8 at byte 10"),
    "cut UTF-8": (_raw(b'{"\xe2\x82'), "UTF-8 at byte 10"),
    "UTF-8 surrogate": (_raw(b'{"\xed\xa0\x80":{}}'), "UTF-8 at byte 10"),
    "NaN": (_raw(b'{"w":{"shape":[NaN]}}'), "an integer of at least 0 at byte 23"),
    "null": (_raw(b'{"w":null}'), "'{' at byte 13"),
}


@pytest.mark.parametrize("name", _MALFORMED)
def test_refusal_of_malformed_files(tmp_path: Path, name: str) -> None:
    raw, match = _MALFORMED[name]
    path = tmp_path / "bad.safetensors"
    path.write_bytes(raw)
    with pytest.raises(FileError, match=match) as error:
        files.load(path)
    assert "safetensors: expected" in str(error.value)
    assert str(path) in str(error.value)


def test_every_cut_of_a_file_is_refused(tmp_path: Path) -> None:
    files.save({"w": striate.ones(3), "é": striate.zeros(2, 2, dtype=striate.int64)}, tmp_path / "a", {"k": "\t"})
    whole = (tmp_path / "a").read_bytes()
    for n in range(len(whole)):
        (tmp_path / "b").write_bytes(whole[:n])
        with pytest.raises(FileError, match="safetensors: expected"):
            files.load(tmp_path / "b")


@given(st.data())
def test_damaged_bytes_never_crash(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    whole = bytearray(
        _raw(
            {"a": _F32, "b.c": {"dtype": "BOOL", "shape": [2, 1], "data_offsets": [8, 10]}, "__metadata__": {"k": "v"}},
            bytes(10),
        )
    )
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole)
    try:
        read = files.load(path)
    except FileError as error:
        assert "safetensors: expected" in str(error)  # noqa: PT017  # the text is what is tested, when it is refused at all
    else:
        assert sum(x.size * x.dtype.itemsize for x in read.values()) == 10


def test_refusal_of_what_the_system_refuses(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="cannot open"):
        files.load(tmp_path / "missing")
    with pytest.raises(IsADirectoryError, match="cannot read"):
        files.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="cannot open"):
        files.save({}, tmp_path / "missing" / "a")
    with pytest.raises(ValueError, match="key other than '__metadata__'"):
        files.save({"__metadata__": striate.ones(1)}, tmp_path / "a")
    assert os.listdir(tmp_path) == []


def test_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    files.save({"w": striate.ones(2)}, tmp_path / "a")
    (tmp_path / "d").mkdir()
    with pytest.raises(OSError, match="cannot rename"):
        files.save({"w": striate.zeros(2)}, tmp_path / "d")
    assert sorted(os.listdir(tmp_path)) == ["a", "d"]
    assert files.load(tmp_path / "a")["w"].tolist() == [1, 1]


def test_save_over_the_file_that_is_mapped(tmp_path: Path) -> None:
    files.save({"w": striate.ones(1000)}, tmp_path / "a")
    arrays, _ = _core.read_safetensors(str(tmp_path / "a"))
    files.save({"w": striate.zeros(3)}, tmp_path / "a")
    assert arrays["w"].numpy().sum() == 1000
    assert not arrays["w"].numpy().flags.writeable
