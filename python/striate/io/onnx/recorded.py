"""Nodes that a record cannot hold: the whole node becomes a call into Python, between whose runs the program is cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from striate import _core
from striate.autograd import ReadError, Tensor, host_call
from striate.io.onnx.value import as_tensor, has_dims

if TYPE_CHECKING:
    from striate.io.onnx.node import Node

Build = Callable[[Sequence[Any]], Any]


def by_host_call(node: Node, values: Sequence[Any]) -> tuple[Any, ...]:
    """Compute a node as one host call while recording, on its tensors and the sizes that follow inputs.

    Everything else is what it was in the recorded pass. Results are tensors whose sizes are those of new inputs.

    Raises
    ------
    ReadError
        Results that no tensor holds.
    """
    operands: list[Tensor | int] = []
    build = _take_apart(list(values), operands)
    is_training = node.mode.is_training
    forms: list[Any] = []

    def function(*given: Any) -> list[Tensor]:
        found: list[Tensor] = []
        with node.mode.restarted(is_training):
            form = [_form(result, found) for result in node(build(given))]
        if not forms:
            forms.append(form)
        if form != forms[0]:
            raise _core.GuardError(
                f"program: expected results of {node.label} that are as many and as nested as in the recorded pass, got "
                "others; record again with these inputs"
            )
        return found

    made = iter(host_call(f"{node.op_type} {node.name!r}", function, *operands))
    return tuple([_filled(part, made) for part in forms[0]])


def _take_apart(value: Any, operands: list[Tensor | int]) -> Build:
    """Append what differs from call to call to a list; return what builds the value of the plain operands."""
    at = len(operands)
    if isinstance(value, Tensor):
        operands.append(value)
        return lambda given: given[at]
    if isinstance(value, np.ndarray) and has_dims(value):
        operands.extend(value.flat)
        end, shape = len(operands), value.shape
        return lambda given: np.array(given[at:end], dtype=np.int64).reshape(shape)
    if isinstance(value, list):
        parts = [_take_apart(part, operands) for part in value]
        return lambda given: [part(given) for part in parts]
    if isinstance(value, dict):
        named = {name: _take_apart(part, operands) for name, part in value.items()}
        return lambda given: {name: part(given) for name, part in named.items()}
    return lambda _: value


def _form(result: Any, tensors: list[Tensor]) -> Any:
    """Append the tensors of a result to a list; return its form: "tensor", None, or a list of forms."""
    if result is None:
        return None
    if isinstance(result, list):
        return [_form(part, tensors) for part in result]
    try:
        tensors.append(as_tensor(result))
    except _core.DTypeError as error:
        raise ReadError(
            "expected results that a tensor holds from a node that only Python computes in a program, got "
            f"{np.asarray(result).dtype}; run the model eagerly"
        ) from error
    return "tensor"


def _filled(form: Any, tensors: Iterator[Tensor]) -> Any:
    if isinstance(form, list):
        return [_filled(part, tensors) for part in form]
    return None if form is None else next(tensors)
