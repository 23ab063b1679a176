"""State: the only thing that changes in place."""

from __future__ import annotations

from striate import _core
from striate.autograd.op import public
from striate.autograd.tensor import Tensor


@public
def assign(state: Tensor, value: Tensor) -> None:
    """Overwrite a parameter, buffer or moment with a value, and raise its version.

    The call is not recorded for gradients; a gradient that needs the value from before is refused.

    Parameters
    ----------
    state : Tensor
    value : Tensor
        Same shape and dtype as `state`; memory layouts may differ.

    Raises
    ------
    ShapeError, DTypeError
        A value unlike the state.
    ValueError
        A state in read-only memory.
    """
    _core.assign(state._array, value._array)
