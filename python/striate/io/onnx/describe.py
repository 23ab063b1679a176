"""What an ONNX file holds, also where `load` refuses it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from onnx import GraphProto, NodeProto, TensorProto, helper

from striate.io.onnx.functions import expand
from striate.io.onnx.graph import Plan
from striate.io.onnx.mode import Mode
from striate.io.onnx.read import Source, Weights, named, opsets_of, parse, unsupported
from striate.io.onnx.value import declared
from striate.io.port import Port

__all__ = ["Description", "describe"]


@dataclass(frozen=True, slots=True)
class Description:
    """What an ONNX file says of itself.

    Attributes
    ----------
    producer : str
        Name and version of what wrote the file.
    ir_version : int
    opsets : mapping of str to int
        Version of each operator set that the file asks for; ONNX's own is "ai.onnx".
    inputs, outputs : tuple of Port
        Initialisers are no inputs.
    nodes : mapping of str to int
        How many nodes each operator has in the file, graphs inside of nodes included; the most frequent first.
    n_weights, weight_bytes : int
        Elements and bytes of initialisers and constants, those in other files included.
    unsupported : mapping of str to list of str
        Operators that striate does not support → names of their nodes. `load` refuses the file where there are any.
    """

    producer: str
    ir_version: int
    opsets: Mapping[str, int]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    nodes: Mapping[str, int]
    n_weights: int
    weight_bytes: int
    unsupported: Mapping[str, list[str]]


def describe(source: Source) -> Description:
    """Read what an ONNX file holds, without its having to be supported.

    Parameters
    ----------
    source : str, path, bytes or onnx.ModelProto

    Returns
    -------
    Description

    Raises
    ------
    OnnxError
        A file that is no ONNX model, or is damaged.
    OSError
        A file that cannot be opened.

    Examples
    --------
    >>> from onnx import parser
    >>> from striate.io.onnx.describe import describe
    >>> model = parser.parse_model('<ir_version: 8, opset_import: ["" : 17]> g (float[n] x) => (float[n] y) { y = Relu(x) }')
    >>> found = describe(model)
    >>> str(found.inputs[0]), dict(found.nodes)
    ('x: float32 n', {'Relu': 1})
    """
    what, proto, weights, folder = parse(source)
    with named(what):
        opsets = opsets_of(what, proto)
        asked = {domain or "ai.onnx": version for domain, version in opsets.items()}
        nodes = list(_nodes(proto.graph))
        plan = Plan(expand(proto, opsets).graph, opsets, Mode(False), Weights(weights, folder).read)
    constants = [a.t for node in nodes if node.op_type == "Constant" for a in node.attribute if a.HasField("t")]
    tensors = [*proto.graph.initializer, *constants]
    return Description(
        f"{proto.producer_name} {proto.producer_version}".strip(),
        proto.ir_version,
        asked,
        tuple(declared(name, plan.types.get(name)) for name in plan.inputs),
        tuple(declared(name, plan.types.get(name)) for name in plan.outputs),
        dict(Counter(node.op_type for node in nodes).most_common()),
        sum(math.prod(tensor.dims) for tensor in tensors),
        sum(_n_bytes(tensor) for tensor in tensors),
        unsupported(plan),
    )


def _nodes(graph: GraphProto) -> Iterator[NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g)


def _n_bytes(tensor: TensorProto) -> int:
    if tensor.data_type == TensorProto.STRING:
        return sum(len(text) for text in tensor.string_data)
    return int(math.prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
