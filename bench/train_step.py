"""One eager training step of a CNN: striate against PyTorch, interleaved, same weights, same first losses.

    python -m venv .venv-peers && .venv-peers/bin/pip install -r bench/peers.txt
    python bench/train_step.py [--peer .venv-peers/bin/python] [--network plain-16]

Networks: `small`, conv 3×3 32-32, pool, conv 64-64, pool, linear 128, linear 10, ReLU between, batch 64; `plain-16`, what
`striate train fashion-mnist` trains, batch 128. 28×28×1, cross-entropy, SGD with momentum. PyTorch runs eager, contiguous and
channels_last, with an allocator that keeps freed memory; the faster counts. Each library lives in a process of its own, and
only one works at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

import numpy as np

LEARNING_RATE, MOMENTUM = 0.05, 0.9
MODES = ("striate", "torch", "torch-channels-last")
BATCH = {"small": 64, "plain-16": 128}


def build(nn: Any, network: str) -> Any:
    """Build a network of either library: the names of their layers agree."""
    layers: list[Any] = []
    if network == "small":
        for i, (c, o) in enumerate([(1, 32), (32, 32), (32, 64), (64, 64)]):
            layers += [nn.Conv2d(c, o, 3, padding=1), nn.ReLU(), *([nn.MaxPool2d(2)] if i % 2 else [])]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 7 * 7, 128), nn.ReLU(), nn.Linear(128, 10))
    c = 1
    for i, o in enumerate([16, 16, 32, 32, 64, 64]):
        layers += [nn.MaxPool2d(2)] if i in (2, 4) else []
        layers += [nn.Conv2d(c, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU()]
        c = o
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, 10))


def weights(state: dict[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """He-initialised weights, zero biases and fresh statistics, the same for every library."""
    rng = np.random.default_rng(0)
    made = {}
    for key, value in state.items():
        shape = tuple(int(n) for n in value.shape)
        if len(shape) > 1:
            made[key] = (rng.standard_normal(shape) * (2 / np.prod(shape[1:])) ** 0.5).astype(np.float32)
        elif key.endswith("num_batches_tracked"):
            made[key] = np.zeros(shape, np.int64)
        else:
            is_scale = key.endswith("running_var") or (
                key.endswith("weight") and key.replace("weight", "running_var") in state
            )
            made[key] = np.full(shape, float(is_scale), np.float32)
    return made


def batches(network: str, n: int) -> list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Images (N, 1, 28, 28) and labels (N,)."""
    rng = np.random.default_rng(1)
    size = BATCH[network]
    return [(rng.random((size, 1, 28, 28), np.float32), rng.integers(0, 10, size)) for _ in range(n)]


def striate_step(network: str, n_threads: int) -> Any:
    import striate
    from striate import nn
    from striate.train import SGD

    striate.threads(n_threads)
    model = build(nn, network)
    model.load_state_dict({key: striate.tensor(w) for key, w in weights(model.state_dict()).items()})
    optimizer = SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
    data = [(striate.tensor(x), striate.tensor(t)) for x, t in batches(network, 8)]

    def step(i: int) -> float:
        x, target = data[i % len(data)]
        optimizer.zero_grad()
        loss = striate.ops.cross_entropy(model(x), target)
        loss.backward()
        optimizer.step()
        return loss.item()  # type: ignore[no-any-return]  # striate is imported here, not known to be typed

    return step


def torch_step(network: str, n_threads: int, channels_last: bool) -> Any:
    import torch
    from torch import nn

    torch.set_num_threads(n_threads)
    model = build(nn, network)
    model.load_state_dict({key: torch.from_numpy(w) for key, w in weights(model.state_dict()).items()})
    data = [(torch.from_numpy(x), torch.from_numpy(t)) for x, t in batches(network, 8)]
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
        data = [(x.to(memory_format=torch.channels_last), t) for x, t in data]
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)

    def step(i: int) -> float:
        x, target = data[i % len(data)]
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), target)
        loss.backward()
        optimizer.step()
        return float(loss.item())

    return step


def work(mode: str, network: str, n_threads: int) -> None:
    """Answer each line `begin count` on standard input with the losses and seconds of these steps."""
    if mode == "striate":
        step = striate_step(network, n_threads)
    else:
        step = torch_step(network, n_threads, mode.endswith("channels-last"))
    for line in sys.stdin:
        first, count = map(int, line.split())
        losses, seconds = [], []
        for i in range(first, first + count):
            begin = time.perf_counter()
            losses.append(step(i))
            seconds.append(time.perf_counter() - begin)
        print(json.dumps({"losses": losses, "seconds": seconds}), flush=True)


class Worker:
    """One library in one process."""

    def __init__(self, python: str, mode: str, network: str, n_threads: int) -> None:
        environment = dict(os.environ, OMP_NUM_THREADS=str(n_threads))
        if mode != "striate":
            environment |= {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "-1"}
        command = [python, os.path.abspath(__file__), "--worker", mode, network, str(n_threads)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def run(self, first: int, count: int) -> dict[str, list[float]]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{first} {count}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"train_step: expected an answer of {self.process.args}, got none; see its message above")
        return json.loads(line)  # type: ignore[no-any-return]

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", default=".venv-peers/bin/python", help="a Python that has PyTorch")
    parser.add_argument("--network", default="small", choices=list(BATCH))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=8, help="interleaved stretches of each library in a run")
    parser.add_argument("--steps", type=int, default=10, help="steps of a stretch")
    parser.add_argument("--worker", nargs=3, metavar=("MODE", "NETWORK", "THREADS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        mode, network, n_threads = arguments.worker
        work(mode, network, int(n_threads))
        return
    print("| threads | run | striate ms | torch ms | torch channels_last ms | ratio to the faster |")
    print("|--:|--:|--:|--:|--:|--:|")
    for n_threads in arguments.threads:
        ratios = []
        for run in range(arguments.runs):
            workers = {
                mode: Worker(
                    sys.executable if mode == "striate" else arguments.peer, mode, arguments.network, n_threads
                )
                for mode in MODES
            }
            first = {mode: worker.run(0, 3)["losses"] for mode, worker in workers.items()}
            for mode in MODES[1:]:
                if np.abs(np.subtract(first[mode], first["striate"])).max() > 1e-4:
                    raise SystemExit(f"train_step: expected equal first losses, got {first}")
            seconds: dict[str, list[float]] = {mode: [] for mode in MODES}
            for i in range(arguments.rounds + 1):
                for mode, worker in workers.items():
                    answer = worker.run(3 + i * arguments.steps, arguments.steps)["seconds"]
                    if i > 0:  # the first stretch warms up
                        seconds[mode] += answer
            for worker in workers.values():
                worker.stop()
            ms = {mode: statistics.median(values) * 1e3 for mode, values in seconds.items()}
            ratios.append(min(ms["torch"], ms["torch-channels-last"]) / ms["striate"])
            print(
                f"| {n_threads} | {run + 1} | {ms['striate']:.2f} | {ms['torch']:.2f} | {ms['torch-channels-last']:.2f} "
                f"| {ratios[-1]:.2f} |",
                flush=True,
            )
        print(f"| {n_threads} | median | | | | **{statistics.median(ratios):.2f}** |")


if __name__ == "__main__":
    main()
