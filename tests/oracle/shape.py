"""Ops that move elements and compute nothing."""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def reshape(x: Array, shape: tuple[int, ...]) -> Array:
    """Elements in logical order, in a new shape; −1 is worked out."""
    return np.reshape(x, shape)


def flatten(x: Array, start_dim: int = 0, end_dim: int = -1) -> Array:
    """Merge axes start_dim … end_dim."""
    end = end_dim % x.ndim
    start = start_dim % x.ndim
    return x.reshape(*x.shape[:start], int(np.prod(x.shape[start : end + 1])), *x.shape[end + 1 :])


def transpose(x: Array, dim0: int, dim1: int) -> Array:
    """Swap two axes."""
    return np.swapaxes(x, dim0, dim1)


def permute(x: Array, dims: tuple[int, ...]) -> Array:
    """Axis a of y is axis dims[a] of x."""
    return np.transpose(x, dims)


def concat(*tensors: Array, dim: int = 0) -> Array:
    """One after the other along dim."""
    return np.concatenate(tensors, axis=dim)


def stack(*tensors: Array, dim: int = 0) -> Array:
    """One after the other along a new axis dim."""
    return np.stack(tensors, axis=dim)


def chunk(x: Array, chunks: int, dim: int = 0) -> tuple[Array, ...]:
    """Pieces of ⌈n / chunks⌉, the last may be shorter."""
    return split(x, -(-x.shape[dim] // chunks), dim)


def narrow(x: Array, dim: int, start: int, length: int) -> Array:
    """Elements start … start + length − 1 of an axis."""
    return np.take(x, range(start, start + length), axis=dim)


def squeeze(x: Array, dim: int | tuple[int, ...] | None = None) -> Array:
    """Drop axes of size 1."""
    axes = range(x.ndim) if dim is None else (dim,) if isinstance(dim, int) else dim
    return np.squeeze(x, axis=tuple(a for a in axes if x.shape[a] == 1))


def unsqueeze(x: Array, dim: int) -> Array:
    """Add an axis of size 1."""
    return np.expand_dims(x, dim)


def expand(x: Array, shape: tuple[int, ...]) -> Array:
    """Repeat axes of size 1; −1 keeps a size."""
    grown = (1,) * (len(shape) - x.ndim) + x.shape
    return np.array(np.broadcast_to(x, [g if s == -1 else s for s, g in zip(shape, grown, strict=True)]))


broadcast_to = expand


def repeat(x: Array, repeats: tuple[int, ...]) -> Array:
    """Copies side by side, repeats[i] along axis i."""
    return np.tile(x, repeats)


def tile(x: Array, dims: tuple[int, ...]) -> Array:
    """Copies side by side, aligned at the last axis."""
    return np.tile(x, dims)


def flip(x: Array, dims: tuple[int, ...]) -> Array:
    """Reverse the order along axes."""
    return np.flip(x, dims)


def tril(x: Array, diagonal: int = 0) -> Array:
    """Zero above the given diagonal of the last two axes."""
    return np.tril(x, diagonal)


def triu(x: Array, diagonal: int = 0) -> Array:
    """Zero below the given diagonal of the last two axes."""
    return np.triu(x, diagonal)


def scatter_add(x: Array, index: Array, src: Array, dim: int) -> Array:
    """y = x; y[i, index[i,j,k], k] += src[i,j,k] for dim = 1, and so on."""
    y = np.array(x)
    for at in np.ndindex(*index.shape):
        target = list(at)
        target[dim] = int(index[at])
        y[tuple(target)] += src[at]
    return y


def split(x: Array, split_size: int | list[int], dim: int = 0) -> tuple[Array, ...]:
    """Pieces of split_size (the last may be shorter), or of the sizes listed."""
    n = x.shape[dim]
    sizes = (
        [split_size] * (n // split_size) + [n % split_size] * (n % split_size > 0)
        if isinstance(split_size, int)
        else split_size
    )
    pieces, at = [], 0
    for size in sizes:
        pieces.append(np.take(x, range(at, at + size), axis=dim))
        at += size
    return tuple(pieces)


def gather(x: Array, index: Array, dim: int) -> Array:
    """y[i,j,k] = x[i, index[i,j,k], k] for dim = 1, and so on."""
    y = np.empty(index.shape, x.dtype)
    for at in np.ndindex(*index.shape):
        source = list(at)
        source[dim] = int(index[at])
        y[at] = x[tuple(source)]
    return y


def pad(x: Array, pad: tuple[int, ...], mode: str = "constant", value: float = 0.0) -> Array:
    """Grow the last len(pad)/2 axes; pairs (begin, end) come last axis first; a negative count crops."""
    pairs = [(pad[2 * a], pad[2 * a + 1]) for a in range(len(pad) // 2)]
    for back, (begin, end) in enumerate(pairs, start=1):
        axis = x.ndim - back
        n = x.shape[axis]
        cells = np.arange(-begin, n + end)
        if mode == "constant":
            outside = (cells < 0) | (cells >= n)
            x = np.take(x, np.clip(cells, 0, max(n - 1, 0)), axis=axis)
            where = [slice(None)] * x.ndim
            where[axis] = outside
            x[tuple(where)] = value
        elif mode == "reflect":
            x = np.take(x, np.where(cells < 0, -cells, np.where(cells >= n, 2 * (n - 1) - cells, cells)), axis=axis)
        else:
            x = np.take(x, np.clip(cells, 0, n - 1), axis=axis)
    return x


def one_hot(x: Array, num_classes: int) -> Array:
    """y[..., c] = 1 where x[...] = c."""
    return (x[..., None] == np.arange(num_classes)).astype(np.int64)


def channel_shuffle(x: Array, groups: int) -> Array:
    c = x.shape[1]
    y = np.empty_like(x)
    for j in range(groups):
        for i in range(c // groups):
            y[:, i * groups + j] = x[:, j * (c // groups) + i]
    return y


def pixel_shuffle(x: Array, upscale_factor: int) -> Array:
    """y[n, c, h·r + i, w·r + j] = x[n, c·r² + i·r + j, h, w]."""
    r = upscale_factor
    n, c, h, w = x.shape
    y = np.empty((n, c // r**2, h * r, w * r), x.dtype)
    for i in range(r):
        for j in range(r):
            y[:, :, i::r, j::r] = x[:, i * r + j :: r**2]
    return y


def pixel_unshuffle(x: Array, downscale_factor: int) -> Array:
    """y[n, c·r² + i·r + j, h, w] = x[n, c, h·r + i, w·r + j]."""
    r = downscale_factor
    n, c, h, w = x.shape
    y = np.empty((n, c * r**2, h // r, w // r), x.dtype)
    for i in range(r):
        for j in range(r):
            y[:, i * r + j :: r**2] = x[:, :, i::r, j::r]
    return y
