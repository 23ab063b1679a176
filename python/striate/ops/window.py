"""How callers spell windows: one number, or one per spatial axis; padding also as (begin, end) pairs."""

from __future__ import annotations

from collections.abc import Sequence

from striate import _core

#: One number for all spatial axes, or one per axis.
PerAxis = int | Sequence[int]
#: As PerAxis, or one (begin, end) pair per axis.
Padding = int | Sequence[int] | Sequence[Sequence[int]]


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
