"""EfficientNet: inverted residuals with squeeze-and-excitation, scaled in width and depth together."""

from __future__ import annotations

import math
from functools import partial

from striate import nn
from striate.autograd import Tensor
from striate.models.mobilenet import round_channels
from striate.nn import init

__all__ = ["EfficientNet", "efficientnet_b0"]


class _MBConv(nn.Module):
    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int, expansion: int, drop_rate: float
    ) -> None:
        inner = round_channels(in_channels * expansion)
        conv = partial(nn.Conv2dNormActivation, activation_layer=nn.SiLU)
        layers: list[nn.Module] = []
        if inner != in_channels:
            layers.append(conv(in_channels, inner, 1))
        self.block = nn.Sequential(
            *layers,
            conv(inner, inner, kernel_size, stride, groups=inner),
            nn.SqueezeExcitation(inner, max(1, in_channels // 4), activation=nn.SiLU),
            nn.Conv2dNormActivation(inner, out_channels, 1, activation_layer=None),
        )
        self.stochastic_depth = nn.StochasticDepth(drop_rate, "row")
        self.adds = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.block(x)
        return x + self.stochastic_depth(y) if self.adds else y


class EfficientNet(nn.Module):
    """The baseline found by search, B0, and what larger widths and depths make of it.

    Parameters
    ----------
    width_mult, depth_mult : float, default 1
        Factors of channels and blocks; B0 to B7 are (1, 1), (1, 1.1), (1.1, 1.2), (1.2, 1.4), (1.4, 1.8), (1.6, 2.2),
        (1.8, 2.6) and (2, 3.1).
    dropout : float, default 0.2
        In front of the classifier.
    stochastic_depth_prob : float, default 0.2
        Probability that the last block drops its branch; it grows linearly from 0 at the first.
    num_classes : int, default 1000
    in_channels : int, default 3

    Notes
    -----
    Keys are torchvision's. Any image size fits; 32 pixels become one.

    References
    ----------
    Tan and Le, "EfficientNet: Rethinking model scaling for convolutional neural networks", 2019, arXiv:1905.11946, table 1.
    """

    #: expansion, kernel size, stride of the first block, channels, blocks
    _STAGES = (
        (1, 3, 1, 16, 1),
        (6, 3, 2, 24, 2),
        (6, 5, 2, 40, 2),
        (6, 3, 2, 80, 3),
        (6, 5, 1, 112, 3),
        (6, 5, 2, 192, 4),
        (6, 3, 1, 320, 1),
    )

    def __init__(
        self,
        width_mult: float = 1.0,
        depth_mult: float = 1.0,
        dropout: float = 0.2,
        stochastic_depth_prob: float = 0.2,
        num_classes: int = 1000,
        *,
        in_channels: int = 3,
    ) -> None:
        """Draw the weights."""
        channels = round_channels(32 * width_mult)
        layers: list[nn.Module] = [nn.Conv2dNormActivation(in_channels, channels, 3, 2, activation_layer=nn.SiLU)]
        depths = [math.ceil(n_blocks * depth_mult) for *_, n_blocks in self._STAGES]
        block_index = 0
        for (expansion, kernel_size, stride, width, _), depth in zip(self._STAGES, depths, strict=True):
            out_channels = round_channels(width * width_mult)
            blocks: list[nn.Module] = []
            for i in range(depth):
                drop_rate = stochastic_depth_prob * block_index / sum(depths)
                step = stride if i == 0 else 1
                blocks.append(_MBConv(channels, out_channels, kernel_size, step, expansion, drop_rate))
                channels = out_channels
                block_index += 1
            layers.append(nn.Sequential(*blocks))
        layers.append(nn.Conv2dNormActivation(channels, 4 * channels, 1, activation_layer=nn.SiLU))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(4 * channels, num_classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init.kaiming_normal_(module.weight, mode="fan_out")
            elif isinstance(module, nn.Linear):
                init.uniform_(module.weight, -1 / math.sqrt(num_classes), 1 / math.sqrt(num_classes))
            if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to scores (N, num_classes)."""
        return self.classifier(self.avgpool(self.features(x)).flatten(1))  # type: ignore[no-any-return]


def efficientnet_b0(
    num_classes: int = 1000, dropout: float = 0.2, stochastic_depth_prob: float = 0.2, *, in_channels: int = 3
) -> EfficientNet:
    """Build EfficientNet-B0; arguments as its class's."""
    return EfficientNet(1.0, 1.0, dropout, stochastic_depth_prob, num_classes, in_channels=in_channels)
