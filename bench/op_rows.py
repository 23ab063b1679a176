"""Ops bound by memory bandwidth, and optimizer steps: the rows of `run.py ops` and their summary."""

from __future__ import annotations

import argparse
import tomllib
from collections import defaultdict
from typing import Any

import turns
from turns import HERE, Worker, limits, means, measure, prepare

HEADER = (
    "| op | pass | batch | ms | spread | GB/s | of bandwidth | best peer | its ms | over it |\n"
    "|---|---|--:|--:|--:|--:|--:|---|--:|--:|"
)
PASSES = ("forward", "backward", "training", "step")
FILE = tomllib.loads((HERE / "shapes" / "ops.toml").read_text())
#: The peers that have these ops, of those of turns.py.
PEERS = {name: turns.PEERS[name] for name in ("torch", "onnxruntime", "openvino")}
OPS = tuple(dict.fromkeys(row["op"] for row in FILE["op"]))
#: What only reads is held against reading too.
READING = ("global_avg_pool2d", "forward")


def parts(arguments: argparse.Namespace) -> list[argparse.Namespace]:
    """Return the arguments: all rows have the same processes."""
    return [arguments]


def start(arguments: argparse.Namespace, n_threads: int, is_first: bool) -> dict[str, Worker]:
    """Start the libraries."""
    return turns.start(arguments, n_threads)


def load(ops: list[str]) -> list[dict[str, Any]]:
    """Return the rows of these ops, a network's name replaced by the shapes of its parameters."""
    found = [row for row in FILE["op"] if row["op"] in ops]
    return [
        row | {"parameters": FILE["parameters"][row["parameters"]]} if "parameters" in row else row for row in found
    ]


def rows(workers: dict[str, Worker], n_threads: int, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure every op, pass and batch; print and return a row each."""
    return [
        found
        for row in load(arguments.ops)[: arguments.limit]
        for pass_ in row["passes"]
        if pass_ in arguments.passes
        for batch in row.get("batch", [None])
        if batch in (None, *arguments.batch)
        for found in _one(row, pass_, batch, n_threads, workers, arguments)
    ]


def _one(
    row: dict[str, Any],
    pass_: str,
    batch: int | None,
    n_threads: int,
    workers: dict[str, Worker],
    arguments: argparse.Namespace,
) -> list[dict[str, Any]]:
    """Measure one pass of one op; print and return its row. Caches stay warm: an op's input was written just before."""
    what = f"{row['name']} {pass_}"
    limits(workers, what)
    able, answer = prepare(workers, what, **{"prepare": "memory_op", "row": row, "pass": pass_, "batch": batch})
    if not able:
        return []
    n_bytes = answer["bytes"]
    streams = workers["striate"].ask(streams=n_bytes)
    if (row["op"], pass_) != READING:
        del streams["read"]
    bandwidth = max(streams.values())
    count = max(1, min(arguments.calls, int(0.05 * bandwidth / n_bytes)))
    seconds, spreads = measure(able, count, arguments.rounds, cold=False)
    ours = seconds.pop("striate")
    best = min(seconds, key=lambda library: seconds[library]) if seconds else None
    found = {
        "name": row["name"],
        "op": row["op"],
        "pass": pass_,
        "batch": batch,
        "threads": n_threads,
        "seconds": ours,
        "peers": seconds,
        "spreads": spreads,
        "errors": answer["errors"],
        "bytes": n_bytes,
        "streams": streams,
        "of_bandwidth": n_bytes / ours / bandwidth,
        "ratio": seconds[best] / ours if best else None,
        "at_bandwidth": seconds[best] * bandwidth / n_bytes if best else None,
    }
    print(
        f"| {row['name']} | {pass_} | {batch or ''} | {ours * 1e3:.3f} | {spreads['striate']:.0%} | {n_bytes / ours / 1e9:.1f} "
        f"| {found['of_bandwidth']:.0%} | "
        + (f"{best} | {seconds[best] * 1e3:.3f} | {found['ratio']:.2f} |" if best else "| | |"),
        flush=True,
    )
    return [found]


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return geometric means by op and pass, and over all of a batch and number of threads."""
    groups: dict[tuple[Any, ...], list[dict[str, float]]] = defaultdict(list)
    for row in rows:
        if row["ratio"] is not None:
            for op, pass_ in ((row["op"], row["pass"]), ("all", "")):
                key = (row["threads"], row["batch"] or "", op, pass_)
                groups[key].append({name: row[name] for name in ("of_bandwidth", "ratio")})
    return means(("threads", "batch", "op", "pass"), "bandwidth", groups)
