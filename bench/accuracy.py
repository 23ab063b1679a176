"""Accuracy of networks trained with and without Winograd: the recipe of `striate train fashion-mnist`, several seeds.

    python bench/accuracy.py [--seeds 0 1 2] [--epochs 12]

Needs what `striate train` needs, and about three minutes a seed on two cores.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

TRAIN = "import sys, striate; striate.machine.algorithm(sys.argv.pop(1)); from striate.apps.cli import main; sys.exit(main())"


def accuracy(algorithm: str, seed: int, epochs: int) -> float:
    """Train once; return the share of the test set that is right."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        options = ["train", "fashion-mnist", "--seed", str(seed), "--epochs", str(epochs), "--out", str(out)]
        subprocess.run([sys.executable, "-c", TRAIN, algorithm, *options], check=True, stdout=subprocess.DEVNULL)
        return float(json.loads((out / "result.json").read_text())["test_accuracy"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=12)
    arguments = parser.parse_args()
    print("| seed | with Winograd | direct only |\n|--:|--:|--:|")
    found: dict[str, list[float]] = {"auto": [], "direct": []}
    for seed in arguments.seeds:
        for algorithm, values in found.items():
            values.append(accuracy(algorithm, seed, arguments.epochs))
        print(f"| {seed} | {found['auto'][-1]:.2%} | {found['direct'][-1]:.2%} |", flush=True)
    means = {algorithm: statistics.fmean(values) for algorithm, values in found.items()}
    print(f"| mean | {means['auto']:.2%} | {means['direct']:.2%} |")
    print(f"difference: {100 * (means['auto'] - means['direct']):+.2f} points")


if __name__ == "__main__":
    main()
