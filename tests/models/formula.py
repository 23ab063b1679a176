"""Weights and images by formula, so that only results need recording. Needs neither torch nor striate."""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def _stream(name: str) -> np.random.RandomState:
    # RandomState and not Generator: NumPy promises that its numbers stay the same.
    return np.random.RandomState(zlib.crc32(name.encode()))


def weight(key: str, shape: tuple[int, ...]) -> Array:
    """Return the value of one key of a state_dict: of unit gain for a matrix, around 1 or 0 for a vector."""
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    stream = _stream(key)
    if key.endswith("running_var") or (key.endswith("weight") and len(shape) == 1):
        value = stream.uniform(0.5, 1.5, shape)
    elif key.endswith("weight"):
        value = stream.standard_normal(shape) * math.sqrt(2 / math.prod(shape[1:]))
    else:
        value = stream.standard_normal(shape) * 0.2
    return value.astype(np.float32)


def image(*shape: int) -> Array:
    """Return a batch of images (N, C, H, W)."""
    return _stream("image").standard_normal(shape).astype(np.float32)


def sample(y: Array) -> list[float]:
    """Return eight elements spread over an output, and the largest."""
    flat = y.ravel()
    return [float(v) for v in (*flat[:: max(1, flat.size // 8)][:8], np.abs(flat).max())]


def digest(keys: Iterable[tuple[str, tuple[int, ...]]]) -> str:
    """Return the SHA-256 of the lines "key shape", sorted."""
    lines = sorted(f"{key} {'x'.join(map(str, shape))}" for key, shape in keys)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
