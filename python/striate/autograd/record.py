"""Recording a pass: operators, state changes and the sizes they depend on, as one Graph."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from striate import _core
from striate.autograd import tape
from striate.autograd.dim import Dim
from striate.autograd.host import HostCall, run_host
from striate.autograd.op import functions
from striate.autograd.tensor import Tensor

Tensors = Sequence[Tensor] | Mapping[str, Tensor]

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


class RecordError(RuntimeError):
    """Something that a record cannot hold: a value read by Python, or memory changed by other means than `assign`."""


class ReadError(RecordError):
    """Values read by Python while recording."""


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a recording was at one moment; see `Recording.mark`."""

    graph: _core.GraphMark
    n_host_calls: int
    n_kept: int
    draws: dict[int, int]


class _Known:
    """What the recording knows of one array: its value in the graph, and the version of its memory."""

    __slots__ = ("value", "version")

    def __init__(self, value: int, version: int) -> None:
        self.value = value
        self.version = version


class _Stream:
    """A generator while recording: its state, its draws before, and its draws since."""

    __slots__ = ("n_draws", "start", "state")

    def __init__(self, state: Tensor, start: int) -> None:
        self.state = state
        self.start = start
        self.n_draws = 0


def _caller() -> str:
    """Return "file:line" of the innermost frame outside this package."""
    frame = sys._getframe(1)
    while frame.f_back is not None and os.path.abspath(frame.f_code.co_filename).startswith(_PACKAGE):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _named(tensors: Tensors, prefix: str) -> list[tuple[str, Tensor]]:
    if isinstance(tensors, Mapping):
        return list(tensors.items())
    return [(f"{prefix}{i}", tensor) for i, tensor in enumerate(tensors)]


