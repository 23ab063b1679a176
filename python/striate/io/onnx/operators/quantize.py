"""Quantised operators: integers with a scale and a zero point. Sums of products are exact, in float64."""

from __future__ import annotations

from typing import Any

from striate import _core, ops
from striate.autograd import Tensor
from striate.io.onnx.node import Node, operator
from striate.io.onnx.operators.window import conv
from striate.io.onnx.value import as_tensor

_RANGE = {_core.DType.int8: (-128, 127), _core.DType.uint8: (0, 255)}


def _around(x: Any, zero_point: Any, axis: int | None = None) -> Tensor:
    """Return x − zero point in float64; a zero point per channel lies along `axis`."""
    shifted = ops.to(as_tensor(x), _core.DType.float64)
    if zero_point is None:
        return shifted
    zero = ops.to(as_tensor(zero_point), _core.DType.float64)
    return shifted - _along(zero, axis, shifted.ndim)


def _along(value: Tensor, axis: int | None, ndim: int) -> Tensor:
    if value.ndim != 1 or axis is None:
        return ops.reshape(value, (1,) * ndim) if value.size == 1 and value.ndim > ndim else value
    shape = [1] * ndim
    shape[axis] = -1
    return ops.reshape(value, shape) if value.size > 1 else ops.reshape(value, (1,) * ndim)


def _to_range(x: Tensor, dtype: Any) -> Tensor:
    low, high = _RANGE[dtype]
    return ops.to(ops.clip(x, float(low), float(high)), dtype)


@operator("DequantizeLinear")
def dequantize(node: Node, x: Any, scale: Any, zero_point: Any = None) -> Tensor:
    """Return (x − zero point) · scale; per tensor or per channel."""
    x, scale = as_tensor(x), as_tensor(scale)
    if scale.ndim > 1 or scale.dtype != _core.DType.float32 or node.attributes.get("output_dtype", 0) not in (0, 1):
        raise _core.DTypeError("blocks of scales are the host's")
    axis = node.attributes.get("axis", 1)
    axis = axis % x.ndim if x.ndim else None
    y = ops.to(x, _core.DType.float32)
    if zero_point is not None:
        y = y - _along(ops.to(as_tensor(zero_point), _core.DType.float32), axis, x.ndim)
    return y * _along(scale, axis, x.ndim)


@operator("QuantizeLinear")
def quantize(node: Node, x: Any, scale: Any, zero_point: Any = None) -> Tensor:
    """Return x / scale + zero point, rounded to even and cut to the range of 8 bits."""
    x, scale = as_tensor(x), as_tensor(scale)
    zero = None if zero_point is None else as_tensor(zero_point)
    dtype = _core.DType.uint8 if zero is None else zero.dtype
    kinds = node.attributes.get("output_dtype", 0)
    if scale.ndim > 1 or x.dtype != _core.DType.float32 or dtype not in _RANGE or (zero is None and kinds):
        raise _core.DTypeError("blocks of scales and other types are the host's")
    axis = node.attributes.get("axis", 1)
    axis = axis % x.ndim if x.ndim else None
    y = ops.round(x.detach() / _along(scale.detach(), axis, x.ndim))
    if zero is not None:
        y = y + _along(ops.to(zero, _core.DType.float32), axis, x.ndim)
    return _to_range(y, dtype)


@operator("ConvInteger")
def conv_integer(node: Node, x: Any, weight: Any, x_zero: Any = None, weight_zero: Any = None) -> Tensor:
    """Cross-correlate integers, exactly."""
    y = conv(node, _around(x, x_zero), _around(weight, weight_zero, 0))
    return ops.to(y, _core.DType.int32)


@operator("QLinearConv")
def qlinear_conv(
    node: Node,
    x: Any,
    x_scale: Any,
    x_zero: Any,
    weight: Any,
    weight_scale: Any,
    weight_zero: Any,
    y_scale: Any,
    y_zero: Any,
    bias: Any = None,
) -> Tensor:
    """Cross-correlate quantised images; the sums are exact, and rounded once."""
    bias = None if bias is None else ops.to(as_tensor(bias), _core.DType.float64)
    sums = conv(node, _around(x, x_zero), _around(weight, weight_zero, 0), bias)
    scale = ops.to(as_tensor(x_scale), _core.DType.float64) * ops.to(as_tensor(weight_scale), _core.DType.float64)
    scale = scale / ops.to(as_tensor(y_scale), _core.DType.float64)
    zero = as_tensor(y_zero)
    y = ops.round(sums * _along(scale, 1, sums.ndim)) + ops.to(zero, _core.DType.float64)
    return _to_range(y, zero.dtype)


@operator("MatMulInteger")
def matmul_integer(node: Node, a: Any, b: Any, a_zero: Any = None, b_zero: Any = None) -> Tensor:
    """Multiply matrices of integers, exactly."""
    a, b = as_tensor(a), as_tensor(b)
    y = ops.matmul(_around(a, a_zero, a.ndim - 2), _around(b, b_zero, b.ndim - 1))
    return ops.to(y, _core.DType.int32)
