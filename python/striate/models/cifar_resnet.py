"""Residual networks for images of 32×32: the thin ones of the first paper, and the wide ones."""

from __future__ import annotations

from striate import nn, ops
from striate.autograd import Tensor
from striate.nn import init

__all__ = ["CifarResNet", "WideResNet", "resnet20", "resnet56", "wide_resnet28_10"]


class _ThinBlock(nn.Module):
    """Two 3×3 convolutions around which the input is added; a smaller output takes every second pixel and zero channels."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.stride = stride
        self.n_added = out_channels - in_channels

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(ops.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1 or self.n_added:
            before = self.n_added // 2
            x = ops.max_pool2d(x, 1, stride=self.stride)
            x = ops.pad(x, (0, 0, 0, 0, before, self.n_added - before))
        return ops.relu(y + x)


class CifarResNet(nn.Module):
    """A residual network of 6n + 2 layers: three stages of 16, 32 and 64 channels, shortcuts without parameters.

    Parameters
    ----------
    depth : int, default 20
        20, 32, 44, 56, 110, …
    num_classes : int, default 10
    in_channels : int, default 3

    Raises
    ------
    ValueError
        A depth that is not 6n + 2.

    References
    ----------
    He et al., "Deep residual learning for image recognition", 2015, arXiv:1512.03385, section 4.2.
    """

    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential

    def __init__(self, depth: int = 20, num_classes: int = 10, *, in_channels: int = 3) -> None:
        """Draw the weights."""
        if depth < 8 or depth % 6 != 2:
            raise ValueError(f"CifarResNet: expected a depth of 6n + 2, got {depth}; use 20, 32, 44, 56 or 110")
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        channels = 16
        for i, width in enumerate((16, 32, 64), 1):
            blocks: list[nn.Module] = []
            for j in range((depth - 2) // 6):
                blocks.append(_ThinBlock(channels, width, 2 if i > 1 and j == 0 else 1))
                channels = width
            self.add_module(f"layer{i}", nn.Sequential(*blocks))
        self.fc = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to scores (N, num_classes)."""
        x = ops.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(ops.adaptive_avg_pool2d(x, 1).flatten(1))  # type: ignore[no-any-return]


class _WideBlock(nn.Module):
    """Norm and ReLU before each of two 3×3 convolutions, dropout between them."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, dropout: float) -> None:
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        same = stride == 1 and in_channels == out_channels
        self.shortcut = None if same else nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = ops.relu(self.bn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(y)
        y = self.conv1(y)
        y = self.conv2(self.dropout(ops.relu(self.bn2(y))))
        return y + shortcut  # type: ignore[no-any-return]


class WideResNet(nn.Module):
    """A residual network of few, wide layers, norm first: three stages of 16, 32 and 64 times `widen_factor` channels.

    Parameters
    ----------
    depth : int, default 28
        6n + 4, convolutions of the shortcuts counted.
    widen_factor : int, default 10
    num_classes : int, default 10
    dropout : float, default 0
        In the middle of each block.
    in_channels : int, default 3

    Raises
    ------
    ValueError
        A depth that is not 6n + 4.

    References
    ----------
    Zagoruyko and Komodakis, "Wide residual networks", 2016, arXiv:1605.07146, table 1.
    """

    block1: nn.Sequential
    block2: nn.Sequential
    block3: nn.Sequential

    def __init__(
        self,
        depth: int = 28,
        widen_factor: int = 10,
        num_classes: int = 10,
        dropout: float = 0.0,
        *,
        in_channels: int = 3,
    ) -> None:
        """Draw the weights."""
        if depth < 10 or depth % 6 != 4:
            raise ValueError(f"WideResNet: expected a depth of 6n + 4, got {depth}; use 16, 22, 28 or 40")
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        channels = 16
        for i, width in enumerate((16, 32, 64), 1):
            blocks: list[nn.Module] = []
            for j in range((depth - 4) // 6):
                blocks.append(_WideBlock(channels, width * widen_factor, 2 if i > 1 and j == 0 else 1, dropout))
                channels = width * widen_factor
            self.add_module(f"block{i}", nn.Sequential(*blocks))
        self.bn = nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        assert self.fc.bias is not None
        init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to scores (N, num_classes)."""
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        x = ops.adaptive_avg_pool2d(ops.relu(self.bn(x)), 1)
        return self.fc(x.flatten(1))  # type: ignore[no-any-return]


def resnet20(num_classes: int = 10, *, in_channels: int = 3) -> CifarResNet:
    """Build the residual network of 20 layers for small images; arguments as its class's."""
    return CifarResNet(20, num_classes, in_channels=in_channels)


def resnet56(num_classes: int = 10, *, in_channels: int = 3) -> CifarResNet:
    """Build the residual network of 56 layers for small images; arguments as its class's."""
    return CifarResNet(56, num_classes, in_channels=in_channels)


def wide_resnet28_10(num_classes: int = 10, dropout: float = 0.0, *, in_channels: int = 3) -> WideResNet:
    """Build WideResNet-28-10; arguments as its class's."""
    return WideResNet(28, 10, num_classes, dropout, in_channels=in_channels)
