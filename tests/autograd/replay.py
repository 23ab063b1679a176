"""Runs a graph row by row, with rows looked up by name: the simplest reader there is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from striate import Tensor, _core
from striate.autograd.op import registry


class Replay:
    """Replays a graph on copies of its states; the recorded tensors stay as they are."""

    def __init__(self, graph: Any) -> None:
        self.graph = graph
        self.states = {i: registry["clone"].forward(graph.value(i).array) for i in graph.states}

    def state(self, name: str) -> np.ndarray[Any, Any]:
        return next(a.numpy() for i, a in self.states.items() if self.graph.value(i).name == name)

    def __call__(self, *inputs: Tensor, scalars: Sequence[Tensor] = ()) -> list[np.ndarray[Any, Any]]:
        graph = self.graph
        shapes = [x.shape for x in inputs]
        assert graph.guards_hold(shapes), graph.guards
        values: dict[int, Any] = dict(self.states)
        values.update(zip(graph.inputs, (x._array for x in inputs), strict=True))
        values.update(zip(graph.scalars, (x._array for x in scalars), strict=True))
        for i in range(graph.n_values):
            if graph.value(i).kind == "constant":
                values[i] = graph.value(i).array
        for node in graph.nodes:
            arrays = [None if i < 0 else values[i] for i in node.inputs]
            if node.op == "assign":
                _core.assign(arrays[0], arrays[1])
                values[node.outputs[0]] = arrays[0]
                continue
            attributes = {name: self.evaluated(value, shapes) for name, value in node.attributes.items()}
            results = registry[node.op].forward(*arrays, **attributes)
            for i, array in zip(node.outputs, results if isinstance(results, tuple) else (results,), strict=True):
                expected = self.evaluated(graph.value(i).shape, shapes)
                assert array.shape == expected, f"{node.op}: the record says {expected}, not {array.shape}"
                values[i] = array
        return [values[i].numpy().copy() for i in graph.results]

    def evaluated(self, value: Any, shapes: Sequence[tuple[int, ...]]) -> Any:
        if isinstance(value, tuple):
            return tuple(self.evaluated(v, shapes) for v in value)
        return value.evaluate(shapes) if isinstance(value, _core.Dim) else value
