"""`striate run`: pictures and arrays through models in files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Image = pytest.importorskip("PIL.Image")

import striate  # noqa: E402
from striate.apps import infer  # noqa: E402
from striate.apps.infer import Preparation  # noqa: E402
from striate.apps.model_file import ModelFile, image_axes  # noqa: E402
from striate.io import npz  # noqa: E402
from striate.io.port import Port  # noqa: E402

Command = Callable[..., Any]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Write three coloured pictures of 12×12 and one of 8×10."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    paths = []
    for i, shape in enumerate([(12, 12, 3)] * 3 + [(8, 10, 3)]):
        paths.append(folder / f"{i}.png")
        Image.fromarray(rng.integers(0, 256, shape).astype(np.uint8)).save(paths[-1])
    return paths


def pixels(path: Path) -> Any:
    return np.asarray(Image.open(path)).astype(np.float32)


def test_best_classes_with_softmax(command: Command, files: Path, pictures: list[Path], tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("cat\ndog\nemu\n\n")
    result = command("run", files / "fixed.onnx", *pictures, "--labels", tmp_path / "labels.txt")
    lines = result.stdout.splitlines()
    assert len(lines) == 4
    x = np.stack([pixels(path) for path in pictures[:3]]).transpose(0, 3, 1, 2) / np.float32(255)
    scores = striate.onnx.load(files / "fixed.onnx")(x).detach().numpy().astype(np.float64)
    shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    for path, line, row in zip(pictures, lines, shares, strict=False):
        order = np.argsort(-row)
        told = [f"{('cat', 'dog', 'emu')[k]} {row[k]:.1%}" for k in order]
        assert line == f"{path}: {told[0]}  ({told[1]}, {told[2]})"


def test_a_program_answers_as_its_model(command: Command, files: Path, pictures: list[Path]) -> None:
    answers = [command("run", files / name, *pictures).stdout for name in ("fixed.onnx", "fixed.striate")]
    assert answers[0] == answers[1]
    assert answers[0].count("class ") == 4 * 3


def test_outputs_are_saved_in_order(command: Command, files: Path, pictures: list[Path], tmp_path: Path) -> None:
    result = command("run", files / "fixed.onnx", *pictures, "--output", tmp_path / "y.npz")
    assert result.stdout.endswith(f"wrote {tmp_path / 'y.npz'}\n")
    saved = npz.load(tmp_path / "y.npz")
    assert list(saved) == ["scores"]
    assert saved["scores"].shape == (4, 3)
    model = ModelFile(files / "fixed.onnx")
    for path, y in zip(pictures, saved["scores"].numpy(), strict=True):
        (found,) = infer.answer(model, [path])
        assert np.allclose(found.outputs[0][1][0], y, rtol=1e-5, atol=1e-6)


def test_pictures_keep_their_size_where_it_is_open(command: Command, files: Path, pictures: list[Path]) -> None:
    lines = command("run", files / "open.onnx", *pictures[2:]).stdout.splitlines()
    assert "output0: 1×2×10×10 float32, min " in lines[0]
    assert "output0: 1×2×6×8 float32, min " in lines[1]
    lines = command("run", files / "open.onnx", *pictures[2:], "--size", "5x6").stdout.splitlines()
    assert all("output0: 1×2×3×4 float32" in line for line in lines)


def test_outputs_of_several_shapes_are_saved_each(files: Path, pictures: list[Path], tmp_path: Path) -> None:
    found = list(infer.answer(ModelFile(files / "open.onnx"), pictures[2:]))
    infer.save(found, tmp_path / "y.safetensors")
    saved = striate.io.safetensors.load(tmp_path / "y.safetensors")
    assert {name: y.shape for name, y in saved.items()} == {"output0.0": (1, 2, 10, 10), "output0.1": (1, 2, 6, 8)}


def test_a_batch_is_run_at_once(files: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model = ModelFile(files / "fixed.onnx")
    sizes = []
    run = ModelFile.__call__

    def counted(self: ModelFile, arrays: Any) -> Any:
        sizes.append(arrays[0].shape[0])
        return run(self, arrays)

    monkeypatch.setattr(ModelFile, "__call__", counted)
    assert len(list(infer.answer(model, [*pictures, files / "missing.png", *pictures[:1] * 20]))) == 25
    assert sizes == [4, infer.MOST_SAMPLES, 4]


def test_preparation_of_pixels(files: Path, pictures: list[Path], tmp_path: Path) -> None:
    pixels_ = np.array([[[0, 127, 255]]], np.uint8)
    assert np.allclose(Preparation()(pixels_), [[[0, 127 / 255, 1]]], rtol=1e-6)
    prepared = Preparation.parsed(scale=1, mean="10,20,30", std="2")(pixels_)
    assert prepared.tolist() == [[[-5, 53.5, 112.5]]]
    assert Preparation.parsed(is_imagenet=True).mean == infer.IMAGENET_MEAN
    model = ModelFile(files / "open.onnx")
    (found,) = infer.answer(model, pictures[:1], Preparation.parsed(mean="0.5,0.4,0.3", std="0.2"))
    x = (pixels(pictures[0]) / 255 - np.float32([0.5, 0.4, 0.3])) / np.float32(0.2)
    ((_, y),) = model([np.ascontiguousarray(x.transpose(2, 0, 1))[None]])
    assert np.allclose(found.outputs[0][1], y, atol=1e-5)


def test_bytes_channels_last(
    command: Command, refusal: Command, files: Path, pictures: list[Path], tmp_path: Path
) -> None:
    command("run", files / "bytes.onnx", pictures[0], "--output", tmp_path / "y.npz")
    y = npz.load(tmp_path / "y.npz")["y"].numpy()
    assert y.shape == (1, 4, 6, 3)
    assert np.array_equal(y[0], striate.data.read_image(pictures[0], size=(4, 6)))
    message = refusal("run", files / "bytes.onnx", pictures[0], "--imagenet")
    assert "expected no --scale, --mean, --std or --imagenet for a model that takes bytes, got some" in message


def test_where_the_axes_of_images_are() -> None:
    def axes(*shape: int | str | None, dtype: str = "float32") -> str | None:
        found = image_axes(Port("x", dtype, shape))
        return None if found is None else {1: "NCHW", 3: "NHWC"}[found.channel]

    assert axes(1, 3, None, None) == axes("n", 1, 28, 28) == axes(None, None, None, None) == "NCHW"
    assert axes(1, 224, 224, 3) == axes(None, None, None, 1) == axes(1, 8, 8, 3, dtype="uint8") == "NHWC"
    assert axes(1, 3, 224, 3) == "NCHW"
    assert axes(1, 64, 7, 7) is axes(1, 3, 8) is axes(1, 3, 8, 8, dtype="int64") is None
    assert image_axes(Port("x", "float32", None)) is None


def test_one_bad_picture_does_not_cost_the_others(
    command: Command, files: Path, pictures: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_text("text")
    arguments = [tmp_path / "bad.png", pictures[0], tmp_path / "no.png", pictures[1]]
    result = command("run", files / "fixed.onnx", *arguments, code=2)
    assert [line.partition(":")[0] for line in result.stdout.splitlines()] == [str(p) for p in pictures[:2]]
    assert [line.split(",")[0] for line in result.stderr.splitlines()] == [
        "striate: read_image: expected a readable image",
        "striate: read_image: expected an image file",
    ]


def test_what_a_model_refuses_names_the_picture(
    refusal: Command, files: Path, pictures: list[Path], tmp_path: Path
) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "small.png")
    message = refusal("run", files / "open.onnx", tmp_path / "small.png")
    assert message.startswith(f"striate: {tmp_path / 'small.png'}: ")
    assert message.endswith("; pass --size if the model needs certain sizes\n")


def test_arrays_instead_of_pictures(command: Command, refusal: Command, files: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    line = command("run", files / "fixed.onnx", files / "image.npy").stdout
    assert line.startswith(f"{files / 'image.npy'}: class ")
    np.save(tmp_path / "two.npy", rng.random((2, 3, 12, 12)))
    lines = command("run", files / "fixed.onnx", tmp_path / "two.npy").stdout.splitlines()
    assert [line.removeprefix(f"{tmp_path / 'two.npy'}: ")[:9] for line in lines] == ["[0] class", "[1] class"]
    a, b = rng.random((3, 2)), rng.random((3, 2)).astype(np.float32)
    np.savez(tmp_path / "pair.npz", b=b, a=a)
    command("run", files / "pair.onnx", tmp_path / "pair.npz", "--output", tmp_path / "y.npz")
    saved = npz.load(tmp_path / "y.npz")
    assert np.allclose(saved["sum"].numpy(), a + b)
    assert saved["most"].shape == (3,)
    np.savez(tmp_path / "other.npz", a=a)
    message = refusal("run", files / "pair.onnx", tmp_path / "other.npz")
    assert "other.npz: expected an array for each input, a, b, got a; name them in a .npz file" in message
    np.save(tmp_path / "shape.npy", rng.random((1, 3, 10, 12)))
    assert "expected sizes that fit image: float32 batch×3×12×12" in refusal(
        "run", files / "fixed.onnx", tmp_path / "shape.npy"
    )
    np.save(tmp_path / "floats.npy", rng.random((1, 4, 6, 3)))
    message = refusal("run", files / "bytes.onnx", tmp_path / "floats.npy")
    assert "expected numbers that are uint8 for x: uint8 n×4×6×3, got float64; convert them" in message
    (tmp_path / "cut.npy").write_bytes((files / "image.npy").read_bytes()[:200])
    assert "cut.npy: expected an array of numpy.save, got: " in refusal(
        "run", files / "fixed.onnx", tmp_path / "cut.npy"
    )


def test_a_model_that_cannot_be_recorded_runs_operator_by_operator(files: Path) -> None:
    model = ModelFile(files / "short.onnx")
    ((name, y),) = model([np.float32([0, 2, 3])])
    assert (name, y.tolist(), y.dtype) == ("y", [0, 2, 3], np.uint16)
    assert model.reason is not None
    assert "(Cast)" in model.reason


def test_a_model_with_host_nodes_runs_as_a_program(files: Path) -> None:
    model = ModelFile(files / "values.onnx")
    for x, wanted in ([0, 2, 3], [[1, 2]]), ([1, 0, 0], [[0]]):
        ((name, y),) = model([np.float32(x)])
        assert (name, y.tolist()) == ("y", wanted)
    assert model.reason is None


def test_probabilities_are_taken_as_they_are() -> None:
    given = np.float32([[0.25, 0.75], [1, 0]])
    assert np.array_equal(infer.probabilities(given), given)
    assert np.allclose(infer.probabilities(np.float32([[[[0]], [[np.log(3)]]]])), [[0.25, 0.75]])
    for other in (np.zeros((2, 1)), np.zeros((1, 2, 3)), np.zeros((1, 5), np.int64), np.zeros(4), [given]):
        assert infer.probabilities(other) is None


def test_run_refuses(refusal: Command, files: Path, pictures: list[Path], tmp_path: Path) -> None:
    model, picture = files / "fixed.onnx", pictures[0]
    (tmp_path / "labels.txt").write_text("one\ntwo\n")
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\xff")
    for arguments, message in (
        (
            (model, picture, "--labels", tmp_path / "labels.txt"),
            "--labels: expected 3 names, one for each class of output",
        ),
        ((model, picture, "--labels", tmp_path / "empty.txt"), "--labels: expected one name a line in"),
        ((model, picture, "--labels", tmp_path / "binary.txt"), "--labels: expected a text file, got"),
        (
            (model, picture, "--output", "y.txt"),
            "--output: expected a name that ends with .npz or .safetensors, got y.txt",
        ),
        ((model, picture, "--mean", "a"), "--mean: expected numbers with commas between, got 'a'; write 0.5 or"),
        (
            (model, picture, "--mean", "1,2"),
            "--mean: expected one number or 3, one for each channel, got 2; write them",
        ),
        ((model, picture, "--std", "0"), "run: expected finite numbers, and none of std 0, got scale="),
        (
            (model, picture, "--imagenet", "--std", "2"),
            "--imagenet: expected it without --scale, --mean and --std, got both",
        ),
        ((model, picture, "--size", "20"), "expected sizes that fit image: float32 batch×3×12×12, got 1×3×20×20"),
        ((files / "pair.onnx", picture), "expected a model with one input, of images of 1 or 3 channels, for"),
        ((files / "weights.safetensors", picture), "expected an ONNX model or a program file, got weights alone; load"),
        ((files / "unknown.onnx", picture), "expected operators that striate supports, got 1 others: Fly"),
    ):
        assert message in refusal("run", *arguments)
