"""Convolutions, and what undoes their geometry."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from striate import ops
from striate.autograd import Tensor
from striate.nn import init
from striate.nn.module import Module, Parameter

__all__ = ["Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"]

Size = int | Sequence[int]
PaddingMode = Literal["zeros", "reflect", "replicate"]


def per_axis(layer: str, name: str, value: Size, n_axes: int, least: int) -> tuple[int, ...]:
    """Spell a size out, one int per spatial axis."""
    values = (value,) * n_axes if isinstance(value, int) else tuple(value)
    if len(values) != n_axes or any(not isinstance(v, int) or v < least for v in values):
        raise ValueError(
            f"{layer}: expected {name} as one int or {n_axes} of at least {least}, got {value!r}; give one per spatial axis"
        )
    return values


class _Conv(Module):
    """What convolution and its transpose share: arguments, parameters, their initial values."""

    _n_axes: int
    _is_transposed = False
    weight: Parameter
    bias: Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size,
        padding: Size | str,
        dilation: Size,
        groups: int,
        bias: bool,
    ) -> None:
        name, n = type(self).__name__, self._n_axes
        if in_channels < 1 or out_channels < 1 or groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(
                f"{name}: expected in_channels and out_channels that groups divides, got {in_channels}, {out_channels} and "
                f"groups={groups}; use groups=1"
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = per_axis(name, "kernel_size", kernel_size, n, 1)
        self.stride = per_axis(name, "stride", stride, n, 1)
        self.padding = padding if isinstance(padding, str) else per_axis(name, "padding", padding, n, 0)
        self.dilation = per_axis(name, "dilation", dilation, n, 1)
        self.groups = groups
        first, second = (in_channels, out_channels) if self._is_transposed else (out_channels, in_channels)
        self.weight = Parameter(ops.new_state((first, second // groups, *self.kernel_size)))
        self.register_parameter("bias", Parameter(ops.new_state((out_channels,))) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias from U(−b, b), b = 1 / √fan_in, torch's default."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            fan_in, _ = init.calculate_fan_in_and_fan_out(self.weight)
            init.uniform_(self.bias, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))

    def extra_repr(self) -> str:
        """Show the arguments that differ from their defaults."""
        n = self._n_axes
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"]
        if self.padding != (0,) * n:
            parts.append(f"padding={self.padding!r}")
        if self.dilation != (1,) * n:
            parts.append(f"dilation={self.dilation}")
        if self.groups != 1:
            parts.append(f"groups={self.groups}")
        if self.bias is None:
            parts.append("bias=False")
        return ", ".join(parts)


class _ConvNd(_Conv):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
    ) -> None:
        """Check the arguments and draw the parameters."""
        name = type(self).__name__
        if isinstance(padding, str) and padding not in ("same", "valid"):
            raise ValueError(f"{name}: expected padding 'same', 'valid' or numbers, got {padding!r}; use one of these")
        if padding_mode not in ("zeros", "reflect", "replicate"):
            raise ValueError(
                f"{name}: expected padding_mode 'zeros', 'reflect' or 'replicate', got {padding_mode!r}; use one of these"
            )
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
        if padding == "same" and any(s != 1 for s in self.stride):
            raise ValueError(
                f"{name}: expected stride 1 with padding='same', got {self.stride}; give the padding in numbers"
            )
        self.padding_mode = padding_mode

    def _pad(self, x: Tensor) -> Tensor:
        """Pad by other values than zero, before a convolution without padding."""
        pads: list[int] = []
        for axis in reversed(range(self._n_axes)):
            if self.padding == "same":
                total = self.dilation[axis] * (self.kernel_size[axis] - 1)
                pads += [total // 2, total - total // 2]
            else:
                pads += [0, 0] if isinstance(self.padding, str) else [self.padding[axis]] * 2
        return ops.pad(x, pads, mode=self.padding_mode) if any(pads) else x

    def count_macs(self, x: Tensor, y: Tensor) -> int:
        """Return output elements · channels per group · taps."""
        return y.size * (self.weight.size // self.out_channels)

    def extra_repr(self) -> str:
        """Show the arguments that differ from their defaults."""
        mode = "" if self.padding_mode == "zeros" else f", padding_mode={self.padding_mode!r}"
        return super().extra_repr() + mode


class Conv1d(_ConvNd):
    """Cross-correlate signals with learned filters; see `Conv2d` and `striate.ops.conv1d`.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size, stride, padding, dilation : int or (int,)
    groups : int, default 1
    bias : bool, default True
    padding_mode : {"zeros", "reflect", "replicate"}
    """

    _n_axes = 1

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, L) to (N, O, L′)."""
        if self.padding_mode != "zeros":
            return ops.conv1d(
                self._pad(x), self.weight, self.bias, stride=self.stride, dilation=self.dilation, groups=self.groups
            )
        return ops.conv1d(
            x,
            self.weight,
            self.bias,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
        )


