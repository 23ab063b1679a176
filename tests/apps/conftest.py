"""Commands, and files of models to give them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def command() -> Callable[..., Any]:
    """Return a function that runs a command in this process."""
    pytest.importorskip("typer")
    pytest.importorskip("matplotlib")
    from typer.testing import CliRunner

    from striate.apps.commands import app

    def run(*arguments: object, code: int = 0) -> Any:
        result = CliRunner().invoke(app, [str(a) for a in arguments])
        assert result.exit_code == code, (result.output, result.exception)
        return result

    return run


@pytest.fixture
def refusal(command: Callable[..., Any]) -> Callable[..., str]:
    """Return a function that runs a command which is refused: exit code 2, and the one line of it."""

    def run(*arguments: object) -> str:
        stderr: str = command(*arguments, code=2).stderr
        assert stderr.count("\n") == 1
        assert stderr.startswith("striate: ")
        return stderr

    return run


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of small models.

    fixed.onnx: a classifier of three classes for 12×12 images with an open batch; fixed.striate and weights.safetensors are of
    the same. open.onnx: a convolution for images of any size. bytes.onnx: pixels (N, H, W, C) as floats. unknown.onnx: an
    operator that nobody knows. pair.onnx: two inputs and two outputs. values.onnx: a result whose size depends on values.
    short.onnx: a result of 16-bit integers, which no tensor holds.
    """
    pytest.importorskip("onnx")
    from onnx import parser

    import striate
    import striate.onnx
    from striate import nn
    from striate.io import weights

    folder = tmp_path_factory.mktemp("models")
    striate.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 12 * 12, 3)
    ).eval()
    x = striate.rand(2, 3, 12, 12)
    names: dict[str, Any] = {"input_names": ["image"], "output_names": ["scores"]}
    striate.onnx.save(model, folder / "fixed.onnx", x, dynamic_axes={"image": {0: "batch"}}, **names)
    striate.compile(model, x).save(folder / "fixed.striate")
    weights.save(model.state_dict(), folder / "weights.safetensors")
    every = {"image": {0: "batch", 2: "height", 3: "width"}}
    convolution = nn.Conv2d(3, 2, 3)
    striate.onnx.save(convolution, folder / "open.onnx", x, dynamic_axes=every, input_names=["image"])
    head = '<ir_version: 8, opset_import: ["" : 17, "sky" : 1]>'
    for name, text in (
        ("bytes", "(uint8[n, 4, 6, 3] x) => (float[n, 4, 6, 3] y) { y = Cast<to = 1>(x) }"),
        (
            "pair",
            "(float[n, 2] a, float[n, 2] b) => (float[n, 2] sum, float[n] most) "
            "{ sum = Add(a, b) k = Constant<value = int64[1] {1}>() most = ReduceMax<axes = [1], keepdims = 0>(sum) }",
        ),
        ("unknown", "(float[n, 3] x) => (float[n, 3] y) { a = Relu(x) y = sky.Fly(a) }"),
        ("short", "(float[n] x) => (uint16[n] y) { y = Cast<to = 4>(x) }"),
        ("values", "(float[n] x) => (int64[1, k] y) { y = NonZero(x) }"),
    ):
        (folder / f"{name}.onnx").write_bytes(parser.parse_model(f"{head} g {text}").SerializeToString())
    np.save(folder / "image.npy", np.asarray(x.numpy()[0]))
    return folder
