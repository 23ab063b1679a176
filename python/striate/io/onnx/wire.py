"""The bytes of an ONNX file: large weights are left where they are, and only the rest is parsed.

A protobuf message is a sequence of fields: a key, (number << 3 | wire type), then a varint, 4 or 8 bytes, or a length and so
many bytes. The weights of a model are field 9 (raw_data) of the initialisers, field 5 of the graph, field 7 of the model.

References
----------
Protocol Buffers, "Encoding"; onnx.proto.
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["without_weights"]

_GRAPH, _INITIALIZER, _NAME, _RAW_DATA = 7, 5, 8, 9
#: Shorter data stays in the message: shapes and the like are read by shape inference, too.
_MOST_INLINE = 4096

_BYTES = 2


def without_weights(content: memoryview) -> tuple[bytes, dict[str, memoryview]]:
    """Take the large weights out of a serialised ModelProto.

    Parameters
    ----------
    content : memoryview of bytes

    Returns
    -------
    message : bytes
        The same message without the data of large initialisers.
    weights : dict of str to memoryview
        That data by the initialisers' names: views of `content`, which nobody may change.

    Raises
    ------
    ValueError
        Something that is no such message, or has a graph or a name twice: parse all of it and see.
    """
    graphs = [
        (start, body, end) for number, kind, start, body, end in _fields(content) if (number, kind) == (_GRAPH, _BYTES)
    ]
    if len(graphs) != 1:
        raise ValueError("a model of no or several graphs")
    ((start, body, end),) = graphs
    weights: dict[str, memoryview] = {}
    graph = b"".join(_graph(content[body:end], weights))
    message = b"".join([content[:start], b"\x3a", _varint(len(graph)), graph, content[end:]])
    return message, weights


def _graph(content: memoryview, weights: dict[str, memoryview]) -> Iterator[bytes | memoryview]:
    """Yield the pieces of a graph without large weights."""
    kept = 0
    for number, kind, start, body, end in _fields(content):
        if (number, kind) != (_INITIALIZER, _BYTES) or end - body <= _MOST_INLINE:
            continue
        tensor = content[body:end]
        name: bytes | None = None
        data: tuple[int, int, int] | None = None
        for inner, inner_kind, first, inside, last in _fields(tensor):
            if (inner, inner_kind) == (_NAME, _BYTES):
                name = bytes(tensor[inside:last])
            elif (inner, inner_kind) == (_RAW_DATA, _BYTES):
                if data is not None:
                    raise ValueError("data twice")
                data = (first, inside, last)
        if data is None or name is None or data[2] - data[1] <= _MOST_INLINE:
            continue
        key = name.decode("utf-8")
        if key in weights:
            raise ValueError("a name twice")
        weights[key] = tensor[data[1] : data[2]]
        rest = bytes(tensor[: data[0]]) + bytes(tensor[data[2] :])
        yield content[kept:start]
        yield b"\x2a" + _varint(len(rest)) + rest
        kept = end
    yield content[kept:]


def _fields(content: memoryview) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield (number, wire type, start, start of the content, end) of each field."""
    at, n = 0, len(content)
    while at < n:
        start = at
        key, at = _read_varint(content, at)
        kind = key & 7
        if kind == _BYTES:
            length, body = _read_varint(content, at)
            at = body + length
        elif kind == 0:
            body = at
            _, at = _read_varint(content, at)
        elif kind in (1, 5):
            body, at = at, at + (8 if kind == 1 else 4)
        else:
            raise ValueError("a group")
        if at > n:
            raise ValueError("a field beyond the end")
        yield key >> 3, kind, start, body, at


def _read_varint(content: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(content) or shift > 63:
            raise ValueError("a number without an end")
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
