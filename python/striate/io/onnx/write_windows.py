"""Convolutions, pools and normalisation as ONNX nodes, with what a compiled program joins to them."""

from __future__ import annotations

import math
from typing import Any

from striate.io.onnx.write_graph import Call, UnwritableError, Value, Writer
from striate.io.onnx.write_ops import clamp, column, ones, product, row, run, zeros
from striate.io.onnx.write_shapes import plus, quotient, times
from striate.io.onnx.write_sizes import Size

_AXES = ("1d", "2d", "3d")


def _each(name: str) -> list[str]:
    return [name + axes for axes in _AXES]


# What a program joins to a convolution or product. Operand 2 is the bias, 3 is added, 4 is memory for the result, 5 to 7 are a
# batch-norm before it (mean, scale, shift), 8 is a gate.

#: Parameters map_a and map_b of an activation that was joined, by their own names.
_PARAMETERS = {"leaky_relu": ("negative_slope",), "elu": ("alpha",), "softplus": ("beta", "threshold")}


def _activate(w: Writer, call: Call, y: str, prefix: str = "") -> str:
    a = call.attributes
    if a.get(prefix + "lo") is not None:
        return clamp(w, y, a[prefix + "lo"], a[prefix + "hi"], call.dtype)
    op = a.get(prefix + "map")
    if op is None:
        return y
    numbers = (a.get(prefix + "map_a"), a.get(prefix + "map_b"))
    return run(w, op, y, call, **dict(zip(_PARAMETERS.get(op, ()), numbers, strict=False)))


def _finish(w: Writer, call: Call, y: str) -> str:
    """Add what is added and apply the activation, in their order."""
    addend = call.given(3)
    if addend is None:
        return _activate(w, call, y)
    if call.attributes.get("adds_last"):
        return w.node("Add", _activate(w, call, y), addend.name)
    return _activate(w, call, w.node("Add", y, addend.name))


def _begin(w: Writer, call: Call) -> str:
    """Apply what comes before the convolution."""
    x, gate, mean = call.x.name, call.given(8), call.given(5)
    if gate is not None:
        return w.node("Mul", x, gate.name)
    if mean is None:
        return x
    shift = call.given(7)
    x = w.node(
        "BatchNormalization",
        x,
        call.required(6).name,
        zeros(w, mean.shape, mean.dtype) if shift is None else shift.name,
        mean.name,
        ones(w, mean.shape, mean.dtype),  # the scale is divided by the deviation already
        epsilon=0.0,
    )
    hi = call.attributes.get("first_hi", math.inf)
    return clamp(w, x, 0.0, hi, call.dtype) if call.attributes.get("first_relu") else x


