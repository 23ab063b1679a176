"""What nodes of one model ask while they run."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from striate.io.onnx.value import OnnxError

#: Rounds of all loops in one run.
MOST_TRIPS = 100_000


class Mode(threading.local):
    """How nodes of one model behave now, in each thread: those that learn statistics or drop elements ask, and loops count."""

    def __init__(self, trains_batch_norm: bool) -> None:
        self.is_training = False
        self.trains_batch_norm = trains_batch_norm
        self.n_trips = 0

    def __reduce__(self) -> Any:
        return Mode, (self.trains_batch_norm,)

    def start(self, is_training: bool) -> None:
        """Begin a run."""
        self.is_training = is_training
        self.n_trips = 0

    @contextmanager
    def restarted(self, is_training: bool) -> Iterator[None]:
        """Begin a run of its own within another, or outside of any."""
        before = self.is_training, self.n_trips
        self.start(is_training)
        try:
            yield
        finally:
            self.is_training, self.n_trips = before

    def count_trip(self) -> None:
        """Note that a loop goes round once more; a file without an end is refused."""
        self.n_trips += 1
        if self.n_trips > MOST_TRIPS:
            raise OnnxError(
                f"expected at most {MOST_TRIPS:,} rounds of all loops in one run, got more; the loop may have no end"
            )
