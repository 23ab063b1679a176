"""A training run in one file: tensors as safetensors, everything else as JSON in its header.

One file, so that there is one moment at which the new checkpoint replaces the old: the rename.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from striate.autograd import Tensor
from striate.io import safetensors

__all__ = ["Checkpoint", "load", "save"]

FORMAT = 1
_KEY = "striate.checkpoint"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a file holds.

    Attributes
    ----------
    sections : dict of str to dict of str to Tensor
        Tensors by section ("model", "optimizer", "best") and key.
    info : dict
        Everything else, as JSON.
    """

    sections: dict[str, dict[str, Tensor]]
    info: dict[str, Any]


def save(path: str | os.PathLike[str], sections: Mapping[str, Mapping[str, Tensor]], info: Mapping[str, Any]) -> None:
    """Write a checkpoint; a kill at any moment leaves the old file or the new one, whole.

    Parameters
    ----------
    path : str or path
    sections : mapping of str to mapping of str to Tensor
        Section names hold no "/".
    info : mapping
        Anything that JSON holds.

    Raises
    ------
    OSError
        As `striate.io.safetensors.save`.
    """
    tensors = {f"{section}/{key}": x for section, own in sections.items() for key, x in own.items()}
    text = json.dumps({"format": FORMAT, "sections": list(sections), **info})
    safetensors.save(tensors, path, {_KEY: text})
    _remove_leftovers(Path(path))


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint.

    Raises
    ------
    ValueError
        A file that is not a checkpoint of this format.
    OSError
        A file that cannot be opened.
    """
    text = safetensors.metadata(path).get(_KEY)
    info = json.loads(text) if text is not None else {}
    if info.get("format") != FORMAT:
        raise ValueError(
            f"checkpoint: expected a checkpoint of format {FORMAT} in {os.fspath(path)!r}, got "
            f"{'no checkpoint' if text is None else info.get('format')}; pass a file that fit wrote"
        )
    sections: dict[str, dict[str, Tensor]] = {name: {} for name in info["sections"]}
    for name, tensor in safetensors.load(path).items():
        section, key = name.split("/", 1)
        sections[section][key] = tensor
    return Checkpoint(sections, info)


def _remove_leftovers(path: Path) -> None:
    """Remove temporary files of writers that were killed."""
    for leftover in path.parent.glob(f"{path.name}.*.tmp"):
        pid = leftover.name[len(path.name) + 1 : -4]
        if pid.isdigit() and not _is_alive(int(pid)):
            leftover.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
