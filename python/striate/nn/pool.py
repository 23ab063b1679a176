"""Pooling: windows with a maximum or a mean."""

from __future__ import annotations

from collections.abc import Sequence

from striate import ops
from striate.autograd import Tensor
from striate.nn.module import Module

__all__ = [
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
]

Size = int | Sequence[int]
OutputSize = int | None | Sequence[int | None]


class _MaxPool(Module):
    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        ceil_mode: bool = False,
    ) -> None:
        """Keep the arguments."""
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.dilation = dilation
        self.ceil_mode = ceil_mode

    def extra_repr(self) -> str:
        """Show the arguments."""
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, dilation={self.dilation}, "
            f"ceil_mode={self.ceil_mode}"
        )


class MaxPool1d(_MaxPool):
    """Take the maximum over windows of (N, C, L); see `MaxPool2d`."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, L) to (N, C, L′)."""
        return ops.max_pool1d(  # type: ignore[no-any-return]
            x,
            self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            ceil_mode=self.ceil_mode,
        )


class MaxPool2d(_MaxPool):
    """Take the maximum over windows; see `striate.ops.max_pool2d`.

    Parameters
    ----------
    kernel_size : int or (int, int)
    stride : int or (int, int), default kernel_size
    padding : int or (int, int), default 0
        Taps outside the image are ignored.
    dilation : int or (int, int), default 1
    ceil_mode : bool, default False
        Whether a last window may hang over the edge.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H′, W′)."""
        return ops.max_pool2d(  # type: ignore[no-any-return]
            x,
            self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            ceil_mode=self.ceil_mode,
        )


class MaxPool3d(_MaxPool):
    """Take the maximum over windows of (N, C, D, H, W); see `MaxPool2d`."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, D, H, W) to (N, C, D′, H′, W′)."""
        return ops.max_pool3d(  # type: ignore[no-any-return]
            x,
            self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            ceil_mode=self.ceil_mode,
        )


class _AvgPool(Module):
    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        """Keep the arguments."""
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad

    def extra_repr(self) -> str:
        """Show the arguments."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool1d(_AvgPool):
    """Take the mean over windows of (N, C, L); see `AvgPool2d`."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, L) to (N, C, L′)."""
        return ops.avg_pool1d(
            x,
            self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            ceil_mode=self.ceil_mode,
            count_include_pad=self.count_include_pad,
        )


class AvgPool2d(_AvgPool):
    """Take the mean over windows; see `striate.ops.avg_pool2d`.

    Parameters
    ----------
    kernel_size : int or (int, int)
    stride : int or (int, int), default kernel_size
    padding : int or (int, int), default 0
    ceil_mode : bool, default False
        Whether a last window may hang over the edge.
    count_include_pad : bool, default True
        Whether padding counts as zeros in the mean.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H′, W′)."""
        return ops.avg_pool2d(
            x,
            self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            ceil_mode=self.ceil_mode,
            count_include_pad=self.count_include_pad,
        )


class AvgPool3d(_AvgPool):
    """Take the mean over windows of (N, C, D, H, W); see `AvgPool2d`."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, D, H, W) to (N, C, D′, H′, W′)."""
        return ops.avg_pool3d(
            x,
            self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            ceil_mode=self.ceil_mode,
            count_include_pad=self.count_include_pad,
        )


class _AdaptivePool(Module):
    def __init__(self, output_size: OutputSize) -> None:
        """Keep the size."""
        self.output_size = output_size

    def extra_repr(self) -> str:
        """Show the size."""
        return f"output_size={self.output_size}"


class AdaptiveAvgPool1d(_AdaptivePool):
    """Take the mean over cells that cover (N, C, L); see `AdaptiveAvgPool2d`."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, L) to (N, C, L′)."""
        return ops.adaptive_avg_pool1d(x, self.output_size)


class AdaptiveAvgPool2d(_AdaptivePool):
    """Take the mean over a grid of cells that covers the image, whatever its size.

    Parameters
    ----------
    output_size : int, None or two of them
        Cells along H and W; 1 makes global pooling, None keeps the axis.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H′, W′)."""
        return ops.adaptive_avg_pool2d(x, self.output_size)


class AdaptiveAvgPool3d(_AdaptivePool):
    """Take the mean over cells that cover (N, C, D, H, W); see `AdaptiveAvgPool2d`."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, D, H, W) to (N, C, D′, H′, W′)."""
        return ops.adaptive_avg_pool3d(x, self.output_size)


class AdaptiveMaxPool1d(_AdaptivePool):
    """Take the maximum over cells that cover (N, C, L); see `AdaptiveMaxPool2d`."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, L) to (N, C, L′)."""
        return ops.adaptive_max_pool1d(x, self.output_size)  # type: ignore[no-any-return]


class AdaptiveMaxPool2d(_AdaptivePool):
    """Take the maximum over a grid of cells that covers the image, whatever its size.

    Parameters
    ----------
    output_size : int, None or two of them
        Cells along H and W; 1 makes global pooling, None keeps the axis.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H′, W′)."""
        return ops.adaptive_max_pool2d(x, self.output_size)  # type: ignore[no-any-return]


class AdaptiveMaxPool3d(_AdaptivePool):
    """Take the maximum over cells that cover (N, C, D, H, W); see `AdaptiveMaxPool2d`."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, D, H, W) to (N, C, D′, H′, W′)."""
        return ops.adaptive_max_pool3d(x, self.output_size)  # type: ignore[no-any-return]
