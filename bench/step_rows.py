"""Training steps of whole networks: the rows of `run.py train` and their summary."""

from __future__ import annotations

import argparse
import math
from typing import Any

import turns
import whole_rows
from turns import Worker
from whole_rows import FILE, HEADER, parts

__all__ = ["HEADER", "MODELS", "PEERS", "parts", "rows", "start", "summarise"]

ROWS = {row["name"]: row for row in FILE["step"]}
#: What is measured unless asked otherwise; the others are there by name.
MODELS = tuple(name for name, row in ROWS.items() if not row.get("extra"))
PEERS = {"torch": turns.PEERS["torch"], "torch-compile": ("torch-compile",)}
#: The first losses may be this far from PyTorch's, over them, or as far as those of its other layout are.
TOLERANCE = 1e-3
#: What the geometric mean on two threads is to reach.
BAR = 2.3


def start(arguments: argparse.Namespace, n_threads: int, is_first: bool) -> dict[str, Worker]:
    """Start the libraries for one network."""
    return whole_rows.start(arguments, n_threads, PEERS, is_first)


def rows(workers: dict[str, Worker], n_threads: int, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure every network; print and return a row each."""
    task = {"prepare": "step", "is_eager": arguments.eager}
    return [
        found
        for name in arguments.models
        for found in whole_rows.one(ROWS[name], ROWS[name]["batch"], task, n_threads, workers, arguments, _errors)
    ]


def _errors(answers: dict[str, Any], folder: str) -> tuple[dict[str, float], dict[str, float]]:
    """Return every library's largest distance from PyTorch's first losses, over them, and how large it may be."""
    exact = answers["torch"]["losses"]
    errors = {
        library: max(
            abs(a - b) / abs(b) if math.isfinite(a) else math.inf for a, b in zip(answer["losses"], exact, strict=True)
        )
        for library, answer in answers.items()
    }
    # Losses of fresh deep networks with batch-norm grow apart by rounding alone: as far as PyTorch's own two layouts do, at least.
    own = errors.get("torch-channels-last", 0.0)
    return errors, dict.fromkeys(answers, max(TOLERANCE, own if math.isfinite(own) else 0.0))


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return geometric means by threads; rows that no bar speaks of are not in them."""
    counted = [row for row in rows if row["name"] in MODELS]
    return whole_rows.summarise(
        counted,
        ("networks", "threads"),
        lambda row: [("all", row["threads"])],
        lambda line: BAR if line["threads"] == 2 else None,
    )
