"""DenseNet: every layer reads the maps of all layers before it."""

from __future__ import annotations

from collections.abc import Sequence

from striate import nn, ops
from striate.autograd import Tensor
from striate.nn import init

__all__ = ["DenseNet", "densenet121"]


class _DenseLayer(nn.Module):
    """Norm, ReLU, 1×1 convolution; norm, ReLU, 3×3 convolution to `growth_rate` channels."""

    def __init__(self, in_channels: int, growth_rate: int, bn_size: int, drop_rate: float) -> None:
        inner = bn_size * growth_rate
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(in_channels, inner, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(inner)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(inner, growth_rate, 3, padding=1, bias=False)
        self.drop_rate = drop_rate

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(self.relu1(self.norm1(x)))
        y = self.conv2(self.relu2(self.norm2(y)))
        return ops.dropout(y, p=self.drop_rate, training=self.training)


class _DenseBlock(nn.ModuleDict):
    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for layer in self.values():
            maps.append(layer(maps[0] if len(maps) == 1 else ops.cat(maps, 1)))
        return ops.cat(maps, 1)


class DenseNet(nn.Module):
    """Blocks in which maps are concatenated, with transitions between them that halve channels and image.

    Parameters
    ----------
    growth_rate : int, default 32
        Channels that each layer adds.
    block_config : sequence of int, default (6, 12, 24, 16)
        Layers of each block.
    num_init_features : int, default 64
        Channels of the first convolution.
    bn_size : int, default 4
        Channels of a layer's 1×1 convolution, in growth rates.
    drop_rate : float, default 0
        Dropout at the end of each layer.
    num_classes : int, default 1000
    in_channels : int, default 3

    Notes
    -----
    Keys are torchvision's. Images have at least 29 pixels a side. Each layer concatenates the maps before it anew, so
    memory grows with the square of a block's layers in eager mode.

    References
    ----------
    Huang et al., "Densely connected convolutional networks", 2016, arXiv:1608.06993.
    """

    def __init__(
        self,
        growth_rate: int = 32,
        block_config: Sequence[int] = (6, 12, 24, 16),
        num_init_features: int = 64,
        bn_size: int = 4,
        drop_rate: float = 0.0,
        num_classes: int = 1000,
        *,
        in_channels: int = 3,
    ) -> None:
        """Draw the weights."""
        channels = num_init_features
        layers: dict[str, nn.Module] = {
            "conv0": nn.Conv2d(in_channels, channels, 7, stride=2, padding=3, bias=False),
            "norm0": nn.BatchNorm2d(channels),
            "relu0": nn.ReLU(),
            "pool0": nn.MaxPool2d(3, stride=2, padding=1),
        }
        for i, n_layers in enumerate(block_config, 1):
            layers[f"denseblock{i}"] = _DenseBlock(
                {
                    f"denselayer{j + 1}": _DenseLayer(channels + j * growth_rate, growth_rate, bn_size, drop_rate)
                    for j in range(n_layers)
                }
            )
            channels += n_layers * growth_rate
            if i < len(block_config):
                layers[f"transition{i}"] = nn.Sequential(
                    {
                        "norm": nn.BatchNorm2d(channels),
                        "relu": nn.ReLU(),
                        "conv": nn.Conv2d(channels, channels // 2, 1, bias=False),
                        "pool": nn.AvgPool2d(2),
                    }
                )
                channels //= 2
        layers["norm5"] = nn.BatchNorm2d(channels)
        self.features = nn.Sequential(layers)
        self.classifier = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init.kaiming_normal_(module.weight)
        assert self.classifier.bias is not None
        init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to scores (N, num_classes)."""
        x = ops.adaptive_avg_pool2d(ops.relu(self.features(x)), 1)
        return self.classifier(x.flatten(1))  # type: ignore[no-any-return]


def densenet121(num_classes: int = 1000, drop_rate: float = 0.0, *, in_channels: int = 3) -> DenseNet:
    """Build DenseNet-121; arguments as its class's."""
    return DenseNet(drop_rate=drop_rate, num_classes=num_classes, in_channels=in_channels)