class Recording:
    """A graph that grows while its `with` block runs; made by `record`.

    Attributes
    ----------
    graph : _core.Graph
        Values, operator calls in order, guards; `str(graph)` shows it, `graph.hash()` identifies it.
    generators : dict of Generator
        Those that were drawn from, by the name of the state that stands for each: int64 (seed, draws taken).
    host_calls : list of HostCall
        Where the record is cut, in order.
    takes_host_calls : bool
    """

    def __init__(self, inputs: Tensors, states: Tensors, scalars: Tensors, takes_host_calls: bool) -> None:
        self.graph = _core.Graph()
        self.host_calls: list[HostCall] = []
        self.takes_host_calls = takes_host_calls
        # Arrays are known as long as they live; the graph itself keeps states and constants alive.
        self._known: weakref.WeakKeyDictionary[Any, _Known] = weakref.WeakKeyDictionary()
        self._kept: list[Tensor] = []
        self._streams: dict[int, _Stream] = {}
        self.generators: dict[str, Any] = {}
        self._thread = 0
        for name, tensor in _named(inputs, "input"):
            self._declare(tensor, self.graph.add_input(name, tensor._array))
        for name, tensor in _named(scalars, "scalar"):
            self._declare(tensor, self.graph.add_scalar(name, tensor._array))
        for name, tensor in _named(states, "state"):
            self._declare(tensor, self.graph.add_state(name, tensor._array))

    def _declare(self, tensor: Tensor, value: int) -> None:
        if tensor._array in self._known:
            raise ValueError(
                f"record: expected each tensor once among inputs, scalars and states, got value {value} again; list it once"
            )
        self._known[tensor._array] = _Known(value, tensor._array.version)
        self._kept.append(tensor)

    def declare(self, state: Tensor) -> None:
        """Take in a state that was made during the recording, before an operator meets it."""
        self._declare(state, self.graph.add_state(f"state{len(self.graph.states)}", state._array))

    def __enter__(self) -> Recording:
        self._thread = threading.get_ident()
        if self._thread in tape.recorders:
            raise RecordError(
                "record: expected no recording under way on this thread, got a second one; leave the first"
            )
        tape.recorders[self._thread] = self
        _core.begin_single_pass()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._end_streams()
        finally:
            _core.end_single_pass()
            del tape.recorders[self._thread]
        if kind is None:
            self.graph.validate()

    def returns(self, *tensors: Tensor) -> None:
        """Name the results of the recorded pass, in order."""
        self.graph.set_results([self.value(tensor) for tensor in tensors])

    def value(self, tensor: Tensor) -> int:
        """Return the id of a tensor's value in the graph; a tensor that no operator made is a constant from now on."""
        return self._value(tensor._array)

    def _value(self, array: Any) -> int:
        known = self._known.get(array)
        if known is None:
            known = self._known[array] = _Known(self.graph.add_constant(array), array.version)
        elif known.version != array.version:
            raise RecordError(
                f"record: expected memory that only assign changes, got {self._name(known.value)} at version "
                f"{array.version} instead of {known.version} at {_caller()}; change states by striate.assign, and make views "
                "of them again afterwards"
            )
        return known.value

    def _name(self, value: int) -> str:
        found = self.graph.value(value)
        return f"{found.kind} {found.name!r}" if found.name else f"a {found.kind}"

    # Host calls.

    def call_host(self, name: str, function: Callable[..., Any], operands: Sequence[Tensor | int]) -> list[Tensor]:
        """Cut the record at a call into Python, which is made now; see `host_call`."""
        if not self.takes_host_calls:
            raise RecordError(
                f"{name}: expected an operator of the core in this record, got one that only Python computes; "
                "run this part of the model outside of it, or the model eagerly"
            )
        ids = tuple([self.value(x) if isinstance(x, Tensor) else _expression(x) for x in operands])
        n_nodes = self.graph.mark().n_nodes
        results = []
        for x in run_host(name, function, operands):
            # An array of its own: what the function hands on may be known already, or be met again as what it was.
            fresh = Tensor._wrap(_core.permute(x._array, dims=list(range(x.ndim))))
            self._declare(fresh, self.graph.add_input(f"{name}#{len(self.graph.inputs)}", fresh._array))
            results.append(fresh)
        self.host_calls.append(HostCall(name, function, ids, tuple([self.value(x) for x in results]), n_nodes))
        return results

    def mark(self) -> Mark:
        """Note how far the recording is, for `rewind`."""
        draws = {key: stream.n_draws for key, stream in self._streams.items()}
        return Mark(self.graph.mark(), len(self.host_calls), len(self._kept), draws)

    def rewind(self, mark: Mark) -> None:
        """Forget what was recorded since a mark; no state may have been assigned since, and no tensor made since is used."""
        self.graph.rewind(mark.graph)
        n_values = mark.graph.n_values
        for array in [array for array, known in self._known.items() if known.value >= n_values]:
            del self._known[array]
        del self.host_calls[mark.n_host_calls :]
        del self._kept[mark.n_kept :]
        for i, key in reversed(list(enumerate(self._streams))):
            if key in mark.draws:
                self._streams[key].n_draws = mark.draws[key]
            else:
                del self._streams[key], self.generators[f"random{i}"]

    # What the tape calls.

    def append(self, op: str, arrays: Sequence[Any], attributes: dict[str, Any], results: tuple[Any, ...]) -> None:
        """Append one operator call."""
        ids = [-1 if array is None else self._value(array) for array in arrays]
        made = self.graph.add_node(op, attributes, ids, results)
        for array, value in zip(results, made, strict=True):
            self._known[array] = _Known(value, array.version)

    def assign(self, state: Any, value: Any) -> None:
        """Append the change of a state; the caller writes the memory next."""
        known = self._known.get(state)
        if known is None or self.graph.value(self.graph.state_of(known.value)).kind != "state":
            raise RecordError(
                f"assign: expected a state of the recording, got another tensor at {_caller()}; "
                "pass it to record(states=...)"
            )
        self._value(state)
        after = self.graph.assign(known.value, self._value(value))
        known.value = after
        known.version = state.version + 1

    def draw(self, generator: Any) -> tuple[Tensor, dict[str, int]]:
        """Return the state (seed, draws) of a generator, and the attributes of its next draw in this recording."""
        numbers = generator.take()
        stream = self._streams.get(id(generator))
        if stream is None:
            seed = numbers["seed"]
            state = functions["tensor"]([seed - 2**64 if seed >= 2**63 else seed, numbers["call"]])
            name = f"random{len(self._streams)}"
            stream = self._streams[id(generator)] = _Stream(state, numbers["call"])
            self._declare(state, self.graph.add_state(name, state._array))
            self.generators[name] = generator
        stream.n_draws = numbers["call"] - stream.start + 1
        return stream.state, {"seed": 0, "call": stream.n_draws - 1}

    def streams(self) -> list[tuple[Any, Tensor, int]]:
        """Return each generator drawn from, the state (seed, draws) that stands for it, and the number of its draws."""
        return [
            (self.generators[f"random{i}"], stream.state, stream.n_draws)
            for i, stream in enumerate(self._streams.values())
        ]

    def _end_streams(self) -> None:
        for stream in self._streams.values():
            functions["assign"](stream.state, functions["add"](stream.state, functions["tensor"]([0, stream.n_draws])))

    def shape(self, array: Any) -> tuple[int, ...]:
        """Return the shape of an array, its sizes as Dims where they came from an input."""
        known = self._known.get(array)
        if known is None:
            return array.shape  # type: ignore[no-any-return]
        guard = self.graph.add_guard
        return tuple([n if type(n) is int else Dim.of(n, guard) for n in self.graph.value(known.value).shape])

    def refuse(self, array: Any, what: str) -> None:
        """Raise when the values of this array are not known before the record runs."""
        known = self._known.get(array)
        if known is not None and self.graph.value(known.value).kind != "constant":
            raise ReadError(
                f"{what}: expected operators on tensors while recording, got a read of values ({self._name(known.value)}) at "
                f"{_caller()}; compute with operators, in a striate.autograd.host_call, or outside the recording"
            )


