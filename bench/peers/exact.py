"""Single elements of results in float64, straight from the formulas: what every library is checked against."""

from __future__ import annotations

import functools
from typing import Any

import memory_ops
import numpy as np

Array = np.ndarray[Any, Any]
Index = tuple[int, ...]


def conv(pass_: str, layer: dict[str, Any], x: Array, weight: Array, grad_y: Array, at: list[Index]) -> list[float]:
    """Return these elements of y, of x's gradient or of weight's."""
    stride, pad, dilation = layer["stride"], layer["padding"], layer["dilation"]
    (size_h, size_w), (out_h, out_w) = x.shape[2:], grad_y.shape[2:]
    o_per_group, c_per_group = weight.shape[0] // layer["groups"], weight.shape[1]
    taps = np.arange(layer["kernel_size"])

    def read(i: int, size: int) -> tuple[Array, Array]:
        """Taps that output i reads within the map, and the positions they read."""
        position = i * stride + taps * dilation - pad
        inside = (position >= 0) & (position < size)
        return taps[inside], position[inside]

    def written(h: int, size: int) -> tuple[Array, Array]:
        """Taps through which position h is read, and the outputs that do."""
        i, rest = np.divmod(h + pad - taps * dilation, stride)
        inside = (rest == 0) & (i >= 0) & (i < size)
        return taps[inside], i[inside]

    def span(p: int, size: int, n_out: int) -> tuple[slice, slice]:
        """Positions that tap p reads, and the outputs they go to."""
        offset = p * dilation - pad
        first, last = max(0, -(offset // stride)), min(n_out - 1, (size - 1 - offset) // stride)
        return slice(first * stride + offset, max(0, last * stride + offset + 1), stride), slice(first, last + 1)

    def forward(n: int, o: int, i: int, j: int) -> float:
        c = o // o_per_group * c_per_group
        (p, hs), (q, ws) = read(i, size_h), read(j, size_w)
        patch = x[n, c : c + c_per_group][:, hs[:, None], ws]
        return _dot(patch, weight[o][:, p[:, None], q])

    def grad_input(n: int, c: int, h: int, w: int) -> float:
        o = c // c_per_group * o_per_group
        (p, i), (q, j) = written(h, out_h), written(w, out_w)
        patch = grad_y[n, o : o + o_per_group][:, i[:, None], j]
        return _dot(patch, weight[o : o + o_per_group, c % c_per_group][:, p[:, None], q])

    def grad_weight(o: int, c: int, p: int, q: int) -> float:
        (hs, i), (ws, j) = span(p, size_h, out_h), span(q, size_w, out_w)
        return _dot(x[:, o // o_per_group * c_per_group + c, hs, ws], grad_y[:, o, i, j])

    one = {"forward": forward, "grad_input": grad_input, "grad_weight": grad_weight}[pass_]
    return [one(*index) for index in at]


def memory_op(
    pass_: str, row: dict[str, Any], tensors: list[Array], grad_y: Array, at: list[list[Index]]
) -> list[list[float]]:
    """Return these elements of each result of `memory_ops.call`, or of an optimizer's parameters end to end."""
    x = tensors[0]
    if pass_ == "step":
        params = np.concatenate([p.ravel() for p in tensors])
        return [[_steps(row["op"], float(params[i]), float(grad_y[i])) for (i,) in at[0]]]
    if row["op"] == "batch_norm":
        return _batch_norm(pass_, tensors, grad_y, at)
    if row["op"] in ("max_pool2d", "avg_pool2d"):
        one = functools.partial(_pool, row, x, grad_y if pass_ == "backward" else None)
    elif row["op"] in ("global_avg_pool2d", "interpolate"):
        # y = A · x · Aᵀ on each map, x's gradient Aᵀ · grad_y · A
        a = np.full((1, row["size"]), 1 / row["size"]) if row["op"] == "global_avg_pool2d" else _doubling(row)
        one = functools.partial(_linear, a, x) if pass_ == "forward" else functools.partial(_linear, a.T, grad_y)
    elif row["op"] in ("softmax", "log_softmax"):
        one = functools.partial(_softmax, row["op"], x, grad_y if pass_ == "backward" else None)
    elif row["op"] == "concat":
        joined = [(tensor, c) for tensor in tensors for c in range(tensor.shape[1])]
        one = lambda n, c, i, j: float(joined[c][0][n, joined[c][1], i, j])  # noqa: E731
    else:

        def one(*index: int) -> float:
            g = float(grad_y[index]) if pass_ == "backward" else None
            return _elementwise(row["op"], [float(tensor[index]) for tensor in tensors], g)

    return [[one(*index) for index in at[0]]]


def _dot(a: Array, b: Array) -> float:
    return float(np.sum(a.astype(np.float64) * b))


def _elementwise(op: str, values: list[float], g: float | None) -> float:
    x = values[0]
    if op == "add":
        return sum(values)
    if op == "relu":
        return max(x, 0.0) if g is None else g * (x > 0)
    sigmoid = 1 / (1 + np.exp(-x))
    return float(x * sigmoid if g is None else g * sigmoid * (1 + x * (1 - sigmoid)))


def _pool(row: dict[str, Any], x: Array, grad_y: Array | None, n: int, c: int, h: int, w: int) -> float:
    k, stride, pad = row["kernel_size"], row["stride"], row["padding"]
    is_max, size = row["op"] == "max_pool2d", row["size"]

    def window(i: int, j: int) -> tuple[Array, int, int]:
        """What output (i, j) reads, and where that begins."""
        top, left = max(0, i * stride - pad), max(0, j * stride - pad)
        return x[n, c, top : i * stride - pad + k, left : j * stride - pad + k].astype(np.float64), top, left

    if grad_y is None:
        read = window(h, w)[0]
        return float(read.max() if is_max else read.sum() / k**2)
    total = 0.0
    n_out = (size + 2 * pad - k) // stride + 1
    for i in range(max(0, -((k - 1 - h - pad) // stride)), min(n_out - 1, (h + pad) // stride) + 1):
        for j in range(max(0, -((k - 1 - w - pad) // stride)), min(n_out - 1, (w + pad) // stride) + 1):
            read, top, left = window(i, j)
            if not is_max:
                total += float(grad_y[n, c, i, j]) / k**2
            elif np.unravel_index(read.argmax(), read.shape) == (h - top, w - left):
                total += float(grad_y[n, c, i, j])
    return total


def _doubling(row: dict[str, Any]) -> Array:
    """Weights (2·size, size) with which outputs blend the inputs of an axis."""
    a, size = np.zeros((2 * row["size"], row["size"])), row["size"]
    for i in range(2 * size):
        if row["mode"] == "nearest":
            a[i, i // 2] = 1
        else:
            at = max(0.0, (i + 0.5) / 2 - 0.5)
            low = int(at)
            a[i, low] += 1 - (at - low)
            a[i, min(low + 1, size - 1)] += at - low
    return a


def _linear(a: Array, x: Array, n: int, c: int, i: int, j: int) -> float:
    return float(a[i] @ x[n, c].astype(np.float64) @ a[j])


def _softmax(op: str, x: Array, grad_y: Array | None, n: int, c: int, *ij: int) -> float:
    values = x[(n, slice(None), *ij)].astype(np.float64)
    y = np.exp(values) / np.exp(values).sum()
    if grad_y is None:
        return float(y[c] if op == "softmax" else np.log(y[c]))
    g = grad_y[(n, slice(None), *ij)].astype(np.float64)
    return float(y[c] * (g[c] - (g * y).sum()) if op == "softmax" else g[c] - y[c] * g.sum())


def _batch_norm(pass_: str, tensors: list[Array], grad_y: Array, at: list[list[Index]]) -> list[list[float]]:
    x, weight, bias = tensors[:3]

    @functools.cache
    def channel(c: int) -> dict[str, Any]:
        """The normalised channel, and the sums that its gradients need."""
        values, g = x[:, c].astype(np.float64), grad_y[:, c].astype(np.float64)
        scale = 1 / np.sqrt(values.var() + 1e-5)
        normal = (values - values.mean()) * scale
        to_x = weight[c] * scale * (g - g.mean() - normal * (g * normal).mean())
        return {
            "y": normal * weight[c] + bias[c],
            "grad_x": to_x,
            "grad_weight": (g * normal).sum(),
            "grad_bias": g.sum(),
        }

    gradients = ["grad_x", "grad_weight", "grad_bias"]
    names = {"forward": ["y"], "backward": gradients, "training": ["y", *gradients]}[pass_]
    return [
        [float(channel(i[0])[name] if len(i) == 1 else channel(i[1])[name][(i[0], *i[2:])]) for i in indices]
        for name, indices in zip(names, at, strict=True)
    ]


def _steps(op: str, param: float, g: float) -> float:
    """One parameter after the steps that `memory_ops.optimizer` takes."""
    mean = square = 0.0
    for t in range(1, memory_ops.STEPS_BEFORE_CHECK + 1):
        if op == "sgd":
            mean = memory_ops.MOMENTUM * mean + g
            param -= memory_ops.LEARNING_RATE * mean
        else:
            mean, square = 0.9 * mean + 0.1 * g, 0.999 * square + 0.001 * g * g
            param -= memory_ops.LEARNING_RATE * (mean / (1 - 0.9**t)) / ((square / (1 - 0.999**t)) ** 0.5 + 1e-8)
    return param
