"""Plain stacks of 3×3 convolutions with batch norm, after VGG."""

from __future__ import annotations

from collections.abc import Sequence

from striate import nn
from striate.autograd import Tensor
from striate.nn import init


class Plain(nn.Module):
    """Stages of 3×3 convolutions, each followed by batch norm and ReLU; a 2×2 maximum ends every stage but the last.

    Parameters
    ----------
    num_classes : int, default 10
    in_channels : int, default 1
    widths : sequence of int, default (32, 64, 128)
        Channels of each stage.
    depth : int, default 2
        Convolutions in a stage.
    dropout : float, default 0
        In front of the classifier.

    Notes
    -----
    The mean over all pixels stands before the classifier, so any image of at least 2^(stages − 1) pixels a side fits.

    References
    ----------
    Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition", 2014, arXiv:1409.1556.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        widths: Sequence[int] = (32, 64, 128),
        depth: int = 2,
        dropout: float = 0.0,
    ) -> None:
        """Draw the weights."""
        layers: list[nn.Module] = []
        for i, width in enumerate(widths):
            if i:
                layers.append(nn.MaxPool2d(2))
            for _ in range(depth):
                layers += [nn.Conv2d(in_channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
                in_channels = width
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(in_channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to scores (N, num_classes)."""
        x = self.features(x).mean(dim=(2, 3))
        return self.classifier(self.dropout(x))  # type: ignore[no-any-return]


class SmallVGG(Plain):
    """A small VGG: stages of 64, 128, 256 and 512 channels, two convolutions each, dropout before the classifier.

    Parameters
    ----------
    num_classes : int, default 10
    in_channels : int, default 3
    dropout : float, default 0.5
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 3, dropout: float = 0.5) -> None:
        """Draw the weights."""
        super().__init__(num_classes, in_channels, (64, 128, 256, 512), 2, dropout)
