"""How callers spell windows: one number, or one per spatial axis; padding also as (begin, end) pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TypeVar

from striate import _core
from striate.autograd.tape import recorders

Spelled = TypeVar("Spelled")

#: One number for all spatial axes, or one per axis.
PerAxis = int | Sequence[int]
#: As PerAxis, or one (begin, end) pair per axis.
Padding = int | Sequence[int] | Sequence[Sequence[int]]


def remembered(spell: Callable[..., Spelled]) -> Callable[..., Spelled]:
    """Keep what a function made of its last arguments: callers say the same about a window call after call.

    Results are shared, so nobody may change them. Equal arguments of one type must mean the same, inside of tuples too.
    """
    known = lru_cache(maxsize=256, typed=True)(spell)

    def recall(*arguments: object) -> Spelled:
        if not recorders:  # sizes may be Dims while recording, and a comparison of these is a guard
            try:
                return known(*arguments)
            except TypeError:  # lists have no hash; an error of `spell` comes again
                pass
        return spell(*arguments)

    return recall


def per_axis(op: str, name: str, value: PerAxis, n_axes: int) -> list[int]:
    """Spell `value` out, one int per spatial axis."""
    if isinstance(value, int):
        return [value] * n_axes
    values = [int(v) for v in value]
    if len(values) == 1:
        return values * n_axes
    if len(values) != n_axes:
        raise _core.ShapeError(
            f"{op}: expected {name} as one number or {n_axes} of them, got {value!r}; pass one per spatial axis"
        )
    return values


def pads(op: str, value: Padding, n_axes: int) -> list[tuple[int, int]]:
    """Spell padding out, one (begin, end) pair per spatial axis."""
    if isinstance(value, int):
        return [(value, value)] * n_axes
    if any(isinstance(v, Sequence) for v in value):
        pairs = [per_axis(op, "padding", v, 2) for v in value]
        if len(pairs) != n_axes:
            raise _core.ShapeError(
                f"{op}: expected padding as {n_axes} (begin, end) pairs, got {value!r}; pass one pair per spatial axis"
            )
        return [(begin, end) for begin, end in pairs]
    return [(p, p) for p in per_axis(op, "padding", value, n_axes)]  # type: ignore[arg-type]
