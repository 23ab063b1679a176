"""Measure what `import striate` costs on top of `import numpy`.

Usage: python bench/import_time.py [--repeats 15] [--most-ms 30]

Each repeat starts three new processes, one after the other (nothing, numpy, striate), so that a busy spell of the machine meets all
three. The figure is the median of the differences between the last two.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

#: Installed packages have .pyc files; a checkout gets them from the first run, unless the environment forbids it.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def milliseconds(code: str) -> float:
    # From an empty folder: a checkout's own folders must not be on the path.
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, cwd=folder, env=ENVIRONMENT)
        return 1e3 * (time.perf_counter() - start)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--most-ms", type=float, default=30.0)
    options = parser.parse_args()
    programs = ("pass", "import numpy", "import striate")
    for code in programs:
        milliseconds(code)  # writes the .pyc files
    rows = [[milliseconds(code) for code in programs] for _ in range(options.repeats)]
    for code, column in zip(programs, zip(*rows, strict=True), strict=True):
        print(f"{code:16s} {statistics.median(column):7.1f} ms")
    above = statistics.median(row[2] - row[1] for row in rows)
    print(f"striate above numpy: {above:.1f} ms (bar: 30 ms)")
    return 0 if above <= options.most_ms else 1


if __name__ == "__main__":
    sys.exit(main())
