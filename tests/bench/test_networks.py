"""The modes of bench/run.py for whole networks: their data, repeats and summaries, without peers."""

from __future__ import annotations

import argparse
import importlib
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from striate import models, nn, ops

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCH)
    monkeypatch.syspath_prepend(BENCH / "peers")

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    return load


def model_row(name: str, family: str, ratio: float | None, batch: int = 1, threads: int = 2) -> dict[str, Any]:
    return {
        "name": name,
        "family": family,
        "batch": batch,
        "threads": threads,
        "of_peak": 0.5,
        "of_peak_by_the_best_peer": 0.25,
        "ratio": ratio,
    }


def test_networks_are_those_of_the_zoo(bench: Any) -> None:
    stacks = bench("stacks")
    for row in (*bench("model_rows").ROWS.values(), *bench("step_rows").ROWS.values()):
        name = row["name"]
        assert name in stacks.NAMES or name == "lenet" or inspect.isfunction(getattr(models, name))
        assert row["size"] % 4 == 0
        assert ("classes" in row) != ("loss" in row) or "batch" not in row


def test_families_have_bars(bench: Any) -> None:
    rows = bench("model_rows")
    assert {row["family"] for row in rows.ROWS.values()} | {"all"} == set(rows.BARS)


def test_steps_that_no_bar_speaks_of_are_asked_for_by_name(bench: Any) -> None:
    rows = bench("step_rows")
    assert set(rows.ROWS) - set(rows.MODELS) == {"plain_16"}


def test_batches_are_the_same_each_time(bench: Any) -> None:
    whole, row = bench("whole"), bench("step_rows").ROWS["lenet"]
    (x, target), (other, _) = whole.batches(row)
    assert x.shape == (64, 1, 28, 28)
    assert target.shape == (64,) and target.max() < 10
    assert np.array_equal(x, whole.batches(row)[0][0])
    assert not np.array_equal(x, other)


def test_masks_are_as_large_as_images(bench: Any) -> None:
    ((_, mask), _) = bench("whole").batches(bench("step_rows").ROWS["unet"] | {"size": 16})
    assert mask.shape == (4, 1, 16, 16)
    assert set(np.unique(mask)) == {0, 1}


@pytest.mark.parametrize("name", ["small_vgg", "plain_16"])
def test_stacks_take_28_by_28_pixels(bench: Any, name: str) -> None:
    network = bench("stacks").build(nn, name)
    assert network(ops.zeros((2, 1, 28, 28))).shape == (2, 10)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(1e-4, (20, 7, 2)), (0.05, (5, 7, 1)), (0.5, (1, 4, 0)), (9.0, (1, 3, 0))],
)
def test_repeats_keep_to_the_budget(bench: Any, seconds: float, expected: tuple[int, int, int]) -> None:
    assert bench("whole_rows").repeats(seconds, 2.0, 7) == expected


def test_parts_are_one_network_each(bench: Any) -> None:
    arguments = argparse.Namespace(models=["lenet", "unet"], batch=[1])
    assert [part.models for part in bench("whole_rows").parts(arguments)] == [["lenet"], ["unet"]]


def test_farthest_is_over_the_largest_of_each_output(bench: Any) -> None:
    farthest = bench("model_rows").farthest
    a, b = np.array([1.0, 4.0]), np.array([100.0])
    assert farthest([a + 1, b + 1], [a, b]) == pytest.approx(0.25)
    assert farthest([a], [b]) == float("inf")
    assert farthest([a], [a, b]) == float("inf")
    assert farthest([np.array([1.0, np.nan])], [a]) == float("inf")


def test_model_summary_has_bars_over_whole_families(bench: Any) -> None:
    rows = [
        model_row("vgg16", "3x3", 2.0),
        model_row("unet", "3x3", 8.0, batch=16, threads=1),
        model_row("lenet", "lenet", None),
    ]
    found = bench("model_rows").summarise(rows)
    whole = {(line["family"], line["batch"], line["threads"]): line for line in found}
    assert whole["3x3", "all", "all"]["over_the_best_peer"] == pytest.approx(4)
    assert whole["3x3", "all", "all"]["lowest"] == 2
    assert whole["3x3", "all", "all"]["bar"] == 1.5
    assert whole["3x3", 16, 1]["bar"] == ""
    assert whole["all", "all", "all"]["rows"] == 2
    header = bench("turns").table(found).splitlines()[0]
    assert header == (
        "| family | batch | threads | rows | of peak | of peak by the best peer | over the best peer | lowest | bar |"
    )


def test_step_summary_leaves_out_extra_rows(bench: Any) -> None:
    rows = [model_row("lenet", "", 3.0), model_row("plain_16", "", 1.0), model_row("unet", "", 3.0, threads=1)]
    found = bench("step_rows").summarise(rows)
    assert [(line["threads"], line["rows"], line["bar"]) for line in found] == [(1, 1, ""), (2, 1, 2.3)]


@pytest.mark.parametrize(("value", "at_least", "meets"), [(1.7, True, False), (1.9, True, True), (1.9, False, False)])
def test_figures_of_programs_stand_beside_their_bars(
    bench: Any, capsys: pytest.CaptureFixture[str], value: float, at_least: bool, meets: bool
) -> None:
    assert bench("program").row("speed-up", value, 1.8, "×", at_least)["meets"] is meets
    sign = "≥" if at_least else "≤"
    assert capsys.readouterr().out == f"| speed-up | {value:.2f} × | {sign} 1.8 × | {'yes' if meets else 'no'} |\n"


def test_losses_may_be_as_far_off_as_the_other_layout_of_pytorch(bench: Any) -> None:
    losses = {"torch": [2.0, 1.0], "striate": [2.0, 1.005], "torch-channels-last": [2.0, 1.01]}
    rows, answers = bench("step_rows"), {library: {"losses": found} for library, found in losses.items()}
    errors, allowed = rows._errors(answers, "")
    assert allowed["striate"] == pytest.approx(0.01) and errors["striate"] <= allowed["striate"]
    del answers["torch-channels-last"]
    errors, allowed = rows._errors(answers, "")
    assert errors["striate"] > allowed["striate"] == rows.TOLERANCE
