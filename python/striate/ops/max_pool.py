"""Max pooling over 1 to 3 spatial axes, by windows or by adaptive cells."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from striate import _core
from striate.autograd.op import Op, public, register
from striate.autograd.tape import Node, is_grad_enabled
from striate.autograd.tensor import Tensor
from striate.ops.window import Padding, PerAxis, pads, per_axis, remembered

OutputSize = int | None | Sequence[int | None]


class _MaxRows(NamedTuple):
    plain: Op
    taps: Op
    indices: Op


def _max_rows(name: str, prefix: str) -> _MaxRows:
    """Rows of one max pooling. Which tap each maximum came from is kept only when a gradient is wanted."""

    def pick_vjp(node: Node, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        return grad(grad_y, node.inputs[1], **node.attributes), None

    def grad_vjp(node: Node, grad_grad_x: Tensor) -> tuple[Tensor | None, ...]:
        return pick(grad_grad_x, node.inputs[1], **node.attributes), None

    def taps_vjp(node: Node, grad_y: Tensor, _: None) -> tuple[Tensor | None, ...]:
        return (grad(grad_y, node.results[1], x_shape=node.shapes[0], **node.attributes),)

    def core(function: str) -> Any:
        return partial(getattr(_core, f"{prefix}max_pool{function}"), name)

    pick = register(Op(f"{name}_pick", core("_pick"), pick_vjp, saves_inputs=(1,)))
    grad = register(Op(f"{name}_grad", core("_grad"), grad_vjp, saves_inputs=(1,)))
    return _MaxRows(
        register(Op(name, core(""))),
        register(Op(f"{name}_taps", core("_taps"), taps_vjp, saves_results=(1,))),
        register(Op(f"{name}_indices", core("_indices"))),
    )


_MAX = [_max_rows(f"max_pool{n}d", "") for n in (1, 2, 3)]
_ADAPTIVE_MAX = [_max_rows(f"adaptive_max_pool{n}d", "adaptive_") for n in (1, 2, 3)]


def _run_max(rows: _MaxRows, x: Tensor, return_indices: bool, attributes: dict[str, Any]) -> Any:
    if return_indices:
        y, taps = rows.taps(x, **attributes)
        return y, rows.indices(taps, x_shape=x.shape, **attributes)
    if x.requires_grad and is_grad_enabled():
        return rows.taps(x, **attributes)[0]
    return rows.plain(x, **attributes)


def _max_pool(
    n_axes: int,
    x: Tensor,
    kernel_size: PerAxis,
    stride: PerAxis | None,
    padding: Padding,
    dilation: PerAxis,
    ceil_mode: bool,
    return_indices: bool,
) -> Any:
    attributes = _window(n_axes, kernel_size, stride, padding, dilation, ceil_mode)
    return _run_max(_MAX[n_axes - 1], x, return_indices, attributes)


@remembered
def _window(
    n_axes: int, kernel_size: PerAxis, stride: PerAxis | None, padding: Padding, dilation: PerAxis, ceil_mode: bool
) -> dict[str, Any]:
    op = f"max_pool{n_axes}d"
    kernel = per_axis(op, "kernel_size", kernel_size, n_axes)
    return {
        "kernel_size": kernel,
        "stride": kernel if stride is None else per_axis(op, "stride", stride, n_axes),
        "padding": pads(op, padding, n_axes),
        "dilation": per_axis(op, "dilation", dilation, n_axes),
        "ceil_mode": ceil_mode,
    }


def output_sizes(op: str, output_size: OutputSize, n_axes: int) -> list[int]:
    """Spell the output size of adaptive pooling out; None keeps an axis and becomes −1."""
    values = [output_size] * n_axes if output_size is None or isinstance(output_size, int) else list(output_size)
    if len(values) != n_axes:
        raise _core.ShapeError(
            f"{op}: expected output_size as one number or {n_axes} of them, got {output_size!r}; pass one per spatial axis"
        )
    if any(v is not None and v < 0 for v in values):
        raise _core.ShapeError(
            f"{op}: expected output_size of at least 0, got {output_size!r}; None keeps the size of an axis"
        )
    return [-1 if v is None else int(v) for v in values]


def _adaptive_max_pool(n_axes: int, x: Tensor, output_size: OutputSize, return_indices: bool) -> Any:
    attributes = {"output_size": output_sizes(f"adaptive_max_pool{n_axes}d", output_size, n_axes)}
    return _run_max(_ADAPTIVE_MAX[n_axes - 1], x, return_indices, attributes)


@public
def max_pool1d(
    x: Tensor,
    kernel_size: PerAxis,
    *,
    stride: PerAxis | None = None,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Take the maximum over windows of a sequence.

    y[n,c,i] = max_p x[n, c, i·s + p·d − pad], over the taps inside the sequence

    Parameters
    ----------
    x : Tensor, shape (N, C, L)
    kernel_size, stride, padding, dilation, ceil_mode, return_indices
        As in `max_pool2d`.

    Returns
    -------
    Tensor, shape (N, C, ⌊(L + 2·pad − d·(p − 1) − 1) / s⌋ + 1)

    Raises
    ------
    ShapeError
        x without 3 axes, a window that does not fit, or padding above half a window.
    DTypeError
        x of a dtype other than float32 or float64.

    Examples
    --------
    >>> import striate
    >>> striate.max_pool1d(striate.tensor([[[1.0, 3.0, 2.0, 4.0]]]), 2).numpy().tolist()
    [[[3.0, 4.0]]]
    """
    return _max_pool(1, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


@public
def max_pool2d(
    x: Tensor,
    kernel_size: PerAxis,
    *,
    stride: PerAxis | None = None,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Take the maximum over windows of images.

    y[n,c,i,j] = max_{p,q} x[n, c, i·s + p·d − pad, j·s + q·d − pad], over the taps inside the image

    Parameters
    ----------
    x : Tensor, shape (N, C, H, W)
        Images; padding counts as −∞. A NaN inside a window is the maximum.
    kernel_size : int or (int, int)
        Size of the window, P × Q.
    stride : int or (int, int), optional
        Step between windows; the kernel size by default.
    padding : int, (int, int) or ((int, int), (int, int)), default 0
        Pixels added on both sides of each axis, or (begin, end) per axis; at most half a window.
    dilation : int or (int, int), default 1
        Step between the taps of a window.
    ceil_mode : bool, default False
        Round the output size up: a last window may hang over the end, if it starts inside the image or before it. So may
        the only one, by less than a stride.
    return_indices : bool, default False
        Also return where each maximum is.

    Returns
    -------
    y : Tensor, shape (N, C, H′, W′)
        H′ = ⌊(H + 2·pad − d·(P − 1) − 1) / s⌋ + 1, or ⌈…⌉ + 1 with `ceil_mode`, W′ likewise.
    indices : Tensor of int64, same shape
        Positions in the flattened H × W; only with `return_indices`.

    Raises
    ------
    ShapeError
        x without 4 axes, a window that does not fit, or padding above half a window.
    DTypeError
        x of a dtype other than float32 or float64.

    Notes
    -----
    Of equal values the first in row order is the maximum, and the gradient goes there. When a gradient is wanted, the
    tap each maximum came from is kept: one byte a result for windows of up to 256 taps. Nothing is rounded, and a
    gradient is a sum in a fixed order, so results are equal to the bit for any number of threads.

    Examples
    --------
    >>> import striate
    >>> striate.max_pool2d(striate.tensor([[[[1.0, 3.0], [2.0, 4.0]]]]), 2).item()
    4.0
    """
    return _max_pool(2, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


@public
def max_pool3d(
    x: Tensor,
    kernel_size: PerAxis,
    *,
    stride: PerAxis | None = None,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Take the maximum over windows of volumes.

    y[n,c,i] = max_p x[n, c, i·s + p·d − pad], i and p with three axes, over the taps inside the volume

    Parameters
    ----------
    x : Tensor, shape (N, C, D, H, W)
    kernel_size, stride, padding, dilation, ceil_mode, return_indices
        As in `max_pool2d`, with three axes.

    Returns
    -------
    Tensor, shape (N, C, D′, H′, W′)
        Sizes as in `max_pool2d`.

    Raises
    ------
    ShapeError
        x without 5 axes, a window that does not fit, or padding above half a window.
    DTypeError
        x of a dtype other than float32 or float64.

    Examples
    --------
    >>> import striate
    >>> striate.max_pool3d(striate.ones(1, 2, 4, 4, 4), 2).shape
    (1, 2, 2, 2, 2)
    """
    return _max_pool(3, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


@public
def adaptive_max_pool1d(x: Tensor, output_size: OutputSize, *, return_indices: bool = False) -> Any:
    """Take the maximum over `output_size` cells of a sequence; see `adaptive_max_pool2d`.

    Parameters
    ----------
    x : Tensor, shape (N, C, L)
    output_size : int or None
    return_indices : bool, default False

    Returns
    -------
    Tensor, shape (N, C, output_size)

    Raises
    ------
    ShapeError
        x without 3 axes, or no pixel to take a maximum of.
    DTypeError
        x of a dtype other than float32 or float64.

    Examples
    --------
    >>> import striate
    >>> striate.adaptive_max_pool1d(striate.tensor([[[1.0, 3.0, 2.0]]]), 2).numpy().tolist()
    [[[3.0, 3.0]]]
    """
    return _adaptive_max_pool(1, x, output_size, return_indices)


@public
def adaptive_max_pool2d(x: Tensor, output_size: OutputSize, *, return_indices: bool = False) -> Any:
    """Take the maximum over a grid of cells that covers the image, whatever its size.

    y[n,c,i,j] = max of x[n,c,h,w] over ⌊i·H/H′⌋ ≤ h < ⌈(i + 1)·H/H′⌉ and ⌊j·W/W′⌋ ≤ w < ⌈(j + 1)·W/W′⌉

    Parameters
    ----------
    x : Tensor, shape (N, C, H, W)
    output_size : int, None or (int or None, int or None)
        H′ × W′; None keeps the size of the axis.
    return_indices : bool, default False
        Also return where each maximum is, as positions in the flattened H × W.

    Returns
    -------
    Tensor, shape (N, C, H′, W′)

    Raises
    ------
    ShapeError
        x without 4 axes, or no pixel to take a maximum of.
    DTypeError
        x of a dtype other than float32 or float64.

    Examples
    --------
    >>> import striate
    >>> striate.adaptive_max_pool2d(striate.ones(1, 2, 5, 7), (3, None)).shape
    (1, 2, 3, 7)
    """
    return _adaptive_max_pool(2, x, output_size, return_indices)


@public
def adaptive_max_pool3d(x: Tensor, output_size: OutputSize, *, return_indices: bool = False) -> Any:
    """Take the maximum over a grid of cells that covers the volume; see `adaptive_max_pool2d`.

    Parameters
    ----------
    x : Tensor, shape (N, C, D, H, W)
    output_size : int, None or three of them
    return_indices : bool, default False

    Returns
    -------
    Tensor, shape (N, C, D′, H′, W′)

    Raises
    ------
    ShapeError
        x without 5 axes, or no pixel to take a maximum of.
    DTypeError
        x of a dtype other than float32 or float64.

    Examples
    --------
    >>> import striate
    >>> striate.adaptive_max_pool3d(striate.ones(1, 2, 5, 7, 3), 2).shape
    (1, 2, 2, 2, 2)
    """
    return _adaptive_max_pool(3, x, output_size, return_indices)
