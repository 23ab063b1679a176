"""What the laws are tried on: one row a configuration of an op. A new op needs a row here and nothing in `laws`."""

from __future__ import annotations

from cases import activation, conv, elementwise, loss, norm, pool, reduce, resample, shape
from cases.case import Case, Input

MODULES = (conv, pool, activation, norm, elementwise, reduce, shape, resample, loss)
CASES: tuple[Case, ...] = tuple(case for module in MODULES for case in module.CASES)

assert len({case.id for case in CASES}) == len(CASES), "two cases share a name"

__all__ = ["CASES", "Case", "Input"]
