"""Operators on tensors: one row each, with its gradient built from rows again."""

from striate.ops.activation import relu
from striate.ops.batch_norm import batch_norm
from striate.ops.conv import conv1d, conv2d, conv3d, conv_transpose1d, conv_transpose2d, conv_transpose3d
from striate.ops.copy import clone, relayout, to
from striate.ops.create import arange, empty, from_numpy, full, full_like, ones, ones_like, tensor, zeros, zeros_like
from striate.ops.elementwise import add, div, mul, neg, sub
from striate.ops.index import gather, index, narrow, scatter_add
from striate.ops.join import cat, chunk, concat, repeat, split, stack, tile
from striate.ops.linear import linear, matmul
from striate.ops.max_pool import (
    adaptive_max_pool1d,
    adaptive_max_pool2d,
    adaptive_max_pool3d,
    max_pool1d,
    max_pool2d,
    max_pool3d,
)
from striate.ops.reduce import sum
from striate.ops.shape import (
    broadcast_to,
    expand,
    flatten,
    flip,
    one_hot,
    permute,
    pixel_shuffle,
    pixel_unshuffle,
    reshape,
    squeeze,
    transpose,
    tril,
    triu,
    unsqueeze,
)
from striate.ops.state import assign, new_state

__all__ = [
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "add",
    "arange",
    "assign",
    "batch_norm",
    "broadcast_to",
    "cat",
    "chunk",
    "clone",
    "concat",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "div",
    "empty",
    "expand",
    "flatten",
    "flip",
    "from_numpy",
    "full",
    "full_like",
    "gather",
    "index",
    "linear",
    "matmul",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "mul",
    "narrow",
    "neg",
    "new_state",
    "one_hot",
    "ones",
    "ones_like",
    "permute",
    "pixel_shuffle",
    "pixel_unshuffle",
    "relayout",
    "relu",
    "repeat",
    "reshape",
    "scatter_add",
    "split",
    "squeeze",
    "stack",
    "sub",
    "sum",
    "tensor",
    "tile",
    "to",
    "transpose",
    "tril",
    "triu",
    "unsqueeze",
    "zeros",
    "zeros_like",
]
