"""SqueezeNet: fire modules, which squeeze channels before they expand them."""

from __future__ import annotations

from striate import nn, ops
from striate.autograd import Tensor
from striate.nn import init

__all__ = ["SqueezeNet", "squeezenet1_1"]


class _Fire(nn.Module):
    """A 1×1 convolution, and a 1×1 and a 3×3 of its result, side by side."""

    def __init__(self, in_channels: int, squeezed: int, expanded: int) -> None:
        self.squeeze = nn.Conv2d(in_channels, squeezed, 1)
        self.squeeze_activation = nn.ReLU()
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand1x1_activation = nn.ReLU()
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)
        self.expand3x3_activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze_activation(self.squeeze(x))
        one = self.expand1x1_activation(self.expand1x1(x))
        return ops.cat((one, self.expand3x3_activation(self.expand3x3(x))), 1)


class SqueezeNet(nn.Module):
    """SqueezeNet 1.1: fire modules between maxima, and a 1×1 convolution as classifier.

    Parameters
    ----------
    num_classes : int, default 1000
    dropout : float, default 0.5
        In front of the classifier.
    in_channels : int, default 3

    Notes
    -----
    Keys are torchvision's. Images have at least 25 pixels a side.

    References
    ----------
    Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters", 2016, arXiv:1602.07360.
    """

    def __init__(self, num_classes: int = 1000, dropout: float = 0.5, *, in_channels: int = 3) -> None:
        """Draw the weights."""
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 64, 3, stride=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            _Fire(64, 16, 64),
            _Fire(128, 16, 64),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            _Fire(128, 32, 128),
            _Fire(256, 32, 128),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            _Fire(256, 48, 192),
            _Fire(384, 48, 192),
            _Fire(384, 64, 256),
            _Fire(512, 64, 256),
        )
        last = nn.Conv2d(512, num_classes, 1)
        self.classifier = nn.Sequential(nn.Dropout(dropout), last, nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                if module is last:
                    init.normal_(module.weight, 0.0, 0.01)
                else:
                    init.kaiming_uniform_(module.weight)
                assert module.bias is not None
                init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to scores (N, num_classes), none of them negative."""
        return self.classifier(self.features(x)).flatten(1)  # type: ignore[no-any-return]


def squeezenet1_1(num_classes: int = 1000, dropout: float = 0.5, *, in_channels: int = 3) -> SqueezeNet:
    """Build SqueezeNet 1.1; arguments as its class's."""
    return SqueezeNet(num_classes, dropout, in_channels=in_channels)
