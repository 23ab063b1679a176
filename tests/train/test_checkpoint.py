"""Checkpoints: whole at any moment."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import striate
from striate.train import checkpoint

_WRITER = """
import sys
import striate
from striate.train import checkpoint

for i in range(1_000_000):
    value = striate.full((250_000,), float(i))
    checkpoint.save(sys.argv[1], {"model": {"a": value, "b": value}, "optimizer": {"0.m": value}}, {"i": i})
    if i == 0:
        print("ready", flush=True)
"""


def test_kill_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    previous = -1
    for delay_ms in (1, 7, 20, 33, 50):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        with subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, env=environment, text=True
        ) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
            time.sleep(delay_ms / 1000)  # the moment of the kill, not a wait for a result
            writer.kill()
        found = checkpoint.load(path)
        value = float(found.info["i"])
        assert value >= 0
        for section, key in (("model", "a"), ("model", "b"), ("optimizer", "0.m")):
            x = found.sections[section][key].numpy()
            assert x.min() == x.max() == value
        previous = max(previous, int(value))
    assert previous > 0
    checkpoint.save(path, {}, {})
    assert os.listdir(tmp_path) == [path.name]


def test_save_keeps_files_of_living_writers(tmp_path: Path) -> None:
    path = tmp_path / "c"
    other = tmp_path / f"c.{os.getppid()}.tmp"
    other.touch()
    (tmp_path / "c.old.tmp").touch()
    checkpoint.save(path, {}, {})
    assert other.exists()
    assert (tmp_path / "c.old.tmp").exists()


def test_load_returns_what_was_saved(tmp_path: Path) -> None:
    state = {"w.x/y": striate.ones(2, 3, 2, 2), "n": striate.tensor(3)}
    checkpoint.save(tmp_path / "c", {"model": state, "empty": {}}, {"rate": 0.1, "name": "é"})
    found = checkpoint.load(tmp_path / "c")
    assert set(found.sections) == {"model", "empty"}
    assert set(found.sections["model"]) == set(state)
    assert found.sections["model"]["n"].item() == 3
    assert found.info["rate"] == 0.1
    assert found.info["name"] == "é"


def test_refusal_of_other_files(tmp_path: Path) -> None:
    from striate.io import safetensors

    safetensors.save({"w": striate.ones(1)}, tmp_path / "w")
    with pytest.raises(ValueError, match=r"checkpoint: expected a checkpoint of format 1 in .*w', got no checkpoint"):
        checkpoint.load(tmp_path / "w")
    safetensors.save({}, tmp_path / "v", {"striate.checkpoint": '{"format": 9}'})
    with pytest.raises(ValueError, match="got 9; pass a file that fit wrote"):
        checkpoint.load(tmp_path / "v")
