"""Convolutions of real networks: the rows of `run.py conv` and their summary."""

from __future__ import annotations

import argparse
import tomllib
from collections import defaultdict
from typing import Any

import turns
from turns import HERE, Worker, limits, means, measure, prepare

PEERS = turns.PEERS
PASSES = ("forward", "grad_input", "grad_weight")
FAMILIES = ("3x3s1", "dense", "depthwise", "grouped")
#: Files of bench/shapes that are no networks.
OTHERS = ("foundation", "ops")
HEADER = (
    "| layer | family | pass | batch | cache | GFLOP/s | spread | of peak | of roofline | best peer | over it |\n"
    "|---|---|---|--:|---|--:|--:|--:|--:|---|--:|"
)


def family(layer: dict[str, Any]) -> str:
    if layer["groups"] > 1:
        return "depthwise" if layer["groups"] == layer["in_channels"] else "grouped"
    is_plain = layer["kernel_size"] == 3 and layer["stride"] == layer["dilation"] == 1
    return "3x3s1" if is_plain and layer["in_channels"] >= 32 else "dense"


def parts(arguments: argparse.Namespace) -> list[argparse.Namespace]:
    """Return the arguments: all rows have the same processes."""
    return [arguments]


def start(arguments: argparse.Namespace, n_threads: int, is_first: bool) -> dict[str, Worker]:
    """Start the libraries."""
    return turns.start(arguments, n_threads)


def load(names: list[str], families: list[str]) -> list[dict[str, Any]]:
    """Return the distinct layers of the networks named."""
    known = sorted(path.stem for path in (HERE / "shapes").glob("*.toml") if path.stem not in OTHERS)
    layers = {}
    for name in known if names == ["all"] else names:
        if name not in known:
            raise SystemExit(f"run: expected networks of {', '.join(known)}, got {name!r}; pass one of these, or all")
        for layer in tomllib.loads((HERE / "shapes" / f"{name}.toml").read_text())["conv2d"]:
            if family(layer) in families:
                layers.setdefault(layer["name"], layer)
    return list(layers.values())


def work_of(layer: dict[str, Any], batch: int) -> tuple[float, float]:
    """Operations of one pass, and the bytes of x, weight and y once each."""
    k, groups = layer["kernel_size"], layer["groups"]
    out = (layer["size"] + 2 * layer["padding"] - layer["dilation"] * (k - 1) - 1) // layer["stride"] + 1
    filters = layer["out_channels"] * layer["in_channels"] // groups * k * k
    x, y = (batch * layer[c] * s * s for c, s in (("in_channels", layer["size"]), ("out_channels", out)))
    return 2.0 * batch * filters * out * out, 4.0 * (x + y + filters)


def rows(workers: dict[str, Worker], n_threads: int, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure every layer, pass and batch; print and return a row each."""
    return [
        row
        for layer in load(arguments.shapes, arguments.families)[: arguments.limit]
        for pass_ in arguments.passes
        for batch in arguments.batch
        for row in _one(layer, pass_, batch, n_threads, workers, arguments)
    ]


def _one(
    layer: dict[str, Any],
    pass_: str,
    batch: int,
    n_threads: int,
    workers: dict[str, Worker],
    arguments: argparse.Namespace,
) -> list[dict[str, Any]]:
    """Measure one pass of one layer; print and return its rows, cold and warm at batch 1."""
    what = f"{layer['name']} {pass_}"
    machine = limits(workers, what)
    able, answer = prepare(workers, what, **{"prepare": "conv", "row": layer, "pass": pass_, "batch": batch})
    flops, n_bytes = work_of(layer, batch)
    least = max(flops / machine["peak_flops"], n_bytes / machine["bandwidth_bytes"])
    found = []
    for cold in (True, False) if batch == 1 else (False,):
        if not able:
            break
        count = max(1, min(arguments.calls, int(0.05 / least)))
        seconds, spreads = measure(able, count, arguments.rounds, cold)
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
            "errors": answer["errors"],
            "limits": machine,
            "gflops": flops / ours / 1e9,
            "of_peak": flops / ours / machine["peak_flops"],
            "of_roofline": least / ours,
            "ratio": seconds[best] / ours if best else None,
            "at_roofline": seconds[best] / least if best else None,
        }
        found.append(row)
        print(
            f"| {row['layer']} | {row['family']} | {pass_} | {batch} | {'cold' if cold else 'warm'} "
            f"| {row['gflops']:.0f} | {spreads['striate']:.0%} | {row['of_peak']:.0%} | {row['of_roofline']:.0%} | {best or ''} | "
            + (f"{row['ratio']:.2f} |" if best else "|"),
            flush=True,
        )
    return found


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return geometric means, and those of the two gradients together where both were measured."""
    groups: dict[tuple[Any, ...], list[dict[str, float]]] = defaultdict(list)
    pairs: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = defaultdict(dict)
    for row in rows:
        if row["ratio"] is None:
            continue
        key = (row["family"], row["batch"], "cold" if row["cold"] else "warm", row["threads"])
        groups[(row["pass"], *key)].append({name: row[name] for name in ("of_peak", "of_roofline", "ratio")})
        if row["pass"] != "forward":
            pairs[(*key, row["layer"])][row["pass"]] = row
    for key, both in pairs.items():
        if len(both) == 2:
            shared = set.intersection(*(set(row["peers"]) for row in both.values()))
            if shared:
                theirs = min(sum(row["peers"][library] for row in both.values()) for library in shared)
                ours = sum(row["seconds"] for row in both.values())
                of = {
                    name: sum(row["seconds"] * row[name] for row in both.values()) / ours
                    for name in ("of_peak", "of_roofline")
                }
                groups[("both gradients", *key[:-1])].append(of | {"ratio": theirs / ours})
    return means(("pass", "family", "batch", "cache", "threads"), "roofline", groups)
