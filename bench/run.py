"""Convolutions of real networks: striate against its peers and against the machine, interleaved in one run.

    python -m venv .venv-peers && .venv-peers/bin/pip install -r bench/peers.txt
    python bench/run.py conv --shapes resnet18 vgg16 --batch 16 --threads 2
    python bench/run.py conv --shapes all --passes grad_input grad_weight --peers torch

Each library lives in a process of its own, only one works at a time, and their turns alternate; where results differ nothing is
timed. At batch 1 the caches are emptied between calls, as the rest of a network would, with warm figures beside it.
Shares are of the roofline: the time of the operations at the multiply-add peak or of the bytes at the bandwidth, whichever is
longer, both measured before each shape; Winograd does fewer operations than are counted, and can pass it. A peer's figure is its
better memory format. Convolutions count once, however often a network has them.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PASSES = ("forward", "grad_input", "grad_weight")
FAMILIES = ("3x3s1", "dense", "depthwise", "grouped")
#: Peer → the libraries it counts as: its memory formats.
PEERS = {
    "torch": ("torch", "torch-channels-last"),
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino",),
}
FORWARD_ONLY = ("onnxruntime", "openvino")
#: What holds a library to AVX2; ONNX Runtime has no such switch.
AVX2 = {"STRIATE_ISA": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
#: A result may differ by this much of its largest element: Winograd and other orders of summation.
TOLERANCE = 2e-3


class Worker:
    """One library in one process, which is stopped between its turns: some libraries' threads spin for many milliseconds."""

    def __init__(self, python: str, library: str, n_threads: int, settings: dict[str, str]) -> None:
        environment = dict(os.environ, OMP_NUM_THREADS=str(n_threads)) | settings
        if library != "striate":  # an allocator that keeps what is freed
            environment |= {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "-1"}
        self.name = library
        self.process = subprocess.Popen(
            [python, str(HERE / "peers" / "worker.py"), library, str(n_threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
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


def family(layer: dict[str, Any]) -> str:
    if layer["groups"] > 1:
        return "depthwise" if layer["groups"] == layer["in_channels"] else "grouped"
    is_plain = layer["kernel_size"] == 3 and layer["stride"] == layer["dilation"] == 1
    return "3x3s1" if is_plain and layer["in_channels"] >= 32 else "dense"


def load(names: list[str], families: list[str]) -> list[dict[str, Any]]:
    """Return the distinct layers of the networks named."""
    if names == ["all"]:
        names = sorted(path.stem for path in (HERE / "shapes").glob("*.toml") if path.stem != "foundation")
    layers = {}
    for name in names:
        path = HERE / "shapes" / f"{name}.toml"
        if not path.exists():
            raise SystemExit(f"run: expected a file of {path.parent}, got {name!r}; pass one of its names, or all")
        for layer in tomllib.loads(path.read_text())["conv2d"]:
            if layer.get("batch") is None and family(layer) in families:
                layers.setdefault(layer["name"], layer)
    return list(layers.values())


def work_of(layer: dict[str, Any], batch: int) -> tuple[float, float]:
    """Operations of one pass, and the bytes of x, weight and y once each."""
    k, groups = layer["kernel_size"], layer["groups"]
    out = (layer["size"] + 2 * layer["padding"] - layer["dilation"] * (k - 1) - 1) // layer["stride"] + 1
    filters = layer["out_channels"] * layer["in_channels"] // groups * k * k
    x, y = (batch * layer[c] * s * s for c, s in (("in_channels", layer["size"]), ("out_channels", out)))
    return 2.0 * batch * filters * out * out, 4.0 * (x + y + filters)


def differs(found: list[float], expected: list[float]) -> bool:
    return max(abs(a - b) for a, b in zip(found, expected, strict=True)) > TOLERANCE * expected[0]


def measure(workers: list[Worker], count: int, rounds: int, cold: bool) -> dict[str, list[float]]:
    """Seconds of each library's calls, in turns."""
    seconds: dict[str, list[float]] = defaultdict(list)
    for i in range(rounds + 1):
        for worker in workers:
            answer = worker.ask(count=count, cold=cold)["seconds"]
            if i > 0:  # the first turn warms up
                seconds[worker.name] += answer
    return seconds


def spread(values: list[float]) -> float:
    """Return the distance of the quartiles over the median."""
    if len(values) < 2:
        return 0.0
    low, middle, high = statistics.quantiles(values, n=4)
    return (high - low) / middle


def geometric_mean(values: list[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, values)))


def conv(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    layers = load(arguments.shapes, arguments.families)[: arguments.limit]
    for n_threads in arguments.threads:
        settings = AVX2 if arguments.avx2 else {}
        workers = {"striate": Worker(sys.executable, "striate", n_threads, settings)}
        for peer in arguments.peers:
            if arguments.avx2 and peer == "onnxruntime":
                print("onnxruntime is left out: it cannot be held to AVX2")
                continue
            for library in PEERS[peer]:
                worker = Worker(arguments.peer_python, library, n_threads, settings)
                if "missing" in worker.greeting:
                    print(f"{library} is left out: {worker.greeting['missing']}")
                else:
                    workers[library] = worker
        print(
            f"{n_threads} threads; " + ", ".join(sorted({worker.greeting["version"] for worker in workers.values()})),
            "\n",
        )
        print(
            "| layer | family | pass | batch | cache | GFLOP/s | spread | of peak | of roofline | best peer | over it |"
        )
        print("|---|---|---|--:|---|--:|--:|--:|--:|---|--:|")
        for layer in layers:
            for pass_ in arguments.passes:
                for batch in arguments.batch:
                    rows += one(layer, pass_, batch, n_threads, workers, arguments)
        for worker in workers.values():
            worker.stop()
        print()
    return rows


def one(
    layer: dict[str, Any],
    pass_: str,
    batch: int,
    n_threads: int,
    workers: dict[str, Worker],
    arguments: argparse.Namespace,
) -> list[dict[str, Any]]:
    """Measure one pass of one layer; print and return its rows, cold and warm at batch 1."""
    limits = workers["striate"].ask(limits=True)
    if limits["peak_flops"] < 0.8 * limits["alone_flops"]:
        print(f"{layer['name']} {pass_}: the machine does other work; the next figures mean little")
    expected = workers["striate"].ask(prepare=pass_, layer=layer, batch=batch)["sample"]
    able = [workers["striate"]]
    for library, worker in workers.items():
        if library == "striate" or (pass_ != "forward" and library in FORWARD_ONLY):
            continue
        if differs(worker.ask(prepare=pass_, layer=layer, batch=batch)["sample"], expected):
            print(f"{layer['name']} {pass_}: striate and {library} have different results; the layer is left out")
            return []
        able.append(worker)
    flops, n_bytes = work_of(layer, batch)
    least = max(flops / limits["peak_flops"], n_bytes / limits["bandwidth_bytes"])
    rows = []
    for cold in (True, False) if batch == 1 else (False,):
        count = max(1, min(arguments.calls, int(0.05 / least)))
        calls = measure(able, count, arguments.rounds, cold)
        seconds = {library: statistics.median(values) for library, values in calls.items()}
        spreads = {library: spread(values) for library, values in calls.items()}
        ours = seconds.pop("striate")
        best = min(seconds, key=lambda library: seconds[library]) if seconds else None
        row = {
            "layer": layer["name"],
            "family": family(layer),
            "pass": pass_,
            "batch": batch,
            "threads": n_threads,
            "cold": cold,
            "seconds": ours,
            "peers": seconds,
            "spreads": spreads,
            "gflops": flops / ours / 1e9,
            "of_peak": flops / ours / limits["peak_flops"],
            "of_roofline": least / ours,
            "ratio": seconds[best] / ours if best else None,
        }
        rows.append(row)
        print(
            f"| {row['layer']} | {row['family']} | {pass_} | {batch} | {'cold' if cold else 'warm'} "
            f"| {row['gflops']:.0f} | {spreads['striate']:.0%} | {row['of_peak']:.0%} | {row['of_roofline']:.0%} | {best or ''} | "
            + (f"{row['ratio']:.2f} |" if best else "|"),
            flush=True,
        )
    return rows


def summarise(rows: list[dict[str, Any]]) -> str:
    """Return a table of geometric means, and of the two gradients together where both were measured."""
    groups: dict[tuple[Any, ...], list[tuple[float, float]]] = defaultdict(list)
    pairs: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = defaultdict(dict)
    for row in rows:
        if row["ratio"] is None:
            continue
        key = (row["family"], row["batch"], "cold" if row["cold"] else "warm", row["threads"])
        groups[(row["pass"], *key)].append((row["ratio"], row["of_peak"]))
        if row["pass"] != "forward":
            pairs[(*key, row["layer"])][row["pass"]] = row
    for key, both in pairs.items():
        if len(both) == 2:
            shared = set.intersection(*(set(row["peers"]) for row in both.values()))
            if shared:
                theirs = min(sum(row["peers"][library] for row in both.values()) for library in shared)
                ours = sum(row["seconds"] for row in both.values())
                peak = 2 / sum(1 / row["of_peak"] for row in both.values())
                groups[("both gradients", *key[:-1])].append((theirs / ours, peak))
    lines = [
        "| pass | family | batch | cache | threads | layers | of peak | over the best peer | lowest |",
        "|---|---|--:|---|--:|--:|--:|--:|--:|",
    ]
    for key, values in sorted(groups.items(), key=str):
        ratios, peaks = ([value[i] for value in values] for i in (0, 1))
        lines.append(
            f"| {' | '.join(map(str, key))} | {len(values)} | {geometric_mean(peaks):.0%} | **{geometric_mean(ratios):.2f}** "
            f"| {min(ratios):.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["conv"])
    parser.add_argument("--shapes", nargs="+", default=["all"], help="files of bench/shapes, without .toml, or all")
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=FAMILIES)
    parser.add_argument("--passes", nargs="+", default=["forward"], choices=PASSES)
    parser.add_argument("--batch", nargs="+", type=int, default=[16])
    parser.add_argument("--threads", nargs="+", type=int, default=[2])
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--peer-python", default=".venv-peers/bin/python", help="a Python that has the peers")
    parser.add_argument("--avx2", action="store_true", help="hold every library to AVX2, where it can be held")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each library")
    parser.add_argument("--calls", type=int, default=5, help="most calls of a turn")
    parser.add_argument("--limit", type=int, help="only the first layers")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    arguments = parser.parse_args()
    rows = conv(arguments)
    print(summarise(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
