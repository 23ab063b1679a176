"""Programs for inference: record a model once, then call the core."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

from striate import _core
from striate.autograd import Tensor, no_grad
from striate.autograd.record import record
from striate.compile.explain import Explanation, explain_chain, explain_graph
from striate.compile.host import Chain, core_of, named
from striate.nn import Module
from striate.ops import from_numpy

__all__ = ["Program", "compile"]

Function = Callable[..., Any]

#: Records of one program that are kept for inputs of different kinds.
MOST_VARIANTS = 8


class _Variant:
    """One record, ready to run, and how its results fit together."""

    def __init__(self, function: Function, inputs: Sequence[Tensor]) -> None:
        with no_grad(), _evaluating(function), record(inputs=list(inputs), takes_host_calls=True) as recording:
            results: list[Tensor] = []
            self.structure = _take_apart(function(*inputs), results)
            recording.returns(*results)
        self.core = core_of(recording)
        self.kinds = [(x.dtype, x.ndim) for x in inputs]


class Program:
    """A model as one call into the core, made by `compile`.

    Call it with as many tensors (or arrays) as it was compiled with; sizes may differ from the example's. Results have the
    structure that the model returned. Calls from several threads at once are safe and give the same bits. Where samples are
    independent and a layer's images are too large for the caches, a batch runs a few samples at a time; `explain` tells.

    Attributes
    ----------
    graph : _core.Graph
        What runs, after fusion; `str(graph)` shows it. ValueError where host nodes cut it: read `graphs`.
    graphs : list of _core.Graph
        One, or the pieces between host nodes, in order.
    host_nodes : tuple of str
        Names of what only Python computes, in order (see `striate.autograd.host_call`); most programs have none.
    model : Module, callable or None
        What was compiled; None where the program was read from a file.
    """

    model: Function | None

    def __init__(self, function: Function, example: Sequence[Tensor]) -> None:
        self.model = self._function = function
        self._lock = threading.Lock()
        self._variants = [_Variant(function, example)]
        self._n_inputs = len(example)
        self._example = list(example)
        self._cache_bytes: int | None = None

    @property
    def graph(self) -> _core.Graph:
        """The graph of the record that ran last."""
        core = self._variants[0].core
        if isinstance(core, Chain):
            raise ValueError(
                f"program: expected one in a single piece, got one cut at host nodes ({named(core.host_nodes)}); read graphs"
            )
        return core.graph

    @property
    def graphs(self) -> list[_core.Graph]:
        """The graphs of the record that ran last: more than one where host nodes cut it."""
        core = self._variants[0].core
        return core.graphs if isinstance(core, Chain) else [core.graph]

    @property
    def host_nodes(self) -> tuple[str, ...]:
        """Names of the host nodes of the record that ran last."""
        core = self._variants[0].core
        return core.host_nodes if isinstance(core, Chain) else ()

    def __call__(self, *inputs: Any) -> Any:
        """Run on inputs; returns what the model returns.

        Raises
        ------
        ValueError
            Another number of inputs than recorded.
        ShapeError, DTypeError
            Inputs that the model refuses.
        """
        if len(inputs) != self._n_inputs:
            raise ValueError(
                f"program: expected {self._n_inputs} inputs, got {len(inputs)}; pass what it was compiled with"
            )
        tensors = [_as_tensor(x) for x in inputs]
        arrays = [x._array for x in tensors]
        variant = self._variants[0]
        try:
            return variant.structure(variant.core.run(arrays, []))
        except (_core.GuardError, _core.DTypeError, _core.ShapeError):
            return self._run_other(tensors, arrays)

    def _run_other(self, tensors: list[Tensor], arrays: list[Any]) -> Any:
        """Run a record that holds for these inputs: an older one, or a new one."""
        with self._lock:
            self._variants = [variant for variant in self._variants if not variant.core.is_stale]
            kinds = [(x.dtype, x.ndim) for x in tensors]
            for variant in self._variants:
                if variant.kinds == kinds:
                    try:
                        results = variant.core.run(arrays, [])
                    except _core.GuardError:
                        continue
                    self._variants.remove(variant)
                    self._variants.insert(0, variant)
                    return variant.structure(results)
            variant = _Variant(self._function, tensors)
            if self._cache_bytes is not None:
                variant.core.set_cache_bytes(self._cache_bytes)
            self._variants = [variant, *self._variants][:MOST_VARIANTS]
        return variant.structure(variant.core.run(arrays, []))

    def explain(self, *inputs: Any, measure: bool = False) -> Explanation:
        """Tell node by node what was fused, which algorithm runs, and what it costs.

        Parameters
        ----------
        *inputs : Tensor or array
            As for a call; the example it was compiled with when left out.
        measure : bool, default False
            Run it ten times and give the median time of each node.

        Returns
        -------
        Explanation
            `str` makes a table of it.

        Examples
        --------
        >>> import striate
        >>> program = striate.compile(lambda x: striate.relu(x * 2.0), striate.zeros(2, 3))
        >>> [row.op for row in program.explain().rows]
        ['mul', 'relu']
        """
        tensors = [_as_tensor(x) for x in inputs] if inputs else self._example
        self(*tensors)  # records again where these inputs ask for it
        core, arrays, n_passes = self._variants[0].core, [x._array for x in tensors], 10 if measure else 0
        if isinstance(core, Chain):
            return explain_chain(core, arrays, n_passes=n_passes)
        return explain_graph(core, arrays, n_passes=n_passes)

    def save(self, path: str | os.PathLike[str], *, pin_plan: bool = False) -> None:
        """Write the program to a file, which `striate.load_program` and a C++ program can run.

        The file holds the weights and the graph of the record that ran last, and nothing of this machine unless asked to:
        packed weights and plans are made where it is loaded. The same program gives the same bytes, and with a pinned plan
        after the same calls and under the same settings. A file already there is replaced, at once or not at all.

        Parameters
        ----------
        path : str or path
            Of any ending; it is a safetensors file.
        pin_plan : bool, default False
            Write the plan, too, for the shapes of the example and of calls that are still planned: which algorithm each
            convolution takes, as the settings of now choose it, and how many samples of a batch run at a time. Where the
            same instruction set runs, a loaded program does exactly this for these shapes, whatever is set there and
            whatever the cost model, its tuning and the caches of that machine would choose. For other shapes, and on
            another instruction set, it plans anew.

        Raises
        ------
        ValueError
            A program that keeps states between calls (random draws), or has operators or host nodes that only Python has,
            all of which the text names.
        TypeError
            Results in dicts whose keys are neither texts nor numbers.
        OSError
            A folder that is missing or cannot be written, a full disk.
        """
        from striate.compile.file import write  # reads back as a Program, so it imports this file

        core = self._variants[0].core
        if isinstance(core, Chain):
            raise ValueError(
                f"save: expected operators of the core, got host nodes that only Python has: {named(core.host_nodes)}; save "
                "what comes before them, and compute these where the file is run"
            )
        write(core, self._variants[0].structure, path, pin_plan=pin_plan)

    def memory(self) -> dict[str, int]:
        """Return arena_bytes and least_bytes of the plan that ran last, and the number of plans and arenas.

        `least_bytes` is what was alive at the fullest moment: no arena can be smaller.
        """
        return self._variants[0].core.memory()

    def set_cache_bytes(self, n_bytes: int) -> None:
        """Cap what the arenas of shapes other than the last may hold (256 MiB at first)."""
        self._cache_bytes = n_bytes
        for variant in self._variants:
            variant.core.set_cache_bytes(n_bytes)

    def __repr__(self) -> str:
        n_nodes = sum(len(graph.nodes) for graph in self.graphs)
        host = f", host nodes: {named(self.host_nodes)}" if self.host_nodes else ""
        return f"Program({n_nodes} nodes, {self._n_inputs} inputs{host})"


def compile(model: Function, *example: Any) -> Program:
    """Record one pass of a model and return it as a program for inference.

    A module is recorded in eval mode, whatever mode it is in. Batch-norm is folded into the weights before it, activations
    into convolutions and products; weights are packed once. When a weight changes, the next call records again.

    Parameters
    ----------
    model : Module or callable
        Takes tensors; returns a tensor, or tuples, lists and dicts of them.
    *example : Tensor or array
        Inputs to record with. Other sizes may be passed later as far as the model allows them.

    Returns
    -------
    Program

    Raises
    ------
    RecordError
        The model reads values (`item`, `bool` …), which a program cannot know before it runs; compute with them in a
        `striate.autograd.host_call`.
    TypeError
        No example, or a model that returns something else than tensors.
    """
    if not example:
        raise TypeError("compile: expected an example of every input, got none; pass compile(model, x)")
    return Program(model, [_as_tensor(x) for x in example])


def _as_tensor(x: Any) -> Tensor:
    return x if type(x) is Tensor else from_numpy(x)


class _evaluating:
    """Puts all modules of a model into eval mode for a while."""

    def __init__(self, function: Function) -> None:
        modules = function.modules() if isinstance(function, Module) else ()
        self._modes = [(module, module.training) for module in modules]

    def __enter__(self) -> None:
        for module, _ in self._modes:
            module.training = False

    def __exit__(self, *_: object) -> None:
        for module, is_training in self._modes:
            module.training = is_training


def _take_apart(result: Any, tensors: list[Tensor]) -> Callable[[Sequence[Any]], Any]:
    """Append the tensors of a result to a list; return what builds such a result of the arrays in that order."""
    if isinstance(result, Tensor):
        at = len(tensors)
        tensors.append(result)
        return lambda arrays: Tensor._wrap(arrays[at])
    if isinstance(result, dict):
        parts = {key: _take_apart(value, tensors) for key, value in result.items()}
        return lambda arrays: {key: build(arrays) for key, build in parts.items()}
    if isinstance(result, tuple) and hasattr(result, "_fields"):
        named, entries = type(result), [_take_apart(value, tensors) for value in result]
        return lambda arrays: named(*[build(arrays) for build in entries])
    if isinstance(result, tuple | list):
        kind, items = type(result), [_take_apart(value, tensors) for value in result]
        return lambda arrays: kind([build(arrays) for build in items])
    raise TypeError(
        f"compile: expected a model that returns tensors, or tuples, lists and dicts of them, got {type(result).__name__}; "
        "return tensors only"
    )
