"""Convolution and transposed convolution over one to three spatial axes."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import Any

from striate import _core
from striate.autograd.op import Op, public, register
from striate.autograd.tape import Node, note
from striate.autograd.tensor import Tensor
from striate.ops.window import remembered

Sizes = int | Sequence[int]
PaddingSizes = int | str | Sequence[int] | Sequence[Sequence[int]]
Vjp = tuple[Tensor | None, ...]


def _per_axis(op: str, name: str, value: Sizes, n_axes: int) -> tuple[int, ...]:
    """One number for every spatial axis."""
    if isinstance(value, int):
        return (value,) * n_axes
    sizes = tuple(int(v) for v in value)
    if len(sizes) == 1:
        return sizes * n_axes
    if len(sizes) != n_axes:
        raise _core.ShapeError(
            f"{op}: expected {name} as one number or {n_axes}, got {tuple(value)}; give one per spatial axis"
        )
    return sizes


def window_attributes(op: str, n_axes: int, stride: Sizes, padding: PaddingSizes, dilation: Sizes) -> dict[str, Any]:
    """Normalise what a caller says about a window to one entry per spatial axis."""
    mode = _core.Padding.explicit
    begin: tuple[int, ...] = (0,) * n_axes
    end = begin
    if isinstance(padding, str):
        if padding not in ("same", "valid"):
            raise ValueError(f"{op}: expected padding 'same', 'valid' or numbers, got {padding!r}; use one of these")
        mode = _core.Padding.same if padding == "same" else _core.Padding.valid
    elif not isinstance(padding, int) and len(padding) > 0 and isinstance(padding[0], Sized):
        pairs = [tuple(pair) for pair in padding]  # type: ignore[arg-type]
        if len(pairs) != n_axes or any(len(pair) != 2 for pair in pairs):
            raise _core.ShapeError(
                f"{op}: expected {n_axes} padding pairs (begin, end), got {padding}; give one per spatial axis"
            )
        begin, end = tuple(int(p[0]) for p in pairs), tuple(int(p[1]) for p in pairs)
    else:
        begin = end = _per_axis(op, "padding", padding, n_axes)  # type: ignore[arg-type]
    return {
        "stride": _per_axis(op, "stride", stride, n_axes),
        "pad_begin": begin,
        "pad_end": end,
        "dilation": _per_axis(op, "dilation", dilation, n_axes),
        "padding": mode,
    }


class _Window:
    """A window spelled out: the attributes of a record, and the same in the order in which the kernels take them."""

    __slots__ = ("arguments", "attributes")

    def __init__(self, n_axes: int, stride: Sizes, padding: PaddingSizes, dilation: Sizes, groups: int) -> None:
        attributes = window_attributes(f"conv{n_axes}d", n_axes, stride, padding, dilation)
        self.attributes = {"groups": groups, **attributes}
        self.arguments = _arguments(self.attributes)


_window = remembered(_Window)


def _arguments(attributes: dict[str, Any]) -> tuple[Any, ...]:
    a = attributes
    last = a["output_padding"] if "output_padding" in a else a["padding"]
    return a["stride"], a["pad_begin"], a["pad_end"], a["dilation"], a["groups"], last


def _sum_bias(node: Node, grad_y: Tensor) -> Tensor | None:
    if len(node.needs) < 3 or not node.needs[2]:
        return None
    return grad_y.sum(dim=(0, *range(2, grad_y.ndim)))


def _rows(name: str, kernel: str) -> tuple[Op, Op, Op]:
    """Make the three rows of one convolution. It is linear in x and in the weight, so each gradient is made of the other rows."""
    run, run_grad_input, run_grad_weight = (
        getattr(_core, kernel + tail) for tail in ("", "_grad_input", "_grad_weight")
    )
    grad_input_name, grad_weight_name = name + "_grad_input", name + "_grad_weight"

    def forward(x: Any, weight: Any, bias: Any, **a: Any) -> Any:
        return run(name, x, weight, bias, *_arguments(a))

    def forward_vjp(node: Node, grad_y: Tensor) -> Vjp:
        grad_x = grad_weight = None
        if node.needs[0]:
            grad_x = grad_input(grad_y, node.inputs[1], x_shape=node.shapes[0], **node.attributes)
        if node.needs[1]:
            grad_weight = grad_weight_row(grad_y, node.inputs[0], weight_shape=node.shapes[1], **node.attributes)
        return grad_x, grad_weight, _sum_bias(node, grad_y)

    def grad_input_forward(grad_y: Any, weight: Any, *, x_shape: Any, **a: Any) -> Any:
        return run_grad_input(grad_input_name, grad_y, weight, x_shape, *_arguments(a))

    def grad_input_vjp(node: Node, g: Tensor) -> Vjp:
        a = {key: value for key, value in node.attributes.items() if key != "x_shape"}
        grad_grad_y = row(g, node.inputs[1], None, **a) if node.needs[0] else None
        grad_weight = grad_weight_row(node.inputs[0], g, weight_shape=node.shapes[1], **a) if node.needs[1] else None
        return grad_grad_y, grad_weight

    def grad_weight_forward(grad_y: Any, x: Any, *, weight_shape: Any, **a: Any) -> Any:
        return run_grad_weight(grad_weight_name, grad_y, x, weight_shape, *_arguments(a))

    def grad_weight_vjp(node: Node, g: Tensor) -> Vjp:
        a = {key: value for key, value in node.attributes.items() if key != "weight_shape"}
        grad_grad_y = row(node.inputs[1], g, None, **a) if node.needs[0] else None
        grad_x = grad_input(node.inputs[0], g, x_shape=node.shapes[1], **a) if node.needs[1] else None
        return grad_grad_y, grad_x

    row = register(Op(name, forward, forward_vjp, saves_inputs=(0, 1)))
    grad_input = register(Op(grad_input_name, grad_input_forward, grad_input_vjp, saves_inputs=(0, 1)))
    grad_weight_row = register(Op(grad_weight_name, grad_weight_forward, grad_weight_vjp, saves_inputs=(0, 1)))
    return row, grad_input, grad_weight_row


_conv = {n: _rows(f"conv{n}d", "conv")[0] for n in (1, 2, 3)}
_conv_transpose = {n: _rows(f"conv_transpose{n}d", "conv_transpose")[0] for n in (1, 2, 3)}


def _convolve(
    n_axes: int,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sizes,
    padding: PaddingSizes,
    dilation: Sizes,
    groups: int,
) -> Tensor:
    row = _conv[n_axes]
    window = _window(n_axes, stride, padding, dilation, groups)
    arrays = (x._array, weight._array, None if bias is None else bias._array)
    if arrays[0].ndim != n_axes + 2:
        _check_axes(row.name, x, n_axes)
    result = _core.conv(row.name, *arrays, *window.arguments)
    return note(row, (x, weight, bias), arrays, window.attributes, result)  # type: ignore[no-any-return]


def _check_axes(op: str, x: Tensor, n_axes: int) -> None:
    if x.ndim != n_axes + 2:
        raise _core.ShapeError(
            f"{op}: expected x of {n_axes + 2} axes (N, C, *spatial), got shape {x.shape}; add the batch axis with x[None]"
        )


@public
def conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Sizes = 1,
    padding: PaddingSizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """Cross-correlate a batch of signals with a bank of filters.

    y[n,o,j] = bias[o] + Σ_{c,q} x[n, c, j·s + q·d − pad] · weight[o,c,q]      (groups = 1)

    Parameters
    ----------
    x : Tensor, shape (N, C, W)
    weight : Tensor, shape (O, C // groups, Q)
    bias : Tensor, shape (O,), optional
    stride, padding, dilation, groups
        As `conv2d`, for one axis.

    Returns
    -------
    Tensor, shape (N, O, (W + pad_begin + pad_end − d·(Q − 1) − 1) // s + 1)

    Raises
    ------
    ShapeError, DTypeError
        As `conv2d`.
    """
    return _convolve(1, x, weight, bias, stride, padding, dilation, groups)


@public
def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Sizes = 1,
    padding: PaddingSizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """Cross-correlate a batch of images with a bank of filters.

    y[n,o,i,j] = bias[o] + Σ_{c,p,q} x[n, c, i·s + p·d − pad, j·s + q·d − pad] · weight[o,c,p,q]      (groups = 1)

    Parameters
    ----------
    x : Tensor, shape (N, C, H, W)
        Images, in any memory layout; taps outside H×W contribute nothing.
    weight : Tensor, shape (O, C // groups, P, Q)
    bias : Tensor, shape (O,), optional
    stride : int or (int, int), default 1
        Input positions between outputs, s.
    padding : int, (int, int), ((top, bottom), (left, right)), "same" or "valid", default 0
        Zeros around the image. "same" keeps the size (stride 1 only; an odd zero goes to the end); "valid" is 0.
    dilation : int or (int, int), default 1
        Input positions between taps, d.
    groups : int, default 1
        Channels are cut into this many groups, each with filters of its own.

    Returns
    -------
    Tensor, shape (N, O, I, J)
        I = (H + pad_top + pad_bottom − d·(P − 1) − 1) // s + 1, J likewise; channels-last in memory.

    Raises
    ------
    ShapeError
        Axes that do not fit each other or the window.
    DTypeError
        Tensors of different dtypes, or neither float32 nor float64.

    Notes
    -----
    float32 sums are chains of fused multiply-adds over (p, q, c): the error is at most γ_K · Σ|x|·|w| with K = P·Q·C.
    Packed weights are kept with the weight's storage until it changes.

    References
    ----------
    M. Dukhan, "The Indirect Convolution Algorithm", 2019, arXiv:1907.02129.
    """
    return _convolve(2, x, weight, bias, stride, padding, dilation, groups)


@public
def conv3d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Sizes = 1,
    padding: PaddingSizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """Cross-correlate a batch of volumes with a bank of filters.

    y[n,o,h,i,j] = bias[o] + Σ_{c,r,p,q} x[n, c, h·s + r·d − pad, …] · weight[o,c,r,p,q]      (groups = 1)

    Parameters
    ----------
    x : Tensor, shape (N, C, D, H, W)
    weight : Tensor, shape (O, C // groups, R, P, Q)
    bias : Tensor, shape (O,), optional
    stride, padding, dilation, groups
        As `conv2d`, for three axes.

    Returns
    -------
    Tensor, shape (N, O, H_out, I, J)

    Raises
    ------
    ShapeError, DTypeError
        As `conv2d`.
    """
    return _convolve(3, x, weight, bias, stride, padding, dilation, groups)


def _convolve_transposed(
    n_axes: int,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sizes,
    padding: PaddingSizes,
    output_padding: Sizes,
    groups: int,
    dilation: Sizes,
) -> Tensor:
    op = f"conv_transpose{n_axes}d"
    if isinstance(padding, str):
        raise ValueError(f"{op}: expected padding as numbers, got {padding!r}; compute it from the wanted output size")
    attributes = window_attributes(op, n_axes, stride, padding, dilation)
    del attributes["padding"]
    _check_axes(op, x, n_axes)
    extra = _per_axis(op, "output_padding", output_padding, n_axes)
    return _conv_transpose[n_axes](x, weight, bias, groups=groups, output_padding=extra, **attributes)  # type: ignore[no-any-return]


@public
def conv_transpose1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Sizes = 1,
    padding: PaddingSizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Tensor:
    """Apply the transpose of `conv1d` (its data gradient) to a batch of signals; see `conv_transpose2d`.

    Parameters
    ----------
    x : Tensor, shape (N, C, W)
    weight : Tensor, shape (C, O // groups, Q)
    bias : Tensor, shape (O,), optional
    stride, padding, output_padding, groups, dilation
        As `conv_transpose2d`, for one axis.

    Returns
    -------
    Tensor, shape (N, O, (W − 1)·s − 2·pad + d·(Q − 1) + output_padding + 1)
    """
    return _convolve_transposed(1, x, weight, bias, stride, padding, output_padding, groups, dilation)


@public
def conv_transpose2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Sizes = 1,
    padding: PaddingSizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Tensor:
    """Apply the transpose of `conv2d` (its data gradient) to a batch of images.

    y[n,o,h,w] = bias[o] + Σ x[n,c,i,j] · weight[c,o,p,q] over all i·s + p·d − pad = h, j·s + q·d − pad = w      (groups = 1)

    Parameters
    ----------
    x : Tensor, shape (N, C, H, W)
    weight : Tensor, shape (C, O // groups, P, Q)
    bias : Tensor, shape (O,), optional
    stride : int or (int, int), default 1
        Output positions between inputs, s.
    padding : int, (int, int) or ((top, bottom), (left, right)), default 0
        Rows and columns cut off the result.
    output_padding : int or (int, int), default 0
        Rows and columns added at the end, to choose among the sizes that a strided convolution maps to the same one.
    groups : int, default 1
    dilation : int or (int, int), default 1

    Returns
    -------
    Tensor, shape (N, O, I, J)
        I = (H − 1)·s − pad_top − pad_bottom + d·(P − 1) + output_padding + 1, J likewise.

    Raises
    ------
    ShapeError
        Axes that do not fit, or output_padding not below max(stride, dilation).
    DTypeError
        Tensors of different dtypes, or neither float32 nor float64.

    Notes
    -----
    Runs as stride² plain convolutions (sub-pixel decomposition): no zeros are inserted and nothing is scattered.
    """
    return _convolve_transposed(2, x, weight, bias, stride, padding, output_padding, groups, dilation)


@public
def conv_transpose3d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Sizes = 1,
    padding: PaddingSizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Tensor:
    """Apply the transpose of `conv3d` (its data gradient) to a batch of volumes; see `conv_transpose2d`.

    Parameters
    ----------
    x : Tensor, shape (N, C, D, H, W)
    weight : Tensor, shape (C, O // groups, R, P, Q)
    bias : Tensor, shape (O,), optional
    stride, padding, output_padding, groups, dilation
        As `conv_transpose2d`, for three axes.

    Returns
    -------
    Tensor, shape (N, O, D_out, H_out, W_out)
    """
    return _convolve_transposed(3, x, weight, bias, stride, padding, output_padding, groups, dilation)
