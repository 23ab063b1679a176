"""Learning rates as pure functions of the step: `schedule(step)` → lr, with torch's formulas.

A step is one update by the optimizer, counted from 0. Schedules hold no state, so a resumed run only needs the step.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

__all__ = ["Constant", "Cosine", "Linear", "MultiStep", "OneCycle", "Schedule", "Sequential", "Step"]


class Schedule(Protocol):
    """Anything that maps a step to a learning rate."""

    def __call__(self, step: int) -> float:
        """Return the learning rate of this step."""
        ...


def _check(name: str, **at_least_one: int) -> None:
    for argument, value in at_least_one.items():
        if value < 1:
            raise ValueError(f"{name}: expected {argument} of at least 1, got {value}; count steps, not epochs")


@dataclass(frozen=True, slots=True)
class Constant:
    """Keep one learning rate.

    Parameters
    ----------
    lr : float
    """

    lr: float

    def __call__(self, step: int) -> float:
        """Return lr."""
        return self.lr


@dataclass(frozen=True, slots=True)
class Step:
    """Multiply by gamma every `step_size` steps, lr · gamma^⌊step / step_size⌋.

    Parameters
    ----------
    lr : float
    step_size : int
    gamma : float, default 0.1

    Raises
    ------
    ValueError
        A step_size below 1.
    """

    lr: float
    step_size: int
    gamma: float = 0.1

    def __post_init__(self) -> None:
        """Check the arguments."""
        _check("Step", step_size=self.step_size)

    def __call__(self, step: int) -> float:
        """Return the learning rate of this step."""
        return self.lr * self.gamma ** (step // self.step_size)


@dataclass(frozen=True, slots=True)
class MultiStep:
    """Multiply by gamma at each milestone.

    Parameters
    ----------
    lr : float
    milestones : sequence of int
        Steps, rising.
    gamma : float, default 0.1

    Raises
    ------
    ValueError
        Milestones that fall.
    """

    lr: float
    milestones: Sequence[int]
    gamma: float = 0.1

    def __post_init__(self) -> None:
        """Check the order."""
        if sorted(self.milestones) != list(self.milestones):
            raise ValueError(f"MultiStep: expected rising milestones, got {list(self.milestones)}; sort them")

    def __call__(self, step: int) -> float:
        """Return the learning rate of this step."""
        return self.lr * self.gamma ** bisect.bisect_right(self.milestones, step)


@dataclass(frozen=True, slots=True)
class Cosine:
    """Fall from lr to eta_min along half a cosine, eta_min + (lr − eta_min) · (1 + cos(π · step / t_max)) / 2.

    Parameters
    ----------
    lr : float
    t_max : int
        Steps of the fall; afterwards eta_min.
    eta_min : float, default 0

    Raises
    ------
    ValueError
        A t_max below 1.

    References
    ----------
    Loshchilov and Hutter, "SGDR", 2016, arXiv:1608.03983, equation 5.
    """

    lr: float
    t_max: int
    eta_min: float = 0.0

    def __post_init__(self) -> None:
        """Check the arguments."""
        _check("Cosine", t_max=self.t_max)

    def __call__(self, step: int) -> float:
        """Return the learning rate of this step."""
        fraction = min(step, self.t_max) / self.t_max
        return self.eta_min + (self.lr - self.eta_min) * (1 + math.cos(math.pi * fraction)) / 2


@dataclass(frozen=True, slots=True)
class Linear:
    """Go from lr · start_factor to lr · end_factor in a line, and stay there; warm-up by default.

    Parameters
    ----------
    lr : float
    total_iters : int
        Steps of the way.
    start_factor, end_factor : float, default 1/3 and 1

    Raises
    ------
    ValueError
        A total_iters below 1.
    """

    lr: float
    total_iters: int
    start_factor: float = 1.0 / 3
    end_factor: float = 1.0

    def __post_init__(self) -> None:
        """Check the arguments."""
        _check("Linear", total_iters=self.total_iters)

    def __call__(self, step: int) -> float:
        """Return the learning rate of this step."""
        fraction = min(step, self.total_iters) / self.total_iters
        return self.lr * (self.start_factor + (self.end_factor - self.start_factor) * fraction)


@dataclass(frozen=True, slots=True)
class OneCycle:
    """Rise from max_lr / div_factor to max_lr, then fall to a tiny rate.

    Parameters
    ----------
    max_lr : float
    total_steps : int
        Steps of the whole run; the last one has the lowest rate.
    pct_start : float, default 0.3
        Share of the steps spent rising.
    anneal_strategy : {"cos", "linear"}
        Shape of both ways.
    div_factor : float, default 25
        max_lr / first rate.
    final_div_factor : float, default 10⁴
        First rate / last rate.

    Raises
    ------
    ValueError
        Fewer than 1 step, or a share outside 0 to 1.

    Notes
    -----
    Only the learning rate moves; torch's class also cycles the momentum unless told not to.

    References
    ----------
    Smith and Topin, "Super-convergence", 2017, arXiv:1708.07120.
    """

    max_lr: float
    total_steps: int
    pct_start: float = 0.3
    anneal_strategy: Literal["cos", "linear"] = "cos"
    div_factor: float = 25.0
    final_div_factor: float = 1e4

    def __post_init__(self) -> None:
        """Check the arguments."""
        _check("OneCycle", total_steps=self.total_steps)
        if not 0 <= self.pct_start <= 1:
            raise ValueError(f"OneCycle: expected pct_start from 0 to 1, got {self.pct_start}; pass a fraction")

    def __call__(self, step: int) -> float:
        """Return the learning rate of this step."""
        first = self.max_lr / self.div_factor
        last = first / self.final_div_factor
        top = self.pct_start * self.total_steps - 1
        end = self.total_steps - 1
        step = min(step, end)
        if step <= top:
            return self._between(first, self.max_lr, step / top if top > 0 else 1.0)
        return self._between(self.max_lr, last, (step - top) / (end - top))

    def _between(self, start: float, end: float, fraction: float) -> float:
        if self.anneal_strategy == "cos":
            return end + (start - end) * (1 + math.cos(math.pi * fraction)) / 2
        return start + (end - start) * fraction


@dataclass(frozen=True, slots=True)
class Sequential:
    """Follow one schedule after another; each counts steps from its own start.

    Parameters
    ----------
    schedules : sequence of Schedule
    milestones : sequence of int
        Step at which each but the first takes over.

    Raises
    ------
    ValueError
        A number of milestones other than one below that of schedules, or milestones that do not rise.

    Examples
    --------
    >>> warm_cosine = Sequential([Linear(0.1, 100), Cosine(0.1, 900)], [100])
    >>> warm_cosine(100)
    0.1
    """

    schedules: Sequence[Schedule]
    milestones: Sequence[int]

    def __post_init__(self) -> None:
        """Check the arguments."""
        if len(self.milestones) != len(self.schedules) - 1 or sorted(set(self.milestones)) != list(self.milestones):
            raise ValueError(
                f"Sequential: expected {len(self.schedules) - 1} rising milestones for {len(self.schedules)} schedules, "
                f"got {list(self.milestones)}; give the start of each but the first"
            )

    def __call__(self, step: int) -> float:
        """Return the learning rate of this step."""
        i = bisect.bisect_right(self.milestones, step)
        return self.schedules[i](step - (self.milestones[i - 1] if i else 0))
