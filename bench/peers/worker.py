"""One library in one process, told what to do by lines of JSON on standard input; run.py starts it.

    python bench/peers/worker.py LIBRARY N_THREADS

Every library draws the same inputs from the same seed.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import convolution
import exact
import memory_ops
import numpy as np
import whole

N_SAMPLES = 64
WAKING_SECONDS, WAKING_CALLS = 0.003, 2
EVICTING_BYTES = 96 << 20  # more than the last-level cache of a desktop or of a share of a server


def places(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Where results of this shape are looked at, the same for every library."""
    size = int(np.prod(shape))
    at = np.unravel_index(np.random.default_rng(1).integers(0, size, N_SAMPLES), shape)
    return [tuple(map(int, index)) for index in zip(*at, strict=True)]


def prepare(peer: Any, task: dict[str, Any]) -> dict[str, Any]:
    """Have the peer ready for `run`; return samples of each of its results, or that it cannot."""
    row, pass_, batch = task["row"], task["pass"], task["batch"]
    is_conv = task["prepare"] == "conv"
    given = convolution.inputs(row, batch) if is_conv else memory_ops.inputs(row, batch)
    results = peer.conv(pass_, row, *given) if is_conv else peer.memory_op(pass_, row, *given)
    if results is None:
        return {"unable": True}
    at = [places(result.shape) for result in results]
    answer: dict[str, Any] = {
        "samples": [[float(result[index]) for index in indices] for result, indices in zip(results, at, strict=True)],
        "largest": [float(np.abs(result).max()) for result in results],
    }
    if not is_conv:
        answer["bytes"] = memory_ops.moved_bytes(row, pass_, *given)
    if task["exact"]:
        answer["exact"] = (
            [exact.conv(pass_, row, *given, at[0])] if is_conv else exact.memory_op(pass_, row, *given, at)
        )
    return answer


def prepare_whole(peer: Any, library: str, task: dict[str, Any]) -> dict[str, Any]:
    """Have the peer ready to `run` a network or a training step.

    Returns the file of its outputs, or its losses, and the seconds of one more call; or why it cannot.
    """
    row, folder = task["row"], Path(task["folder"])
    answer: dict[str, Any] = {}
    try:
        if task["prepare"] == "network":
            outputs = peer.network(row, whole.images(row, task["batch"]), folder)
            np.savez(whole.result_file(task["folder"], library), *outputs)
        else:
            answer["losses"] = peer.step(row, whole.batches(row), folder, task["is_eager"])
    except Exception as error:  # a peer that cannot is left out of the row, with its reason
        if library in ("striate", "torch"):
            raise
        return {"unable": f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"}
    begin = time.perf_counter()
    peer.run()
    return answer | {"seconds": time.perf_counter() - begin, "flops": getattr(peer, "flops", None)}


def main() -> None:
    library, n_threads = sys.argv[1], int(sys.argv[2])
    answers = os.fdopen(os.dup(1), "w")  # what a library prints does not get between them
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        peer = importlib.import_module(f"peer_{library.partition('-')[0]}").Peer(library, n_threads)
    except ImportError as error:
        print(json.dumps({"missing": str(error)}), file=answers, flush=True)
        return
    print(json.dumps({"version": peer.version}), file=answers, flush=True)
    # Ones: pages of zeros that nobody wrote are one page of memory, and evict nothing.
    evicting = np.array_split(np.ones(EVICTING_BYTES // 4, np.float32), n_threads)
    pool = ThreadPoolExecutor(n_threads)
    for line in sys.stdin:
        task = json.loads(line)
        answer: dict[str, Any] = {}
        if task.get("prepare") in ("network", "step"):
            answer = prepare_whole(peer, library, task)
        elif "prepare" in task:
            answer = prepare(peer, task)
        elif "machine" in task:
            answer = peer.machine()
        elif "limits" in task:
            answer = peer.limits()
        elif "streams" in task:
            answer = peer.streams(task["streams"])
        else:
            # The process was stopped: its threads wake up, its data come back.
            wake = time.perf_counter() + (WAKING_SECONDS if task.get("waking", WAKING_CALLS) else 0)
            n_waking = 0
            while time.perf_counter() < wake or n_waking < task.get("waking", WAKING_CALLS):
                peer.run()
                n_waking += 1
            answer["seconds"] = []
            for _ in range(task["count"]):
                if task["cold"]:
                    list(pool.map(np.sum, evicting))  # reads, so that no line waits to be written
                begin = time.perf_counter()
                peer.run()
                answer["seconds"].append(time.perf_counter() - begin)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
