"""`striate info FILE`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import striate
from striate.apps.describe import describe
from striate.apps.model_file import Sizes, kind_of

Command = Callable[..., Any]


def facts_of(text: str) -> dict[str, str]:
    return {line[:16].rstrip(): line[16:] for line in text.splitlines()}


def test_info_of_an_onnx_model(command: Command, files: Path) -> None:
    facts = facts_of(command("info", files / "fixed.onnx").stdout)
    assert facts["producer"] == f"striate {striate.__version__}"
    assert facts["opset"].startswith("ai.onnx 18 (IR version ")
    assert facts["input"] == "image: float32 batch×3×12×12"
    assert facts["output"] == "scores: float32 batch×3"
    assert facts["nodes"].startswith("5: 1 Conv, 1 BatchNormalization, 1 Relu")
    n_parameters = 4 * 27 + 4 + 8 + 3 * 576 + 3
    assert facts["parameters"] == f"{n_parameters:,}"
    macs = 4 * 27 * 144 + 3 * 576
    assert facts["multiply-adds"] == f"{macs / 1e3:.2f} k for 1×3×12×12"
    assert "Conv" in facts["differentiable"]
    assert facts["no gradient"] == "not yet: none"


def test_multiply_adds_follow_the_sizes_asked_for(command: Command, refusal: Command, files: Path) -> None:
    facts = facts_of(command("info", files / "open.onnx").stdout)
    assert facts["multiply-adds"] == "depend on sizes that the file leaves open; pass --size or --shape"
    for options in (["--size", "12x22"], ["--shape", "image=1x3x12x22"], ["--shape", "1x3x12x22"]):
        facts = facts_of(command("info", files / "open.onnx", *options).stdout)
        assert facts["multiply-adds"] == f"{54 * 200 / 1e3:.2f} k for 1×3×12×22"
    message = refusal("info", files / "fixed.onnx", "--size", 14)
    assert "expected sizes that fit image: float32 batch×3×12×12, got 1×3×14×14; the others are fixed" in message


def test_unsupported_operators_are_listed_and_exit_code_2(command: Command, files: Path) -> None:
    result = command("info", files / "unknown.onnx", code=2)
    assert facts_of(result.stdout)["unsupported"] == "Fly (domain 'sky', opset 1): 1 node: y"
    assert facts_of(result.stdout)["input"] == "x: float32 n×3"
    assert (
        "expected operators that striate supports, got 1 others: Fly (domain 'sky', opset 1); replace" in result.stderr
    )


def test_a_model_that_cannot_be_recorded_has_no_count(command: Command, files: Path) -> None:
    for options in ([], ["--shape", "x=3"]):
        facts = facts_of(command("info", files / "short.onnx", *options).stdout)
        assert "short.onnx: expected a model that compiles, got: node 'y' (Cast)" in facts["multiply-adds"]


def test_info_of_a_program(command: Command, files: Path) -> None:
    facts = facts_of(command("info", files / "fixed.striate").stdout)
    assert facts["file"].startswith("program of striate, ")
    assert facts["input"] == "input0: float32 ?×3×12×12"
    assert facts["output"] == "output0: float32 ?×3"
    assert facts["multiply-adds"].endswith("for 2×3×12×12")
    many = dict(describe(files / "fixed.striate", Sizes(batch=4)).facts)["multiply-adds"]
    assert many == f"{4 * (4 * 27 * 144 + 3 * 576) / 1e3:.2f} k for 4×3×12×12"


def test_info_of_weights(command: Command, refusal: Command, files: Path, tmp_path: Path) -> None:
    key = "layer." * 30 + "[weight]"
    np.savez(tmp_path / "w.npz", **{key: np.zeros((2, 3), np.float32), "b": np.int64(3)})
    lines = [line.split() for line in command("info", tmp_path / "w.npz").stdout.splitlines()]
    assert lines[1] == ["tensors", "2", "of", "7", "elements,", "32", "bytes"]
    assert lines[2:] == [["key", "shape", "dtype"], [key, "2×3", "float32"], ["b", "number", "int64"]]
    assert "num_batches_tracked" in command("info", files / "weights.safetensors").stdout
    assert "info: expected --entry for a file of torch only, got" in refusal(
        "info", files / "fixed.onnx", "--entry", "a"
    )


def test_kind_of_a_file_is_its_content(files: Path, tmp_path: Path) -> None:
    for name, kind in (("fixed.onnx", "onnx"), ("fixed.striate", "program"), ("weights.safetensors", "weights")):
        (tmp_path / "file").write_bytes((files / name).read_bytes())
        assert kind_of(tmp_path / "file") == kind
    np.savez(tmp_path / "file.npz", a=1)
    assert kind_of(tmp_path / "file.npz") == "weights"
    with pytest.raises(FileNotFoundError, match=r"model: expected a file, got .*missing, which does not exist; check"):
        kind_of(tmp_path / "missing")
    with pytest.raises(FileNotFoundError, match=r"got .*, which is no file; check the name"):
        kind_of(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--shape", "image=1x-3"],
            "--shape: expected sizes of at least 1 with x between them, got '1x-3'; write NAME=1x3",
        ),
        (["--shape", "image=0x3"], "--shape: expected sizes of at least 1"),
        (
            ["--shape", "picture=1x3x12x12"],
            "--shape: expected a name of 'image' before the =, got 'picture'; pass image=",
        ),
        (
            ["--size", "big"],
            "--size: expected sizes of at least 1 with x between them, got 'big'; write 224 or 224x320",
        ),
        (["--size", "1x2x3"], "--size: expected one or two numbers, got '1x2x3'; pass height and width, as 224x320"),
    ],
)
def test_info_refuses_sizes(refusal: Command, files: Path, options: list[object], message: str) -> None:
    assert message in refusal("info", files / "fixed.onnx", *options)


def test_batch_is_at_least_1() -> None:
    with pytest.raises(ValueError, match="--batch: expected a number of at least 1, got 0; pass how many"):
        Sizes.parsed(batch=0)


def test_missing_onnx_package_is_one_line(files: Path) -> None:
    code = "import sys; sys.modules['onnx'] = None; from striate.apps.cli import main; main()"
    for words in (["info"], ["run", "x.png"], ["convert", "x.striate"], ["bench"]):
        arguments = [words[0], str(files / "fixed.onnx"), *words[1:]]
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 2, done.stderr
        assert done.stderr == (
            "striate: onnx: expected the packages of the extra 'onnx', got no onnx; run pip install 'striate[app,onnx]'\n"
        )
    done = subprocess.run(
        [sys.executable, "-c", code, "info", str(files / "fixed.striate")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
