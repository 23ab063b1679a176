"""Libraries in processes of their own that work in turns, and what their times come to."""

from __future__ import annotations

import argparse
import atexit
import json
import math
import os
import signal
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
#: Peer → the libraries it counts as: its memory formats.
PEERS = {
    "torch": ("torch", "torch-channels-last"),
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino",),
    "ncnn": ("ncnn",),
    "mnn": ("mnn",),
    "opencv": ("opencv",),
}
#: What holds a library to AVX2, and the peers that have such a switch.
AVX2 = {"STRIATE_ISA": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
HELD_TO_AVX2 = ("torch", "torch-compile", "openvino")
#: What makes memory cheap for a peer: an allocator that keeps what is freed, and PyTorch's switch for huge pages.
MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "-1", "THP_MEM_ALLOC_ENABLE": "1"}
#: A peer's sampled results may be this far from the exact ones, as a share of the largest element; beyond, its time does not count.
TOLERANCE = 2e-3
#: striate may be this far: Winograd rounds most.
OWN_TOLERANCE = 2e-5


class Worker:
    """One library in one process, which is stopped between its turns: some libraries' threads spin for many milliseconds."""

    def __init__(self, python: str, library: str, n_threads: int, settings: dict[str, str]) -> None:
        environment = dict(os.environ, OMP_NUM_THREADS=str(n_threads)) | settings
        if library != "striate":
            environment |= MEMORY
        self.name = library
        self.process = subprocess.Popen(
            [python, str(HERE / "peers" / "worker.py"), library, str(n_threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        atexit.register(self.process.kill)  # a stopped process would not notice that this one ended
        self.greeting = self._read()
        self.process.send_signal(signal.SIGSTOP)

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"run: expected an answer of {self.name}, got none; see its message above")
        return json.loads(line)  # type: ignore[no-any-return]  # worker.py writes one object a line

    def ask(self, **task: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.write(json.dumps(task) + "\n")
        self.process.stdin.flush()
        answer = self._read()
        self.process.send_signal(signal.SIGSTOP)
        return answer

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.close()
        self.process.wait()


def start(
    arguments: argparse.Namespace,
    n_threads: int,
    peers: Mapping[str, tuple[str, ...]] = PEERS,
    says: Callable[[str], None] = print,
) -> dict[str, Worker]:
    """Start striate and each library of the peers that is there, and say which ones."""
    settings = AVX2 if arguments.avx2 else {}
    workers = {"striate": Worker(sys.executable, "striate", n_threads, settings)}
    for peer in arguments.peers:
        if arguments.avx2 and peer not in HELD_TO_AVX2:
            says(f"{peer} is left out: it cannot be held to AVX2")
            continue
        for library in peers[peer]:
            worker = Worker(arguments.peer_python, library, n_threads, settings)
            if "missing" in worker.greeting:
                says(f"{library} is left out: {worker.greeting['missing']}")
            else:
                workers[library] = worker
    versions = sorted({worker.greeting["version"] for worker in workers.values()})
    says(f"{n_threads} threads; {', '.join(versions)}\n")
    return workers


def limits(workers: dict[str, Worker], what: str) -> dict[str, float]:
    """Measure the machine, and say where it does other work."""
    found = workers["striate"].ask(limits=True)
    if found["peak_flops"] < 0.8 * found["alone_flops"]:
        print(f"{what}: the machine does other work; the next figures mean little")
    return found


def _error(answer: dict[str, Any], ours: dict[str, Any]) -> float:
    """Return the largest distance from the exact values, over the largest element of its result; NaN counts as infinite."""
    return max(
        abs(value - exact) / largest if math.isfinite(value) else math.inf
        for values, exacts, largest in zip(answer["samples"], ours["exact"], ours["largest"], strict=True)
        for value, exact in zip(values, exacts, strict=True)
    )


def prepare(workers: dict[str, Worker], what: str, **task: Any) -> tuple[list[Worker], dict[str, Any]]:
    """Have every library ready; return those that are right, none where striate is not, and striate's answer.

    The answer's `errors` are those of all libraries that can do it.
    """
    ours = workers["striate"].ask(exact=True, **task)
    ours["errors"] = {}
    able = []
    for library, worker in workers.items():
        answer = ours if library == "striate" else worker.ask(exact=False, **task)
        if "unable" in answer:
            continue
        error = ours["errors"][library] = _error(answer, ours)
        if error > (OWN_TOLERANCE if library == "striate" else TOLERANCE):
            print(f"{what}: {library} is wrong by {error:.1e} of the largest element; it is left out")
            if library == "striate":
                return [], ours
        else:
            able.append(worker)
    return able, ours


def measure(
    workers: list[Worker], count: int, rounds: int, cold: bool, waking: int | None = None
) -> tuple[dict[str, float], dict[str, float]]:
    """Time each library's calls, in turns; return their medians in seconds and the quartiles' distances over them.

    A turn begins with `waking` untimed calls, by default those of worker.py.
    """
    more = {} if waking is None else {"waking": waking}
    seconds: dict[str, list[float]] = defaultdict(list)
    for i in range(rounds + 1):
        for worker in workers:
            answer = worker.ask(count=count, cold=cold, **more)["seconds"]
            if i > 0:  # the first turn warms up
                seconds[worker.name] += answer
    return (
        {library: statistics.median(values) for library, values in seconds.items()},
        {library: _spread(values) for library, values in seconds.items()},
    )


def _spread(values: list[float]) -> float:
    if len(values) < 2:
        return 0.0
    low, middle, high = statistics.quantiles(values, n=4)
    return (high - low) / middle


def geometric_mean(values: list[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, values)))


def means(
    names: tuple[str, ...], limit: str, groups: dict[tuple[Any, ...], list[dict[str, float]]]
) -> list[dict[str, Any]]:
    """Return each group's key, size and geometric means; at the limit its ratio would be the quotient of two of these."""
    found = []
    for key, values in sorted(groups.items(), key=str):
        mean = {name: geometric_mean([value[name] for value in values]) for name in values[0]}
        ratio = mean.pop("ratio")
        found.append(
            dict(zip(names, key, strict=True))
            | {"rows": len(values)}
            | mean
            | {"over_the_best_peer": ratio, "lowest": min(value["ratio"] for value in values)}
            | {f"at_the_{limit}": ratio / mean[f"of_{limit}"]}
        )
    return found


def table(found: list[dict[str, Any]]) -> str:
    """Return a summary in Markdown."""

    def cell(name: str, value: Any) -> str:
        if not isinstance(value, float):
            return str(value)
        return f"{value:.0%}" if name.startswith("of_") else f"{value:.2f}"

    lines = [[name.replace("_", " ") for name in row] for row in found[:1]]
    lines += [["--:" if isinstance(value, int | float) else "---" for value in row.values()] for row in found[:1]]
    lines += [[cell(name, value) for name, value in row.items()] for row in found]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
