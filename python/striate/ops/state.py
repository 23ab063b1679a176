"""State: the only thing that changes in place."""

from __future__ import annotations

from collections.abc import Sequence

from striate import _core
from striate.autograd.op import public
from striate.autograd.tensor import Tensor
from striate.ops.create import DType


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


@public
def new_state(shape: Sequence[int], *, dtype: DType = DType.float32) -> Tensor:
    """Return zeros to keep a parameter or buffer in.

    Parameters
    ----------
    shape : sequence of int
    dtype : DType, default float32

    Returns
    -------
    Tensor
        In memory of its own, which no outside code can write, so that kernels may keep packed copies of it. Three to five
        axes are stored channels-last: a convolution's weight (O, I, P, Q) as O, P, Q, I.
    """
    array = _core.empty(list(shape), dtype, channels_last=True)
    array.fill_view()[...] = 0
    return Tensor._wrap(array)
