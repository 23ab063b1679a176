"""The command line: the golden path, stopping and resuming, and every complaint in one line with exit code 2."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("typer")
pytest.importorskip("matplotlib")
Image = pytest.importorskip("PIL.Image")

from typer.testing import CliRunner, Result  # noqa: E402

import striate  # noqa: E402
from striate import models  # noqa: E402
from striate.apps import classify, cli  # noqa: E402
from striate.apps.commands import app  # noqa: E402
from striate.apps.run import RunFolder  # noqa: E402

PICTURES = ("curves.png", "confusion.png", "filters.png", "feature_maps.png")
FILES = {"model.safetensors", "config.json", "history.csv", "result.json", *PICTURES}


def run(*arguments: object) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(app, [str(a) for a in arguments])


def start(*arguments: object) -> subprocess.Popen[str]:
    """Start a command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "striate.apps.cli", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def assert_refused(result: Result, message: str) -> None:
    """Check for exit code 2, one line on stderr that holds a message, and no traceback."""
    assert result.exit_code == 2, (result.output, result.exception)
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("striate: ")
    assert message in result.stderr, result.stderr


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder of two classes that differ in colour: 24 noisy pictures each."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for name, colour in (("red", (200, 60, 60)), ("sea", (60, 60, 200))):
        (root / name).mkdir()
        for i in range(24):
            noisy = np.clip(rng.normal(colour, 40, (16, 16, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(root / name / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def trained(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train on the folder for three epochs."""
    out = tmp_path_factory.mktemp("runs") / "trained"
    result = run("train", pictures, "--epochs", 3, "--batch-size", 8, "--out", out)
    assert result.exit_code == 0, (result.output, result.exception)
    return out


def test_train_leaves_a_whole_run_folder(trained: Path, pictures: Path) -> None:
    assert {path.name for path in trained.iterdir()} >= FILES
    config = json.loads((trained / "config.json").read_text())
    assert config["classes"] == ["red", "sea"]
    assert config["image_shape"] == [16, 16, 3]
    assert (config["n_train"], config["n_val"], config["n_test"]) == (34, 4, 10)
    assert config["source"] == str(pictures)
    result = json.loads((trained / "result.json").read_text())
    assert result["n_test"] == 10
    assert 0 <= result["test_accuracy"] <= 1
    with (trained / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert all(0 <= float(row["val_accuracy"]) <= 1 for row in rows)
    for name in PICTURES:
        with Image.open(trained / name) as picture:
            assert picture.size > (300, 100)


def test_train_prints_plain_lines_when_piped(pictures: Path, tmp_path: Path) -> None:
    result = run("train", pictures, "--epochs", 2, "--model", "lenet", "--lr", 0.01, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    epochs = [line for line in result.stdout.splitlines() if line.startswith("epoch ")]
    assert len(epochs) == 2
    for name in ("loss", "accuracy", "val accuracy", "images/s"):
        assert all(name in line for line in epochs)
    assert "left" in epochs[0]
    assert "\x1b" not in result.stdout
    assert f"everything is in {tmp_path / 'run'}/" in result.stdout


def test_same_seed_same_weights(pictures: Path, tmp_path: Path) -> None:
    files = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        run("train", pictures, "--epochs", 1, "--seed", seed, "--out", tmp_path / name)
        files.append((tmp_path / name / "model.safetensors").read_bytes())
    assert files[0] == files[1] != files[2]


def test_predict_gives_the_best_classes(trained: Path, pictures: Path) -> None:
    result = run("predict", trained, pictures / "red" / "0.png", pictures / "sea" / "0.png")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"{pictures / 'red' / '0.png'}: ")
    assert "red" in lines[0]
    assert "sea" in lines[0]
    assert "%" in lines[0]


def test_predict_answers_for_the_good_files(trained: Path, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("text")
    result = run("predict", trained, tmp_path / "bad.png", pictures / "red" / "0.png", tmp_path / "no.png")
    assert result.exit_code == 2
    assert len(result.stdout.splitlines()) == 1
    assert [line.split(",")[0] for line in result.stderr.splitlines()] == [
        "striate: read_image: expected a readable image",
        "striate: read_image: expected an image file",
    ]


def test_evaluate_on_the_training_folder_uses_the_held_out_part(trained: Path, pictures: Path) -> None:
    result = run("evaluate", trained, pictures)
    assert result.exit_code == 0, result.output
    accuracy = json.loads((trained / "result.json").read_text())["test_accuracy"]
    assert f"accuracy {accuracy:.2%} on 10 images" in result.stdout
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["class", "images", "precision", "recall"]
    assert lines[1].split()[:2] == ["red", "5"]


def test_evaluate_on_another_folder(trained: Path, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "sea").symlink_to(pictures / "sea")
    result = run("evaluate", trained, tmp_path / "other")
    assert result.exit_code == 0, result.output
    assert "on 24 images" in result.stdout
    assert_refused(run("evaluate", trained, "embedded"), "expected data with the classes red, sea, got embedded")
    (tmp_path / "other" / "dog").symlink_to(pictures / "red")
    assert_refused(run("evaluate", trained, tmp_path / "other"), "named after the classes red, sea, got dog")


def test_info() -> None:
    result = run("info")
    assert result.exit_code == 0, result.output
    for name in ("version", "cpu", "isa", "threads", "build"):
        assert any(line.startswith(name) for line in result.stdout.splitlines())


def test_profile_shows_nodes_and_times(tmp_path: Path) -> None:
    assert run("profile", "lenet", "--plot", tmp_path / "lenet.png").exit_code == 0
    assert (tmp_path / "lenet.png").read_bytes().startswith(b"\x89PNG")
    assert_refused(run("profile", "lenet", "--plot", tmp_path / "lenet.bmp"), "expected a file that ends in")
    result = run("profile", "resnet20", "--batch", 2)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split()[:3] == ["node", "fused", "result"]
    assert sum(line.startswith("conv2d") for line in lines) >= 19
    assert "nodes" in lines[-1]
    assert "GFLOP/s" in lines[-1]
    assert_refused(run("profile", "resnet99"), "expected a program file or one of")
    assert_refused(run("profile", "densenet121", "--size", 1), "expected images of at least")


def test_profile_of_a_saved_program(tmp_path: Path) -> None:
    model = models.build("lenet", in_channels=1, image_size=(28, 28))
    file = tmp_path / "lenet.safetensors"
    striate.compile(model, striate.zeros(1, 1, 28, 28)).save(file)
    result = run("profile", file, "--size", 28)
    assert result.exit_code == 0, result.output
    assert "max_pool2d" in result.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--epochs", 0], "expected epochs ≥ 1, got 0"),
        (["--lr", -1], "expected a positive learning rate, got lr=-1"),
        (["--lr", "nan"], "expected a positive learning rate, got lr=nan"),
        (["--batch-size", 0], "expected batch_size ≥ 1, got 0"),
        (["--model", "alexnet"], "expected a model of lenet, plain-16"),
        (["--size", 0], "expected a positive height and width, got size=0"),
        (["--model", "lenet", "--size", 8], "expected images of at least 12×12 pixels"),
    ],
)
def test_train_refuses_bad_options(pictures: Path, tmp_path: Path, options: list[object], message: str) -> None:
    assert_refused(run("train", pictures, "--out", tmp_path / "run", *options), message)
    assert not (tmp_path / "run").exists()


def test_train_refuses_bad_data(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert_refused(run("train", tmp_path / "missing", "--out", out), "missing, which does not exist")
    (tmp_path / "data" / "cat").mkdir(parents=True)
    assert_refused(run("train", tmp_path / "data", "--out", out), "at least two classes")
    (tmp_path / "data" / "dog").mkdir()
    assert_refused(run("train", tmp_path / "data", "--out", out), "got none in 'cat', 'dog'")
    for name in ("cat", "dog"):
        Image.new("L", (8, 8)).save(tmp_path / "data" / name / "1.png")
    assert_refused(run("train", tmp_path / "data", "--out", out), "expected at least 2 images of class 'cat', got 1")
    (tmp_path / "data" / "dog" / "2.png").write_text("text")
    assert_refused(run("train", tmp_path / "data", "--out", out), "2.png")
    assert not out.exists()


def test_train_refuses_a_folder_in_use(trained: Path, pictures: Path) -> None:
    before = {path: path.read_bytes() for path in trained.iterdir() if path.is_file()}
    assert_refused(run("train", pictures, "--out", trained), "expected an empty or new folder for --out")
    assert_refused(run("train", "--resume", trained), "which has its result.json")
    assert {path: path.read_bytes() for path in trained.iterdir() if path.is_file()} == before


def test_train_refuses_resume_with_other_settings(trained: Path) -> None:
    result = run("train", "--resume", trained, "--epochs", 5, "--seed", 1)
    assert_refused(result, "expected --resume alone, because the run keeps its settings, got --epochs, --seed too")


def test_commands_refuse_what_is_no_run(trained: Path, pictures: Path, tmp_path: Path) -> None:
    for command in (
        ("train", "--resume", tmp_path),
        ("predict", tmp_path, "x.png"),
        ("evaluate", tmp_path, "embedded"),
    ):
        assert_refused(run(*command), "which has no config.json")
    (tmp_path / "config.json").write_text("{}")
    assert_refused(run("predict", tmp_path, "x.png"), "expected a config.json of this version")
    (tmp_path / "config.json").write_bytes((trained / "config.json").read_bytes())
    assert_refused(run("predict", tmp_path, "x.png"), "got no model.safetensors")
    (tmp_path / "model.safetensors").write_bytes((trained / "model.safetensors").read_bytes()[:-50])
    assert_refused(run("predict", tmp_path, "x.png"), "model.safetensors")


def test_a_loss_that_is_not_finite_stops_the_run(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = run("train", pictures, "--epochs", 40, "--lr", 1e30, "--model", "lenet", "--out", out)
    assert_refused(result, "expected a finite loss")
    assert "lower the learning rate" in result.stderr
    assert not (out / "result.json").exists()


def test_out_of_memory_is_one_line(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhaust(*_: object) -> None:
        raise MemoryError("allocate: expected 10 bytes of memory, got none")

    monkeypatch.setattr(classify, "train_task", exhaust)
    assert_refused(run("train", pictures, "--out", tmp_path / "run"), "allocate: expected 10 bytes")


def test_unknown_options_are_exit_code_2() -> None:
    assert run("train", "--colour", "red").exit_code == 2
    assert run("fly").exit_code == 2


def test_missing_extra_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("rich", "PIL") else name)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    assert capsys.readouterr().err == (
        "striate: expected the packages of the extra 'app', got no rich, pillow; run pip install 'striate[app]'\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL], ids=lambda s: s.name)
def test_a_stopped_run_resumes_to_the_same_weights(pictures: Path, tmp_path: Path, stop: signal.Signals) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    options = ("--epochs", 12, "--batch-size", 2)
    assert run("train", pictures, *options, "--out", whole).exit_code == 0
    process = start("train", pictures, *options, "--out", stopped)
    history = stopped / "history.csv"
    deadline = time.monotonic() + 60
    while not (history.exists() and history.read_text().count("\n") > 2):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(stop)
    _, errors = process.communicate(timeout=60)
    if stop == signal.SIGINT:
        assert process.returncode == 130, errors
        assert errors == f"striate: train: stopped; continue with striate train --resume {stopped}\n"
    assert not (stopped / "result.json").exists()
    assert run("predict", stopped, pictures / "red" / "0.png").exit_code == 0
    result = run("train", "--resume", stopped)
    assert result.exit_code == 0, (result.output, result.exception)
    for name in ("model.safetensors", "result.json"):
        assert (stopped / name).read_bytes() == (whole / name).read_bytes()
    lines = [(run_folder / "history.csv").read_text().splitlines() for run_folder in (whole, stopped)]
    # Everything but the times is the same.
    assert [line.split(",")[:6] for line in lines[0]] == [line.split(",")[:6] for line in lines[1]]


def test_resume_refuses_other_data(pictures: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(pictures, copy)
    stopped = tmp_path / "run"
    assert run("train", copy, "--epochs", 1, "--out", stopped).exit_code == 0
    (stopped / "result.json").unlink()
    Image.new("RGB", (16, 16)).save(copy / "red" / "new.png")
    assert_refused(run("train", "--resume", stopped), "expected the data this run began with, n_")


@pytest.mark.slow
@pytest.mark.learning
def test_golden_path_of_the_readme(tmp_path: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-W", "error", "-m", "striate.apps.cli", "train", "--epochs", "2"],
        cwd=tmp_path,
        env={**os.environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    folder = tmp_path / "runs" / "embedded-1"
    assert {path.name for path in folder.iterdir()} >= FILES
    # Two epochs are enough to be far above the 10 % of chance.
    assert json.loads((folder / "result.json").read_text())["test_accuracy"] > 0.7
    assert RunFolder(folder).is_finished
    evaluated = run("evaluate", folder, "embedded")
    assert evaluated.exit_code == 0, evaluated.output
    assert "Ankle boot" in evaluated.stdout
