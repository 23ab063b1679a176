"""Where the time of a network goes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import striate
from striate import models
from striate.compile import Explanation, Program, load_program
from striate.models.catalog import CATALOG


def profile(model: str, batch: int = 1, size: int | None = None) -> Explanation:
    """Run a network on random images and time each node.

    Parameters
    ----------
    model : str
        A name of the catalog, or the path of a program file.
    batch : int
    size : int, optional
        Side of the images. Required for a program file whose images are not of 224 pixels.

    Returns
    -------
    Explanation

    Raises
    ------
    ValueError
        Neither a network nor a file, or images too small for the network.
    """
    rng = np.random.default_rng(0)
    if model in CATALOG:
        entry = CATALOG[model]
        side = entry.image_size if size is None else size
        if side < entry.least_size or side % entry.size_multiple:
            raise ValueError(
                f"profile: expected images of at least {entry.least_size} pixels for {model}, a multiple of "
                f"{entry.size_multiple}, got {side}; pass --size"
            )
        x = striate.tensor(rng.standard_normal((batch, entry.in_channels, side, side)).astype(np.float32))
        return striate.compile(models.build(model, in_channels=entry.in_channels, image_size=(side, side)), x).explain(
            measure=True
        )
    if not Path(model).is_file():
        raise ValueError(
            f"profile: expected a program file or one of {', '.join(sorted(CATALOG))}, got {model!r}; check the name"
        )
    side = 224 if size is None else size
    program: Program = load_program(Path(model))
    channels = program.graph.value(program.graph.inputs[0]).shape[1]
    x = striate.tensor(rng.standard_normal((batch, int(channels), side, side)).astype(np.float32))
    return program.explain(x, measure=True)
