"""What a training run shows while it goes: a live line on a terminal, one plain line an epoch elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn


class Reporter(Protocol):
    """Told what happens in a run."""

    def say(self, line: str) -> None:
        """Show one line about the run."""
        ...

    def begin(self, position: float) -> None:
        """Start the clock; `position` is the number of epochs done before, with the part of one that was begun."""
        ...

    def batch(self, epoch: int, done: float, loss: float, accuracy: float, images_per_s: float) -> None:
        """Show how far an epoch is (`done` from 0 to 1) and its averages so far."""
        ...

    def epoch(self, row: Mapping[str, float], images_per_s: float) -> None:
        """Show a finished epoch, a row of the history."""
        ...


class ConsoleReporter:
    """Show a run on a console; use it in a `with` block.

    Parameters
    ----------
    console : rich.console.Console
        Whether it is a terminal decides between a live line and plain lines.
    n_epochs : int
        Epochs of the whole run.
    """

    def __init__(self, console: Console, n_epochs: int) -> None:
        """Prepare the display; it starts with the `with` block."""
        self._console = console
        self._n_epochs = n_epochs
        self._first: tuple[float, float] | None = None
        self._live = Progress(
            TextColumn("epoch {task.fields[epoch]:>3}/{task.fields[n_epochs]}"),
            BarColumn(bar_width=24),
            TextColumn("loss {task.fields[loss]}  accuracy {task.fields[accuracy]}"),
            TextColumn("[dim]{task.fields[speed]} images/s  {task.fields[left]} left"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> ConsoleReporter:
        """Start the display."""
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the live line away."""
        self._live.stop()

    def say(self, line: str) -> None:
        """Show one line about the run."""
        self._console.print(line, highlight=False, markup=False)

    def begin(self, position: float) -> None:
        """Start the clock of the time left."""
        self._first = position, time.perf_counter()

    def batch(self, epoch: int, done: float, loss: float, accuracy: float, images_per_s: float) -> None:
        """Update the live line."""
        if not self._console.is_terminal:
            return
        fields: dict[str, Any] = {
            "epoch": epoch + 1,
            "n_epochs": self._n_epochs,
            "loss": f"{loss:.4f}",
            "accuracy": f"{accuracy:6.2%}",
            "speed": f"{images_per_s:,.0f}",
            "left": _duration(self._seconds_left(epoch + done)),
        }
        if self._task is None:
            self._task = self._live.add_task("", total=1.0, **fields)
        self._live.update(self._task, completed=done, **fields)

    def epoch(self, row: Mapping[str, float], images_per_s: float) -> None:
        """Print a line for a finished epoch."""
        number = round(row["epoch"])
        left = self._seconds_left(number)
        tail = f"  {_duration(left)} left" if number < self._n_epochs and left is not None else ""
        self.say(
            f"epoch {number:>3}/{self._n_epochs}  loss {row['loss']:.4f}  accuracy {row['accuracy']:6.2%}  "
            f"val loss {row['val_loss']:.4f}  val accuracy {row['val_accuracy']:6.2%}  "
            f"{images_per_s:,.0f} images/s{tail}"
        )

    def _seconds_left(self, position: float) -> float | None:
        if self._first is None or position <= self._first[0]:
            return None
        seconds_per_epoch = (time.perf_counter() - self._first[1]) / (position - self._first[0])
        return seconds_per_epoch * (self._n_epochs - position)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "--:--"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
