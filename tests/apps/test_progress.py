"""What a run shows: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io

import pytest

pytest.importorskip("rich")

from rich.console import Console

from striate.apps.progress import ConsoleReporter

ROW = {
    "epoch": 2,
    "loss": 0.51234,
    "accuracy": 0.8125,
    "val_loss": 0.6,
    "val_accuracy": 0.79,
}


def shown(*, is_terminal: bool) -> str:
    """Report one epoch of three and return what was written."""
    text = io.StringIO()
    with ConsoleReporter(Console(file=text, force_terminal=is_terminal, width=120), 3) as reporter:
        reporter.say("data [not markup]")
        reporter.begin(1.0)
        for done in (0.5, 1.0):
            reporter.batch(1, done, 0.7, 0.75, 1000.0)
        reporter.epoch(ROW, 1234.4)
        reporter.epoch(ROW | {"epoch": 3}, 1234.4)
    return text.getvalue()


def test_plain_lines_when_it_is_no_terminal() -> None:
    first, second, last = shown(is_terminal=False).splitlines()
    assert first == "data [not markup]"
    assert second.startswith(
        "epoch   2/3  loss 0.5123  accuracy 81.25%  val loss 0.6000  val accuracy 79.00%  1,234 images/s  0:00 left"
    )
    assert "left" not in last


def test_live_line_on_a_terminal() -> None:
    text = shown(is_terminal=True)
    assert "epoch   2/3" in text
    assert "loss 0.7000  accuracy 75.00%" in text
    assert "1,000 images/s" in text
    assert "val accuracy 79.00%" in text
