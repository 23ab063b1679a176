"""Reductions over axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from striate import _core, ops
from striate.autograd import Tensor
from striate.io.onnx.node import Node, operator
from striate.io.onnx.operators.window import channel_means
from striate.io.onnx.value import as_tensor, axis_of, ints

Reduction = Callable[[Tensor, list[int], bool], Tensor]


def _l2(x: Tensor, axes: list[int], keepdim: bool) -> Tensor:
    return ops.sqrt(ops.sum(ops.square(x), dim=axes, keepdim=keepdim))


_REDUCTIONS: dict[str, Reduction] = {
    "ReduceSum": lambda x, axes, keep: ops.sum(x, dim=axes, keepdim=keep),
    "ReduceMean": lambda x, axes, keep: ops.mean(x, dim=axes, keepdim=keep),
    "ReduceMax": lambda x, axes, keep: ops.max(x, dim=axes, keepdim=keep),
    "ReduceMin": lambda x, axes, keep: ops.min(x, dim=axes, keepdim=keep),
    "ReduceProd": lambda x, axes, keep: ops.prod(x, dim=axes, keepdim=keep),
    "ReduceL1": lambda x, axes, keep: ops.sum(ops.abs(x), dim=axes, keepdim=keep),
    "ReduceL2": _l2,
    "ReduceSumSquare": lambda x, axes, keep: ops.sum(ops.square(x), dim=axes, keepdim=keep),
    "ReduceLogSum": lambda x, axes, keep: ops.log(ops.sum(x, dim=axes, keepdim=keep)),
    "ReduceLogSumExp": lambda x, axes, keep: ops.logsumexp(x, dim=axes, keepdim=keep),
}


_NEED_ELEMENTS = ("ReduceMax", "ReduceMin", "ReduceLogSumExp")


def _reduction(name: str, function: Reduction) -> None:
    def run(node: Node, x: Any, axes: Any = None) -> Tensor:
        x = as_tensor(x)
        chosen = node.attributes.get("axes") if axes is None else ints(axes)
        if not chosen:
            if node.attributes.get("noop_with_empty_axes", 0):
                if node.op_type in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd"):
                    return x
                raise _core.DTypeError("what happens to each element alone is the host's")
            chosen = list(range(x.ndim))
        if not x.dtype.is_floating_point:
            raise _core.DTypeError(f"expected floats, got {x.dtype}")
        if node.op_type in _NEED_ELEMENTS and any(x.shape[axis] == 0 for axis in chosen):
            raise _core.DTypeError("extremes of nothing are the host's")
        axes = sorted(axis_of(axis, x.ndim) for axis in chosen)
        if node.op_type == "ReduceMean" and 3 <= x.ndim <= 5 and axes == list(range(2, x.ndim)):
            means = channel_means(x)
            return means if node.attributes["keepdims"] else ops.reshape(means, x.shape[:2])
        return function(x, list(chosen), bool(node.attributes["keepdims"])) if x.ndim else function(x, [], False)

    operator(name)(run)


for _name, _function in _REDUCTIONS.items():
    _reduction(_name, _function)


def _arg(name: str, function: Any) -> None:
    def run(node: Node, x: Any) -> Tensor:
        x = as_tensor(x)
        axis, keep = axis_of(node.attributes["axis"], max(x.ndim, 1)), bool(node.attributes["keepdims"])
        if node.attributes.get("select_last_index", 0):
            return x.shape[axis] - 1 - function(ops.flip(x, axis), dim=axis, keepdim=keep)
        return function(x, dim=axis, keepdim=keep)

    operator(name)(run)


_arg("ArgMax", ops.argmax)
_arg("ArgMin", ops.argmin)
