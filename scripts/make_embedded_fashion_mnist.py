"""Make the slice of Fashion-MNIST that is embedded in the package.

Usage: python scripts/make_embedded_fashion_mnist.py [--root FOLDER] [--check]

The result is a function of Fashion-MNIST and the constants below. `--check` compares the arrays of the file
in the repository with a fresh selection instead of writing it (the compressed bytes depend on the zlib at hand).

Measured for these 7,000 images (5.5 MB), size and time to load: zlib of the plain pixels 3.06 MB, 30 ms;
zlib of row differences 2.99 MB; PNG with a filter per row 2.76 MB; LZMA of the plain pixels 2.62 MB, 150 ms.
The plain .npz wins: one call of NumPy reads it, and 0.3 MB are not worth a codec of our own.
"""

from __future__ import annotations

import argparse
import io
import sys
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from striate.data.datasets import Split, fashion_mnist, shuffled

SEED = 0
N_TRAIN_PER_CLASS = 600
N_TEST_PER_CLASS = 100
TARGET = Path(__file__).parents[1] / "python" / "striate" / "data" / "embedded" / "fashion_mnist_slice.npz"


def choose(split: Split, n_per_class: int) -> NDArray[np.int64]:
    """Draw `n_per_class` images of each class, in the order of the original."""
    chosen = []
    for label in range(len(split.classes)):
        members = np.flatnonzero(split.labels == label)
        chosen.append(members[shuffled(len(members), SEED, label)[:n_per_class]])
    return np.sort(np.concatenate(chosen))


def write_npz(path: Path, arrays: dict[str, NDArray[np.uint8]]) -> None:
    """Write a .npz at the highest compression level, with fixed time stamps."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, array, version=(1, 0))
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, buffer.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)


def main() -> int:
    """Write the file, or check it; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", help="folder with the four idx files")
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    arguments = parser.parse_args()
    arrays = {}
    for part, split, n in zip(
        ("train", "test"), fashion_mnist(arguments.root), (N_TRAIN_PER_CLASS, N_TEST_PER_CLASS), strict=True
    ):
        chosen = split.subset(choose(split, n))
        arrays[f"{part}_images"] = np.ascontiguousarray(chosen.images[..., 0])
        arrays[f"{part}_labels"] = chosen.labels.astype(np.uint8)
    if arguments.check:
        with np.load(TARGET, allow_pickle=False) as kept:
            same = sorted(kept.files) == sorted(arrays) and all(
                np.array_equal(kept[name], array) for name, array in arrays.items()
            )
        print(f"{TARGET.name}: {'as made by this script' if same else 'differs from what this script makes'}")
        return 0 if same else 1
    write_npz(TARGET, arrays)
    print(f"{TARGET.name}: {TARGET.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
