"""Programs as files: one safetensors file that holds weights and graph, read by the core alone."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from striate import _core
from striate.autograd import Tensor
from striate.compile.program import Program

__all__ = ["load_program"]

Path = str | os.PathLike[str]
Build = Callable[[Sequence[Any]], Any]

#: The metadata entry that says how results fit together; the graph has an entry of its own, which the core writes.
STRUCTURE = "striate_structure"

MOST_NESTED = 32


class _Saved:
    """The one record that a file holds, and how its results fit together."""

    def __init__(self, graph: Any, structure: Build, pinned: Sequence[Any]) -> None:
        self.core = _core.Program(graph, pinned=pinned)
        self.structure = structure
        inputs = [graph.value(i) for i in graph.inputs]
        self.kinds = [(x.dtype, len(x.shape)) for x in inputs]


class _LoadedProgram(Program):
    """A program that has no Python function, so that it can't record again."""

    def __init__(self, saved: _Saved) -> None:
        self.model = None
        self._lock = threading.Lock()
        self._variants: list[Any] = [saved]
        self._n_inputs = len(saved.kinds)
        self._cache_bytes = None

    def _run_other(self, tensors: list[Tensor], arrays: list[Any]) -> Any:
        saved = self._variants[0]
        try:
            return saved.structure(saved.core.run(arrays, []))
        except _core.GuardError as error:
            reason = str(error).rpartition(";")[0]
            raise _core.ShapeError(
                f"{reason}; a program from a file can't record again: save one that was compiled with such inputs"
            ) from error


def write(core: Any, structure: Build, path: Path, *, pin_plan: bool) -> None:
    """Write one record of a program; see `Program.save`."""
    graph = core.graph
    if graph.states:
        names = ", ".join(graph.value(i).name for i in graph.states)
        raise ValueError(
            f"save: expected a program that keeps no state between calls, got {names}; compile in eval mode"
        )
    marks = [object() for _ in graph.results]
    described = _describe(structure(marks), {id(mark): i for i, mark in enumerate(marks)})
    import json  # here, to keep `import striate` light

    pinned = core.choices_to_pin() if pin_plan else []
    _core.save_graph(graph, os.fspath(path), {STRUCTURE: json.dumps(described, separators=(",", ":"))}, pinned)


def load_program(path: Path) -> Program:
    """Read a program that `Program.save` wrote; the Python code of the model is not needed.

    The name is not `load`, since that is what tensors are read by (`striate.io.safetensors.load`, `torch.load`).

    Parameters
    ----------
    path : str or path

    Returns
    -------
    Program
        Gives the same bits as the one that was saved, on a machine of the same kind: weights are packed, algorithms chosen
        and memory is planned anew for the machine and the sizes it meets, except for a plan that the file pins (see
        `Program.save`). Named tuples come back as tuples.

    Raises
    ------
    ValueError
        A file that is damaged, that holds no program, or that another version wrote; the text names file, node and key.
    OSError
        A file that cannot be opened (FileNotFoundError and the like).

    Notes
    -----
    Weights are views of the mapped file: reading copies none of them, and nobody may change the file while the program is
    in use. A call with inputs for which the record doesn't hold raises ShapeError, where a program from `compile` would
    record again.

    Examples
    --------
    >>> import striate
    >>> program = striate.compile(lambda x: striate.relu(x * 2.0), striate.zeros(2, 3))
    >>> program.save("double.safetensors")
    >>> striate.load_program("double.safetensors")(striate.tensor([[1.0, -1.0, 3.0]])).numpy().tolist()
    [[2.0, 0.0, 6.0]]
    """
    name = os.fspath(path)
    graph, metadata, pinned = _core.load_graph(name)
    if graph.scalars or graph.states:
        raise ValueError(
            f"load_program: expected a program of inputs only in {name!r}, got one with run-time numbers or states; "
            "run it from C++"
        )
    return _LoadedProgram(_Saved(graph, _structure(name, metadata, len(graph.results)), pinned))


def _describe(result: Any, index: Mapping[int, int]) -> Any:
    """Return what `_build` reads, of a result whose tensors hold marks."""
    if isinstance(result, Tensor):
        return {"tensor": index[id(result._array)]}
    if isinstance(result, dict):
        for key in result:
            if not isinstance(key, str | int | float | bool | None):
                raise TypeError(
                    f"save: expected texts and numbers as keys of the result, got {type(key).__name__}; return a list"
                )
        return {"dict": [[key, _describe(value, index)] for key, value in result.items()]}
    kind = "list" if isinstance(result, list) else "tuple"
    return {kind: [_describe(value, index) for value in result]}


def _structure(name: str, metadata: Mapping[str, str], n_results: int) -> Build:
    """Return what puts results together; a file from C++ gives its only result, or a tuple."""
    if STRUCTURE not in metadata:
        return _build(
            {"tensor": 0} if n_results == 1 else {"tuple": [{"tensor": i} for i in range(n_results)]}, n_results
        )
    try:
        import json

        return _build(json.loads(metadata[STRUCTURE]), n_results)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(
            f"program: expected a structure of {n_results} results as entry {STRUCTURE!r} of {name!r}, got: {error}; "
            "the file is damaged"
        ) from error


def _build(described: Any, n_results: int, depth: int = 0) -> Build:
    """Return what puts results together as described; raises ValueError, TypeError or KeyError."""
    if depth > MOST_NESTED:
        raise ValueError(f"results nested more than {MOST_NESTED} deep")
    if not isinstance(described, dict) or len(described) != 1:
        raise TypeError("something else than an object of one key")
    ((kind, content),) = described.items()
    if kind == "tensor":
        if type(content) is not int or not 0 <= content < n_results:
            raise ValueError(f"result {content!r}")
        return lambda arrays: Tensor._wrap(arrays[content])
    if kind not in ("dict", "list", "tuple") or not isinstance(content, list):
        raise ValueError(f"key {kind!r}")
    if kind == "dict":
        if not all(
            isinstance(pair, list) and len(pair) == 2 and not isinstance(pair[0], list | dict) for pair in content
        ):
            raise TypeError("a dict without pairs of key and value")
        named = [(key, _build(value, n_results, depth + 1)) for key, value in content]
        return lambda arrays: {key: part(arrays) for key, part in named}
    parts = [_build(part, n_results, depth + 1) for part in content]
    of = tuple if kind == "tuple" else list
    return lambda arrays: of([part(arrays) for part in parts])
