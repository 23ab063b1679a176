"""One library in one process, told what to do by lines of JSON on standard input; run.py starts it.

    python bench/peers/worker.py LIBRARY N_THREADS

Every library draws the same inputs from the same seed.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
N_SAMPLES = 64
WAKING_SECONDS = 0.003
EVICTING_BYTES = 96 << 20  # more than the last-level cache of a desktop or of a share of a server


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


def sample(result: Array) -> list[float]:
    """Some elements of the result in logical order, and its largest magnitude."""
    at = np.random.default_rng(1).integers(0, result.size, N_SAMPLES)
    return [float(np.abs(result).max()), *(float(v) for v in result[np.unravel_index(at, result.shape)])]


def main() -> None:
    library, n_threads = sys.argv[1], int(sys.argv[2])
    try:
        peer = importlib.import_module(f"peer_{library.partition('-')[0]}").Peer(library, n_threads)
    except ImportError as error:
        print(json.dumps({"missing": str(error)}), flush=True)
        return
    print(json.dumps({"version": peer.version}), flush=True)
    evicting = np.array_split(np.zeros(EVICTING_BYTES // 4, np.float32), n_threads)
    pool = ThreadPoolExecutor(n_threads)
    for line in sys.stdin:
        task = json.loads(line)
        answer: dict[str, Any] = {}
        if "prepare" in task:
            x, weight, grad_y = inputs(task["layer"], task["batch"])
            answer["sample"] = sample(np.asarray(peer.prepare(task["prepare"], task["layer"], x, weight, grad_y)))
        elif "limits" in task:
            answer = peer.limits()
        else:
            wake = time.perf_counter() + WAKING_SECONDS  # the process was stopped: its threads wake up
            while time.perf_counter() < wake:
                peer.run()
            answer["seconds"] = []
            for _ in range(task["count"]):
                if task["cold"]:
                    list(pool.map(np.sum, evicting))  # reads, so that no line waits to be written
                begin = time.perf_counter()
                peer.run()
                answer["seconds"].append(time.perf_counter() - begin)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