def _expression(size: int) -> Any:
    return size.expression if isinstance(size, Dim) else _core.Dim(int(size))


def record(
    inputs: Tensors = (), states: Tensors = (), scalars: Tensors = (), *, takes_host_calls: bool = False
) -> Recording:
    """Record the operators of a `with` block as a graph, while they run.

    Parameters
    ----------
    inputs : sequence or dict of Tensor
        What changes with every call. Their sizes become `Dim`s, so the record can be planned for others.
    states : sequence or dict of Tensor
        What lives across calls and changes only by `assign`: parameters, running statistics, optimizer moments.
    scalars : sequence or dict of Tensor
        Run-time numbers of no axes, such as a learning rate.
    takes_host_calls : bool, default False
        Whether the reader of the record can cut it where Python computes; see `host_call`.

    Returns
    -------
    Recording
        Use it in a `with` block; name the results with `returns`, then read `graph`.

    Raises
    ------
    RecordError
        Inside the block: values read by Python (`item`, `numpy`, `bool`, iteration …), with the line that did it; memory
        changed by other means than `assign`; a recording within a recording; a host call that is not taken.
    ValueError
        A tensor or a name given twice.

    Notes
    -----
    Random draws are numbered from a state of the record, which counts on at the end of each pass: see
    `Recording.generators`. Only this thread is recorded. Tensors that no operator made (weights not given as states, tables) become constants.
    Gradients are built from operators, so `backward` inside the block is recorded as well: a whole training step is one
    graph.

    Examples
    --------
    >>> import striate
    >>> x = striate.zeros(2, 3)
    >>> with striate.autograd.record(inputs=[x]) as recording:
    ...     recording.returns(striate.flatten(x))
    >>> print(recording.graph, end="")
    %0 = input "input0" : float32(i0.0, i0.1)
    %1 = reshape(%0; shape=[i0.0*i0.1]) : float32(i0.0*i0.1,)
    return %1
    """
    return Recording(inputs, states, scalars, takes_host_calls)