def _convolve(w: Writer, call: Call, x: str, weight: Value, bias: Value | None) -> str:
    a, taps = call.attributes, weight.shape[2:]
    begin, end = list(a["pad_begin"]), list(a["pad_end"])
    if a["padding"] == "same":
        spread = [d * (k - 1) for d, k in zip(a["dilation"], taps, strict=True)]
        begin, end = [n // 2 for n in spread], [n - n // 2 for n in spread]
    elif a["padding"] == "valid":
        begin = end = [0] * len(taps)
    return w.node(
        "Conv",
        x,
        weight.name,
        None if bias is None else bias.name,
        kernel_shape=list(taps),
        strides=list(a["stride"]),
        pads=begin + end,
        dilations=list(a["dilation"]),
        group=a["groups"],
    )


@row(*_each("conv"))
def _conv(w: Writer, call: Call) -> list[str]:
    """In a program further results are the statistics that the batch-norm behind takes."""
    y = _finish(w, call, _convolve(w, call, _begin(w, call), call.required(1), call.given(2)))
    if not call.attributes.get("moments"):
        return [y]
    mean, _, var = _statistics(w, y, len(call.shape))
    axes = w.constant([0, *range(2, len(call.shape))], "int64")
    return [y, w.node("Squeeze", mean, axes), w.node("Squeeze", var, axes)]


def _statistics(w: Writer, x: str, n_axes: int) -> tuple[str, str, str]:
    """Return the mean of each channel over the batch, the distance from it, and the variance, reduced axes of size 1."""
    axes = w.constant([0, *range(2, n_axes)], "int64")
    mean = w.node("ReduceMean", x, axes, keepdims=1)
    gap = w.node("Sub", x, mean)
    return mean, gap, w.node("ReduceMean", w.node("Mul", gap, gap), axes, keepdims=1)


@row("separable_conv2d")
def _separable(w: Writer, call: Call) -> str:
    """A depthwise convolution (operands 5 and 6) before a pointwise one (1 and 2)."""
    depthwise, weight, bias = call.required(5), call.required(1), call.given(2)
    groups = {"groups": depthwise.shape[0]}
    first = Call(call.op, {**call.attributes, **groups}, [call.x], call.results)
    y = _activate(w, call, _convolve(w, first, call.x.name, depthwise, call.given(6)), "first_")
    y = w.node("Conv", y, weight.name, None if bias is None else bias.name, kernel_shape=[1, 1])
    return _finish(w, call, y)


@row(*_each("conv_transpose"))
def _conv_transpose(w: Writer, call: Call) -> str:
    a, weight, bias = call.attributes, call.required(1), call.given(2)
    y = w.node(
        "ConvTranspose",
        call.x.name,
        weight.name,
        None if bias is None else bias.name,
        kernel_shape=list(weight.shape[2:]),
        strides=list(a["stride"]),
        pads=[*a["pad_begin"], *a["pad_end"]],
        output_padding=list(a["output_padding"]),
        dilations=list(a["dilation"]),
        group=a["groups"],
    )
    return _finish(w, call, y)


@row("linear")
def _linear(w: Writer, call: Call) -> str:
    bias = call.given(2)
    return _finish(w, call, product(w, call.x, call.required(1), None if bias is None else bias.name))


# Parts of a concatenation that a program writes where they end up.


@row("buffer")
def _buffer(w: Writer, call: Call) -> list[None]:
    """Memory: nothing is computed."""
    return [None]


@row("place")
def _place(w: Writer, call: Call) -> str:
    return call.required(1).name


@row("joined")
def _joined(w: Writer, call: Call) -> str:
    parts = [x.name for x in call.inputs[1:] if x is not None]
    return parts[0] if len(parts) == 1 else w.node("Concat", *parts, axis=1)


# Pools.


class _Pool:
    """A window of a pool: its begin, its end, and what ceil_mode asks for.

    With ceil_mode the last window may reach beyond the padding. ONNX Runtime and ONNX count such windows differently, so
    the padding is made longer instead, by what is missing, or by stride − 1 where the size may change; then results whose
    windows would start behind the input are cut off.
    """

    def __init__(self, call: Call) -> None:
        a = call.attributes
        n = len(a["kernel_size"])
        self.kernel, self.stride = list(a["kernel_size"]), list(a["stride"])
        self.dilation = list(a.get("dilation") or [1] * n)
        self.begin, self.wanted = ([pair[i] for pair in a["padding"]] for i in (0, 1))
        self.end = list(self.wanted)
        self.is_cut = False
        if not a["ceil_mode"]:
            return
        for i, (old, new) in enumerate(zip(call.x.shape[2:], call.shape[2:], strict=True)):
            reach = self.dilation[i] * (self.kernel[i] - 1) + 1
            if isinstance(old, int):
                self.end[i] = max((new - 1) * self.stride[i] + reach - old - self.begin[i], 0)
            elif self.stride[i] > 1:
                self.end[i] += self.stride[i] - 1
                self.is_cut = self.is_cut or self.stride[i] + self.wanted[i] > reach

    @property
    def reaches_beyond(self) -> bool:
        """Whether a window may end behind the padding."""
        return any(end > wanted for end, wanted in zip(self.end, self.wanted, strict=True))

    @property
    def is_too_long(self) -> bool:
        """Whether the padding is not below the kernel, which ONNX Runtime refuses."""
        return any(max(pads) >= k for *pads, k in zip(self.begin, self.end, self.kernel, strict=True))

    def pad(self, w: Writer, x: str, value: float, dtype: str, begin: list[int], end: list[int]) -> str:
        """Pad the spatial axes."""
        return w.node("Pad", x, w.ints([0, 0, *begin, 0, 0, *end]), w.scalar(value, dtype), mode="constant")

    def attributes(self, pads: list[int]) -> dict[str, Any]:
        """Return the attributes that all pools have."""
        return {"kernel_shape": self.kernel, "strides": self.stride, "pads": pads if any(pads) else None}

    def cut(self, w: Writer, call: Call, y: str) -> str:
        """Drop results of windows that start behind the input."""
        if not self.is_cut:
            return y
        n = len(self.kernel)
        return w.node("Slice", y, w.ints([0] * n), w.ints(call.shape[2:]), w.ints(range(2, n + 2)))


@row(*_each("max_pool"), *[name + "_taps" for name in _each("max_pool")])
def _max_pool(w: Writer, call: Call) -> list[str]:
    pool, x, pads = _Pool(call), call.x.name, None
    wants_taps = len(call.results) > 1 and call.is_read[1]
    if pool.is_too_long:
        if wants_taps:
            raise UnwritableError(f"{call.op} (indices of windows that reach beyond the padding by a kernel)")
        x, pads = pool.pad(w, x, -math.inf, call.dtype, pool.begin, pool.end), [0]
    given = pool.attributes(pads or pool.begin + pool.end)
    dilations = pool.dilation if any(d != 1 for d in pool.dilation) else None
    y = w.nodes_of("MaxPool", x, n_outputs=2 if wants_taps else 1, dilations=dilations, **given)
    return [pool.cut(w, call, part) for part in y]


@row(*[name + "_indices" for name in [*_each("max_pool"), *_each("adaptive_max_pool")]])
def _indices(w: Writer, call: Call) -> str:
    """Places within a channel; MaxPool counts through the whole tensor."""
    plane = times(*call.attributes["x_shape"][2:])
    return w.node("Mod", call.x.name, w.size(plane))


@row(*_each("avg_pool"))
def _avg_pool(w: Writer, call: Call) -> str:
    """Divide by the window, by what of it lies in the padded image, or by what of it lies in the image."""
    pool, x, a = _Pool(call), call.x.name, call.attributes
    begin, end, divisor = pool.begin, pool.end, a["divisor_override"]
    counts_all = bool(divisor) or (a["count_include_pad"] and not pool.reaches_beyond)
    if pool.is_too_long and counts_all:
        x = pool.pad(w, x, 0.0, call.dtype, begin, end)
        begin = end = [0] * len(begin)
    elif a["count_include_pad"] and not counts_all:
        inside = [min(n, m) for n, m in zip(end, pool.wanted, strict=True)]
        if any(begin) or any(inside):
            x = pool.pad(w, x, 0.0, call.dtype, begin, inside)
        begin, end = [0] * len(begin), [n - m for n, m in zip(end, inside, strict=True)]
    if not counts_all and any(n >= k for n, k in zip(end, pool.kernel, strict=True)):
        raise UnwritableError(f"{call.op} (ceil_mode with a stride above the kernel on an axis that may change)")
    y = w.node("AveragePool", x, **pool.attributes(begin + end), count_include_pad=1 if counts_all else None)
    if divisor:
        y = w.node("Mul", y, w.scalar(math.prod(pool.kernel) / divisor, call.dtype))
    return pool.cut(w, call, y)


@row(*_each("adaptive_avg_pool"), *_each("adaptive_max_pool"), *[f"{n}_taps" for n in _each("adaptive_max_pool")])
def _adaptive(w: Writer, call: Call) -> str | list[str]:
    """Cells from ⌊i·in/out⌋ to ⌈(i + 1)·in/out⌉: windows where they are equal, else slices, axis by axis."""
    is_max = "max" in call.op
    wants_taps = len(call.results) > 1 and call.is_read[1]
    old, new = call.x.shape[2:], call.shape[2:]
    is_even = [
        isinstance(n, int) and isinstance(m, int) and m > 0 and n % m == 0 for n, m in zip(old, new, strict=True)
    ]
    if all(m == 1 for m in new) and not wants_taps:
        return w.node("GlobalMaxPool" if is_max else "GlobalAveragePool", call.x.name)
    if wants_taps and not all(is_even):
        raise UnwritableError(f"{call.op} (indices of cells of different sizes, or of sizes that may change)")
    y = call.x.name
    kernel = [n // m if even else 1 for n, m, even in zip(old, new, is_even, strict=True)]
    if any(k > 1 for k in kernel) or wants_taps:
        op_type = "MaxPool" if is_max else "AveragePool"
        pooled = w.nodes_of(op_type, y, n_outputs=1 + wants_taps, kernel_shape=kernel, strides=kernel)
        if wants_taps:
            return pooled
        y = pooled[0]
    for axis, (n, m, even) in enumerate(zip(old, new, is_even, strict=True), start=2):
        if not even and n != m:
            y = _cells(w, call, y, axis, n, m)
    return y


def _cells(w: Writer, call: Call, x: str, axis: int, old: Size, new: int) -> str:
    at = w.constant([axis], "int64")
    cells = []
    for i in range(new):
        first = quotient(times(old, i), new)
        end = quotient(plus(times(old, i + 1), new - 1), new)
        cell = x if new == 1 else w.node("Slice", x, w.size(first), w.size(end), at)
        cells.append(w.node("ReduceMax" if "max" in call.op else "ReduceMean", cell, at, keepdims=1))
    return cells[0] if new == 1 else w.node("Concat", *cells, axis=axis)


# Normalisation.


@row("batch_norm_eval")
def _batch_norm(w: Writer, call: Call) -> str:
    """In a program an addition (operand 5) and a ReLU may follow."""
    x, mean, var, a = call.x, call.required(1), call.required(2), call.attributes
    scale, shift = call.given(3), call.given(4)
    y = w.node(
        "BatchNormalization",
        x.name,
        ones(w, mean.shape, mean.dtype) if scale is None else scale.name,
        zeros(w, mean.shape, mean.dtype) if shift is None else shift.name,
        mean.name,
        var.name,
        epsilon=a["eps"],
    )
    addend = call.given(5)
    y = y if addend is None else w.node("Add", y, addend.name)
    return clamp(w, y, 0.0, a.get("hi", math.inf), call.dtype) if a.get("relu") else y


def _scale_and_shift(w: Writer, y: str, scale: Value | None, shift: Value | None, n_axes: int) -> str:
    y = y if scale is None else w.node("Mul", y, column(w, scale, n_axes))
    return y if shift is None else w.node("Add", y, column(w, shift, n_axes))


@row("batch_norm_training")
def _batch_statistics(w: Writer, call: Call) -> str:
    """A layer that keeps no running statistics takes those of the batch in evaluation, too."""
    x, n_axes = call.x, len(call.x.shape) - 2
    _, gap, var = _statistics(w, x.name, len(x.shape))
    deviation = w.node("Sqrt", w.node("Add", var, w.scalar(call.attributes["eps"], call.dtype)))
    y = _scale_and_shift(w, w.node("Div", gap, deviation), call.given(1), call.given(2), n_axes)
    y = y if call.given(3) is None else w.node("Add", y, call.required(3).name)
    if call.attributes.get("relu"):
        y = clamp(w, y, 0.0, call.attributes.get("hi", math.inf), call.dtype)
    return y


@row("group_norm", "instance_norm")
def _group_norm(w: Writer, call: Call) -> str:
    """Each group of channels as one channel of InstanceNormalization."""
    x, groups, eps = call.x, call.attributes["num_groups"], call.attributes["eps"]
    scale, shift = call.given(1), call.given(2)
    if not isinstance(groups, int):
        raise UnwritableError(f"{call.op} (of a number of groups that may change)")
    one, zero = ones(w, [groups], call.dtype), zeros(w, [groups], call.dtype)
    if groups == x.shape[1] and len(x.shape) > 2:
        names = (one if scale is None else scale.name, zero if shift is None else shift.name)
        return w.node("InstanceNormalization", x.name, *names, epsilon=eps)
    flat = (x.shape[0], groups, quotient(times(*x.shape[1:]), groups))
    y = w.node("InstanceNormalization", w.reshape(x.name, x.shape, flat), one, zero, epsilon=eps)
    y = w.reshape(y, flat, x.shape)
    return _scale_and_shift(w, y, scale, shift, len(x.shape) - 2)


@row("layer_norm")
def _layer_norm(w: Writer, call: Call) -> str:
    n, scale, shift = call.attributes["n_axes"], call.given(1), call.given(2)
    names = [ones(w, call.shape[-n:], call.dtype) if scale is None else scale.name]
    names += [] if shift is None else [shift.name]
    return w.node("LayerNormalization", call.x.name, *names, axis=-n, epsilon=call.attributes["eps"])
