"""Convolution and pooling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from striate import _core, ops
from striate.autograd import Tensor
from striate.autograd.dim import maximum
from striate.io.onnx.node import Node, operator
from striate.io.onnx.value import OnnxError, as_array, as_tensor, check_size, ints

_CONV = {1: ops.conv1d, 2: ops.conv2d, 3: ops.conv3d}
_CONV_TRANSPOSE = {1: ops.conv_transpose1d, 2: ops.conv_transpose2d, 3: ops.conv_transpose3d}
_MAX_POOL = {1: ops.max_pool1d, 2: ops.max_pool2d, 3: ops.max_pool3d}
_MEAN = {1: ops.adaptive_avg_pool1d, 2: ops.adaptive_avg_pool2d, 3: ops.adaptive_avg_pool3d}
_AVG_POOL = {1: ops.avg_pool1d, 2: ops.avg_pool2d, 3: ops.avg_pool3d}

Pairs = list[tuple[int, int]]


def _n_axes(x: Tensor, most: int = 3) -> int:
    n = x.ndim - 2
    if not 1 <= n <= most:
        raise _core.ShapeError(f"expected an input with 1 to {most} spatial axes, got shape {x.shape}; reshape it")
    return n


def _per_axis(node: Node, name: str, n_axes: int) -> list[int]:
    values = node.attributes.get(name) or [1] * n_axes
    if len(values) != n_axes or any(v < 1 for v in values):
        raise OnnxError(f"expected {name} as {n_axes} numbers above 0, got {list(values)}; the file is damaged")
    return list(values)


def _padding(node: Node, x: Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Pairs:
    """Return (begin, end) for each spatial axis, as `auto_pad` or `pads` say."""
    n_axes = len(kernel)
    auto = node.attributes.get("auto_pad", "NOTSET")
    if auto == "VALID":
        return [(0, 0)] * n_axes
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        pairs = []
        for n, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True):
            total = 0 if s == 1 and d * (k - 1) == 0 else maximum(((n + s - 1) // s - 1) * s + (k - 1) * d + 1 - n, 0)
            if s == 1:
                total = d * (k - 1)
            small = total // 2
            pairs.append((small, total - small) if auto == "SAME_UPPER" else (total - small, small))
        return pairs
    if auto != "NOTSET":
        raise OnnxError(f"expected auto_pad NOTSET, SAME_UPPER, SAME_LOWER or VALID, got {auto!r}; the file is damaged")
    pads = node.attributes.get("pads") or [0] * (2 * n_axes)
    if len(pads) != 2 * n_axes:
        raise OnnxError(f"expected {2 * n_axes} pads for {n_axes} spatial axes, got {list(pads)}; the file is damaged")
    return list(zip(pads[:n_axes], pads[n_axes:], strict=True))


def _padded(x: Tensor, pairs: Pairs, value: float = 0.0) -> Tensor:
    """Grow the spatial axes, or crop them where a count is negative."""
    flat = [n for pair in reversed(pairs) for n in pair]
    return ops.pad(x, flat, value=value) if any(flat) else x


@operator("Conv")
def conv(node: Node, x: Any, weight: Any, bias: Any = None) -> Tensor:
    """Cross-correlate; ONNX's and torch's weights agree."""
    x, weight = as_tensor(x), as_tensor(weight)
    n_axes = _n_axes(x)
    if weight.ndim != x.ndim:
        raise _core.ShapeError(f"expected W with {x.ndim} axes for X of shape {x.shape}, got {weight.shape}")
    kernel = node.attributes.get("kernel_shape") or list(weight.shape[2:])
    if list(kernel) != list(weight.shape[2:]):
        raise OnnxError(f"expected kernel_shape {list(weight.shape[2:])} as W has, got {kernel}; the file is damaged")
    stride, dilation = _per_axis(node, "strides", n_axes), _per_axis(node, "dilations", n_axes)
    pairs = _padding(node, x, kernel, stride, dilation)
    if any(n < 0 for pair in pairs for n in pair):
        x, pairs = _padded(x, pairs), [(0, 0)] * n_axes
    return _CONV[n_axes](
        x,
        weight,
        None if bias is None else as_tensor(bias),
        stride=stride,
        padding=pairs,
        dilation=dilation,
        groups=node.attributes["group"],
    )


@operator("ConvTranspose")
def conv_transpose(node: Node, x: Any, weight: Any, bias: Any = None) -> Tensor:
    """Apply the transpose of a convolution; what `pads` and `output_shape` ask for beyond torch's is cropped or added."""
    x, weight = as_tensor(x), as_tensor(weight)
    n_axes = _n_axes(x)
    kernel = list(weight.shape[2:])
    stride, dilation = _per_axis(node, "strides", n_axes), _per_axis(node, "dilations", n_axes)
    extra = list(node.attributes.get("output_padding") or [0] * n_axes)
    full = [(n - 1) * s + (k - 1) * d + 1 for n, s, k, d in zip(x.shape[2:], stride, kernel, dilation, strict=True)]
    auto = node.attributes["auto_pad"]
    wanted = node.attributes.get("output_shape")
    if wanted:
        wanted = list(wanted)[-n_axes:]
    elif auto in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [n * s for n, s in zip(x.shape[2:], stride, strict=True)]
    if wanted:
        totals = [f + e - w for f, e, w in zip(full, extra, wanted, strict=True)]
        pairs = [(t - t // 2, t // 2) if auto != "SAME_UPPER" else (t // 2, t - t // 2) for t in totals]
    else:
        pads = node.attributes.get("pads") or [0] * (2 * n_axes)
        pairs = list(zip(pads[:n_axes], pads[n_axes:], strict=True)) if auto == "NOTSET" else [(0, 0)] * n_axes
    bias = None if bias is None else as_tensor(bias)
    check_size([x.shape[0], weight.shape[1] * node.attributes["group"], *full])
    options: dict[str, Any] = {"stride": stride, "dilation": dilation, "groups": node.attributes["group"]}
    apart = [max(s, d) for s, d in zip(stride, dilation, strict=True)]
    if all(b == e >= 0 and 0 <= o < a for (b, e), o, a in zip(pairs, extra, apart, strict=True)):
        return _CONV_TRANSPOSE[n_axes](x, weight, bias, padding=[b for b, _ in pairs], output_padding=extra, **options)
    # torch's padding is one number an axis and cuts both ends; what is left is cropped, or added as zeros.
    cut = [max(min(begin, end - e), 0) for (begin, end), e in zip(pairs, extra, strict=True)]
    crop = [(begin - c, end - c - e) for (begin, end), c, e in zip(pairs, cut, extra, strict=True)]
    grows = any(n < 0 for pair in crop for n in pair)
    y = _CONV_TRANSPOSE[n_axes](x, weight, None if grows else bias, padding=cut, **options)
    y = _padded(y, [(-begin, -end) for begin, end in crop])
    if grows and bias is not None:
        y = y + ops.reshape(bias, (1, -1, *[1] * n_axes))
    return y


def _pool_window(node: Node, x: Tensor) -> tuple[list[int], list[int], list[int], Pairs]:
    n_axes = _n_axes(x)
    kernel = list(node.attributes["kernel_shape"])
    if len(kernel) != n_axes or any(k < 1 for k in kernel):
        raise OnnxError(f"expected kernel_shape as {n_axes} numbers above 0, got {kernel}; the file is damaged")
    stride, dilation = _per_axis(node, "strides", n_axes), _per_axis(node, "dilations", n_axes)
    pairs = _padding(node, x, kernel, stride, dilation)
    check_size(
        [x.shape[0], x.shape[1], *[n + max(b, 0) + max(e, 0) for n, (b, e) in zip(x.shape[2:], pairs, strict=True)]]
    )
    is_ceil = node.attributes.get("ceil_mode", 0)  # a window may then reach beyond the padding
    for n, k, s, d, (begin, end) in zip(x.shape[2:], kernel, stride, dilation, pairs, strict=True):
        if d * (k - 1) + 1 > n + begin + end + (s - 1 if is_ceil else 0):
            raise _core.ShapeError(
                f"expected a window inside the padded image, got kernel_shape {kernel} for {list(x.shape[2:])}; pad more"
            )
    return kernel, stride, dilation, pairs


def _fits_torch(kernel: Sequence[int], pairs: Pairs) -> bool:
    """Say whether pooling takes this padding: not negative, at most half a window."""
    return all(0 <= n <= k // 2 for pair, k in zip(pairs, kernel, strict=True) for n in pair)


def _ceil_growth(
    x: Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], pairs: Pairs
) -> Pairs:
    """Return padding at the end that makes the output's size round up; windows that start beyond the image are left out."""
    grown = []
    for n, k, s, d, (begin, end) in zip(x.shape[2:], kernel, stride, dilation, pairs, strict=True):
        span = n + begin + end - d * (k - 1) - 1
        n_out = (span + s - 1) // s + 1
        if (n_out - 1) * s >= n + begin:
            n_out = n_out - 1
        grown.append((begin, end + maximum((n_out - 1) * s - span, 0)))
    return grown


@operator("MaxPool")
def max_pool(node: Node, x: Any) -> Any:
    """Take the maximum over windows, with the places of the maxima if wanted."""
    x = as_tensor(x)
    kernel, stride, dilation, pairs = _pool_window(node, x)
    n_axes = len(kernel)
    ceil = bool(node.attributes.get("ceil_mode", 0))
    wants_indices = len(node.outputs) > 1 and bool(node.outputs[1])
    if not x.dtype.is_floating_point:
        raise _core.DTypeError(f"max_pool: expected float32 or float64, got {x.dtype}")
    if _fits_torch(kernel, pairs):
        options: dict[str, Any] = {"stride": stride, "padding": pairs, "dilation": dilation, "ceil_mode": ceil}
        if not wants_indices:
            return _MAX_POOL[n_axes](x, kernel, **options)
        y, places = _MAX_POOL[n_axes](x, kernel, return_indices=True, **options)
        return y, _in_whole_tensor(x, _by_columns(x, places) if node.attributes.get("storage_order", 0) else places)
    if wants_indices:
        raise OnnxError("expected padding of at most half a window where indices are wanted, got more; pad before it")
    if ceil:
        pairs = _ceil_growth(x, kernel, stride, dilation, pairs)
    return _MAX_POOL[n_axes](_padded(x, pairs, -math.inf), kernel, stride=stride, dilation=dilation)


def _in_whole_tensor(x: Tensor, places: Tensor) -> Tensor:
    """Return places in the whole tensor; pooling counts inside one channel's image."""
    planes = ops.arange(x.shape[0] * x.shape[1]) * math.prod(x.shape[2:])
    return places + ops.reshape(planes, (x.shape[0], x.shape[1], *[1] * (x.ndim - 2)))


def _by_columns(x: Tensor, places: Tensor) -> Tensor:
    """Return places in an image counted along its first axis first."""
    at = as_array(places)
    image = tuple(int(n) for n in x.shape[2:])
    return as_tensor(np.ravel_multi_index(np.unravel_index(at, image), image, order="F"))


@operator("AveragePool")
def average_pool(node: Node, x: Any) -> Any:
    """Take the mean over windows; padding counts if `count_include_pad` says so."""
    x = as_tensor(x)
    kernel, stride, dilation, pairs = _pool_window(node, x)
    n_axes = len(kernel)
    counts_padding = bool(node.attributes.get("count_include_pad", 0))
    ceil = bool(node.attributes.get("ceil_mode", 0))
    if all(d == 1 for d in dilation) and _fits_torch(kernel, pairs):
        return _AVG_POOL[n_axes](
            x, kernel, stride=stride, padding=pairs, ceil_mode=ceil, count_include_pad=counts_padding
        )

    # Beyond torch's: sums by a depthwise convolution, divided by the elements that count.
    def total(image: Tensor, grown: Pairs) -> Tensor:
        channels = image.shape[1]
        weight = ops.ones(channels, 1, *kernel, dtype=x.dtype)
        return _CONV[n_axes](_padded(image, grown), weight, stride=stride, dilation=dilation, groups=channels)

    grown = _ceil_growth(x, kernel, stride, dilation, pairs) if ceil else pairs
    ones = ops.ones(1, 1, *x.shape[2:], dtype=x.dtype)
    if counts_padding:
        ones = _padded(ones, pairs, 1.0)
        counted = total(ones, [(0, g[1] - p[1]) for g, p in zip(grown, pairs, strict=True)])
    else:
        counted = total(ones, grown)
    return total(x, grown) / counted


@operator("LpPool")
def lp_pool(node: Node, x: Any) -> Tensor:
    """Take (Σ |x|ᵖ)^(1/p) over windows."""
    x = as_tensor(x)
    kernel, stride, dilation, pairs = _pool_window(node, x)
    n_axes, p = len(kernel), float(node.attributes["p"])
    if node.attributes.get("ceil_mode", 0):
        pairs = _ceil_growth(x, kernel, stride, dilation, pairs)
    powers = _padded(ops.pow(ops.abs(x), p), pairs)
    channels = x.shape[1]
    weight = ops.ones(channels, 1, *kernel, dtype=x.dtype)
    sums = _CONV[n_axes](powers, weight, stride=stride, dilation=dilation, groups=channels)
    return ops.pow(sums, 1.0 / p)


@operator("GlobalAveragePool")
def global_average_pool(node: Node, x: Any) -> Tensor:
    """Take the mean of every channel."""
    return channel_means(as_tensor(x))


def channel_means(x: Tensor) -> Tensor:
    """Take the mean over all spatial axes, which stay with size 1; a record follows their sizes."""
    return _MEAN[_n_axes(x)](x, 1)


@operator("GlobalMaxPool")
def global_max_pool(node: Node, x: Any) -> Tensor:
    """Take the maximum of every channel."""
    x = as_tensor(x)
    return ops.max(x, dim=list(range(2, x.ndim)), keepdim=True)


@operator("GlobalLpPool")
def global_lp_pool(node: Node, x: Any) -> Tensor:
    """Take (Σ |x|ᵖ)^(1/p) of every channel."""
    x = as_tensor(x)
    p = float(node.attributes["p"])
    return ops.pow(ops.sum(ops.pow(ops.abs(x), p), dim=list(range(2, x.ndim)), keepdim=True), 1.0 / p)


@operator("MaxUnpool")
def max_unpool(node: Node, x: Any, indices: Any, output_shape: Any = None) -> Tensor:
    """Put pooled values back where they came from, zeros elsewhere."""
    x, indices = as_tensor(x), as_tensor(indices)
    kernel = list(node.attributes["kernel_shape"])
    n_axes = len(kernel)
    stride = _per_axis(node, "strides", n_axes)
    pads = node.attributes.get("pads") or [0] * (2 * n_axes)
    natural = [
        (n - 1) * s + k - b - e
        for n, s, k, b, e in zip(x.shape[2:], stride, kernel, pads[:n_axes], pads[n_axes:], strict=True)
    ]
    shape = [x.shape[0], x.shape[1], *natural]
    check_size(shape)
    n = math.prod(shape)
    zeros = ops.zeros(n, dtype=x.dtype)
    y = ops.reshape(ops.scatter_add(zeros, ops.reshape(indices, (-1,)), ops.reshape(x, (-1,)), 0), shape)
    if output_shape is not None:
        wanted = ints(output_shape)
        y = ops.pad(y, [m for n, w in zip(reversed(shape), reversed(wanted), strict=True) for m in (0, w - n)])
    return y
