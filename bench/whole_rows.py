"""What `run.py model` and `run.py train` share: networks by name, repeats by time, and what a row says."""

from __future__ import annotations

import argparse
import tempfile
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import turns
from turns import HERE, Worker, limits, means, measure

FILE = tomllib.loads((HERE / "networks.toml").read_text())
#: Calls as long as these need no call, or one only, before they are timed.
NO_WAKING_SECONDS, ONE_WAKING_SECONDS = 0.3, 0.03
MOST_CALLS = 20
HEADER = (
    "| network | batch | striate ms | spread | best peer | its ms | over it | of peak | its share | all peers, ms |\n"
    "|---|--:|--:|--:|---|--:|--:|--:|--:|---|"
)


def parts(arguments: argparse.Namespace) -> Iterator[argparse.Namespace]:
    """Yield the arguments for one network after the other: each has processes of its own, which give their memory back."""
    for name in arguments.models:
        yield argparse.Namespace(**vars(arguments) | {"models": [name]})


def start(
    arguments: argparse.Namespace, n_threads: int, peers: dict[str, tuple[str, ...]], is_first: bool
) -> dict[str, Worker]:
    """Start the libraries; PyTorch is one of them in any case, since it has the results that others are compared with."""
    if "torch" not in arguments.peers:
        peers = {**peers, "torch": ("torch",)}
    wanted = list(dict.fromkeys(["torch", *arguments.peers]))
    asked = argparse.Namespace(**vars(arguments) | {"peers": wanted})
    return turns.start(asked, n_threads, peers, print if is_first else lambda _: None)


def repeats(seconds: float, budget_seconds: float, rounds: int) -> tuple[int, int, int]:
    """Return calls of a turn, turns, and untimed calls before each turn, for calls of this length."""
    rounds = max(3, min(rounds, int(budget_seconds / seconds)))
    count = max(1, min(MOST_CALLS, int(budget_seconds / rounds / seconds)))
    return count, rounds, 0 if seconds > NO_WAKING_SECONDS else 1 if seconds > ONE_WAKING_SECONDS else 2


def one(
    row: dict[str, Any],
    batch: int,
    task: dict[str, Any],
    n_threads: int,
    workers: dict[str, Worker],
    arguments: argparse.Namespace,
    errors_of: Callable[[dict[str, Any], str], tuple[dict[str, float], dict[str, float]]],
) -> list[dict[str, Any]]:
    """Measure a network at one batch; print and return its row.

    `errors_of(answers, folder)` returns how far each library is off and how far it may be.
    """
    what = f"{row['name']} at batch {batch}"
    machine = limits(workers, what)
    with tempfile.TemporaryDirectory() as folder:
        answers = {}
        for library, worker in workers.items():
            answer = worker.ask(row=row, batch=batch, folder=folder, **task)
            if "unable" in answer:
                print(f"{what}: {library} is left out: {answer['unable']}")
            else:
                answers[library] = answer
        errors, allowed = errors_of(answers, folder)
    right = [library for library in answers if errors[library] <= allowed[library]]
    for library in answers:
        if library not in right:
            print(
                f"{what}: {library} is off by {errors[library]:.1e}, more than {allowed[library]:.0e}; it is left out"
            )
    if "striate" not in right:
        return []
    able = [workers[library] for library in right if library != "torch" or "torch" in arguments.peers]
    count, rounds, waking = repeats(answers["striate"]["seconds"], arguments.seconds, arguments.rounds)
    seconds, spreads = measure(able, count, rounds, cold=False, waking=waking)
    ours = seconds.pop("striate")
    best = min(seconds, key=lambda library: seconds[library]) if seconds else None
    flops = answers["torch"]["flops"]
    found = {
        "name": row["name"],
        "batch": batch,
        "threads": n_threads,
        "seconds": ours,
        "best_peer": best,
        "peers": seconds,
        "spreads": spreads,
        "calls": count * rounds,
        "errors": errors,
        "flops": flops,
        "limits": machine,
        "of_peak": flops / ours / machine["peak_flops"],
        "of_peak_by_the_best_peer": flops / seconds[best] / machine["peak_flops"] if best else None,
        "ratio": seconds[best] / ours if best else None,
    }
    print(
        f"| {row['name']} | {batch} | {ours * 1e3:.4g} | {spreads['striate']:.0%} | "
        + (f"{best} | {seconds[best] * 1e3:.4g} | {found['ratio']:.2f} | " if best else "| | | ")
        + f"{found['of_peak']:.0%} | "
        + (f"{found['of_peak_by_the_best_peer']:.0%} | " if best else "| ")
        + ", ".join(f"{library} {value * 1e3:.4g} ±{spreads[library]:.0%}" for library, value in seconds.items())
        + " |",
        flush=True,
    )
    return [found]


def summarise(
    rows: list[dict[str, Any]],
    names: tuple[str, ...],
    keys_of: Callable[[dict[str, Any]], list[tuple[Any, ...]]],
    bar_of: Callable[[dict[str, Any]], float | None],
) -> list[dict[str, Any]]:
    """Return geometric means of the groups that `keys_of(row)` puts a row in, and beside each what it is to reach, if anything."""
    groups: dict[tuple[Any, ...], list[dict[str, float]]] = defaultdict(list)
    for row in rows:
        if row["ratio"] is not None:
            for key in keys_of(row):
                groups[key].append({name: row[name] for name in ("of_peak", "of_peak_by_the_best_peer", "ratio")})
    found = means(names, "peak", groups)
    for line in found:
        del line["at_the_peak"]  # no limit here: Winograd passes it
        line["bar"] = bar_of(line) or ""
    return found
