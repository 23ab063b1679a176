"""Copies: clone, conversion, memory layout."""

from __future__ import annotations

from typing import Any

from striate import _core
from striate.autograd.op import Op, public, register
from striate.autograd.tensor import Tensor


def _clone_vjp(node: Any, g: Tensor) -> tuple[Tensor]:
    return (g,)


def _convert_vjp(node: Any, g: Tensor) -> tuple[Tensor]:
    return (_convert(g, dtype=node.dtypes[0]),)


_clone = register(Op("clone", _core.clone, _clone_vjp))
_convert = register(Op("to", _core.convert, _convert_vjp))
_relayout = register(Op("relayout", _core.relayout, _clone_vjp))


@public
def clone(x: Tensor) -> Tensor:
    """Copy a tensor into memory of its own, dense, with its axes in the same order in memory.

    Parameters
    ----------
    x : Tensor, any shape

    Returns
    -------
    Tensor, shape of x
        Gradients pass through.
    """
    return _clone(x)  # type: ignore[no-any-return]


@public
def to(x: Tensor, dtype: _core.DType) -> Tensor:
    """Convert to another dtype.

    Parameters
    ----------
    x : Tensor, any shape
    dtype : DType
        Floats round to nearest even; floats to integers truncate toward zero; to bool is x ≠ 0.

    Returns
    -------
    Tensor, shape of x
        `x` itself when it has the dtype. Gradients pass between floating dtypes.
    """
    if x.dtype == dtype:
        return x
    if not dtype.is_floating_point:
        x = x.detach()
    return _convert(x, dtype=dtype)  # type: ignore[no-any-return]


@public
def relayout(x: Tensor, *, channels_last: bool = True) -> Tensor:
    """Copy into another order of axes in memory; shape and values stay.

    Parameters
    ----------
    x : Tensor, any shape
    channels_last : bool, default True
        N, spatial axes, C in memory for ranks 3 to 5; otherwise (and for other ranks) row-major.

    Returns
    -------
    Tensor, shape of x
        On the memory of x when it has the layout already. Copies are counted by `striate.machine.counters()`.
    """
    return _relayout(x, channels_last=channels_last)  # type: ignore[no-any-return]
