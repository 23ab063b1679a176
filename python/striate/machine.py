"""The computer: instruction sets, threads, memory. Implements `striate.isa`, `striate.threads` and `striate.memory`."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from striate import _core

__all__ = [
    "Explanation",
    "Verdict",
    "active_isa",
    "algorithm",
    "available_isas",
    "best_isa",
    "counters",
    "explain",
    "info",
    "isa",
    "precision",
    "reset_counters",
    "thread_count",
    "threads",
    "tuning",
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
        "auto" (a cost model within `striate.precision`), "direct", "winograd2", "winograd4", "winograd5" or "winograd6":
        F(m×m, 3×3), also F(2×2, 5×5) for "winograd2", and of stride 2 for "winograd4" and "winograd5".

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

    Winograd convolution F(m×m, r×r) rounds more than a sum of products does: its error grows by the factor by which its
    transforms can enlarge a tile. An algorithm is used where 2⁻²⁴ times that factor is within the budget.

    Parameters
    ----------
    budget : float, optional
        0 means direct algorithms only; 1e-5, which holds at the start, admits F(2×2, 3×3) (4.24e-7), F(4×4, 3×3) (3.74e-6),
        F(5×5, 3×3) (9.78e-6) and F(2×2, 5×5) (2.70e-6), and of stride 2 F(4×4, 3×3) (1.30e-6) and F(5×5, 3×3) (2.66e-6);
        F(6×6, 3×3) needs 3.04e-5. None leaves it as it is.
    batch_invariant : bool, optional
        Whether a convolution and its data gradient take the algorithm of batch 1, so that the bits of a sample do not depend
        on the batch it is in. False at the start; None leaves it as it is.

    Raises
    ------
    ValueError
        A negative budget or NaN.
    """

    def __init__(self, *, budget: float | None = None, batch_invariant: bool | None = None) -> None:
        self._before = _core.error_budget(), _core.is_batch_invariant()
        if budget is not None:
            _core.set_error_budget(budget)
        if batch_invariant is not None:
            _core.set_batch_invariant(batch_invariant)

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        budget, is_invariant = self._before
        _core.set_error_budget(budget)
        _core.set_batch_invariant(is_invariant)


#: Names the layout of a tuning file; another one is refused.
TUNING_FORMAT = "striate tuning 1"


class tuning:  # reads as a function: striate.machine.tuning("tuning.json")
    """Let coefficients measured on this machine choose algorithms, for good or for a `with` block.

    Which algorithm runs decides the bits of a result, so a tuning is never loaded unasked.

    Parameters
    ----------
    path : str, PathLike or None
        A file that `striate tune` wrote; None for the shipped coefficients.

    Raises
    ------
    OSError
        The file can't be read.
    ValueError
        It is no tuning file, or misses a coefficient. Nothing is changed.
    """

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        tables = {} if path is None else _read_tuning(path)
        self._before = _active_tuning[0]
        _apply_tuning(tables)

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _apply_tuning(self._before)


#: Instruction set → coefficients in the order of the cost model; empty: as shipped.
_active_tuning: list[dict[str, list[float]]] = [{}]


def _apply_tuning(tables: dict[str, list[float]]) -> None:
    for name in _core.available_isas():
        _core.set_conv_costs(name, tables.get(name))
    _active_tuning[0] = tables


def _read_tuning(path: str | os.PathLike[str]) -> dict[str, list[float]]:
    import json  # here and below: half of what `import striate` would cost

    where = os.fspath(path)
    hint = "write one with striate tune"
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except ValueError as error:
        raise ValueError(f"tuning: expected JSON in {where}, got {error}; {hint}") from None
    if not isinstance(content, dict) or content.get("format") != TUNING_FORMAT:
        raise ValueError(f"tuning: expected a file of format {TUNING_FORMAT!r}, got another in {where}; {hint}")
    costs = content.get("costs")
    tables: dict[str, list[float]] = {}
    for isa_name, table in (costs if isinstance(costs, dict) else {}).items():
        tables[isa_name] = []
        for name in _core.conv_costs(active_isa()):
            value = table.get(name) if isinstance(table, dict) else None
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise ValueError(
                    f"tuning: expected a positive number for {name} of {isa_name} in {where}, got {value!r}; {hint}"
                )
            tables[isa_name].append(float(value))
    if not tables:
        raise ValueError(f"tuning: expected coefficients of an instruction set in {where}, got none; {hint}")
    return tables


