"""VGG: stacks of 3×3 convolutions and a classifier of three linear layers."""

from __future__ import annotations

from collections.abc import Sequence

from striate import nn
from striate.autograd import Tensor
from striate.nn import init

__all__ = ["VGG", "vgg11", "vgg11_bn", "vgg16", "vgg16_bn"]

#: Channels of the convolutions of each stage: columns A and D of table 1.
_A = ((64,), (128,), (256, 256), (512, 512), (512, 512))
_D = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG(nn.Module):
    """Stages of 3×3 convolutions, each ended by a 2×2 maximum; then three linear layers.

    Parameters
    ----------
    stages : sequence of sequences of int
        Channels of the convolutions of each stage.
    batch_norm : bool, default False
        Whether batch norm follows each convolution.
    num_classes : int, default 1000
    dropout : float, default 0.5
        After the first two linear layers.
    in_channels : int, default 3
    hidden : int, default 4096
        Units of the first two linear layers.

    Notes
    -----
    Keys are torchvision's. The last maps are averaged to 7×7, so any image of at least 2^stages pixels a side fits.

    References
    ----------
    Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition", 2014, arXiv:1409.1556.
    """

    def __init__(
        self,
        stages: Sequence[Sequence[int]],
        batch_norm: bool = False,
        num_classes: int = 1000,
        dropout: float = 0.5,
        *,
        in_channels: int = 3,
        hidden: int = 4096,
    ) -> None:
        """Draw the weights."""
        layers: list[nn.Module] = []
        channels = in_channels
        for stage in stages:
            for width in stage:
                layers.append(nn.Conv2d(channels, width, 3, padding=1))
                if batch_norm:
                    layers.append(nn.BatchNorm2d(width))
                layers.append(nn.ReLU())
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            nn.Linear(channels * 49, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, num_classes),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                init.normal_(module.weight, 0.0, 0.01)
            if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to scores (N, num_classes)."""
        return self.classifier(self.avgpool(self.features(x)).flatten(1))  # type: ignore[no-any-return]


def vgg11(num_classes: int = 1000, dropout: float = 0.5, *, in_channels: int = 3) -> VGG:
    """Build VGG-11, eight convolutions (column A); arguments as `VGG`'s."""
    return VGG(_A, False, num_classes, dropout, in_channels=in_channels)


def vgg11_bn(num_classes: int = 1000, dropout: float = 0.5, *, in_channels: int = 3) -> VGG:
    """Build VGG-11 with batch norm; arguments as `VGG`'s."""
    return VGG(_A, True, num_classes, dropout, in_channels=in_channels)


def vgg16(num_classes: int = 1000, dropout: float = 0.5, *, in_channels: int = 3) -> VGG:
    """Build VGG-16, thirteen convolutions (column D); arguments as `VGG`'s."""
    return VGG(_D, False, num_classes, dropout, in_channels=in_channels)


def vgg16_bn(num_classes: int = 1000, dropout: float = 0.5, *, in_channels: int = 3) -> VGG:
    """Build VGG-16 with batch norm; arguments as `VGG`'s."""
    return VGG(_D, True, num_classes, dropout, in_channels=in_channels)
