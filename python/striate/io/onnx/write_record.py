"""What is to be written: the record of a model, or the graph of a compiled program, with names for weights and results."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from striate.autograd import Tensor, no_grad
from striate.autograd.record import record
from striate.compile import Program
from striate.io.onnx.write_graph import Array, stored
from striate.nn import Module

Function = Callable[..., Any]


@dataclass(slots=True)
class Step:
    """One operator call of a graph."""

    op: str
    attributes: dict[str, Any]
    inputs: list[int]
    outputs: list[int]
    path: str


@dataclass(slots=True)
class Recorded:
    """A graph and the names that belong to it.

    Attributes
    ----------
    graph : _core.Graph
    steps : list of Step
        Those whose results are read, in order.
    result_names : list of str
    weight_names : dict of str
        By the id of a state or constant; those without a name are missing.
    contents : dict of Array
        Weights that are stored otherwise than they lie in the graph, by id.
    """

    graph: Any
    steps: list[Step]
    result_names: list[str]
    weight_names: dict[int, str]
    contents: dict[int, Array] = field(default_factory=dict)


def take(model: Function | Program, example: Sequence[Tensor]) -> Recorded:
    """Record one pass of a model in eval mode, or read what a program runs for this example."""
    return _read_program(model, example) if isinstance(model, Program) else _record(model, example)


def _record(model: Function, example: Sequence[Tensor]) -> Recorded:
    states = _named_tensors(model)
    with ExitStack() as stack:
        stack.enter_context(no_grad())
        stack.enter_context(_evaluating(model))
        recording = stack.enter_context(record(inputs=list(example), states=list(states.values())))
        paths = stack.enter_context(_following(model, recording))
        results = list(_flatten(model(*example), ""))
        recording.returns(*[tensor for _, tensor in results])
    graph = recording.graph
    names = dict(zip(graph.states, states, strict=False))  # counters of random numbers come behind
    steps = [Step(n.op, n.attributes, n.inputs, n.outputs, paths(n.outputs)) for n in graph.nodes]
    return Recorded(graph, _live(graph, steps, names), [name for name, _ in results], names)


def _named_tensors(model: Any) -> dict[str, Tensor]:
    if not isinstance(model, Module):
        return {}
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Put all modules into eval mode for a while."""
    modes = [(module, module.training) for module in model.modules()] if isinstance(model, Module) else []
    for module, _ in modes:
        module.training = False
    try:
        yield
    finally:
        for module, is_training in modes:
            module.training = is_training


