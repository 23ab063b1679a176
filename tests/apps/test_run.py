"""The run folder: names, atomic files, and what it refuses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from striate.apps.run import RunFolder


def test_new_takes_the_first_free_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [str(RunFolder.new(None, "embedded").path) for _ in range(3)] == [f"runs/embedded-{k}" for k in (1, 2, 3)]
    assert str(RunFolder.new(None, "cats").path) == "runs/cats-1"


def test_new_refuses_a_folder_in_use(tmp_path: Path) -> None:
    assert RunFolder.new(tmp_path / "a" / "b", "x").path.is_dir()
    (tmp_path / "used").mkdir()
    assert RunFolder.new(tmp_path / "used", "x").path == tmp_path / "used"
    (tmp_path / "used" / "file").touch()
    with pytest.raises(FileExistsError, match=r"an empty or new folder for --out, got .*used, .*--resume"):
        RunFolder.new(tmp_path / "used", "x")
    with pytest.raises(FileExistsError, match=r"got .*file"):
        RunFolder.new(tmp_path / "used" / "file", "x")


def test_config_round_trip_and_damage(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    with pytest.raises(
        FileNotFoundError, match=r"expected the folder of a training run, got .*run, which has no config"
    ):
        run.read_config()
    run.write_json("config.json", {"classes": ["Möwe", "b"], "lr": 0.1})
    assert run.read_config() == {"classes": ["Möwe", "b"], "lr": 0.1}
    (run.path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"expected JSON in .*config\.json"):
        run.read_config()
    (run.path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"expected a JSON object in .*config\.json, got list"):
        run.read_config()


def test_history_has_a_line_for_each_epoch(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.write_history([{"epoch": k, "loss": k + 0.125} for k in (1, 2)])
    assert (tmp_path / "history.csv").read_text() == "epoch,loss\n1,1.125\n2,2.125\n"


def test_write_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(tmp_path)
    run.write("file", b"old")

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        run.write("file", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert run.path.joinpath("file").read_bytes() == b"old"
