"""Calls into Python in the middle of a model: what no operator of the core computes, in programs, too."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from striate.autograd import tape
from striate.autograd.op import Op, functions
from striate.autograd.tensor import Tensor


@dataclass(frozen=True, slots=True)
class HostCall:
    """A call into Python that a record is cut at; see `host_call`.

    Attributes
    ----------
    name : str
    function : callable
        Of all operands.
    operands : tuple
        In their order: the id of a tensor's value, or a size as a `_core.Dim`.
    results : tuple of int
        Ids of values, which are inputs of the graph.
    n_nodes : int
        Recorded before it.
    """

    name: str
    function: Callable[..., Any]
    operands: tuple[Any, ...]
    results: tuple[int, ...]
    n_nodes: int


@contextmanager
def suspended() -> Iterator[None]:
    """Record no operators of this thread for a while, neither for replay nor for gradients."""
    thread = threading.get_ident()
    recorder = tape.recorders.pop(thread, None)
    try:
        with tape.no_grad():
            yield
    finally:
        if recorder is not None:
            tape.recorders[thread] = recorder


def host_call(name: str, function: Callable[..., Any], *operands: Tensor | int) -> list[Tensor]:
    """Compute with values of tensors in Python: by NumPy, or anything else.

    A model that calls this compiles: the program is cut there, and calls the function between its pieces, each time it
    runs. How large results are may differ from call to call; what follows is planned for the sizes that come.

    Parameters
    ----------
    name : str
        What `explain` and messages call it.
    function : callable
        `function(*operands)` → a tensor or ndarray, or a sequence of these. It gets the operands as tensors that need no
        gradient (`.numpy()` reads them) and as plain ints. Results must follow from the operands alone, in memory that nobody writes
        to later; a program may call the function again, and from several threads at once. How many results there are, their
        dtypes and numbers of axes should not change: where they do, a program records anew.
    *operands : Tensor or int
        Ints may be sizes: in a program they follow the inputs.

    Returns
    -------
    list of Tensor
        One for each result.

    Raises
    ------
    TypeError
        Results that are no tensors.
    RuntimeError
        By `backward` through a result: it has no gradient.
    RecordError
        In a record that cannot be cut: training steps, and models that are saved as ONNX.

    Examples
    --------
    >>> import numpy as np, striate
    >>> from striate.autograd import host_call
    >>> def positive(x):
    ...     (found,) = host_call("positive", lambda t: t.numpy()[t.numpy() > 0], x)
    ...     return found * 2.0
    >>> program = striate.compile(positive, striate.tensor([1.0, -1.0]))
    >>> program(striate.tensor([-1.0, 2.0, 3.0])).numpy().tolist()
    [4.0, 6.0]
    """
    recorder = tape.recorder()
    if recorder is not None:
        return recorder.call_host(name, function, operands)
    tensors = [x for x in operands if isinstance(x, Tensor)]
    made: list[Tensor] = []

    def forward(*_: Any) -> tuple[Any, ...]:
        made.extend(run_host(name, function, operands))
        return tuple([x._array for x in made])

    def refuse(*_: Any) -> Any:
        raise RuntimeError(
            f"backward: expected operators that have a gradient, got the host call {name!r}, which has none; detach before it"
        )

    return list(Op(name, forward, refuse)(*tensors))


def run_host(name: str, function: Callable[..., Any], operands: Sequence[Tensor | int]) -> list[Tensor]:
    """Call a function of a host call, recording nothing of what it does; return its results as tensors."""
    with suspended():
        results = function(*[x.detach() if isinstance(x, Tensor) else int.__add__(x, 0) for x in operands])
        listed = list(results) if isinstance(results, tuple | list) else [results]
        return [_as_tensor(name, x) for x in listed]


def _as_tensor(name: str, value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, np.ndarray | np.generic):
        return functions["from_numpy"](value)  # type: ignore[no-any-return]
    raise TypeError(
        f"{name}: expected tensors or arrays as results of a host call, got {type(value).__name__}; convert them"
    )
