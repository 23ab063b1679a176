"""Inference of whole networks: the rows of `run.py model` and their summary."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import turns
import whole_rows
from turns import Worker
from whole_rows import FILE, HEADER, parts

__all__ = ["HEADER", "MODELS", "PEERS", "parts", "rows", "start", "summarise"]

ROWS = {row["name"]: row for row in FILE["model"]}
MODELS = tuple(ROWS)
PEERS = {name: turns.PEERS[name] for name in ("torch", "onnxruntime", "openvino", "ncnn", "mnn")}
PEERS["torch-compile"] = ("torch-compile",)
#: Our outputs may be this far from those of PyTorch, over the largest.
OWN_TOLERANCE = 1e-4
#: What the geometric means of families are to reach.
BARS = {"3x3": 1.5, "mixed": 1.25, "depthwise": 1.3, "lenet": 1.5, "all": 1.4}


def start(arguments: argparse.Namespace, n_threads: int, is_first: bool) -> dict[str, Worker]:
    """Start the libraries for one network."""
    return whole_rows.start(arguments, n_threads, PEERS, is_first)


def rows(workers: dict[str, Worker], n_threads: int, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure every network and batch; print and return a row each."""
    return [
        found | {"family": ROWS[name]["family"]}
        for name in arguments.models
        for batch in arguments.batch
        for found in whole_rows.one(ROWS[name], batch, {"prepare": "network"}, n_threads, workers, arguments, _errors)
    ]


def _errors(answers: dict[str, Any], folder: str) -> tuple[dict[str, float], dict[str, float]]:
    """Return every library's distance from PyTorch's outputs over the largest of them, and how large it may be."""
    results = {library: _load(folder, library) for library in answers}
    exact = results["torch"]
    return (
        {library: farthest(ys, exact) for library, ys in results.items()},
        {library: OWN_TOLERANCE if library == "striate" else turns.TOLERANCE for library in results},
    )


def _load(folder: str, library: str) -> list[Any]:
    with np.load(Path(folder) / f"{library}.npz") as saved:
        return [saved[key] for key in saved.files]


def farthest(ys: list[Any], exact: list[Any]) -> float:
    """Return the largest difference of any output over that output's largest value; infinite for other shapes, or NaN."""
    if [y.shape for y in ys] != [y.shape for y in exact] or not all(np.isfinite(y).all() for y in ys):
        return float("inf")
    return max(float(np.abs(y - e).max() / np.abs(e).max()) for y, e in zip(ys, exact, strict=True))


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return geometric means by family, batch and threads, by family, and over everything."""

    def keys(row: dict[str, Any]) -> list[tuple[Any, ...]]:
        exactly = (row["batch"], row["threads"])
        return [(family, *rest) for family in (row["family"], "all") for rest in (exactly, ("all", "all"))]

    return whole_rows.summarise(
        rows,
        ("family", "batch", "threads"),
        keys,
        lambda line: BARS[line["family"]] if line["batch"] == "all" else None,
    )
