"""Convolutions of bench/shapes: their inputs, the same in every process."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def inputs(layer: dict[str, Any], batch: int) -> tuple[Array, Array, Array]:
    """x (N, C, H, W), weight (O, C // groups, P, Q), grad_y (N, O, I, J)."""
    rng = np.random.default_rng(0)
    c, o, k, size = layer["in_channels"], layer["out_channels"], layer["kernel_size"], layer["size"]
    out = (size + 2 * layer["padding"] - layer["dilation"] * (k - 1) - 1) // layer["stride"] + 1
    fan_in = c // layer["groups"] * k * k
    return (
        rng.standard_normal((batch, c, size, size), np.float32),
        rng.standard_normal((o, c // layer["groups"], k, k), np.float32) / np.float32(fan_in**0.5),
        rng.standard_normal((batch, o, out, out), np.float32),
    )
