"""The summaries of bench/run.py, from rows that nobody measured."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCH)

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    return load


def conv_row(layer: str, pass_: str, seconds: float, least: float, **peers: float) -> dict[str, Any]:
    return {
        "layer": layer,
        "family": "dense",
        "pass": pass_,
        "batch": 16,
        "threads": 2,
        "cold": False,
        "seconds": seconds,
        "peers": peers,
        "of_peak": 0.5 * least / seconds,
        "of_roofline": least / seconds,
        "ratio": min(peers.values()) / seconds if peers else None,
    }


def test_conv_at_the_roofline_is_the_best_peer_over_it(bench: Any) -> None:
    rows = [conv_row("a", "forward", 2, 1, torch=8, mnn=4), conv_row("b", "forward", 8, 4, torch=36)]
    (found,) = bench("conv_rows").summarise([*rows, conv_row("c", "forward", 1, 1)])
    assert found["rows"] == 2
    assert found["over_the_best_peer"] == pytest.approx(3)  # of 2 and 4.5
    assert found["lowest"] == 2
    assert found["of_roofline"] == pytest.approx(0.5)
    assert found["at_the_roofline"] == pytest.approx(6)  # of 4 and 9


def test_both_gradients_are_sums_of_times(bench: Any) -> None:
    rows = [conv_row("a", "grad_input", 1, 0.5, torch=2, mnn=1), conv_row("a", "grad_weight", 3, 1.5, torch=4, mnn=9)]
    both = bench("conv_rows").summarise(rows)[0]
    assert both["pass"] == "both gradients"
    assert both["over_the_best_peer"] == pytest.approx(6 / 4)  # of torch, which has the least sum
    assert both["of_peak"] == pytest.approx(1 / 4)
    assert both["at_the_roofline"] == pytest.approx(6 / 2)


def test_ops_at_the_bandwidth(bench: Any) -> None:
    row = {"op": "relu", "pass": "forward", "batch": 1, "threads": 2, "of_bandwidth": 0.8, "ratio": 2.0}
    found = bench("op_rows").summarise([row, row | {"op": "silu", "ratio": 0.5}])
    whole = found[0]
    assert (whole["op"], whole["rows"], whole["lowest"]) == ("all", 2, 0.5)
    assert whole["over_the_best_peer"] == pytest.approx(1)
    assert whole["at_the_bandwidth"] == pytest.approx(1.25)
    lines = bench("turns").table(found).splitlines()
    assert lines[0].startswith(
        "| threads | batch | op | pass | rows | of bandwidth | over the best peer | lowest | at the b"
    )
    assert lines[2] == "| 2 | 1 | all |  | 2 | 80% | 1.00 | 0.50 | 1.25 |"
    assert len(lines) == 2 + 3


def test_table_of_nothing_is_empty(bench: Any) -> None:
    assert bench("turns").table(bench("op_rows").summarise([])) == ""
