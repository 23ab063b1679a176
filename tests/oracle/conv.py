"""Convolution and its transpose over 1 to 3 spatial axes, tap by tap."""

from __future__ import annotations

import numpy as np

from oracle.window import axes, per_axis, taps

Array = np.ndarray


def conv(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: object = 1,
    padding: object = 0,
    dilation: object = 1,
    groups: int = 1,
) -> Array:
    """y[n,o,i] = bias[o] + Σ_{c,p} x[n, g·C/G + c, i·s + p·d − pad] · weight[o,c,p], g the group of o.

    A tap in the padding adds nothing at all, whatever the weight.
    """
    n_batch, n_channels = x.shape[:2]
    n_out, per_group = weight.shape[:2]
    windows = axes(x.shape[2:], weight.shape[2:], stride, padding, dilation)
    y = np.zeros((n_batch, n_out, *(w.out for w in windows)))
    for tap, outputs, cells in taps(windows):
        for g in range(groups):
            channels = np.arange(g * per_group, (g + 1) * per_group)
            filters = np.arange(g * (n_out // groups), (g + 1) * (n_out // groups))
            read = x[np.ix_(range(n_batch), channels, *cells)]
            w = weight[(filters, slice(None), *tap)]
            y[np.ix_(range(n_batch), filters, *outputs)] += np.einsum("nc...,oc->no...", read, w)
    assert n_channels == groups * per_group
    if bias is not None:
        y += bias.reshape(1, -1, *(1,) * len(windows))
    return y


def conv_transpose(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: object = 1,
    padding: object = 0,
    output_padding: object = 0,
    groups: int = 1,
    dilation: object = 1,
) -> Array:
    """y[n,o, i·s + p·d − pad] += x[n,c,i] · weight[c,o,p]; out = (in−1)·s − 2·pad + d·(k−1) + output_padding + 1."""
    n_axes = weight.ndim - 2
    s, pad, d, extra = (per_axis(v, n_axes) for v in (stride, padding, dilation, output_padding))
    kernel = weight.shape[2:]
    sizes = x.shape[2:]
    out = [(sizes[a] - 1) * s[a] - 2 * pad[a] + d[a] * (kernel[a] - 1) + extra[a] + 1 for a in range(n_axes)]
    c_group, o_group = weight.shape[0] // groups, weight.shape[1]
    y = np.zeros((x.shape[0], o_group * groups, *out))
    for tap in np.ndindex(*kernel):
        sources, targets = [], []
        for a in range(n_axes):
            i = np.arange(sizes[a])
            target = i * s[a] + tap[a] * d[a] - pad[a]
            ok = (target >= 0) & (target < out[a])
            sources.append(i[ok])
            targets.append(target[ok])
        for g in range(groups):
            c = np.arange(g * c_group, (g + 1) * c_group)
            o = np.arange(g * o_group, (g + 1) * o_group)
            read = x[np.ix_(range(x.shape[0]), c, *sources)]
            y[np.ix_(range(x.shape[0]), o, *targets)] += np.einsum(
                "nc...,co->no...", read, weight[(c, slice(None), *tap)]
            )
    if bias is not None:
        y += bias.reshape(1, -1, *(1,) * n_axes)
    return y


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """y[...,o] = Σ_i x[...,i] · weight[o,i] + bias[o]."""
    y = np.einsum("...i,oi->...o", x, weight)
    return y if bias is None else y + bias


def matmul(a: Array, b: Array) -> Array:
    """y[...,m,n] = Σ_k a[...,m,k] · b[...,k,n], batch axes broadcast, a 1-d operand a row (a) or a column (b)."""
    left = a[None, :] if a.ndim == 1 else a
    right = b[:, None] if b.ndim == 1 else b
    y = np.einsum("...mk,...kn->...mn", left, right)
    if a.ndim == 1:
        y = y[..., 0, :]
    if b.ndim == 1:
        y = y[..., 0]
    return y
