"""A graph of an ONNX file as a plan: nodes in an order in which they can run, and what each may let go of."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from onnx import GraphProto, TensorProto

from striate.io.onnx.mode import Mode
from striate.io.onnx.node import Node, read_tensor
from striate.io.onnx.value import OnnxError, check_text

#: Subgraphs may lie in each other this deep.
MOST_NESTED = 32
#: A file may hold so many of them,
MOST_GRAPHS = 10_000
#: and so many nodes.
MOST_NODES = 1_000_000

Reader = Callable[[TensorProto, str], Any]


class Plan:
    """The nodes of one graph, ready to run.

    Attributes
    ----------
    inputs : list of str
        Values to be given, initialisers excepted.
    outputs : list of str
    constants : dict of str to ndarray
        Initialisers, and what constant nodes make.
    captures : list of str
        Values of the graph around it that this one reads.
    nodes : list of Node
    protos : dict of str to ValueInfoProto
        What the file says about inputs and outputs.
    """

    def __init__(
        self,
        graph: GraphProto,
        opsets: dict[str, int],
        mode: Mode,
        read: Reader = read_tensor,
        outer: frozenset[str] = frozenset(),
        depth: int = 0,
    ) -> None:
        self.name = graph.name
        what = f"graph {graph.name!r}"
        if depth > MOST_NESTED:
            raise OnnxError(f"{what}: expected subgraphs at most {MOST_NESTED} deep, got more; the file is damaged")
        for name in (graph.name, *[v.name for v in [*graph.initializer, *graph.input, *graph.output]]):
            check_text(name)
        self.constants: dict[str, Any] = {}
        for tensor in graph.initializer:
            if tensor.name in self.constants:
                raise OnnxError(
                    f"{what}: expected names once, got initialiser {tensor.name!r} again; the file is damaged"
                )
            self.constants[tensor.name] = read(tensor, f"initialiser {tensor.name!r}")
        for sparse in graph.sparse_initializer:
            if sparse.values.name in self.constants:
                raise OnnxError(f"{what}: expected names once, got {sparse.values.name!r} again; the file is damaged")
            self.constants[sparse.values.name] = read_sparse(sparse, f"initialiser {sparse.values.name!r}")
        self.inputs = [value.name for value in graph.input if value.name not in self.constants]
        self.outputs = [value.name for value in graph.output]
        self.types = {value.name: value.type for value in [*graph.input, *graph.output]}
        if len(set(self.inputs)) != len(self.inputs):
            twice = next(name for name in self.inputs if self.inputs.count(name) > 1)
            raise OnnxError(f"{what}: expected names once, got input {twice!r} again; the file is damaged")
        if len(graph.node) > MOST_NODES:
            raise OnnxError(f"{what}: expected at most {MOST_NODES} nodes, got {len(graph.node)}; split the model")

        made = {*self.inputs, *self.constants}
        for proto in graph.node:
            for name in proto.output:
                if name and name in made:
                    raise OnnxError(
                        f"{what}: expected every value to be made once, got {name!r} of node {proto.name!r} "
                        f"({proto.op_type}) again; the file is damaged"
                    )
                made.add(name)
        visible = frozenset(made) | outer
        self._subgraphs: list[Plan] = []

        def read_graph(inner: GraphProto) -> Plan:
            plan = Plan(inner, opsets, mode, read, visible, depth + 1)
            self._subgraphs.append(plan)
            return plan

        self.captures: list[str] = []
        nodes: list[Node] = []
        needs: list[list[str]] = []
        for proto in graph.node:
            self._subgraphs = []
            node = Node(proto, opsets, mode, read_graph)
            wanted = [name for name in node.inputs if name]
            for plan in self._subgraphs:
                wanted += plan.captures
            nodes.append(node)
            needs.append(wanted)
        for node, wanted in zip(nodes, needs, strict=True):
            for name in wanted:
                if name not in visible:
                    raise OnnxError(
                        f"{node.label}: expected input {name!r} to be made by a node, an initialiser or an input of the graph, "
                        "got none of that name; the file is damaged"
                    )
                if name not in made and name not in self.captures:
                    self.captures.append(name)
        for name in self.outputs:
            if name not in visible:
                raise OnnxError(f"{what}: expected a node that makes output {name!r}, got none; the file is damaged")
            if name not in made and name not in self.captures:
                self.captures.append(name)
        order = _order(nodes, needs, {*self.inputs, *self.constants, *(visible - frozenset(made))}, what)
        self.nodes = [nodes[i] for i in order]
        self._reads = [needs[i] for i in order]
        self._steps = self._plan()

    def _plan(self) -> list[tuple[Node, tuple[str, ...]]]:
        """Pair each node with the values that nobody reads after it."""
        kept = {*self.outputs, *self.constants}
        last: dict[str, int] = {}
        for i, names in enumerate(self._reads):
            for name in names:
                last[name] = i
        freed: list[list[str]] = [[] for _ in self.nodes]
        for name, i in last.items():
            if name not in kept:
                freed[i].append(name)
        return [(node, tuple(names)) for node, names in zip(self.nodes, freed, strict=True)]

    def own_constants(self) -> None:
        """Copy what still lies in a file, here and in the graphs inside."""
        for name, value in self.constants.items():
            if isinstance(value, np.ndarray) and not value.flags.owndata:
                self.constants[name] = value.copy()
        for node in self.nodes:
            for value in node.attributes.values():
                if isinstance(value, Plan):
                    value.own_constants()

    def readers(self) -> dict[str, list[tuple[Node, int]]]:
        """Return who reads each value, as (node, which operand); −1 for a subgraph of the node."""
        found: dict[str, list[tuple[Node, int]]] = {}
        for node, names in zip(self.nodes, self._reads, strict=True):
            for i, name in enumerate(node.inputs):
                if name:
                    found.setdefault(name, []).append((node, i))
            for name in names[len([n for n in node.inputs if n]) :]:
                found.setdefault(name, []).append((node, -1))
        return found

    def drop(self, nodes: Iterable[Node]) -> None:
        """Leave out nodes whose results have become constants."""
        gone = {id(node) for node in nodes}
        kept = [(n, r) for n, r in zip(self.nodes, self._reads, strict=True) if id(n) not in gone]
        self.nodes = [n for n, _ in kept]
        self._reads = [r for _, r in kept]
        self._steps = self._plan()

    def replace(self, replaced: Mapping[int, Node], gone: set[int]) -> None:
        """Put nodes in the place of others, by the identity of these, and leave out what else is gone."""
        pairs = [
            (replaced[id(n)], [name for name in replaced[id(n)].inputs if name]) if id(n) in replaced else (n, r)
            for n, r in zip(self.nodes, self._reads, strict=True)
            if id(n) in replaced or id(n) not in gone
        ]
        self.nodes = [n for n, _ in pairs]
        self._reads = [r for _, r in pairs]
        self._steps = self._plan()

    def walk(self) -> Iterable[Node]:
        """Yield every node, those of subgraphs included."""
        for node in self.nodes:
            yield node
            for value in node.attributes.values():
                if isinstance(value, Plan):
                    yield from value.walk()

    def run(self, given: Sequence[Any], outer: Mapping[str, Any]) -> list[Any]:
        """Run on one value for each input; `outer` holds what the graph captures, or replaces its constants."""
        values: dict[str, Any] = dict(self.constants)
        for name in self.captures:
            values[name] = outer[name]
        values.update(zip(self.inputs, given, strict=True))
        return self.run_on(values)

    def run_on(self, values: dict[str, Any]) -> list[Any]:
        """Run on a table of values, inputs and constants included, which is used up."""
        for node, freed in self._steps:
            operands = [values[name] if name else None for name in node.inputs]
            if node.has_graphs:
                results = node([*operands, values])
            else:
                results = node(operands)
            if len(results) < len([name for name in node.outputs if name]):
                raise OnnxError(
                    f"{node.label}: expected {len(node.outputs)} results, got {len(results)}; the file is damaged"
                )
            values.update((name, result) for name, result in zip(node.outputs, results, strict=False) if name)
            for name in freed:
                values.pop(name, None)
        return [values[name] for name in self.outputs]


def read_sparse(proto: Any, what: str) -> Any:
    """Return a sparse tensor of a file as a dense array."""
    from striate.io.onnx.value import check_size

    shape = list(proto.dims)
    dense_values = read_tensor(proto.values, what)
    indices = read_tensor(proto.indices, what)
    check_size(shape, dense_values.dtype.itemsize)
    dense = np.zeros(shape, dtype=dense_values.dtype)
    try:
        if indices.ndim == 2:
            dense[tuple(indices.T)] = dense_values
        else:
            dense.reshape(-1)[indices] = dense_values
    except (IndexError, ValueError) as error:
        raise OnnxError(f"{what}: expected indices inside {shape}, got: {error}; the file is damaged") from error
    return dense


def _order(nodes: list[Node], needs: list[list[str]], given: set[str], what: str) -> list[int]:
    """Return an order in which every value is made before it is read: that of the file where it allows."""
    maker = {name: i for i, node in enumerate(nodes) for name in node.outputs if name}
    waiting = [0] * len(nodes)
    followers: list[list[int]] = [[] for _ in nodes]
    for i, names in enumerate(needs):
        for j in {maker[name] for name in names if name not in given and name in maker}:
            waiting[i] += 1
            followers[j].append(i)
    ready = [i for i, n in enumerate(waiting) if n == 0]
    heapq.heapify(ready)
    order = []
    while ready:
        i = heapq.heappop(ready)
        order.append(i)
        for j in followers[i]:
            waiting[j] -= 1
            if waiting[j] == 0:
                heapq.heappush(ready, j)
    if len(order) < len(nodes):
        stuck = next(node for node, n in zip(nodes, waiting, strict=True) if n > 0)
        raise OnnxError(
            f"{what}: expected nodes that can be put in order, got a cycle through {stuck.label}; the file is damaged"
        )
    return order
