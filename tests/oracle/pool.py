"""Pooling over 1 to 3 spatial axes, window by window."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from oracle.window import axes, per_axis

Array = np.ndarray


def max_pool(
    x: Array,
    kernel_size: object,
    *,
    stride: object = None,
    padding: object = 0,
    dilation: object = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Array | tuple[Array, Array]:
    """y[n,c,i] = max over the taps inside the image of x[n,c, i·s + p·d − pad]; NaN wins.

    The index of a maximum counts the cells of the image in row-major order; the first of equals wins.
    """
    kernel = per_axis(kernel_size, x.ndim - 2)
    windows = axes(x.shape[2:], kernel, kernel if stride is None else stride, padding, dilation, ceil_mode)
    y = np.empty((*x.shape[:2], *(w.out for w in windows)))
    where = np.empty(y.shape, np.int64)
    for i in np.ndindex(*y.shape[2:]):
        cells = []
        for a, w in enumerate(windows):
            cell = i[a] * w.stride + np.arange(w.kernel) * w.dilation - w.begin
            cells.append(cell[(cell >= 0) & (cell < w.size)])
        read = x[np.ix_(range(x.shape[0]), range(x.shape[1]), *cells)]
        y[(slice(None), slice(None), *i)] = read.max(axis=tuple(range(2, x.ndim)), initial=-np.inf)
        where[(slice(None), slice(None), *i)] = _first_maximum(read, x.shape[2:], cells)
    return (y, where) if return_indices else y


def _first_maximum(read: Array, sizes: tuple[int, ...], cells: list[Array]) -> Array:
    """Return, for every sample and channel, the cell of the image that holds the largest value of a window."""
    in_image = np.arange(int(np.prod(sizes))).reshape(sizes)[np.ix_(*cells)].reshape(-1)
    if in_image.size == 0:
        return np.zeros(read.shape[:2], np.int64)
    return in_image[np.argmax(read.reshape(*read.shape[:2], in_image.size), axis=2)]


def avg_pool(
    x: Array,
    kernel_size: object,
    *,
    stride: object = None,
    padding: object = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Array:
    """y[n,c,i] = Σ_p x[n,c, i·s + p − pad] / count; count is the window cut to the image with or without padding."""
    kernel = per_axis(kernel_size, x.ndim - 2)
    windows = axes(x.shape[2:], kernel, kernel if stride is None else stride, padding, 1, ceil_mode)
    y = np.empty((*x.shape[:2], *(w.out for w in windows)))
    for i in np.ndindex(*y.shape[2:]):
        cells, count = [], 1
        for a, w in enumerate(windows):
            cell = i[a] * w.stride + np.arange(w.kernel) - w.begin
            inside = cell[(cell >= 0) & (cell < w.size)]
            cells.append(inside)
            count *= int(np.sum(cell < w.size + w.end)) if count_include_pad else len(inside)
        read = x[np.ix_(range(x.shape[0]), range(x.shape[1]), *cells)]
        y[(slice(None), slice(None), *i)] = read.sum(axis=tuple(range(2, x.ndim))) / (divisor_override or count)
    return y


def _adaptive(x: Array, output_size: object, reduce: Callable[..., Array]) -> Array:
    n_axes = x.ndim - 2
    wanted = output_size if isinstance(output_size, tuple | list) else (output_size,) * n_axes
    out = [x.shape[2 + a] if o is None else int(o) for a, o in enumerate(wanted)]
    y = np.empty((*x.shape[:2], *out))

    def cells(i: tuple[int, ...]) -> Iterator[range]:
        for a in range(n_axes):
            size = x.shape[2 + a]
            yield range(math.floor(i[a] * size / out[a]), math.ceil((i[a] + 1) * size / out[a]))

    for i in np.ndindex(*out):
        read = x[np.ix_(range(x.shape[0]), range(x.shape[1]), *cells(i))]
        y[(slice(None), slice(None), *i)] = reduce(read, axis=tuple(range(2, x.ndim)))
    return y


def adaptive_avg_pool(x: Array, output_size: object) -> Array:
    """y[n,c,i] = mean of x over cells ⌊i·L/O⌋ … ⌈(i+1)·L/O⌉ − 1 of each axis."""
    return _adaptive(x, output_size, np.mean)


def adaptive_max_pool(x: Array, output_size: object, return_indices: bool = False) -> Array | tuple[Array, Array]:
    """y[n,c,i] = max of x over cells ⌊i·L/O⌋ … ⌈(i+1)·L/O⌉ − 1 of each axis; indices as those of max_pool."""
    y = _adaptive(x, output_size, np.max)
    if not return_indices:
        return y
    places = np.broadcast_to(np.arange(int(np.prod(x.shape[2:]))).reshape(x.shape[2:]), x.shape)
    where = np.empty(y.shape, np.int64)
    for at in np.ndindex(*y.shape):  # cells of the window that hold the maximum, the first of them
        window = [
            range(math.floor(i * x.shape[2 + a] / y.shape[2 + a]), math.ceil((i + 1) * x.shape[2 + a] / y.shape[2 + a]))
            for a, i in enumerate(at[2:])
        ]
        block = np.ix_([at[0]], [at[1]], *window)
        where[at] = places[block].reshape(-1)[np.argmax(x[block].reshape(-1))]
    return y, where
