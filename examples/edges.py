"""Find the edges of a picture with a convolution, without training: oriented windows, as in the striate cortex.

Usage: python examples/edges.py [PICTURE] [--out edges.png]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

import striate


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("picture", nargs="?", type=Path)
    parser.add_argument("--out", type=Path, default=Path("edges.png"))
    options = parser.parse_args()
    if options.picture is None:  # a bright disc
        i, j = np.mgrid[:128, :128]
        pixels = np.where((i - 64) ** 2 + (j - 64) ** 2 < 40**2, 220, 30).astype(np.uint8)
    else:
        pixels = np.asarray(Image.open(options.picture).convert("L"))
    x = striate.from_numpy(pixels)[None, None].to(striate.float32)
    # Sobel's filters: differences along one axis, smoothed along the other.
    down = np.outer([-1.0, 0.0, 1.0], [1.0, 2.0, 1.0]).astype(np.float32)
    weight = striate.tensor(np.stack([down, down.T])[:, None])
    strength = striate.conv2d(x, weight, padding=1).square().sum(dim=1).sqrt()[0]
    # The border sees the zeros around the picture; it is no edge.
    inner = strength[1:-1, 1:-1].numpy()
    Image.fromarray((255 * inner / max(float(inner.max()), 1.0)).astype(np.uint8)).save(options.out)
    print(f"{options.out}: edges of {inner.shape[1]}×{inner.shape[0]} pixels, strongest {inner.max():.0f}")


if __name__ == "__main__":
    main()
