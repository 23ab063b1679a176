"""Whole networks: their inputs, the same in every process, and what a training step is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
LEARNING_RATE, MOMENTUM = 0.01, 0.9
#: Different batches that steps take in turns.
N_BATCHES = 2
#: Steps whose losses are compared.
N_COMPARED = 2
WEIGHTS = "weights.npz"


def images(row: dict[str, Any], batch: int) -> Array:
    """Images (N, C, H, W) of a row of networks.toml."""
    shape = (batch, row.get("channels", 3), row["size"], row["size"])
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def batches(row: dict[str, Any]) -> list[tuple[Array, Array]]:
    """Images and their labels (N,), or masks (N, 1, H, W) where the row has no classes."""
    rng = np.random.default_rng(1)
    x = images(row, N_BATCHES * row["batch"])
    if "classes" in row:
        target = rng.integers(0, row["classes"], len(x))
    else:
        target = rng.integers(0, 2, (len(x), 1, row["size"], row["size"])).astype(np.float32)
    return list(zip(np.split(x, N_BATCHES), np.split(target, N_BATCHES), strict=True))


def loss_of(functions: Any, row: dict[str, Any]) -> Any:
    """Return the row's loss of either library, whose names agree."""
    return getattr(functions, row.get("loss", "cross_entropy"))


def result_file(folder: str, library: str) -> Path:
    """Where a library leaves its outputs."""
    return Path(folder) / f"{library}.npz"
