"""Control flow: graphs inside of nodes.

A record follows what is decided before it runs: constant conditions, rounds and lengths. Where values decide, the whole node
runs eagerly between two pieces of the program.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from striate import ops
from striate.autograd import Tensor
from striate.io.onnx.node import Node, operator
from striate.io.onnx.value import OnnxError, as_array, as_tensor, axis_of, number


@operator("If")
def if_(node: Node, condition: Any, table: Any) -> Any:
    """Run one of two graphs."""
    plan = node.attributes["then_branch" if bool(number(condition)) else "else_branch"]
    return tuple(plan.run([], table))


#: What a loop carries, which may double and double, and what it collects may grow to this, or by this factor.
_MOST_CARRIED, _MOST_COLLECTED, _MOST_GROWTH = 2**26, 2**28, 64


def _n_bytes(values: list[Any]) -> int:
    """Return the memory of values, without that of sequences."""
    n = 0
    for v in values:
        if isinstance(v, Tensor):
            n += math.prod(int.__add__(size, 0) for size in v.shape) * (8 if "64" in str(v.dtype) else 4)
        elif isinstance(v, np.ndarray):
            n += v.nbytes
    return n


def _stack(values: list[Any], axis: int = 0) -> Any:
    if not values:
        return np.zeros((0,), dtype=np.float32)
    if any(isinstance(v, Tensor) for v in values):
        return ops.stack([as_tensor(v) for v in values], axis)
    return np.stack([as_array(v) for v in values], axis)


@operator("Loop")
def loop(node: Node, *operands: Any) -> Any:
    """Run a graph again and again: carried values go in and out, what it collects is stacked."""
    most, condition, *rest = operands
    carried, table = list(rest[:-1]), rest[-1]
    plan = node.attributes["body"]
    n_trips = None if most is None else int(number(most))
    goes_on = True if condition is None else bool(number(condition))
    collected: list[list[Any]] = [[] for _ in range(len(plan.outputs) - 1 - len(carried))]
    if len(plan.inputs) != 2 + len(carried):
        raise OnnxError(f"expected a body with {2 + len(carried)} inputs, got {len(plan.inputs)}; the file is damaged")
    n_start, n_collected = _n_bytes(carried), 0
    i = 0
    while goes_on and (n_trips is None or i < n_trips):
        node.mode.count_trip()
        results = plan.run([np.array(i, dtype=np.int64), np.array(goes_on), *carried], table)
        goes_on = bool(number(results[0]))
        carried = results[1 : 1 + len(carried)]
        for values, value in zip(collected, results[1 + len(carried) :], strict=True):
            values.append(value)
        n_collected += _n_bytes(results[1 + len(carried) :])
        for what, n, most_bytes in (
            ("carries", _n_bytes(carried), _MOST_CARRIED),
            ("collects", n_collected, _MOST_COLLECTED),
        ):
            if n > max(most_bytes, _MOST_GROWTH * n_start):
                raise OnnxError(
                    f"expected what the loop {what} to stay below {max(most_bytes, _MOST_GROWTH * n_start):,} bytes, got "
                    f"{n:,} in round {i + 1}; the loop may have no end"
                )
        i += 1
    return (*carried, *[_stack(values) for values in collected])


@operator("Scan")
def scan(node: Node, *operands: Any) -> Any:
    """Run a graph over slices of sequences."""
    plan, table = node.attributes["body"], operands[-1]
    given = list(operands[:-1])
    n_scanned = node.attributes["num_scan_inputs"]
    if node.since < 9:
        return _scan_batches(node, given, n_scanned, plan, table)
    n_states = len(given) - n_scanned
    n_outputs = len(plan.outputs) - n_states
    a = node.attributes
    return tuple(
        _scan(
            node,
            given[:n_states],
            given[n_states:],
            plan,
            table,
            a.get("scan_input_axes") or [0] * n_scanned,
            a.get("scan_input_directions") or [0] * n_scanned,
            a.get("scan_output_axes") or [0] * n_outputs,
            a.get("scan_output_directions") or [0] * n_outputs,
        )
    )


def _scan(
    node: Node,
    states: list[Any],
    scanned: list[Any],
    plan: Any,
    table: Any,
    axes: list[int],
    directions: list[int],
    out_axes: list[int],
    out_directions: list[int],
) -> list[Any]:
    sequences = [as_tensor(x) for x in scanned]
    n_steps = int(sequences[0].shape[axes[0]])  # a record has as many rounds, and no other number
    collected: list[list[Any]] = [[] for _ in out_axes]
    for i in range(n_steps):
        node.mode.count_trip()
        slices = []
        for x, axis, is_backward in zip(sequences, axes, directions, strict=True):
            at = n_steps - 1 - i if is_backward else i
            slices.append(ops.index(x, (*[slice(None)] * axis_of(axis, x.ndim), at)))
        results = plan.run([*states, *slices], table)
        states = results[: len(states)]
        for values, value in zip(collected, results[len(states) :], strict=True):
            values.append(value)
    stacked = [
        _stack(values[::-1] if is_backward else values, axis)
        for values, axis, is_backward in zip(collected, out_axes, out_directions, strict=True)
    ]
    return [*states, *stacked]


def _scan_batches(node: Node, given: list[Any], n_scanned: int, plan: Any, table: Any) -> Any:
    """Run opset 8's form, whose first operand holds lengths and whose values have a batch axis."""
    lengths, operands = given[0], [as_tensor(x) for x in given[1:]]
    if lengths is not None:
        raise OnnxError("expected sequences of full length, got sequence_lens; export it again with opset 9")
    n_states = len(operands) - n_scanned
    n_outputs = len(plan.outputs) - n_states
    directions = node.attributes.get("directions") or [0] * n_scanned
    batches = []
    for b in range(int(operands[0].shape[0])):
        parts = [ops.index(x, b) for x in operands]
        batches.append(
            _scan(
                node,
                parts[:n_states],
                parts[n_states:],
                plan,
                table,
                [0] * n_scanned,
                directions,
                [0] * n_outputs,
                [0] * n_outputs,
            )
        )
    return tuple(_stack(list(values)) for values in zip(*batches, strict=True))


@operator("SequenceMap")
def sequence_map(node: Node, *operands: Any) -> Any:
    """Run a graph on every element of a sequence."""
    sequence, *rest = operands
    others, table = rest[:-1], rest[-1]
    plan = node.attributes["body"]
    rows = [
        plan.run([value, *[o[i] if isinstance(o, list) else o for o in others]], table)
        for i, value in enumerate(sequence)
    ]
    return tuple([row[k] for row in rows] for k in range(len(plan.outputs)))
