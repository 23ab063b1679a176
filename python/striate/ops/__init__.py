"""Operators on tensors: one row each, with its gradient built from rows again."""

from striate.ops.create import arange, empty, from_numpy, full, full_like, ones, ones_like, tensor, zeros, zeros_like
from striate.ops.max_pool import (
    adaptive_max_pool1d,
    adaptive_max_pool2d,
    adaptive_max_pool3d,
    max_pool1d,
    max_pool2d,
    max_pool3d,
)
from striate.ops.state import assign

__all__ = [
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "arange",
    "assign",
    "empty",
    "from_numpy",
    "full",
    "full_like",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "ones",
    "ones_like",
    "tensor",
    "zeros",
    "zeros_like",
]
