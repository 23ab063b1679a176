"""Operators on tensors: one row each, with its gradient built from rows again."""

from striate.ops.create import arange, empty, from_numpy, full, full_like, ones, ones_like, tensor, zeros, zeros_like

__all__ = [
    "arange",
    "empty",
    "from_numpy",
    "full",
    "full_like",
    "ones",
    "ones_like",
    "tensor",
    "zeros",
    "zeros_like",
]
