"""Programs that call into Python: pieces of a record, each one call into the core, with host calls between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from striate import _core
from striate.autograd import HostCall, RecordError, Recording, Tensor
from striate.autograd.host import run_host

__all__ = ["Chain", "Stage", "core_of"]


def constants_of(graph: _core.Graph) -> list[Any]:
    """Return the arrays that a record takes for constant: after a change of one it does not hold any more."""
    values = [graph.value(i) for i in range(graph.n_values)]
    return [value.array for value in values if value.kind == "constant"]


def core_of(recording: Recording) -> _core.Program | Chain:
    """Return what runs a record: a program of the core, or a chain of these where there are host calls.

    Raises
    ------
    RecordError
        Host calls beside random draws.
    """
    if recording.host_calls:
        return Chain(recording)
    return _core.Program(_core.fuse(recording.graph), constants_of(recording.graph))


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of a chain.

    Attributes
    ----------
    core : _core.Program or None
        None for a piece without operators.
    inputs, results : list of int
        Of `core`, as values of the whole record.
    call : HostCall or None
        What comes behind it; None behind the last.
    """

    core: _core.Program | None
    inputs: list[int]
    results: list[int]
    call: HostCall | None


class Chain:
    """A record with host calls, ready to run: what `_core.Program` is for one without.

    Attributes
    ----------
    stages : list of Stage
    host_nodes : tuple of str
        Names of the host calls, in order.
    """

    def __init__(self, recording: Recording) -> None:
        calls, graph = recording.host_calls, recording.graph
        self.host_nodes = tuple([call.name for call in calls])
        if graph.states:
            names = ", ".join(graph.value(i).name for i in graph.states)
            raise RecordError(
                f"compile: expected no states or random draws beside host nodes ({named(self.host_nodes)}), got {names}; "
                "draw outside of the model and pass the numbers in"
            )
        cuts = [
            _core.HostCall(call.n_nodes, [i for i in call.operands if type(i) is int], list(call.results))
            for call in calls
        ]
        self.stages: list[Stage] = []
        for piece, call in zip(_core.cut(graph, cuts), [*calls, None], strict=True):
            core = None
            if piece.graph.nodes or piece.graph.guards:
                core = _core.Program(_core.fuse(piece.graph), constants_of(piece.graph))
            self.stages.append(Stage(core, piece.inputs, piece.results, call))
        self._inputs = graph.inputs[: len(graph.inputs) - sum(len(call.results) for call in calls)]
        self._results = graph.results
        self._kinds = {i: (graph.value(i).dtype, len(graph.value(i).shape)) for call in calls for i in call.results}
        read = {*self._results, *[i for call in calls for i in call.operands if type(i) is int]}
        self._constants = {i: graph.value(i).array for i in read if graph.value(i).kind == "constant"}
        self._order = graph.inputs

    @property
    def graphs(self) -> list[_core.Graph]:
        """The graphs of all pieces that have operators."""
        return [core.graph for core in self._cores()]

    @property
    def is_stale(self) -> bool:
        """Whether a weight has changed since."""
        return any(core.is_stale for core in self._cores())

    def run(self, inputs: Sequence[Any], scalars: Sequence[Any]) -> tuple[Any, ...]:
        """Run on arrays; raises as `_core.Program.run` does, and what the host calls raise."""
        values = self.values_of(inputs)
        for stage in self.stages:
            if stage.core is not None:
                results = stage.core.run([values[i] for i in stage.inputs], scalars)
                values.update(zip(stage.results, results, strict=True))
            if stage.call is not None:
                self.call(stage.call, values)
        return tuple([values[i] for i in self._results])

    def values_of(self, inputs: Sequence[Any]) -> dict[int, Any]:
        """Return the table of values that a run begins with, by their ids in the record."""
        return {**self._constants, **dict(zip(self._inputs, inputs, strict=True))}

    def call(self, call: HostCall, values: dict[int, Any]) -> None:
        """Make a host call on a table of values, and add its results."""
        shapes = [values[i].shape if i in values else () for i in self._order]
        operands: list[Any] = [Tensor._wrap(values[i]) if type(i) is int else i.evaluate(shapes) for i in call.operands]
        found = run_host(call.name, call.function, operands)
        kinds, wanted = [(x.dtype, x.ndim) for x in found], [self._kinds[i] for i in call.results]
        if kinds != wanted:
            raise _core.GuardError(
                f"program: expected {_described(wanted)} of host node {call.name!r}, as in the recorded pass, got "
                f"{_described(kinds)}; record again with these inputs"
            )
        values.update((i, x._array) for i, x in zip(call.results, found, strict=True))

    def memory(self) -> dict[str, int]:
        """Return the sums of what the pieces hold; see `Program.memory`."""
        total = {"arena_bytes": 0, "least_bytes": 0, "n_plans": 0, "n_arenas": 0}
        for core in self._cores():
            for key, value in core.memory().items():
                total[key] += value
        return total

    def set_cache_bytes(self, n_bytes: int) -> None:
        """Cap what the arenas of other shapes may hold, in all pieces together."""
        for core in self._cores():
            core.set_cache_bytes(n_bytes // len(self._cores()))

    def _cores(self) -> list[_core.Program]:
        return [stage.core for stage in self.stages if stage.core is not None]


def named(names: Sequence[str]) -> str:
    """List names for a message, each once."""
    return ", ".join(dict.fromkeys(names))


def _described(kinds: Sequence[tuple[Any, int]]) -> str:
    return " and ".join(f"{dtype} of {ndim} axes" for dtype, ndim in kinds) or "nothing"
