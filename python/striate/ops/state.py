"""State: the only thing that changes in place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from striate import _core
from striate.autograd import tape
from striate.autograd.op import Op, public, register
from striate.autograd.tensor import Tensor
from striate.ops.create import DType


@public
def assign(state: Tensor, value: Tensor) -> None:
    """Overwrite a parameter, buffer or moment with a value, and raise its version.

    The call is not recorded for gradients, but is in a recording for replay; a gradient that needs the value from before is refused.

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
    if tape.recorders:
        recorder = tape.recorder()
        if recorder is not None:
            recorder.assign(state._array, value._array)
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


@public
def new_state_like(x: Tensor) -> Tensor:
    """Return zeros of the shape, dtype and memory layout of `x` to keep a moment in; while recording, a state of the record."""
    array = _core.empty_like(x._array, x.dtype)
    array.fill_view()[...] = 0
    state = Tensor._wrap(array)
    recorder = tape.recorder()
    if recorder is not None:
        recorder.declare(state)
    return state


class Update:
    """A change of states in place by the core: running statistics, optimizer steps.

    Eagerly it writes the states' memory. In a recording it is a pure operator of the states, whose results are assigned to
    them, so that a record changes states by `assign` alone.

    Parameters
    ----------
    name : str
        Name of the pure operator in the registry.
    update : callable
        `update(*states, *operands, **attributes)` of Arrays; writes the states.
    """

    def __init__(self, name: str, update: Callable[..., None]) -> None:
        self._update = update
        self._row = register(Op(name, self._pure))

    def _pure(self, *arrays: Any, n_states: int, scalars: Sequence[str] = (), **attributes: Any) -> tuple[Any, ...]:
        states = tuple([_core.clone(array) for array in arrays[:n_states]])
        n_operands = len(arrays) - len(scalars)
        numbers = {name: array.numpy().item() for name, array in zip(scalars, arrays[n_operands:], strict=True)}
        self._update(*states, *arrays[n_states:n_operands], **attributes, **numbers)
        return states

    def __call__(self, states: Sequence[Tensor], operands: Sequence[Tensor] = (), **attributes: Any) -> None:
        """Change `states`; attributes given as tensors of no axes are run-time numbers."""
        scalars = {name: value for name, value in attributes.items() if isinstance(value, Tensor)}
        fixed = {name: value for name, value in attributes.items() if name not in scalars}
        if tape.recorder() is None:
            numbers = {name: value.item() for name, value in scalars.items()}
            self._update(*[x._array for x in (*states, *operands)], **fixed, **numbers)
            return
        changed = self._row(
            *states, *operands, *scalars.values(), n_states=len(states), scalars=tuple(scalars), **fixed
        )
        for state, value in zip(states, changed, strict=True):
            assign(state, value)
