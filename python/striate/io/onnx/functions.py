"""Functions: those a file defines, and operators that ONNX itself defines by others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx.inliner
from onnx import GraphProto, ModelProto, NodeProto

from striate.io.onnx.graph import MOST_GRAPHS, MOST_NODES
from striate.io.onnx.node import handlers, has_reference, schema_of
from striate.io.onnx.value import OnnxError

Key = tuple[str, str]


def expand(model: ModelProto, opsets: dict[str, int]) -> ModelProto:
    """Return the model without calls of functions: each is replaced by its body.

    Functions of the file come first, then operators that nothing here computes but ONNX defines by others. `opsets` gains
    the domains that bodies use.

    Raises
    ------
    OnnxError
        Functions that call each other in a circle, or that would become more than a million nodes.
    """
    if model.functions:
        _check_growth(model)
        for function in model.functions:
            for used in function.opset_import:
                opsets.setdefault("" if used.domain == "ai.onnx" else used.domain, used.version)
        try:
            model = onnx.inliner.inline_local_functions(model, convert_version=True)
        except Exception as error:
            raise OnnxError(
                f"functions: expected ones that can be put in place of their calls, got: {error}"
            ) from error
    _count_graphs(model.graph, [0])
    defined = sorted(_defined_by_others(model.graph, opsets))
    return (
        _inlined(model, lambda m: onnx.inliner.inline_selected_functions(m, defined, False, True)) if defined else model
    )


def _count_graphs(graph: GraphProto, n_graphs: list[int]) -> None:
    """Count the graphs inside of nodes, before anything is made of them."""
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                n_graphs[0] += 1
                if n_graphs[0] > MOST_GRAPHS:
                    raise OnnxError(
                        f"graph: expected at most {MOST_GRAPHS:,} graphs inside of nodes, got more; split the model"
                    )
                _count_graphs(attribute.g, n_graphs)


def _inlined(model: ModelProto, inline: Callable[[ModelProto], ModelProto]) -> ModelProto:
    try:
        return inline(model)
    except Exception as error:  # the package names no type of its own
        raise OnnxError(f"functions: expected ones that can be put in place of their calls, got: {error}") from error


def _check_growth(model: ModelProto) -> None:
    """Count the nodes after inlining, before it is done."""
    functions = {(f.domain, f.name): f for f in model.functions}
    if len(functions) < len(model.functions):
        raise OnnxError("functions: expected names once, got a function twice; the file is damaged")
    counts: dict[Key, int] = {}
    under_way: set[Key] = set()

    def count(nodes: Any, depth: int) -> int:
        if depth > 200:
            raise OnnxError("functions: expected calls at most 200 deep, got more; the file is damaged")
        n = 0
        for node in nodes:
            key = (node.domain, node.op_type)
            n += of(key, depth + 1) if key in functions else 1
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    n += count(attribute.g.node, depth + 1)
        return n

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


def _is_computed(node: NodeProto) -> bool:
    domain = "" if node.domain == "ai.onnx" else node.domain
    return (domain, node.op_type) in handlers or (domain == "" and has_reference(node.op_type))


def _defined_by_others(graph: GraphProto, opsets: dict[str, int]) -> set[Key]:
    """Return the operators of a graph, and of those inside, that nothing here computes but ONNX defines by others."""
    found: set[Key] = set()
    for node in graph.node:
        domain = "" if node.domain == "ai.onnx" else node.domain
        schema = schema_of(domain, node.op_type, opsets.get(domain, 0))
        has_body = schema is not None and (schema.has_function or schema.has_context_dependent_function)
        if has_body and not _is_computed(node):
            found.add((node.domain, node.op_type))
        for attribute in node.attribute:
            if attribute.HasField("g"):
                found |= _defined_by_others(attribute.g, opsets)
    return found
