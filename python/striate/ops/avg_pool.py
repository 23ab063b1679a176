"""Mean pooling over 1 to 3 spatial axes, by windows or by adaptive cells."""

from __future__ import annotations

from functools import partial
from typing import Any

from striate import _core
from striate.autograd.op import Op, public, register
from striate.autograd.tape import Node
from striate.autograd.tensor import Tensor
from striate.ops.max_pool import OutputSize, output_sizes
from striate.ops.window import Padding, PerAxis, pads, per_axis, remembered


def _mean_rows(name: str, prefix: str) -> Op:
    def vjp(node: Node, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        return (grad(grad_y, x_shape=node.shapes[0], **node.attributes),)

    def grad_vjp(node: Node, grad_grad_x: Tensor) -> tuple[Tensor | None, ...]:
        return (mean(grad_grad_x, **{k: v for k, v in node.attributes.items() if k != "x_shape"}),)

    mean = register(Op(name, partial(getattr(_core, f"{prefix}avg_pool"), name), vjp))
    grad = register(Op(f"{name}_grad", partial(getattr(_core, f"{prefix}avg_pool_grad"), name), grad_vjp))
    return mean


_MEAN = [_mean_rows(f"avg_pool{n}d", "") for n in (1, 2, 3)]
_ADAPTIVE_MEAN = [_mean_rows(f"adaptive_avg_pool{n}d", "adaptive_") for n in (1, 2, 3)]


def _avg_pool(
    n_axes: int,
    x: Tensor,
    kernel_size: PerAxis,
    stride: PerAxis | None,
    padding: Padding,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Tensor:
    attributes = _window(n_axes, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
    return _MEAN[n_axes - 1](x, **attributes)  # type: ignore[no-any-return]


@remembered
def _window(
    n_axes: int,
    kernel_size: PerAxis,
    stride: PerAxis | None,
    padding: Padding,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> dict[str, Any]:
    op = f"avg_pool{n_axes}d"
    if divisor_override is not None and divisor_override == 0:
        raise ValueError(f"{op}: expected divisor_override other than 0, got 0; None divides by the count")
    kernel = per_axis(op, "kernel_size", kernel_size, n_axes)
    return {
        "kernel_size": kernel,
        "stride": kernel if stride is None else per_axis(op, "stride", stride, n_axes),
        "padding": pads(op, padding, n_axes),
        "ceil_mode": ceil_mode,
        "count_include_pad": count_include_pad,
        "divisor_override": divisor_override or 0,
    }


@public
def avg_pool1d(
    x: Tensor,
    kernel_size: PerAxis,
    *,
    stride: PerAxis | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Take the mean over windows of a sequence.

    y[n,c,i] = Σ_p x[n, c, i·s + p − pad] / count

    Parameters
    ----------
    x : Tensor, shape (N, C, L)
    kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
        As in `avg_pool2d`.

    Returns
    -------
    Tensor, shape (N, C, ⌊(L + 2·pad − p) / s⌋ + 1)

    Raises
    ------
    ShapeError
        x without 3 axes, a window that does not fit, or padding above half a window.
    DTypeError
        x of a dtype other than float32 or float64.

    Examples
    --------
    >>> import striate
    >>> striate.avg_pool1d(striate.tensor([[[1.0, 3.0, 2.0, 4.0]]]), 2).numpy().tolist()
    [[[2.0, 3.0]]]
    """
    return _avg_pool(1, x, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


@public
def avg_pool2d(
    x: Tensor,
    kernel_size: PerAxis,
    *,
    stride: PerAxis | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Take the mean over windows of images.

    y[n,c,i,j] = Σ_{p,q} x[n, c, i·s + p − pad, j·s + q − pad] / count

    Parameters
    ----------
    x : Tensor, shape (N, C, H, W)
        Images; padding counts as 0.
    kernel_size : int or (int, int)
        Size of the window, P × Q.
    stride : int or (int, int), optional
        Step between windows; the kernel size by default.
    padding : int, (int, int) or ((int, int), (int, int)), default 0
        Pixels added on both sides of each axis, or (begin, end) per axis; at most half a window.
    ceil_mode : bool, default False
        Round the output size up: a last window may hang over the end, if it starts inside the image or before it. So may
        the only one, by less than a stride.
    count_include_pad : bool, default True
        Whether padding is counted. What hangs over the padded image never is.
    divisor_override : int, optional
        Divide by this instead of the count.

    Returns
    -------
    Tensor, shape (N, C, H′, W′)
        H′ = ⌊(H + 2·pad − P) / s⌋ + 1, or ⌈…⌉ + 1 with `ceil_mode`, W′ likewise.

    Raises
    ------
    ShapeError
        x without 4 axes, a window that does not fit, or padding above half a window.
    DTypeError
        x of a dtype other than float32 or float64.
    ValueError
        A divisor_override of 0.

    Notes
    -----
    A sum of P·Q terms in row order times the rounded reciprocal of the count: at most P·Q + 2 roundings.

    Examples
    --------
    >>> import striate
    >>> striate.avg_pool2d(striate.tensor([[[[1.0, 3.0], [2.0, 4.0]]]]), 2).item()
    2.5
    """
    return _avg_pool(2, x, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


@public
def avg_pool3d(
    x: Tensor,
    kernel_size: PerAxis,
    *,
    stride: PerAxis | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Take the mean over windows of volumes.

    y[n,c,i] = Σ_p x[n, c, i·s + p − pad] / count, i and p with three axes

    Parameters
    ----------
    x : Tensor, shape (N, C, D, H, W)
    kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
        As in `avg_pool2d`, with three axes.

    Returns
    -------
    Tensor, shape (N, C, D′, H′, W′)
        Sizes as in `avg_pool2d`.

    Raises
    ------
    ShapeError
        x without 5 axes, a window that does not fit, or padding above half a window.
    DTypeError
        x of a dtype other than float32 or float64.

    Examples
    --------
    >>> import striate
    >>> striate.avg_pool3d(striate.ones(1, 2, 4, 4, 4), 2).shape
    (1, 2, 2, 2, 2)
    """
    return _avg_pool(3, x, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def _adaptive(n_axes: int, x: Tensor, output_size: OutputSize) -> Tensor:
    sizes = output_sizes(f"adaptive_avg_pool{n_axes}d", output_size, n_axes)
    return _ADAPTIVE_MEAN[n_axes - 1](x, output_size=sizes)  # type: ignore[no-any-return]


@public
def adaptive_avg_pool1d(x: Tensor, output_size: OutputSize) -> Tensor:
    """Take the mean over `output_size` cells of a sequence; see `adaptive_avg_pool2d`.

    Parameters
    ----------
    x : Tensor, shape (N, C, L)
    output_size : int or None

    Returns
    -------
    Tensor, shape (N, C, output_size)

    Raises
    ------
    ShapeError
        x without 3 axes, or no pixel to take a mean of.
    DTypeError
        x of a dtype other than float32 or float64.

    Examples
    --------
    >>> import striate
    >>> striate.adaptive_avg_pool1d(striate.tensor([[[1.0, 3.0, 2.0]]]), 2).numpy().tolist()
    [[[2.0, 2.5]]]
    """
    return _adaptive(1, x, output_size)


@public
def adaptive_avg_pool2d(x: Tensor, output_size: OutputSize) -> Tensor:
    """Take the mean over a grid of cells that covers the image, whatever its size; size 1 is global pooling.

    y[n,c,i,j] = mean of x[n,c,h,w] over ⌊i·H/H′⌋ ≤ h < ⌈(i + 1)·H/H′⌉ and ⌊j·W/W′⌋ ≤ w < ⌈(j + 1)·W/W′⌉

    Parameters
    ----------
    x : Tensor, shape (N, C, H, W)
    output_size : int, None or (int or None, int or None)
        H′ × W′; None keeps the size of the axis.

    Returns
    -------
    Tensor, shape (N, C, H′, W′)

    Raises
    ------
    ShapeError
        x without 4 axes, or no pixel to take a mean of.
    DTypeError
        x of a dtype other than float32 or float64.

    Examples
    --------
    >>> import striate
    >>> striate.adaptive_avg_pool2d(striate.ones(1, 2, 5, 7), 1).numpy().ravel().tolist()
    [1.0, 1.0]
    """
    return _adaptive(2, x, output_size)


@public
def adaptive_avg_pool3d(x: Tensor, output_size: OutputSize) -> Tensor:
    """Take the mean over a grid of cells that covers the volume; see `adaptive_avg_pool2d`.

    Parameters
    ----------
    x : Tensor, shape (N, C, D, H, W)
    output_size : int, None or three of them

    Returns
    -------
    Tensor, shape (N, C, D′, H′, W′)

    Raises
    ------
    ShapeError
        x without 5 axes, or no pixel to take a mean of.
    DTypeError
        x of a dtype other than float32 or float64.

    Examples
    --------
    >>> import striate
    >>> striate.adaptive_avg_pool3d(striate.ones(1, 2, 5, 7, 3), 2).shape
    (1, 2, 2, 2, 2)
    """
    return _adaptive(3, x, output_size)