@contextmanager
def _following(model: Any, recording: Any) -> Iterator[Callable[[Sequence[int]], str]]:
    """Note which module each value is made in; yields a function from the results of a node to the module's path."""
    begins, paths, inside = [0], [""], [""]

    def enter(path: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            inside.append(path)
            begins.append(recording.graph.n_values)
            paths.append(path)

        return hook

    def leave(*_: Any) -> None:
        inside.pop()
        begins.append(recording.graph.n_values)
        paths.append(inside[-1])

    with ExitStack() as handles:
        for path, module in model.named_modules() if isinstance(model, Module) else []:
            handles.enter_context(module.register_forward_pre_hook(enter(path)))
            handles.enter_context(module.register_forward_hook(leave))
        yield lambda outputs: paths[bisect.bisect_right(begins, max(outputs)) - 1]


def _flatten(result: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a result in order: named by their keys or fields, else output0, output1, …"""
    if isinstance(result, Tensor):
        yield name or "output0", result
        return
    parts: Mapping[str, Any]
    if isinstance(result, Mapping):
        parts = {str(key): value for key, value in result.items()}
    elif isinstance(result, tuple) and hasattr(result, "_fields"):
        parts = dict(zip(result._fields, result, strict=True))
    elif isinstance(result, tuple | list):
        parts = {str(i) if name else f"output{i}": value for i, value in enumerate(result)}
    else:
        raise TypeError(
            f"onnx.save: expected a model that returns tensors, or tuples, lists and dicts of them, got "
            f"{type(result).__name__}; return tensors only"
        )
    for key, value in parts.items():
        yield from _flatten(value, f"{name}.{key}" if name else key)


def _live(graph: Any, steps: Sequence[Step], states: Container[int]) -> list[Step]:
    """Drop steps whose results nobody reads; changes of these states stay."""
    wanted, kept = set(graph.results), []
    for step in reversed(steps):
        is_change = step.op == "assign" and graph.state_of(step.inputs[0]) in states
        if is_change or not wanted.isdisjoint(step.outputs):
            wanted.update(step.inputs)
            kept.append(step)
    return kept[::-1]


# Programs.


def _read_program(program: Program, example: Sequence[Tensor]) -> Recorded:
    names = [name for name, _ in _flatten(program(*example), "")]  # and the record for these inputs comes first
    if program.host_nodes:
        raise ValueError(
            "onnx.save: expected operators that ONNX has, got host nodes that only Python has: "
            f"{', '.join(dict.fromkeys(program.host_nodes))}; save what comes before them"
        )
    graph = program.graph
    steps = [Step(node.op, node.attributes, node.inputs, node.outputs, "") for node in graph.nodes]
    taken = Recorded(graph, _live(graph, steps, ()), names, {})
    _restore_flatten(taken)
    _name_weights(taken, _named_tensors(program.model))
    return taken


def _restore_flatten(taken: Recorded) -> None:
    """Turn a product of pixels in the order of channels-last memory back into one of a flattened image."""
    graph = taken.graph
    flattened = {step.outputs[0]: step for step in taken.steps if step.op == "flatten_memory"}
    for step in taken.steps:
        view = flattened.get(step.inputs[0]) if step.op == "linear" else None
        if view is None:
            continue
        weight = stored(graph.value(step.inputs[1]).array)
        channels = int(graph.value(view.inputs[0]).shape[1])
        by_channel = weight.reshape(weight.shape[0], weight.shape[1] // channels, channels).swapaxes(1, 2)
        taken.contents[step.inputs[1]] = np.ascontiguousarray(by_channel).reshape(weight.shape)
        view.op, view.attributes = "reshape", {}


def _name_weights(taken: Recorded, states: Mapping[str, Tensor]) -> None:
    """Give constants the names of the model's tensors that they are, or that they were computed from.

    A batch-norm that was folded into a convolution leaves a weight in which each filter is a multiple of the original's.
    """
    graph = taken.graph
    names = taken.weight_names
    by_memory = {_place(tensor._array): name for name, tensor in states.items() if tensor.size}
    constants = sorted({i for step in taken.steps for i in step.inputs if i >= 0 and graph.value(i).kind == "constant"})
    for i in constants:
        found = by_memory.get(_place(graph.value(i).array))
        if found is not None and i not in taken.contents:
            names[i] = found
    unused = {name: stored(tensor._array) for name, tensor in states.items() if name not in names.values()}
    for step in taken.steps:
        for weight_at, bias_at in ((5, 6), (1, 2)) if step.op == "separable_conv2d" else ((1, 2),):
            if step.op in _HAS_WEIGHT or step.op.startswith("conv"):
                _name_folded(taken, step, weight_at, bias_at, unused)
        if step.op.startswith("conv") and _given(step, 6) is not None:  # a batch-norm before it
            stem = names.get(step.inputs[5], "").rpartition(".")[0]
            if stem:
                names.setdefault(step.inputs[6], f"{stem}.weight")


_HAS_WEIGHT = ("linear", "separable_conv2d")


def _name_folded(taken: Recorded, step: Step, weight_at: int, bias_at: int, unused: dict[str, Array]) -> None:
    names, weight = taken.weight_names, _given(step, weight_at)
    if weight is None or taken.graph.value(weight).kind != "constant":
        return
    if weight not in names:
        data = taken.contents.get(weight)
        data = stored(taken.graph.value(weight).array) if data is None else data
        found = next((name for name, original in unused.items() if _is_scaled(data, original)), None)
        if found is not None:
            names[weight] = found
            del unused[found]
    stem, _, last = names.get(weight, "").rpartition(".")
    if last == "weight":
        step.path = stem
    bias = _given(step, bias_at)
    if bias is not None and last == "weight":
        names.setdefault(bias, f"{stem}.bias" if stem else "bias")


def _given(step: Step, i: int) -> int | None:
    return step.inputs[i] if i < len(step.inputs) and step.inputs[i] >= 0 else None


def _place(array: Any) -> tuple[int, tuple[int, ...]]:
    return array.fill_view().__array_interface__["data"][0], tuple(array.shape)


def _is_scaled(data: Array, original: Array) -> bool:
    """Whether each filter of `data` is a multiple of the original's, to the rounding of float32."""
    if data.shape != original.shape or data.dtype != original.dtype or data.ndim < 2 or not data.size:
        return False
    rows, firsts = data.reshape(len(data), -1), original.reshape(len(data), -1)
    squares = np.einsum("ok,ok->o", firsts, firsts)
    scale = np.einsum("ok,ok->o", rows, firsts) / np.where(squares == 0, 1, squares)
    error = np.abs(rows - scale[:, None] * firsts).max(axis=1)
    return bool((error <= 1e-5 * np.abs(rows).max(axis=1)).all())
