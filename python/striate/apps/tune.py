"""`striate tune`: measures this machine's convolutions and fits the cost model's coefficients to them.

The model predicts cycles as a sum of kinds of work, each with a coefficient. The coefficients sought are not negative and
least far from the measured times, relative to these; what the measurements leave open stays as shipped.
"""

from __future__ import annotations

import functools
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from striate import _core, machine

ALGORITHMS = ("direct", "winograd2", "winograd4", "winograd5", "winograd6")
PASSES = ("forward", "grad_input", "grad_weight")
#: Batch, channels in and out, side of the map: of 3×3 kernels with padding 1.
SHAPES = (
    *((1, c, c, size) for c, size in ((16, 56), (32, 28), (64, 56), (64, 14), (128, 28), (256, 14), (512, 7))),
    *((1, c, o, 13) for c, o in ((48, 192), (64, 256), (256, 64))),
    *((8, c, o, size) for c, o, size in ((3, 32, 56), (8, 8, 28), (16, 64, 28), (32, 32, 28), (64, 64, 28))),
    *((8, c, c, size) for c, size in ((128, 14), (256, 14), (256, 7))),
)
REPEATS = 5
#: How much the shipped coefficients weigh against a measurement.
PRIOR = 0.2
LEAST_EVICTING_BYTES = 32 << 20

Float = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class Measurement:
    """One algorithm for one pass of one shape.

    Attributes
    ----------
    case : tuple
        Shape and pass: what algorithms compete for.
    work : array, (n_coefficients,)
    cycles : float
        At two multiply-adds a cycle and the peak measured beside it, so that a changing clock does not matter.
    """

    case: tuple[object, ...]
    work: Float
    cycles: float


def measure(isa: str, progress: Callable[[int, int], None]) -> list[Measurement]:
    """Time every algorithm on one thread; at batch 1 with weights that are in no cache."""
    found: list[Measurement] = []
    with machine.isa(isa), machine.threads(1):
        for i, shape in enumerate(SHAPES):
            progress(i, len(SHAPES))
            for pass_ in PASSES:
                found += _measure_pass(shape, pass_)
    progress(len(SHAPES), len(SHAPES))
    return found


def _measure_pass(shape: tuple[int, int, int, int], pass_: str) -> Iterator[Measurement]:
    batch, c, o, size = shape
    rng = np.random.default_rng(0)
    # Copies, since nothing packed is kept for memory that NumPy can see.
    x, weight, grad_y = (
        _core.relayout(_core.clone(_core.from_numpy(rng.standard_normal(s, np.float32))), channels_last=True)
        for s in ((batch, c, size, size), (o, c, 3, 3), (batch, o, size, size))
    )
    one = [1, 1]
    window = (one, one, one, one, 1, _core.Padding.explicit)
    run: Callable[[], object] = {
        "forward": lambda: _core.conv("tune", x, weight, None, *window),
        "grad_input": lambda: _core.conv_grad_input("tune", grad_y, weight, x.shape, *window),
        "grad_weight": lambda: _core.conv_grad_weight("tune", grad_y, x, weight.shape, *window),
    }[pass_]
    # Ones: pages of zeros that nobody wrote are one page of memory, and evict nothing.
    evicting = np.ones(max(LEAST_EVICTING_BYTES, 2 * _core.cache_sizes()[2]) // 4, np.float32)
    cycles: dict[str, list[float]] = {name: [] for name in ALGORITHMS}
    verdicts = _core.explain_conv("tune", pass_, x.shape, weight.shape, one, one, one, 1, _core.DType.float32)
    # What the model calls flops is cycles times those of one cycle.
    name, _, flops, _, _, work = verdicts[0]
    flops_a_cycle = flops / float(np.dot(work, _costs()))
    for repeat in range(REPEATS + 1):  # the first warms up
        for name in ALGORITHMS:
            if pass_ == "grad_input":
                weight.raise_version()  # a training step transforms the filters anew
            if batch == 1:
                evicting.sum()
            with machine.algorithm(name):
                begin = time.perf_counter()
                run()
                seconds = time.perf_counter() - begin
            if repeat > 0:
                cycles[name].append(seconds * _core.measure_fma(_core.DType.float32, 0.002) / flops_a_cycle)
    for name, _, _, _, _, work in verdicts:
        yield Measurement((*shape, pass_), np.array(work), statistics.median(cycles[name]))


def _costs() -> Float:
    return np.array(list(_core.conv_costs(machine.active_isa()).values()))


def fit(measurements: list[Measurement], shipped: Float) -> Float:
    """Return the coefficients, by coordinate descent on the squares of relative errors; outliers count less."""
    rows = np.array([m.work * shipped / m.cycles for m in measurements])
    weights = np.ones(len(rows))
    scale = np.ones(len(shipped))
    for _ in range(20):
        matrix = rows * weights[:, None]
        normal = matrix.T @ matrix + PRIOR * np.eye(len(shipped))
        wanted = matrix.T @ weights + PRIOR
        for _ in range(200):
            for j in range(len(scale)):
                scale[j] = max(0.05, scale[j] + (wanted[j] - normal[j] @ scale) / normal[j, j])
        error = np.abs(rows @ scale - 1)
        weights = 1 / np.sqrt(np.maximum(1, error / 0.15))
    return scale * shipped


def regret(measurements: list[Measurement], costs: Float) -> float:
    """Return how much longer the choices by these coefficients take than the best ones, as a geometric mean of ratios."""
    ratios = []
    for case in dict.fromkeys(m.case for m in measurements):
        rivals = [m for m in measurements if m.case == case]
        chosen = min(rivals, key=lambda m: float(m.work @ costs))
        ratios.append(chosen.cycles / min(m.cycles for m in rivals))
    return float(np.exp(np.mean(np.log(ratios))))


def tune(path: Path, isas: list[str], progress: Callable[[str, int, int], None]) -> dict[str, tuple[float, float]]:
    """Measure, fit and write the file that `striate.machine.tuning` reads.

    Returns
    -------
    dict
        Instruction set → `regret` of the shipped coefficients and of the new ones, both on the measurements.
    """
    table, regrets = {}, {}
    with machine.tuning(None), machine.precision(budget=1):
        for isa in isas:
            measurements = measure(isa, functools.partial(progress, isa))
            shipped = np.array(list(_core.conv_costs(isa).values()))
            costs = fit(measurements, shipped)
            regrets[isa] = regret(measurements, shipped), regret(measurements, costs)
            table[isa] = {name: float(f"{cost:.4g}") for name, cost in zip(_core.conv_costs(isa), costs, strict=True)}
    text = json.dumps({"format": machine.TUNING_FORMAT, "cpu": machine.info()["cpu"], "costs": table}, indent=1)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text + "\n")
    os.replace(partial, path)
    return regrets
