"""U-Net: down to small maps with much meaning and up again, with what was seen on the way down."""

from __future__ import annotations

from functools import partial

from striate import nn, ops
from striate.autograd import Tensor

__all__ = ["UNet", "unet"]


class UNet(nn.Module):
    """Two 3×3 convolutions a level; a 2×2 maximum down, a transposed 2×2 convolution up, maps of equal size concatenated.

    Parameters
    ----------
    num_classes : int, default 1
        Channels of the result; 1 for one class against the background.
    in_channels : int, default 3
    width : int, default 32
        Channels of the first level; each level below has twice as many.
    levels : int, default 4
        How often the image is halved.

    Notes
    -----
    Convolutions are padded, so the result is as large as the image, and batch norm follows each of them; the original has
    neither. Sides of images are multiples of 2^levels.

    References
    ----------
    Ronneberger et al., "U-Net: Convolutional networks for biomedical image segmentation", 2015, arXiv:1505.04597.
    """

    def __init__(self, num_classes: int = 1, in_channels: int = 3, width: int = 32, levels: int = 4) -> None:
        """Draw the weights."""
        if width < 1 or levels < 1:
            raise ValueError(f"UNet: expected width and levels of at least 1, got {width} and {levels}; use 32 and 4")

        def pair(channels: int, out_channels: int) -> nn.Module:
            conv = partial(nn.Conv2dNormActivation, out_channels=out_channels)
            return nn.Sequential(conv(channels), conv(out_channels))

        widths = [width << level for level in range(levels + 1)]
        self.encoder = nn.ModuleList(pair(i, o) for i, o in zip([in_channels, *widths], widths, strict=False))
        self.pool = nn.MaxPool2d(2)
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * o, o, 2, stride=2) for o in reversed(widths[:-1]))
        self.decoder = nn.ModuleList(pair(2 * o, o) for o in reversed(widths[:-1]))
        self.head = nn.Conv2d(width, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to scores of each pixel, (N, num_classes, H, W)."""
        first, *deeper = self.encoder
        maps = [first(x)]
        for level in deeper:
            maps.append(level(self.pool(maps[-1])))
        y = maps.pop()
        for up, level in zip(self.up, self.decoder, strict=True):
            y = level(ops.cat((maps.pop(), up(y)), 1))
        return self.head(y)  # type: ignore[no-any-return]


def unet(num_classes: int = 1, *, in_channels: int = 3, width: int = 32) -> UNet:
    """Build the U-Net of four levels; arguments as its class's."""
    return UNet(num_classes, in_channels, width)
