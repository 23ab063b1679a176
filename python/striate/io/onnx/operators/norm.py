"""Normalisation."""

from __future__ import annotations

from typing import Any

from striate import ops
from striate.autograd import Tensor
from striate.io.onnx.node import Node, operator
from striate.io.onnx.value import OnnxError, as_tensor, axis_of


@operator("BatchNormalization")
def batch_norm(node: Node, x: Any, scale: Any, shift: Any, mean: Any, var: Any) -> Any:
    """Normalise by running statistics, or by those of the batch where the file or the model's mode asks for it."""
    x, scale, shift, mean, var = map(as_tensor, (x, scale, shift, mean, var))
    momentum, eps = node.attributes["momentum"], node.attributes["epsilon"]
    if node.attributes.get("spatial", 1) == 0:
        raise OnnxError("expected spatial=1, got 0 (statistics of every pixel); export it again with a newer opset")
    options: dict[str, Any] = {"eps": eps}
    if node.attributes.get("training_mode", 0):
        axes = [i for i in range(x.ndim) if i != 1]
        batch_mean = ops.mean(x, dim=axes)
        batch_var = ops.var(x, dim=axes, correction=0)
        y = ops.batch_norm(x, None, None, scale, shift, training=True, **options)
        return (
            y,
            mean * momentum + batch_mean * (1.0 - momentum),
            var * momentum + batch_var * (1.0 - momentum),
        )
    if node.mode.is_training and node.mode.trains_batch_norm:
        return ops.batch_norm(x, mean, var, scale, shift, training=True, momentum=1.0 - momentum, **options)
    return ops.batch_norm(x, mean, var, scale, shift, **options)


@operator("InstanceNormalization")
def instance_norm(node: Node, x: Any, scale: Any, shift: Any) -> Tensor:
    """Normalise each channel of each image."""
    return ops.instance_norm(
        as_tensor(x), None, None, as_tensor(scale), as_tensor(shift), eps=node.attributes["epsilon"]
    )


@operator("GroupNormalization")
def group_norm(node: Node, x: Any, scale: Any, shift: Any) -> Tensor:
    """Normalise groups of channels; before opset 21 scale and shift are of groups, after it of channels."""
    x, scale, shift = as_tensor(x), as_tensor(scale), as_tensor(shift)
    groups = node.attributes["num_groups"]
    eps = node.attributes["epsilon"]
    if node.since >= 21:
        return ops.group_norm(x, groups, scale, shift, eps=eps)
    y = ops.group_norm(x, groups, eps=eps)
    channels = x.shape[1]

    def spread(value: Tensor) -> Tensor:
        wide = ops.expand(ops.reshape(value, (groups, 1)), (groups, channels // groups))
        return ops.reshape(wide, (1, channels, *[1] * (x.ndim - 2)))

    return y * spread(scale) + spread(shift)


@operator("LayerNormalization")
def layer_norm(node: Node, x: Any, scale: Any, shift: Any = None) -> Any:
    """Normalise the axes from `axis` on."""
    x, scale = as_tensor(x), as_tensor(scale)
    axis = axis_of(node.attributes["axis"], x.ndim)
    eps = node.attributes["epsilon"]
    shift = None if shift is None else as_tensor(shift)
    wants_more = any(node.outputs[1:])
    inner = x.shape[axis:]
    if not wants_more and scale.shape == inner and (shift is None or shift.shape == inner):
        return ops.layer_norm(x, inner, scale, shift, eps=eps)
    axes = list(range(axis, x.ndim))
    mean = ops.mean(x, dim=axes, keepdim=True)
    inverse = ops.rsqrt(ops.var(x, dim=axes, correction=0, keepdim=True) + eps)
    y = (x - mean) * inverse * scale
    y = y if shift is None else y + shift
    return (y, mean, inverse) if wants_more else y


@operator("RMSNormalization")
def rms_norm(node: Node, x: Any, scale: Any) -> Tensor:
    """Divide the axes from `axis` on by the root of their mean square."""
    x, scale = as_tensor(x), as_tensor(scale)
    axes = list(range(axis_of(node.attributes["axis"], x.ndim), x.ndim))
    return x * ops.rsqrt(ops.mean(ops.square(x), dim=axes, keepdim=True) + node.attributes["epsilon"]) * scale


@operator("LRN")
def local_response_norm(node: Node, x: Any) -> Tensor:
    """Divide by a power of the squares of neighbouring channels."""
    a = node.attributes
    size = a["size"]
    if size % 2 == 1:
        return ops.local_response_norm(as_tensor(x), size, alpha=a["alpha"], beta=a["beta"], k=a["bias"])
    # ONNX's window of even size reaches one channel further ahead, torch's one further back.
    x = as_tensor(x)
    turned = ops.local_response_norm(ops.flip(x, 1), size, alpha=a["alpha"], beta=a["beta"], k=a["bias"])
    return ops.flip(turned, 1)


@operator("MeanVarianceNormalization")
def mean_variance_norm(node: Node, x: Any) -> Tensor:
    """Take off the mean over axes and divide by the deviation."""
    x = as_tensor(x)
    axes = list(node.attributes["axes"])
    deviation = ops.std(x, dim=axes, correction=0, keepdim=True)
    return (x - ops.mean(x, dim=axes, keepdim=True)) / (deviation + 1e-9)


@operator("LpNormalization")
def lp_norm(node: Node, x: Any) -> Tensor:
    """Divide by the norm along one axis; 0 where that is 0."""
    x = as_tensor(x)
    axis, p = node.attributes["axis"], node.attributes["p"]
    if p == 1:
        norm = ops.sum(ops.abs(x), dim=axis, keepdim=True)
    elif p == 2:
        norm = ops.sqrt(ops.sum(ops.square(x), dim=axis, keepdim=True))
    else:
        raise OnnxError(f"expected p as 1 or 2, got {p}; the file is damaged")
    is_zero = norm == 0.0
    return ops.where(is_zero, ops.zeros_like(x), x / ops.where(is_zero, ops.ones_like(norm), norm))
