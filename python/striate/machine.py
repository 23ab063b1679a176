"""The computer: instruction sets, threads, memory. Implements `striate.isa`, `striate.threads` and `striate.memory`."""

from __future__ import annotations

from types import TracebackType

from striate import _core

__all__ = [
    "active_isa",
    "algorithm",
    "available_isas",
    "best_isa",
    "counters",
    "info",
    "isa",
    "precision",
    "reset_counters",
    "thread_count",
    "threads",
]


class threads:  # reads as a function: striate.threads(2)
    """Set the number of threads, for good or for a `with` block.

    Results are equal to the bit for any number.

    Parameters
    ----------
    n_threads : int
        At least 1.

    Raises
    ------
    ValueError
        A number below 1.
    """

    def __init__(self, n_threads: int) -> None:
        self._before = _core.thread_count()
        _core.set_thread_count(n_threads)

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _core.set_thread_count(self._before)


class isa:  # reads as a function: striate.isa("avx2")
    """Set the instruction set of the kernels, for good or for a `with` block.

    Parameters
    ----------
    name : str
        One of `available_isas()`.

    Raises
    ------
    ValueError
        An instruction set that this CPU or this build does not have.
    """

    def __init__(self, name: str) -> None:
        self._before = _core.active_isa()
        _core.set_isa(name)

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _core.set_isa(self._before)


class algorithm:  # reads as a function: striate.machine.algorithm("direct")
    """Set which algorithm float32 convolutions take where it applies, for good or for a `with` block.

    Meant for tests and measurements; `striate.precision` is the setting for users.

    Parameters
    ----------
    name : str
        "auto" (a cost model within `striate.precision`), "direct", "winograd2", "winograd4" or "winograd6": F(m×m, 3×3).

    Raises
    ------
    ValueError
        Another name.
    """

    def __init__(self, name: str) -> None:
        self._before = _core.conv_algorithm()
        _core.set_conv_algorithm(name)

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _core.set_conv_algorithm(self._before)


class precision:  # reads as a function: striate.precision(budget=0)
    """Bound the error that a faster algorithm may add, for good or for a `with` block.

    Winograd convolution F(m×m, 3×3) rounds more than a sum of products does: its error grows by the factor by which its
    transforms can enlarge a tile. An algorithm is used where 2⁻²⁴ times that factor is within the budget.

    Parameters
    ----------
    budget : float
        0 means direct algorithms only; the default, 1e-5, admits F(2×2) (4.2e-7) and F(4×4) (3.8e-6); F(6×6) needs
        3.1e-5.

    Raises
    ------
    ValueError
        A negative budget or NaN.
    """

    def __init__(self, *, budget: float) -> None:
        self._before = _core.error_budget()
        _core.set_error_budget(budget)

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _core.set_error_budget(self._before)


def available_isas() -> list[str]:
    """Return the instruction sets that this build holds and this CPU runs, worst first."""
    return _core.available_isas()


def active_isa() -> str:
    """Return the instruction set that kernels use now."""
    return _core.active_isa()


def best_isa() -> str:
    """Return the instruction set chosen when none is forced."""
    return _core.best_isa()


def thread_count() -> int:
    """Return the number of threads that kernels use now."""
    return _core.thread_count()


def info() -> dict[str, object]:
    """Return what is known of the machine and the build."""
    l1, l2, l3 = _core.cache_sizes()
    return {
        "version": _core.__version__,
        "cpu": _core.cpu_name(),
        "isa": _core.active_isa(),
        "available_isas": _core.available_isas(),
        "threads": _core.thread_count(),
        "executor": _core.executor_name(),
        "l1_bytes": l1,
        "l2_bytes": l2,
        "l3_bytes": l3,
        "build": _core.build_description(),
    }


def counters() -> dict[str, int]:
    """Return what ran since the last reset.

    Returns
    -------
    dict
        `relayouts`, copies that changed the order of axes in memory, and `relayout_bytes`, what they wrote.
    """
    return _core.counters()


def reset_counters() -> None:
    """Set all counters to zero."""
    _core.reset_counters()
