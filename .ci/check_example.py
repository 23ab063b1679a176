"""Expect the program of examples/cpp to print what Python computes, and to refuse a damaged file.

Usage: python .ci/check_example.py RUN_PROGRAM
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import striate
from striate import nn


def main(run_program: str) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10)
    )
    x = np.random.default_rng(0).standard_normal((2, 3, 16, 16)).astype(np.float32)
    program = striate.compile(model.eval(), x)
    expected = program(x).numpy()
    with tempfile.TemporaryDirectory() as folder:
        file, numbers = Path(folder) / "model.striate", Path(folder) / "x.f32"
        program.save(file)
        numbers.write_bytes(x.tobytes())
        done = subprocess.run([run_program, file, numbers], capture_output=True, text=True, check=True)
        shape, *rows = done.stdout.splitlines()
        found = [(int(place), float(value)) for place, value in (row.split(":") for row in rows)]
        order = np.argsort(-expected.ravel())[:5]
        assert shape == "(2, 10)", done.stdout
        assert [place for place, _ in found] == order.tolist(), done.stdout
        assert np.allclose([value for _, value in found], expected.ravel()[order], rtol=1e-5), done.stdout
        subprocess.run([run_program, file], check=True, stdout=subprocess.DEVNULL)
        file.write_bytes(file.read_bytes()[:-4])
        done = subprocess.run([run_program, file], capture_output=True, text=True, check=False)
        assert done.returncode == 1 and "the file is damaged" in done.stderr, done.stderr
    print("example: the C++ program agrees with Python")


if __name__ == "__main__":
    main(sys.argv[1])
