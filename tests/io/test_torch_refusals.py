"""Files that are no checkpoints, damaged ones, and attacks: each is refused in words, runs nothing and takes little memory."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.bad_torch_files import BAD
from fixtures.torch_files import archive, call, emit, name, pickled, storage, tensor
from striate.io import torch_weights
from striate.io.errors import FileError

FILES = Path(__file__).parents[1] / "fixtures" / "torch_weights"
# Reads all of them in a process whose memory may grow by 500 MB, the mapped file among it.
READER = r"""
import json, os, re, resource, sys, time
from striate.io import torch_weights
size = re.search(r"VmSize:\s*(\d+)", open("/proc/self/status").read()) if os.path.exists("/proc/self/status") else None
if size:
    resource.setrlimit(resource.RLIMIT_AS, ((int(size[1]) << 10) + 500_000_000, -1))
found = []
for i in range(int(sys.argv[1])):
    start = time.process_time()
    try:
        torch_weights.load(str(i))
        found.append(["nothing", "", 0])
    except BaseException as error:
        found.append([type(error).__name__, str(error), time.process_time() - start])
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("bad")
    for i, (content, _) in enumerate(BAD.values()):
        (folder / f"{i}").write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-c", READER, str(len(BAD))],
        cwd=folder,
        env=os.environ | {"STRIATE_NUM_THREADS": "1"},  # the stacks of threads would count
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert len(os.listdir(folder)) == len(BAD), "a file ran code"
    return dict(zip(BAD, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("case", BAD)
def test_refusal(case: str, refusals: dict[str, Any]) -> None:
    kind, text, seconds = refusals[case]
    assert kind == "FileError", text
    assert re.search(f"^torch file: expected (?s:.*){BAD[case][1]}(?s:.*)", text), text
    assert re.search(r" in '\d+', got .+; .", text)
    assert len(text) < 1500
    assert seconds < 5


def test_refusal_of_a_model() -> None:
    with pytest.raises(
        FileError, match="'torch.nn.modules.linear.Linear', which was not called; save model.state_dict"
    ):
        torch_weights.load(FILES / "model.pt")


@pytest.mark.parametrize(
    ("entry", "what"),
    [
        ("int16", "int16"),
        ("uint16", "torch.uint16"),
        ("complex64", "complex64"),
        ("float8", "torch.float8_e4m3fn"),
        ("quantised", "a quantised tensor"),
        ("sparse", "a sparse tensor"),
        ("meta", "a tensor without values"),
        ("conjugate", "a tensor that is to be negated or conjugated"),
    ],
)
def test_refusal_of_tensors_that_striate_lacks(entry: str, what: str) -> None:
    with pytest.raises(FileError, match=f"float32, .* or bool for key 'w'.*got {what}.*; convert it with torch"):
        torch_weights.load_state_dict(FILES / "refused.pt", entry)
    assert list(torch_weights.load_state_dict(FILES / "refused.pt", "tagged")) == ["w"]


@pytest.mark.parametrize(
    ("value", "entry", "match"),
    [
        ({"a": {"w": tensor()}, "b": {"w": tensor()}}, None, "one state_dict.*2: 'a', 'b'; choose one with entry"),
        ({"a": {"w": 1}}, None, r"texts as keys and tensors as values.*a dict of 1: 'a' \(a dict\)"),
        ({"w": tensor(), "epoch": 3}, None, r"a dict of 2: 'w' \(a tensor\), 'epoch' \(a int\)"),
        ([tensor()], None, "tensors as values.*a list; choose a part"),
        ([], None, "an empty list"),
        ({"a": {"w": tensor()}}, "b", r"an entry 'b'.*a dict of 1: 'a' \(a dict\); choose one of the keys"),
        ({"a": {"w": tensor()}}, "a.b.c", r"an entry 'a.b.c'.*'w' \(a tensor\)"),
        ({"a": {"w": tensor()}}, "a.w", "tensors as values.*a tensor"),
        ({"a": {}}, "a.w", "an entry 'a.w'.*an empty dict"),
    ],
)
def test_refusal_of_files_without_a_state_dict(value: Any, entry: str | None, match: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(archive(pickled(value)))
    with pytest.raises(FileError, match=match):
        torch_weights.load_state_dict(tmp_path / "file", entry)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        torch_weights.load(tmp_path / "missing")
    with pytest.raises(IsADirectoryError):
        torch_weights.load(tmp_path)


@pytest.mark.parametrize("file", ["zip.pt", "stream.pth", "checkpoint.pt"])
def test_every_cut_of_a_file_is_refused(file: str, tmp_path: Path) -> None:
    whole = (FILES / file).read_bytes()
    for n in range(0, len(whole), 7):
        (tmp_path / "cut").write_bytes(whole[:n])
        with pytest.raises(FileError, match="torch file: expected"):
            torch_weights.load(tmp_path / "cut")


@given(data=st.data(), file=st.sampled_from(["zip.pt", "stream.pth", "checkpoint.pt", "refused.pt"]))
def test_any_bytes_load_or_are_refused(data: st.DataObject, file: str, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "mutant"
    mutant = bytearray((FILES / file).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        mutant[data.draw(st.integers(0, len(mutant) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(mutant)
    load_or_refuse(path)


@given(data=st.data())
def test_any_pickle_loads_or_is_refused(data: st.DataObject, tmp_path_factory: Any) -> None:
    # Without checksums, so that the damage is found by nothing else.
    path = tmp_path_factory.getbasetemp() / "mutant"
    parts = [
        b"(",
        b"t",
        b"R",
        b"b",
        b"Q",
        b"q\x00",
        b"h\x00",
        b"u",
        b"]",
        b"}",
        b"a",
        b"e",
        b"s",
        b"N",
        b".",
        b"\x85",
        b"\x86",
    ]
    parts += [
        emit(tensor()),
        emit(storage()),
        call("collections.OrderedDict"),
        emit(2**62),
        emit("w"),
        name("torch.Size"),
    ]
    drawn = data.draw(st.lists(st.sampled_from(parts) | st.binary(max_size=3), max_size=20))
    whole = emit({"w": tensor(), "a": [tensor((6,), (1,)), (1, "b", 0.5)]})
    at = data.draw(st.integers(0, len(whole)))
    path.write_bytes(
        archive(b"\x80\x02" + whole[:at] + b"".join(drawn) + whole[at + data.draw(st.integers(0, 9)) :] + b".")
    )
    load_or_refuse(path)


def load_or_refuse(path: Path) -> None:
    try:
        torch_weights.load(path)
    except FileError as error:
        assert str(error).startswith("torch file: expected")  # noqa: PT017  # any other error, or a crash, is what is looked for
