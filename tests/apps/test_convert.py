"""`striate convert`: every pair of formats, and those between which there is no way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

import striate  # noqa: E402
import striate.onnx  # noqa: E402
from striate.apps.convert import PAIRS, TARGETS, convert  # noqa: E402
from striate.apps.model_file import ModelFile, Sizes  # noqa: E402
from striate.io import weights  # noqa: E402

Command = Callable[..., Any]


def answers(path: Path, *arrays: Any) -> list[Any]:
    return [y for _, y in ModelFile(path)(arrays)]


def images(n: int, height: int = 12, width: int = 12) -> Any:
    return np.random.default_rng(0).random((n, 3, height, width)).astype(np.float32)


def assert_same(a: Path, b: Path, *arrays: Any) -> None:
    for mine, theirs in zip(answers(a, *arrays), answers(b, *arrays), strict=True):
        assert np.allclose(mine, theirs, rtol=1e-4, atol=1e-5)


def operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def test_onnx_becomes_a_program_for_any_batch(command: Command, files: Path, tmp_path: Path) -> None:
    target = tmp_path / "p.striate"
    result = command("convert", files / "fixed.onnx", target)
    n_nodes = len(striate.load_program(target).graph.nodes)
    assert result.stdout == f"wrote {target}: a program of {n_nodes} nodes\n"
    for n in (1, 2, 5):
        assert_same(files / "fixed.onnx", target, images(n))


def test_a_program_becomes_onnx(command: Command, files: Path, tmp_path: Path) -> None:
    target = tmp_path / "m.onnx"
    assert command("convert", files / "fixed.striate", target).stdout == f"wrote {target}: an ONNX model of opset 18\n"
    assert [str(port) for port in ModelFile(target).inputs] == ["input0: float32 batch×3×12×12"]
    for n in (1, 5):
        assert_same(files / "fixed.striate", target, images(n))


def test_onnx_is_folded(command: Command, files: Path, tmp_path: Path) -> None:
    assert "BatchNormalization" in operators(files / "fixed.onnx")
    command("convert", files / "fixed.onnx", tmp_path / "folded.onnx", "--fold")
    assert "BatchNormalization" not in operators(tmp_path / "folded.onnx")
    model = ModelFile(tmp_path / "folded.onnx")
    assert [str(port) for port in (*model.inputs, *model.outputs)] == [
        "image: float32 batch×3×12×12",
        "scores: float32 batch×3",
    ]
    assert_same(files / "fixed.onnx", tmp_path / "folded.onnx", images(3))


def test_onnx_of_another_opset(command: Command, refusal: Command, files: Path, tmp_path: Path) -> None:
    command("convert", files / "fixed.onnx", tmp_path / "m.onnx", "--opset", 20)
    assert onnx.load(tmp_path / "m.onnx").opset_import[0].version == 20
    command("convert", tmp_path / "m.onnx", tmp_path / "same.onnx")
    assert onnx.load(tmp_path / "same.onnx").opset_import[0].version == 20
    command("convert", files / "pair.onnx", tmp_path / "pair.onnx")
    assert onnx.load(tmp_path / "pair.onnx").opset_import[0].version == 18
    a, b = np.random.default_rng(0).random((2, 4, 2)).astype(np.float32)
    assert_same(files / "pair.onnx", tmp_path / "pair.onnx", a, b)
    message = refusal("convert", files / "fixed.onnx", tmp_path / "old.onnx", "--opset", 9)
    assert "expected opset_version from 18 to" in message
    assert not (tmp_path / "old.onnx").exists()


@pytest.mark.parametrize(
    ("which", "shape"),
    [(None, ("batch", 3, "height", "width")), ("batch", ("batch", 3, 9, 7)), ("none", (1, 3, 9, 7))],
)
def test_open_sizes_stay_or_are_fixed(files: Path, tmp_path: Path, which: str | None, shape: tuple[Any, ...]) -> None:
    target = tmp_path / "m.onnx"
    convert(files / "open.onnx", target, Sizes(size=(9, 7)), open_axes=which)
    assert ModelFile(target).inputs[0].shape == shape
    assert_same(files / "open.onnx", target, images(1, 9, 7))
    if which is None:
        assert_same(files / "open.onnx", target, images(4, 10, 8))


def test_sizes_that_the_model_fixes_are_refused(files: Path, tmp_path: Path) -> None:
    model = striate.nn.Sequential(striate.nn.Flatten(), striate.nn.Linear(12, 2))
    proto = striate.onnx.to_model(model, striate.zeros(2, 3, 2, 2), input_names=["x"])
    for axis, name in ((0, "n"), (2, "h"), (3, "w")):
        proto.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    sizes = Sizes(size=(2, 2))
    with pytest.raises(
        ValueError, match="convert: expected open sizes that the model does not fix, got: .*; pass --open batch"
    ):
        convert(tmp_path / "m.onnx", tmp_path / "t.onnx", sizes)
    convert(tmp_path / "m.onnx", tmp_path / "t.onnx", sizes, open_axes="batch")
    assert ModelFile(tmp_path / "t.onnx").inputs[0].shape == ("n", 3, 2, 2)


def test_weights_between_formats(command: Command, files: Path, tmp_path: Path) -> None:
    command("convert", files / "weights.safetensors", tmp_path / "w.npz")
    result = command("convert", tmp_path / "w.npz", tmp_path / "w.safetensors")
    wanted = weights.load(files / "weights.safetensors")
    assert result.stdout == f"wrote {tmp_path / 'w.safetensors'}: {len(wanted)} tensors\n"
    assert (tmp_path / "w.safetensors").read_bytes() == (files / "weights.safetensors").read_bytes()
    command("convert", files / "fixed.onnx", tmp_path / "of_onnx.npz")
    found = weights.load(tmp_path / "of_onnx.npz")
    assert np.array_equal(found["0.weight"].numpy(), wanted["0.weight"].numpy())


def test_entry_of_a_checkpoint(command: Command, refusal: Command, tmp_path: Path) -> None:
    source = Path(__file__).parents[1] / "fixtures" / "torch_weights" / "checkpoint.pt"
    command("convert", source, tmp_path / "w.npz", "--entry", "model")
    assert list(weights.load(tmp_path / "w.npz")) == list(weights.load(source, entry="model"))
    refusal("convert", source, tmp_path / "w.npz", "--entry", "no such entry")
    assert "tensors" in command("info", source, "--entry", "model").stdout


def test_impossible_pairs_are_refused(refusal: Command, files: Path, tmp_path: Path) -> None:
    sources = {"onnx": "fixed.onnx", "program": "fixed.striate", "weights": "weights.safetensors"}
    for kind, name in sources.items():
        for ending, made in {**TARGETS, ".pt": "torch", "": "nothing"}.items():
            if made not in PAIRS[kind]:
                message = refusal("convert", files / name, tmp_path / f"t{ending}")
                possible = ", ".join(e for e, m in TARGETS.items() if m in PAIRS[kind])
                assert f"can become ({possible}), got t{ending}; a file's ending says" in message
    assert list(tmp_path.iterdir()) == []


def test_convert_refuses(refusal: Command, files: Path, tmp_path: Path) -> None:
    model = files / "fixed.onnx"
    (tmp_path / "link.onnx").symlink_to(model)
    for arguments, message in (
        ((model, model), "convert: expected two files, got"),
        ((model, tmp_path / "link.onnx", "--fold"), "twice; choose another name for the result"),
        (
            (model, tmp_path / "a.striate", "--fold", "--opset", 18),
            "from an ONNX model to a program file, got --fold, --opset;",
        ),
        (
            (files / "weights.safetensors", tmp_path / "a.npz", "--size", 3),
            "from weights to weights, got --shape; leave",
        ),
        ((model, tmp_path / "a.onnx", "--entry", "model"), "got --entry; leave them out"),
        (
            (model, tmp_path / "a.onnx", "--open", "some"),
            "--open: expected all, batch, none, got 'some'; choose one of",
        ),
        ((files / "short.onnx", tmp_path / "a.striate"), "short.onnx: expected a model that compiles, got: node 'y'"),
        ((files / "values.onnx", tmp_path / "a.striate"), "got host nodes that only Python has: NonZero 'y'"),
        (
            (files / "values.onnx", tmp_path / "a.onnx"),
            "values.onnx: expected a model that can be recorded, got: node 'y'",
        ),
        ((files / "open.onnx", tmp_path / "a.striate"), "expected a size for each open axis of image"),
        ((tmp_path / "no.onnx", tmp_path / "a.onnx"), "no.onnx, which does not exist"),
    ):
        assert message in refusal("convert", *arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["link.onnx"]
