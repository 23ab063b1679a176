"""The networks of bench/networks.toml in PyTorch: torchvision's, and the others with the keys of striate.models."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import stacks
import torch
import torchvision
from torch import nn
from torchvision.ops.misc import Conv2dNormActivation


def build(name: str) -> Any:
    """Build a network with fresh weights."""
    if name in stacks.NAMES:
        return stacks.build(nn, name)
    own = {"lenet": LeNet, "resnet18_cifar": resnet18_cifar, "unet": UNet, "yolo_csp": YoloCSP}
    return own[name]() if name in own else getattr(torchvision.models, name)(weights=None)


def load(name: str, file: Path) -> Any:
    """Build a network with the weights that peer_striate wrote."""
    network = build(name)
    with np.load(file) as saved:
        state = {key: torch.from_numpy(saved[key]) for key in saved.files}
    missing = set(network.state_dict()) - set(state)
    if any(not key.endswith("num_batches_tracked") for key in missing):
        raise SystemExit(f"networks: expected all weights of {name} in {file.name}, got none for {sorted(missing)}")
    network.load_state_dict(state, strict=False)
    return network


class LeNet(nn.Module):
    """LeNet-5 for 28×28 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)
        )

    def forward(self, x: Any) -> Any:
        return self.classifier(self.features(x).flatten(1))


def resnet18_cifar() -> Any:
    """ResNet-18 with a stem for small images."""
    network = torchvision.models.resnet18(weights=None, num_classes=10)
    network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    network.maxpool = nn.Identity()
    return network


class UNet(nn.Module):
    """The U-Net of width 32 and four levels, with batch norm."""

    def __init__(self) -> None:
        super().__init__()
        widths = [32 << level for level in range(5)]

        def pair(channels: int, out_channels: int) -> Any:
            return nn.Sequential(
                Conv2dNormActivation(channels, out_channels), Conv2dNormActivation(out_channels, out_channels)
            )

        self.encoder = nn.ModuleList(pair(i, o) for i, o in zip([3, *widths], widths, strict=False))
        self.pool = nn.MaxPool2d(2)
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * o, o, 2, stride=2) for o in reversed(widths[:-1]))
        self.decoder = nn.ModuleList(pair(2 * o, o) for o in reversed(widths[:-1]))
        self.head = nn.Conv2d(32, 1, 1)

    def forward(self, x: Any) -> Any:
        maps = [self.encoder[0](x)]
        for level in self.encoder[1:]:
            maps.append(level(self.pool(maps[-1])))
        y = maps.pop()
        for up, level in zip(self.up, self.decoder, strict=True):
            y = level(torch.cat((maps.pop(), up(y)), 1))
        return self.head(y)


_conv = partial(
    Conv2dNormActivation, norm_layer=partial(nn.BatchNorm2d, eps=1e-3, momentum=0.03), activation_layer=nn.SiLU
)


class _Residual(nn.Module):
    def __init__(self, channels: int, adds: bool) -> None:
        super().__init__()
        self.conv1 = _conv(channels, channels, 1)
        self.conv2 = _conv(channels, channels, 3)
        self.adds = adds

    def forward(self, x: Any) -> Any:
        y = self.conv2(self.conv1(x))
        return x + y if self.adds else y


class _PartialBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, depth: int, adds: bool) -> None:
        super().__init__()
        half = out_channels // 2
        self.conv1 = _conv(in_channels, half, 1)
        self.conv2 = _conv(in_channels, half, 1)
        self.residuals = nn.Sequential(*(_Residual(half, adds) for _ in range(depth)))
        self.conv3 = _conv(2 * half, out_channels, 1)

    def forward(self, x: Any) -> Any:
        return self.conv3(torch.cat((self.residuals(self.conv1(x)), self.conv2(x)), 1))


class _PoolingPyramid(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half = in_channels // 2
        self.conv1 = _conv(in_channels, half, 1)
        self.pool = nn.MaxPool2d(5, stride=1, padding=2)
        self.conv2 = _conv(4 * half, out_channels, 1)

    def forward(self, x: Any) -> Any:
        maps = [self.conv1(x)]
        for _ in range(3):
            maps.append(self.pool(maps[-1]))
        return self.conv2(torch.cat(maps, 1))


class YoloCSP(nn.Module):
    """The detector of striate.models at its default width and depth."""

    def __init__(self) -> None:
        super().__init__()
        c2, c4, c8, c16, c32 = (32 << i for i in range(5))
        self.stem = _conv(3, c2, 6, 2, 2)
        self.stage4 = nn.Sequential(_conv(c2, c4, 3, 2), _PartialBlock(c4, c4, 1, True))
        self.stage8 = nn.Sequential(_conv(c4, c8, 3, 2), _PartialBlock(c8, c8, 2, True))
        self.stage16 = nn.Sequential(_conv(c8, c16, 3, 2), _PartialBlock(c16, c16, 3, True))
        self.stage32 = nn.Sequential(_conv(c16, c32, 3, 2), _PartialBlock(c32, c32, 1, True), _PoolingPyramid(c32, c32))
        self.upsample = nn.Upsample(scale_factor=2)
        self.reduce32 = _conv(c32, c16, 1)
        self.up16 = _PartialBlock(c32, c16, 1, False)
        self.reduce16 = _conv(c16, c8, 1)
        self.up8 = _PartialBlock(c16, c8, 1, False)
        self.shrink8 = _conv(c8, c8, 3, 2)
        self.down16 = _PartialBlock(c16, c16, 1, False)
        self.shrink16 = _conv(c16, c16, 3, 2)
        self.down32 = _PartialBlock(c32, c32, 1, False)
        self.heads = nn.ModuleList(nn.Conv2d(c, 255, 1) for c in (c8, c16, c32))

    def forward(self, x: Any) -> Any:
        x8 = self.stage8(self.stage4(self.stem(x)))
        x16 = self.stage16(x8)
        y32 = self.reduce32(self.stage32(x16))
        y16 = self.reduce16(self.up16(torch.cat((self.upsample(y32), x16), 1)))
        z8 = self.up8(torch.cat((self.upsample(y16), x8), 1))
        z16 = self.down16(torch.cat((self.shrink8(z8), y16), 1))
        z32 = self.down32(torch.cat((self.shrink16(z16), y32), 1))
        return tuple(head(z) for head, z in zip(self.heads, (z8, z16, z32), strict=True))