def _tuning_hash() -> str:
    """Return what tells tunings apart: "shipped", or the start of a SHA-256."""
    if not _active_tuning[0]:
        return "shipped"
    import hashlib
    import json

    return hashlib.sha256(json.dumps(_active_tuning[0], sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the choice thinks of one algorithm.

    Attributes
    ----------
    algorithm : str
        As `algorithm` takes it, or "depthwise", or "grouped" for groups of up to 64 channels.
    is_chosen : bool
        Whether it runs.
    predicted_ms : float or None
        Time on one core at the multiply-add peak measured in this process; None where there is no prediction.
    error_bound : float
        What it may add to the direct algorithm's error, relative to Σ|x||w| over a tile.
    reason : str
        Why it is taken, or not.
    """

    algorithm: str
    is_chosen: bool
    predicted_ms: float | None
    error_bound: float
    reason: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Which algorithm an op takes, and why; printed as a table.

    Attributes
    ----------
    op, pass_, isa : str
        What was asked for, and the instruction set it is answered for.
    verdicts : tuple of Verdict
        One for each algorithm.
    """

    op: str
    pass_: str
    isa: str
    verdicts: tuple[Verdict, ...]

    @property
    def chosen(self) -> Verdict:
        """The algorithm that runs."""
        return next(verdict for verdict in self.verdicts if verdict.is_chosen)

    def __str__(self) -> str:
        lines = [
            f"{self.op} {self.pass_}, {self.isa}",
            f"  {'algorithm':<10} {'predicted':>12} {'error bound':>12}  reason",
        ]
        for verdict in self.verdicts:
            time = "" if verdict.predicted_ms is None else f"{verdict.predicted_ms:.3f} ms"
            mark = "*" if verdict.is_chosen else " "
            lines.append(
                f"{mark} {verdict.algorithm:<10} {time:>12} {verdict.error_bound:>12.1e}  {verdict.reason}".rstrip()
            )
        return "\n".join(lines)


@functools.cache
def _peak_flops(isa_name: str) -> float:
    """Floating-point operations a second of one core, measured once per instruction set."""
    with threads(1):
        return _core.measure_fma(_core.DType.float32, 0.02)


def explain(
    op: str,
    x_shape: Sequence[int],
    weight_shape: Sequence[int],
    *,
    pass_: str = "forward",
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    dtype: _core.DType = _core.DType.float32,
) -> Explanation:
    """Tell which algorithm a convolution takes for these shapes, and why it takes no other.

    Parameters
    ----------
    op : str
        "conv1d", "conv2d" or "conv3d".
    x_shape : sequence of int, (N, C, *spatial)
    weight_shape : sequence of int, (O, C // groups, *kernel_size)
    pass_ : str
        "forward", "grad_input" or "grad_weight".
    stride, padding, dilation : int or sequence of int
        As the op takes them; padding in numbers.
    groups : int
    dtype : DType
        float32 or float64; the latter is always direct.

    Returns
    -------
    Explanation
        Under the `precision`, `algorithm` and `isa` that hold now. The choice depends on geometry, instruction set, cache
        sizes and precision, never on the number of threads.

    Raises
    ------
    ValueError
        Another op or pass, or shapes that the op refuses.

    Examples
    --------
    >>> import striate
    >>> striate.machine.explain("conv2d", (1, 64, 56, 56), (64, 64, 7, 7), stride=2, padding=3).chosen.algorithm
    'direct'
    """
    axes = {"conv1d": 1, "conv2d": 2, "conv3d": 3}
    if op not in axes:
        raise ValueError(f"explain: expected op conv1d, conv2d or conv3d, got {op!r}; other ops have one algorithm")
    n_axes = axes[op]
    if len(x_shape) != n_axes + 2:
        raise _core.ShapeError(
            f"explain: expected x_shape of {n_axes + 2} sizes (N, C, *spatial) for {op}, got {tuple(x_shape)}; "
            "pass the op for this many axes"
        )

    def per_axis(value: int | Sequence[int]) -> list[int]:
        return [value] * n_axes if isinstance(value, int) else list(value)

    found = _core.explain_conv(
        op,
        pass_,
        list(x_shape),
        list(weight_shape),
        per_axis(stride),
        per_axis(padding),
        per_axis(dilation),
        groups,
        dtype,
    )
    peak = _peak_flops(_core.active_isa())
    return Explanation(
        op,
        pass_,
        _core.active_isa(),
        tuple(
            Verdict(name, is_chosen, 1e3 * flops / peak if flops > 0 else None, bound, reason)
            for name, is_chosen, flops, bound, reason, _ in found
        ),
    )


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
        "tuning": _tuning_hash(),
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
