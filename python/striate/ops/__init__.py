"""Operators on tensors: one row each, with its gradient built from rows again."""

from striate.ops.create import arange, empty, from_numpy, full, full_like, ones, ones_like, tensor, zeros, zeros_like
from striate.ops.state import assign

__all__ = [
    "arange",
    "assign",
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
