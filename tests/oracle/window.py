"""Where a window of taps lies over an axis: padding in all its spellings, output size, taps inside the image."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

Index = np.ndarray


def per_axis(value: object, n_axes: int) -> tuple[int, ...]:
    """Spell an attribute out, one int an axis."""
    if isinstance(value, Sequence):
        values = tuple(int(v) for v in value)
        return values * n_axes if len(values) == 1 else values
    return (int(value),) * n_axes  # type: ignore[call-overload]


def pads(padding: object, kernel: Sequence[int], dilation: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Spell padding out as (begin, end) an axis; "same" puts the odd cell at the end."""
    n_axes = len(kernel)
    if padding == "valid":
        return ((0, 0),) * n_axes
    if padding == "same":
        totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return tuple((t // 2, t - t // 2) for t in totals)
    if isinstance(padding, Sequence) and any(isinstance(p, Sequence) for p in padding):
        return tuple((int(b), int(e)) for b, e in padding)
    return tuple((p, p) for p in per_axis(padding, n_axes))


@dataclass(frozen=True)
class Axis:
    """One spatial axis: tap p of output i reads input cell i·stride + p·dilation − begin."""

    size: int
    kernel: int
    stride: int = 1
    dilation: int = 1
    begin: int = 0
    end: int = 0
    ceil_mode: bool = False

    @property
    def out(self) -> int:
        """Count the windows: those that fit, and with ceil_mode one more if it starts inside image or begin padding."""
        room = self.size + self.begin + self.end - self.dilation * (self.kernel - 1) - 1
        if not self.ceil_mode:
            return room // self.stride + 1
        out = math.ceil(room / self.stride) + 1
        if (out - 1) * self.stride >= self.size + self.begin:
            out -= 1
        return out

    def inside(self, tap: int) -> tuple[Index, Index]:
        """Return the outputs whose given tap lies inside the image, and the cells that tap reads."""
        i = np.arange(self.out)
        cell = i * self.stride + tap * self.dilation - self.begin
        ok = (cell >= 0) & (cell < self.size)
        return i[ok], cell[ok]


def axes(
    size: Sequence[int],
    kernel: Sequence[int],
    stride: object,
    padding: object,
    dilation: object,
    ceil_mode: bool = False,
) -> list[Axis]:
    """Build the Axis of every spatial axis."""
    n = len(kernel)
    s, d = per_axis(stride, n), per_axis(dilation, n)
    p = pads(padding, kernel, d)
    return [Axis(size[a], kernel[a], s[a], d[a], p[a][0], p[a][1], ceil_mode) for a in range(n)]


def taps(windows: Sequence[Axis]) -> Iterator[tuple[tuple[int, ...], tuple[Index, ...], tuple[Index, ...]]]:
    """Visit every tap, with the output indices it serves and the input cells it reads, one index vector an axis."""
    for tap in np.ndindex(*(w.kernel for w in windows)):
        pairs = [w.inside(t) for w, t in zip(windows, tap, strict=True)]
        yield tap, tuple(i for i, _ in pairs), tuple(c for _, c in pairs)
