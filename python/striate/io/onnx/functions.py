"""Functions: those a file defines, and operators that ONNX itself defines by others.

Bodies are put in place here, not by the onnx package's inliner: that is C++ which infers shapes, and a damaged file can make it
divide by zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from onnx import FunctionProto, GraphProto, ModelProto, NodeProto

from striate.io.onnx.graph import MOST_GRAPHS, MOST_NODES
from striate.io.onnx.node import handlers, has_reference, schema_of
from striate.io.onnx.value import OnnxError, check_text

#: Calls may lie in each other this deep.
MOST_CALLS_DEEP = 200

Key = tuple[str, str]


def expand(model: ModelProto, opsets: dict[str, int]) -> ModelProto:
    """Return the model without calls of functions: each is replaced by its body.

    Functions of the file come first, then operators that nothing here computes but ONNX defines by others. `opsets` gains
    the domains that bodies use.

    Raises
    ------
    OnnxError
        Functions that call each other in a circle, that are of another opset than the model, or that would become more than
        a million nodes.
    """
    _check_graphs(model.graph, [0])
    functions = _functions(model, opsets)
    if not functions and not _has_defined(model.graph, opsets):
        return model
    expanded = ModelProto()
    expanded.CopyFrom(model)
    _Expansion(functions, opsets).graph(expanded.graph)
    return expanded


def _domain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


def _inside(nodes: Iterable[NodeProto]) -> Iterator[GraphProto]:
    """Yield the graphs that are attributes of nodes."""
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield attribute.g


def _check_graphs(graph: GraphProto, n_graphs: list[int]) -> None:
    """Count the graphs inside of nodes, and look at operators' names, before anything is made of them."""
    for node in graph.node:
        check_text(node.op_type)
        check_text(node.domain)
    for inner in _inside(graph.node):
        n_graphs[0] += 1
        if n_graphs[0] > MOST_GRAPHS:
            raise OnnxError(
                f"graph: expected at most {MOST_GRAPHS:,} graphs inside of nodes, got more; split the model"
            )
        _check_graphs(inner, n_graphs)


def _functions(model: ModelProto, opsets: dict[str, int]) -> dict[Key, FunctionProto]:
    """Return the functions of the file, after counting the nodes that their calls become."""
    functions: dict[Key, FunctionProto] = {}
    for function in model.functions:
        for text in (function.domain, function.name, *function.input, *function.output, *function.attribute):
            check_text(text)
        key = (_domain(function.domain), function.name)
        if key in functions:
            raise OnnxError(f"function {key[1]!r}: expected names once, got it twice; the file is damaged")
        functions[key] = function
        for used in function.opset_import:
            check_text(used.domain)
            if opsets.setdefault(_domain(used.domain), used.version) != used.version:
                _check_opset(function, _domain(used.domain), used.version, opsets)
    counts: dict[Key, int] = {}
    under_way: set[Key] = set()

    def count(nodes: Iterable[NodeProto], depth: int) -> int:
        if depth > MOST_CALLS_DEEP:
            raise OnnxError(f"functions: expected calls at most {MOST_CALLS_DEEP} deep, got more; the file is damaged")
        n = 0
        for node in nodes:
            check_text(node.op_type)
            check_text(node.domain)
            key = (_domain(node.domain), node.op_type)
            n += of(key, depth + 1) if key in functions else 1
        return n + sum(count(inner.node, depth + 1) for inner in _inside(nodes))

    def of(key: Key, depth: int) -> int:
        if key in under_way:
            raise OnnxError(
                f"function {key[1]!r}: expected functions that do not call themselves, got a circle; the file is damaged"
            )
        if key not in counts:
            under_way.add(key)
            counts[key] = count(functions[key].node, depth)
            under_way.discard(key)
        return counts[key]

    n = count(model.graph.node, 0)
    if n > MOST_NODES:
        raise OnnxError(f"functions: expected at most {MOST_NODES} nodes once in place, got {n}; split the model")
    return functions


def _check_opset(function: FunctionProto, domain: str, version: int, opsets: dict[str, int]) -> None:
    """Refuse a function of another opset than the model, unless its operators mean the same in both."""
    for node in function.node:
        if _domain(node.domain) == domain:
            own, outer = (schema_of(domain, node.op_type, v) for v in (version, opsets[domain]))
            if (own and own.since_version) != (outer and outer.since_version):
                raise OnnxError(
                    f"function {function.name!r}: expected {node.op_type} as in the model's opset {opsets[domain]}, got "
                    f"another of opset {version}; convert it with onnx.version_converter"
                )


