"""What may happen around training: hooks of `fit`, early stopping, the best weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from striate.train.loop import Run

__all__ = ["Callback", "EarlyStopping", "Monitor", "OnBatch", "OnEpoch"]


class Callback:
    """Called by `fit`; every method does nothing unless overridden.

    `run` holds the model, the optimizer, the epoch and step, and the history; setting `run.is_stopping` ends training after
    the epoch. A callback that keeps state returns it from `state_dict`, as JSON, so that a resumed run goes on as before.
    """

    def on_train_begin(self, run: Run) -> None:
        """Before the first epoch, or the first one after resuming."""

    def on_batch_end(self, run: Run) -> None:
        """After each step."""

    def on_epoch_end(self, run: Run) -> None:
        """After validation; `run.history[-1]` is the epoch's row. Before the checkpoint is written."""

    def on_train_end(self, run: Run) -> None:
        """After the last epoch."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs, as JSON."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""


@dataclass(slots=True)
class OnBatch(Callback):
    """Call a function with the run after each step.

    Parameters
    ----------
    function : callable
    """

    function: Callable[[Run], object]

    def on_batch_end(self, run: Run) -> None:
        """Call it."""
        self.function(run)


@dataclass(slots=True)
class OnEpoch(Callback):
    """Call a function with the run after each epoch.

    Parameters
    ----------
    function : callable
    """

    function: Callable[[Run], object]

    def on_epoch_end(self, run: Run) -> None:
        """Call it."""
        self.function(run)


@dataclass(frozen=True, slots=True)
class Monitor:
    """A column of the history, and which way is better.

    Parameters
    ----------
    name : str, default "val_loss"
    mode : {"min", "max"}
    min_delta : float, default 0
        Smaller changes do not count.

    Raises
    ------
    ValueError
        Another mode.
    """

    name: str = "val_loss"
    mode: Literal["min", "max"] = "min"
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        """Check the mode."""
        if self.mode not in ("min", "max"):
            raise ValueError(f"Monitor: expected mode 'min' or 'max', got {self.mode!r}; use one of these")

    def value(self, row: dict[str, float]) -> float:
        """Return the monitored number of an epoch.

        Raises
        ------
        ValueError
            A name that is not in the history.
        """
        if self.name not in row:
            raise ValueError(
                f"Monitor: expected a column of the history ({', '.join(row)}), got {self.name!r}; use one of them"
            )
        return row[self.name]

    def is_better(self, value: float, than: float | None) -> bool:
        """Say whether a value improves on the best so far (None: there is none); NaN never does."""
        if math.isnan(value):
            return False
        if than is None:
            return True
        return value < than - self.min_delta if self.mode == "min" else value > than + self.min_delta


class EarlyStopping(Callback):
    """Stop when the monitored number has not improved for a while.

    Parameters
    ----------
    monitor : Monitor, default that of val_loss
    patience : int, default 5
        Epochs without improvement that are borne.

    Raises
    ------
    ValueError
        A patience below 0.
    """

    def __init__(self, monitor: Monitor | None = None, patience: int = 5) -> None:
        """Start without a best value."""
        if patience < 0:
            raise ValueError(f"EarlyStopping: expected patience of at least 0, got {patience}; count epochs")
        self.monitor = monitor or Monitor()
        self.patience = patience
        self.best: float | None = None
        self.n_waited = 0

    def on_epoch_end(self, run: Run) -> None:
        """Count the epochs since the best one."""
        value = self.monitor.value(run.history[-1])
        if self.monitor.is_better(value, self.best):
            self.best = value
            self.n_waited = 0
        else:
            self.n_waited += 1
            run.is_stopping = run.is_stopping or self.n_waited > self.patience

    def state_dict(self) -> dict[str, Any]:
        """Return the best value and the epochs since."""
        return {"best": self.best, "n_waited": self.n_waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self.best = state["best"]
        self.n_waited = state["n_waited"]
