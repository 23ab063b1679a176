"""Files of torch.save, read without torch: those that torch wrote, and those written by hand."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import striate
from fixtures.torch_files import Op, archive, call, emit, pickled, storage, stream, tensor, widened
from striate import Tensor
from striate.io import torch_weights
from striate.io.errors import FileError

FILES = Path(__file__).parents[1] / "fixtures" / "torch_weights"
DTYPES = ["float32", "float64", "float16", "bfloat16", "int8", "uint8", "int32", "int64", "bool"]
ORDERED = call("collections.OrderedDict")


def ramp(*shape: int, dtype: str = "float32") -> np.ndarray[Any, Any]:
    """As README.md beside the files says."""
    x = np.arange(np.prod(shape, dtype=int))
    if dtype == "bool":
        return (x % 2 == 0).reshape(shape)
    return (x / 4 - 1 if dtype.startswith("float") else x).astype(dtype).reshape(shape)


def values(x: Tensor) -> np.ndarray[Any, Any]:
    return (x.to(striate.float32) if x.dtype == striate.bfloat16 else x).numpy()


def read(tmp_path: Path, content: bytes) -> Any:
    (tmp_path / "file").write_bytes(content)
    return torch_weights.load(tmp_path / "file")


@pytest.mark.parametrize("file", ["zip.pt", "stream.pth"])
def test_files_of_torch_hold_what_was_saved(file: str) -> None:
    found = torch_weights.load(FILES / file)
    for dtype in DTYPES:
        x = found.pop(dtype)
        assert str(x.dtype) == dtype
        np.testing.assert_array_equal(
            values(x), ramp(2, 3, dtype=dtype.removeprefix("b") if "bfloat" in dtype else dtype)
        )
    kernel = ramp(2, 3, 4, 5)
    expected = {
        "kernel": kernel,
        "parameter": ramp(3),
        "transposed": kernel.transpose(3, 1, 0, 2),
        "channels_last": kernel,
        "slice": kernel[1:, ::2, 1:3],
        "same": kernel,
        "expanded": np.broadcast_to(ramp(3, 1), (3, 4)),
        "number": np.array(7),
        "empty": np.zeros((0, 3), np.float32),
    }
    assert list(found) == list(expected)
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key].numpy(), value)
        assert found[key].numpy().dtype == value.dtype
    assert found["same"] is found["kernel"]


def test_tensors_are_channels_last_in_memory_of_their_own() -> None:
    kernel = torch_weights.load(FILES / "zip.pt")["kernel"]._array
    assert kernel.is_channels_last
    assert not kernel.is_exposed


def test_checkpoint_comes_with_all_its_parts() -> None:
    found = torch_weights.load(FILES / "checkpoint.pt")
    assert list(found) == [
        "epoch",
        "model",
        "optimizer",
        "scheduler",
        "best",
        "size",
        "device",
        "dtype",
        "seed",
        "args",
    ]
    assert (found["epoch"], found["best"], found["size"]) == (3, 0.75, (1, 3))
    assert (found["device"], found["dtype"], found["seed"]) == ("cuda:0", "torch.float16", 2**63 + 1)
    assert found["args"] == {"lr": 0.1, "names": ["a", "b"], "nothing": None}
    assert found["scheduler"]["milestones"] == {3: 1, 5: 1}
    assert found["optimizer"]["param_groups"][0]["momentum"] == 0.9
    np.testing.assert_array_equal(found["optimizer"]["state"][0]["momentum_buffer"].numpy(), ramp(2, 3))


def test_state_dict_of_a_checkpoint_is_found() -> None:
    found = torch_weights.load_state_dict(FILES / "checkpoint.pt")
    assert list(found)[:3] == ["0.weight", "0.bias", "1.weight"]
    assert found["1.num_batches_tracked"].item() == 1
    assert list(torch_weights.load_state_dict(FILES / "checkpoint.pt", "model")) == list(found)


def test_entry_leads_further_down(tmp_path: Path) -> None:
    inner = {"w": tensor()}
    (tmp_path / "file").write_bytes(archive(pickled({"a": {"b": {"c": inner}, "c.d": inner}, "a.b": {"x": tensor()}})))
    for entry, key in (("a.b.c", "w"), ("a.c.d", "w"), ("a.b", "x")):
        assert list(torch_weights.load_state_dict(tmp_path / "file", entry)) == [key]


def test_only_the_entry_is_read(tmp_path: Path) -> None:
    short = tensor((9,), (1,), of=storage(n=9))
    (tmp_path / "file").write_bytes(archive(pickled({"model": {"w": tensor()}, "other": [short]})))
    assert list(torch_weights.load_state_dict(tmp_path / "file")) == ["w"]
    with pytest.raises(FileError, match="36 bytes in storage '0' of key 'other.0'.*got 24"):
        torch_weights.load(tmp_path / "file")


@pytest.mark.parametrize("version", [2, 4])
def test_both_families_of_opcodes_are_read(tmp_path: Path, version: int) -> None:
    if version == 2:
        pickle = pickled(tensor())
    else:  # texts with a byte of length, names from the stack, a memo without numbers

        def short(text: str) -> bytes:
            return b"\x8c" + bytes([len(text)]) + text.encode() + b"\x94"

        kind = short("torch") + short("FloatStorage") + b"\x93\x94"
        place = b"(" + short("storage") + kind + short("0") + short("cpu") + b"K\x06t\x94Q"
        function = short("torch._utils") + short("_rebuild_tensor_v2") + b"\x93\x94"
        hooks = short("collections") + short("OrderedDict") + b"\x93\x94)R\x94"
        body = function + b"(" + place + b"K\x00K\x02K\x03\x86\x94K\x03K\x01\x86\x94\x89" + hooks + b"t\x94R\x94."
        pickle = b"\x80\x04\x95" + struct.pack("<Q", len(body)) + body
    np.testing.assert_array_equal(read(tmp_path, archive(pickle)).numpy(), np.arange(6, dtype=np.float32).reshape(2, 3))


def test_texts_of_python_2_are_read(tmp_path: Path) -> None:
    items = [[Op(b"U\x01w"), tensor(function="_rebuild_tensor_v2")], [Op(b"T\x02\x00\x00\x00\xc3\xa9"), 1]]
    found = read(tmp_path, archive(pickled(call("collections.OrderedDict", items))))
    assert list(found) == ["w", "é"]
    assert found["w"].shape == (2, 3)


def test_sizes_of_64_bits_are_read(tmp_path: Path) -> None:
    assert read(tmp_path, widened(archive(pickled(tensor())))).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_checksums_may_be_switched_off(tmp_path: Path) -> None:
    content = archive(pickled(tensor()))
    for checksum in {content[i + 14 : i + 18] for i in range(len(content)) if content[i : i + 4] == b"PK\x03\x04"}:
        content = content.replace(checksum, bytes(4))
    assert read(tmp_path, content).tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("kind", ["Float", "Double", "Half", "BFloat16", "Char", "Byte", "Int", "Long", "Bool"])
@pytest.mark.parametrize("order", ["little", "big"])
def test_byte_order_of_the_writer_is_kept(tmp_path: Path, kind: str, order: str) -> None:
    dtype = dict(
        zip(["Float", "Double", "Half", "BFloat16", "Char", "Byte", "Int", "Long", "Bool"], DTYPES, strict=True)
    )[kind]
    x = ramp(2, 3, dtype="float32" if dtype == "bfloat16" else dtype)
    stored = (x.view(np.uint32) >> 16).astype(np.uint16) if dtype == "bfloat16" else x
    raw = stored.astype(stored.dtype.newbyteorder(">" if order == "big" else "<")).tobytes()
    pickle = pickled(tensor(of=storage(kind=f"torch.{kind}Storage")))
    found = read(tmp_path, archive(pickle, {"0": raw}, byteorder=order.encode()))
    assert str(found.dtype) == dtype
    np.testing.assert_array_equal(values(found), x)


def test_storages_of_a_stream_may_be_views(tmp_path: Path) -> None:
    pickle = pickled(tensor((2, 2), (2, 1), of=storage("0", 6, "torch.cuda.FloatStorage", "cuda:0", ("1", 1, 4))))
    content = stream(pickle)
    assert read(tmp_path, content).tolist() == [[1, 2], [3, 4]]
    outside = pickled(tensor((2, 2), (2, 1), of=storage("0", 6, "torch.FloatStorage", "cpu", ("1", 3, 4))))
    with pytest.raises(FileError, match="a storage as persistent id"):
        read(tmp_path, stream(outside))


def test_attributes_of_containers_are_ignored(tmp_path: Path) -> None:
    state = Op(ORDERED + b"(" + emit("w") + tensor() + b"u" + emit({"_metadata": ORDERED}) + b"b")
    assert list(read(tmp_path, archive(pickled(state)))) == ["w"]


def test_scalars_of_numpy_are_numbers(tmp_path: Path) -> None:
    for order, raw in (("<", struct.pack("<d", 0.5)), (">", struct.pack(">d", 0.5))):
        kind = Op(call("numpy.dtype", "f8", False, True) + emit((3, order, None, None, None, -1, -1, 0)) + b"b")
        for module in ("numpy.core", "numpy._core"):
            encoded = call("_codecs.encode", raw.decode("latin-1"), "latin1")
            assert read(tmp_path, archive(pickled(call(f"{module}.multiarray.scalar", kind, encoded)))) == 0.5
        assert read(tmp_path, archive(pickled([kind]))) == ["float64"]


def test_nan_and_infinity_are_values(tmp_path: Path) -> None:
    raw = struct.pack("<6f", float("nan"), float("inf"), -float("inf"), -0.0, 1e-40, 3)
    found = read(tmp_path, archive(pickled(tensor()), {"0": raw}))
    assert found.numpy().tobytes() == raw


@pytest.mark.parametrize("shape", [(0,), (2, 0), (2, 0, 4, 5), (0, 2, 3, 4, 5)])
def test_empty_tensors_keep_their_shape(tmp_path: Path, shape: tuple[int, ...]) -> None:
    strides = tuple(range(len(shape)))
    assert read(tmp_path, archive(pickled(tensor(shape, strides)))).shape == shape


def test_every_bfloat16_is_read_exactly(tmp_path: Path) -> None:
    bits = np.arange(65536, dtype=np.uint16)
    pickle = pickled(tensor((65536,), (1,), of=storage(n=65536, kind="torch.BFloat16Storage")))
    found = read(tmp_path, archive(pickle, {"0": bits.tobytes()}))
    np.testing.assert_array_equal(values(found), (bits.astype(np.uint32) << 16).view(np.float32))


@pytest.mark.needs_peers
@pytest.mark.parametrize("is_zip", [True, False])
def test_against_torch(tmp_path: Path, is_zip: bool) -> None:
    torch = pytest.importorskip("torch")
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    model = torchvision.models.mobilenet_v3_small(weights=None)
    base = torch.randn(4, 6, 8)
    views = {
        "strided": base[::2, 1:, ::3],
        "transposed": base.transpose(0, 2),
        "diagonal": torch.randn(5, 5).diagonal(),
        "unfolded": torch.arange(10).unfold(0, 4, 2),
        **{str(dtype)[6:]: torch.randn(7, 3).mul(50).to(dtype) for dtype in (getattr(torch, name) for name in DTYPES)},
    }
    saved = {"model": model.state_dict(), "views": views, "parameters": list(model.parameters())}
    torch.save(saved, tmp_path / "file", _use_new_zipfile_serialization=is_zip)
    found = torch_weights.load(tmp_path / "file")
    pairs = [(found["views"][key], x) for key, x in views.items()]
    pairs += [(found["model"][key], x) for key, x in model.state_dict().items()]
    pairs += list(zip(found["parameters"], model.parameters(), strict=True))
    assert list(found["model"]) == list(model.state_dict())
    for ours, theirs in pairs:
        assert str(ours.dtype) == str(theirs.dtype)[6:]
        np.testing.assert_array_equal(
            values(ours), (theirs.float() if theirs.dtype == torch.bfloat16 else theirs).detach().numpy()
        )