def _body(node: NodeProto, opsets: dict[str, int]) -> FunctionProto | None:
    """Return the function by which ONNX defines an operator that nothing here computes, or None."""
    domain = _domain(node.domain)
    if (domain, node.op_type) in handlers or (domain == "" and has_reference(node.op_type)):
        return None
    schema = schema_of(domain, node.op_type, opsets.get(domain, 0))
    if schema is None or not schema.has_function:
        return None
    return schema.function_body  # type: ignore[no-any-return]


def _has_defined(graph: GraphProto, opsets: dict[str, int]) -> bool:
    return any(_body(node, opsets) is not None for node in graph.node) or any(
        _has_defined(inner, opsets) for inner in _inside(graph.node)
    )


class _Expansion:
    """Puts bodies in place of calls."""

    def __init__(self, functions: dict[Key, FunctionProto], opsets: dict[str, int]) -> None:
        self._functions = functions
        self._opsets = opsets
        self._n_calls = 0
        self._n_nodes = 0

    def graph(self, graph: GraphProto) -> None:
        """Replace the calls of a graph, and of those inside."""
        nodes = self._expanded(graph.node, 0)
        del graph.node[:]
        graph.node.extend(nodes)

    def _expanded(self, given: Iterable[NodeProto], depth: int) -> list[NodeProto]:
        if depth > MOST_CALLS_DEEP:
            raise OnnxError(f"functions: expected calls at most {MOST_CALLS_DEEP} deep, got more; the file is damaged")
        nodes: list[NodeProto] = []
        for node in given:
            key = (_domain(node.domain), node.op_type)
            function = self._functions.get(key) or _body(node, self._opsets)
            if function is not None:
                nodes += self._expanded(self._in_place(node, function), depth + 1)
                continue
            for inner in _inside([node]):
                self.graph(inner)
            nodes.append(node)
            self._n_nodes += 1
            if self._n_nodes > MOST_NODES:
                raise OnnxError(
                    f"functions: expected at most {MOST_NODES} nodes once in place, got more; split the model"
                )
        return nodes

    def _in_place(self, call: NodeProto, function: FunctionProto) -> list[NodeProto]:
        """Return the nodes of a function's body with the names and attributes of a call."""
        self._n_calls += 1
        label = call.name or (call.output[0] if call.output else function.name)
        if len(call.input) > len(function.input) or len(call.output) > len(function.output):
            raise OnnxError(
                f"node {label!r} ({call.op_type}): expected at most {len(function.input)} inputs and {len(function.output)} "
                f"outputs, as the function has, got {len(call.input)} and {len(call.output)}; the file is damaged"
            )
        names = dict.fromkeys(function.input, "")
        names.update(zip(function.input, call.input, strict=False))
        names.update({inner: outer for inner, outer in zip(function.output, call.output, strict=False) if outer})
        attributes = {a.name: a for a in function.attribute_proto} | {a.name: a for a in call.attribute}
        scope = _Scope(f"{label}/{self._n_calls}/", names, attributes)
        return [scope.node(node) for node in function.node]


class _Scope:
    """What names and attributes of a function's body become in one call."""

    def __init__(self, prefix: str, names: dict[str, str], attributes: dict[str, Any]) -> None:
        self._prefix = prefix
        self._names = names
        self._attributes = attributes

    def node(self, given: NodeProto) -> NodeProto:
        """Return a node with the names and attributes of the call."""
        node = NodeProto()
        node.CopyFrom(given)
        node.name = self._prefix + (given.name if isinstance(given.name, str) and given.name else node.op_type)
        for field in (node.input, node.output):
            for i, name in enumerate(field):
                check_text(name)
                field[i] = self._names.setdefault(name, self._prefix + name) if name else ""
        for attribute in list(node.attribute):
            if attribute.ref_attr_name:
                outer = self._attributes.get(attribute.ref_attr_name)
                name = attribute.name
                node.attribute.remove(attribute)
                if outer is not None:
                    resolved = node.attribute.add()
                    resolved.CopyFrom(outer)
                    resolved.name = name
            elif attribute.HasField("g"):
                self._graph(attribute.g)
        return node

    def _graph(self, graph: GraphProto) -> None:
        """Rename what a graph inside of a body makes and reads."""
        for values in (graph.initializer, graph.input, graph.output):
            for value in values:
                check_text(value.name)
                value.name = self._names.setdefault(value.name, self._prefix + value.name)
        nodes = [self.node(node) for node in graph.node]
        del graph.node[:]
        graph.node.extend(nodes)
