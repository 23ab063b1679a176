"""Layers that move values: flatten, resize, shuffle, pad."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from striate import ops
from striate.autograd import Tensor
from striate.nn.module import Module

__all__ = [
    "ChannelShuffle",
    "Flatten",
    "Permute",
    "PixelShuffle",
    "PixelUnshuffle",
    "Unflatten",
    "Upsample",
    "ZeroPad2d",
]


class Flatten(Module):
    """Merge the axes from start_dim to end_dim.

    Parameters
    ----------
    start_dim, end_dim : int, default 1, −1
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        """Keep the axes."""
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C·H·W) by default."""
        return x.flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        """Show the axes."""
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """Split one axis into several.

    Parameters
    ----------
    dim : int
    unflattened_size : sequence of int
        One of them may be −1.
    """

    def __init__(self, dim: int, unflattened_size: Sequence[int]) -> None:
        """Keep the axis and its parts."""
        self.dim = dim
        self.unflattened_size = tuple(unflattened_size)

    def forward(self, x: Tensor) -> Tensor:
        """Replace axis `dim` of the shape."""
        dim = self.dim % x.ndim
        return x.reshape(*x.shape[:dim], *self.unflattened_size, *x.shape[dim + 1 :])

    def extra_repr(self) -> str:
        """Show the axis and its parts."""
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"


class Upsample(Module):
    """Resize images; see `striate.ops.interpolate`.

    Parameters
    ----------
    size : int or (int, int), optional
        Of the result; or else
    scale_factor : float or (float, float), optional
    mode : {"nearest", "bilinear"}
    align_corners : bool, optional
        Whether the centres of the corner pixels stay where they are (bilinear).

    Raises
    ------
    ValueError
        Both of size and scale_factor, or neither.
    """

    def __init__(
        self,
        size: int | Sequence[int] | None = None,
        scale_factor: float | Sequence[float] | None = None,
        mode: Literal["nearest", "bilinear"] = "nearest",
        align_corners: bool | None = None,
    ) -> None:
        """Check that the size is said once."""
        if (size is None) == (scale_factor is None):
            raise ValueError(
                f"Upsample: expected size or scale_factor, got {size} and {scale_factor}; give one of them"
            )
        self.size = size
        self.scale_factor = scale_factor
        self.mode: Literal["nearest", "bilinear"] = mode
        self.align_corners = align_corners

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H′, W′)."""
        return ops.interpolate(
            x, size=self.size, scale_factor=self.scale_factor, mode=self.mode, align_corners=self.align_corners
        )

    def extra_repr(self) -> str:
        """Show size and mode."""
        said = f"size={self.size}" if self.size is not None else f"scale_factor={self.scale_factor}"
        return f"{said}, mode={self.mode!r}"


class Permute(Module):
    """Reorder the axes; a view.

    Parameters
    ----------
    dims : sequence of int
        Axis i of the result is axis dims[i] of the input.
    """

    def __init__(self, dims: Sequence[int]) -> None:
        """Keep the axes."""
        self.dims = tuple(dims)

    def forward(self, x: Tensor) -> Tensor:
        """Reorder the shape likewise."""
        return x.permute(self.dims)

    def extra_repr(self) -> str:
        """Show the axes."""
        return f"dims={self.dims}"


class ChannelShuffle(Module):
    """Deal the channels of (N, C, H, W) out, one from each group in turn; see `striate.ops.channel_shuffle`.

    Parameters
    ----------
    groups : int

    References
    ----------
    Zhang et al., "ShuffleNet", 2017, arXiv:1707.01083, section 3.1.
    """

    def __init__(self, groups: int) -> None:
        """Keep the number of groups."""
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape."""
        return ops.channel_shuffle(x, self.groups)

    def extra_repr(self) -> str:
        """Show the number of groups."""
        return f"groups={self.groups}"


class PixelShuffle(Module):
    """Move channels into space, (N, C·r², H, W) → (N, C, H·r, W·r).

    Parameters
    ----------
    upscale_factor : int

    References
    ----------
    Shi et al., "Real-time single image and video super-resolution", 2016, arXiv:1609.05158.
    """

    def __init__(self, upscale_factor: int) -> None:
        """Keep the factor."""
        self.upscale_factor = upscale_factor

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C·r², H, W) to (N, C, H·r, W·r)."""
        return ops.pixel_shuffle(x, self.upscale_factor)

    def extra_repr(self) -> str:
        """Show the factor."""
        return f"upscale_factor={self.upscale_factor}"


class PixelUnshuffle(Module):
    """Move space into channels, (N, C, H·r, W·r) → (N, C·r², H, W).

    Parameters
    ----------
    downscale_factor : int
    """

    def __init__(self, downscale_factor: int) -> None:
        """Keep the factor."""
        self.downscale_factor = downscale_factor

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H·r, W·r) to (N, C·r², H, W)."""
        return ops.pixel_unshuffle(x, self.downscale_factor)

    def extra_repr(self) -> str:
        """Show the factor."""
        return f"downscale_factor={self.downscale_factor}"


class ZeroPad2d(Module):
    """Put zeros around images.

    Parameters
    ----------
    padding : int or (left, right, top, bottom)
        Negative values crop, where `striate.ops.pad` does.

    Raises
    ------
    ValueError
        Neither one int nor four.
    """

    def __init__(self, padding: int | Sequence[int]) -> None:
        """Spell the padding out."""
        self.padding = (padding,) * 4 if isinstance(padding, int) else tuple(padding)
        if len(self.padding) != 4:
            raise ValueError(
                f"ZeroPad2d: expected padding as one int or (left, right, top, bottom), got {padding!r}; give four"
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, top + H + bottom, left + W + right)."""
        return ops.pad(x, self.padding)

    def extra_repr(self) -> str:
        """Show the padding."""
        return str(self.padding)
