"""The run folder: everything a training run leaves behind, in files other programs can read."""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class RunFolder:
    """Read and write the files of one training run.

    ``config.json`` says how the run was made, ``history.csv`` what happened in each epoch, ``model.safetensors`` holds
    the weights, ``checkpoint.safetensors`` what a resumed run needs besides, ``result.json`` the test set's verdict,
    and four pictures show it. Every file is replaced in one step: a kill leaves the old one or the new one.

    Parameters
    ----------
    path : path
        The folder; it may not exist yet.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Remember the path; nothing is read or written."""
        self.path = Path(path)

    @property
    def model(self) -> Path:
        """The file of the weights."""
        return self.path / "model.safetensors"

    @property
    def checkpoint(self) -> Path:
        """The file of what a resumed run needs: weights, optimizer, history, place in the data."""
        return self.path / "checkpoint.safetensors"

    @property
    def is_finished(self) -> bool:
        """Whether the test set was evaluated."""
        return (self.path / "result.json").exists()

    @classmethod
    def new(cls, path: str | os.PathLike[str] | None, name: str) -> RunFolder:
        """Make the folder of a new run.

        Parameters
        ----------
        path : path or None
            A folder that is empty or does not exist; None makes the first free one of ``runs/<name>-1``, ``-2``, …
        name : str
            What the run is about.

        Raises
        ------
        FileExistsError
            When ``path`` holds something.
        """
        if path is None:
            Path("runs").mkdir(exist_ok=True)
            number = 1
            while True:
                try:
                    candidate = Path("runs") / f"{name}-{number}"
                    candidate.mkdir()
                    return cls(candidate)
                except FileExistsError:
                    number += 1
        folder = Path(path)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise FileExistsError(
                f"train: expected an empty or new folder for --out, got {folder}, which is in use; "
                f"choose another, or continue it with --resume {folder}"
            )
        folder.mkdir(parents=True, exist_ok=True)
        return cls(folder)

    def read_config(self) -> dict[str, Any]:
        """Return what ``config.json`` holds.

        Raises
        ------
        FileNotFoundError
            When the folder is not that of a run.
        ValueError
            When the file is damaged.
        """
        file = self.path / "config.json"
        if not file.is_file():
            raise FileNotFoundError(
                f"run: expected the folder of a training run, got {self.path}, which has no config.json; "
                "pass a folder that `striate train` made"
            )
        try:
            config = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"run: expected JSON in {file}, got something else ({error}); restore the file") from error
        if not isinstance(config, dict):
            raise ValueError(f"run: expected a JSON object in {file}, got {type(config).__name__}; restore the file")
        return config

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write ``config.json`` or ``result.json``."""
        self.write(name, (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())

    def write_history(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Write one line for each epoch to ``history.csv``; the first row, at least one, gives the columns."""
        text = io.StringIO()
        writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: f"{value:.6g}" for name, value in row.items()})
        self.write("history.csv", text.getvalue().encode())

    def write(self, name: str, content: bytes) -> None:
        """Write a file in one step."""
        self.path.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(prefix=f".{name}.", dir=self.path)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(partial, 0o644)
            os.replace(partial, self.path / name)
        except BaseException:
            os.unlink(partial)
            raise