class Conv2d(_ConvNd):
    """Cross-correlate images with learned filters; see `striate.ops.conv2d`.

    Parameters
    ----------
    in_channels, out_channels : int
        C and O.
    kernel_size : int or (int, int)
    stride : int or (int, int), default 1
    padding : int, (int, int), "same" or "valid", default 0
        Added on both sides of each axis.
    dilation : int or (int, int), default 1
        Distance between taps.
    groups : int, default 1
        Channels and filters are split into this many independent groups; C groups make a depthwise convolution.
    bias : bool, default True
    padding_mode : {"zeros", "reflect", "replicate"}
        What the padding holds.

    Attributes
    ----------
    weight : Parameter, shape (O, C // groups, P, Q)
        Initially U(−b, b), b = 1 / √(C // groups · P · Q).
    bias : Parameter, shape (O,), or None
        Initially from the same distribution.

    Raises
    ------
    ValueError
        Groups that do not divide the channels, sizes below their minimum, an unknown padding or mode.
    """

    _n_axes = 2

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, O, H′, W′)."""
        if self.padding_mode != "zeros":
            return ops.conv2d(
                self._pad(x), self.weight, self.bias, stride=self.stride, dilation=self.dilation, groups=self.groups
            )
        return ops.conv2d(
            x,
            self.weight,
            self.bias,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
        )


class Conv3d(_ConvNd):
    """Cross-correlate volumes with learned filters; see `Conv2d` and `striate.ops.conv3d`.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size, stride, padding, dilation : int or (int, int, int)
    groups : int, default 1
    bias : bool, default True
    padding_mode : {"zeros", "reflect", "replicate"}
    """

    _n_axes = 3

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, D, H, W) to (N, O, D′, H′, W′)."""
        if self.padding_mode != "zeros":
            return ops.conv3d(
                self._pad(x), self.weight, self.bias, stride=self.stride, dilation=self.dilation, groups=self.groups
            )
        return ops.conv3d(
            x,
            self.weight,
            self.bias,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
        )


class _ConvTransposeNd(_Conv):
    _is_transposed = True
    padding: tuple[int, ...]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        output_padding: Size = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Size = 1,
    ) -> None:
        """Check the arguments and draw the parameters."""
        name = type(self).__name__
        if isinstance(padding, str):
            raise ValueError(
                f"{name}: expected padding as numbers, got {padding!r}; compute it from the wanted output size"
            )
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
        self.output_padding = per_axis(name, "output_padding", output_padding, self._n_axes, 0)

    def count_macs(self, x: Tensor, y: Tensor) -> int:
        """Return input elements · filters per group · taps."""
        return x.size * (self.weight.size // self.in_channels)

    def extra_repr(self) -> str:
        """Show the arguments that differ from their defaults."""
        extra = "" if not any(self.output_padding) else f", output_padding={self.output_padding}"
        return super().extra_repr() + extra


class ConvTranspose1d(_ConvTransposeNd):
    """Apply the transpose of a learned convolution to signals; see `ConvTranspose2d` and `striate.ops.conv_transpose1d`.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size, stride, padding, output_padding : int or (int,)
    groups : int, default 1
    bias : bool, default True
    dilation : int or (int,), default 1
    """

    _n_axes = 1

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, L) to (N, O, L′)."""
        return ops.conv_transpose1d(
            x,
            self.weight,
            self.bias,
            stride=self.stride,
            padding=self.padding,
            output_padding=self.output_padding,
            groups=self.groups,
            dilation=self.dilation,
        )


class ConvTranspose2d(_ConvTransposeNd):
    """Apply the transpose of a learned convolution to images; see `striate.ops.conv_transpose2d`.

    Parameters
    ----------
    in_channels, out_channels : int
        C and O.
    kernel_size : int or (int, int)
    stride : int or (int, int), default 1
        Of the convolution that is transposed: a stride of 2 doubles the image.
    padding : int or (int, int), default 0
        Cut off on both sides of each axis.
    output_padding : int or (int, int), default 0
        Added at the end of each axis, below stride or dilation.
    groups : int, default 1
    bias : bool, default True
    dilation : int or (int, int), default 1

    Attributes
    ----------
    weight : Parameter, shape (C, O // groups, P, Q)
        Initially U(−b, b), b = 1 / √(O // groups · P · Q), torch's.
    bias : Parameter, shape (O,), or None
        Initially from the same distribution.

    Raises
    ------
    ValueError
        Groups that do not divide the channels, sizes below their minimum, padding by a word.
    """

    _n_axes = 2

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, O, H′, W′)."""
        return ops.conv_transpose2d(
            x,
            self.weight,
            self.bias,
            stride=self.stride,
            padding=self.padding,
            output_padding=self.output_padding,
            groups=self.groups,
            dilation=self.dilation,
        )


class ConvTranspose3d(_ConvTransposeNd):
    """Apply the transpose of a learned convolution to volumes; see `ConvTranspose2d` and `striate.ops.conv_transpose3d`.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size, stride, padding, output_padding : int or (int, int, int)
    groups : int, default 1
    bias : bool, default True
    dilation : int or (int, int, int), default 1
    """

    _n_axes = 3

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, D, H, W) to (N, O, D′, H′, W′)."""
        return ops.conv_transpose3d(
            x,
            self.weight,
            self.bias,
            stride=self.stride,
            padding=self.padding,
            output_padding=self.output_padding,
            groups=self.groups,
            dilation=self.dilation,
        )
