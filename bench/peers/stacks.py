"""Small networks for 28×28 pixels of one channel, built of either library's layers: their names agree."""

from __future__ import annotations

from typing import Any

NAMES = ("small_vgg", "plain_16")


def build(nn: Any, name: str) -> Any:
    """Build `small_vgg` (conv 3×3 32-32, pool, 64-64, pool, linear 128), or `plain_16`, what `striate train fashion-mnist` trains."""
    layers: list[Any] = []
    if name == "small_vgg":
        for i, (c, o) in enumerate([(1, 32), (32, 32), (32, 64), (64, 64)]):
            layers += [nn.Conv2d(c, o, 3, padding=1), nn.ReLU(), *([nn.MaxPool2d(2)] if i % 2 else [])]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 7 * 7, 128), nn.ReLU(), nn.Linear(128, 10))
    c = 1
    for i, o in enumerate([16, 16, 32, 32, 64, 64]):
        layers += [nn.MaxPool2d(2)] if i in (2, 4) else []
        layers += [nn.Conv2d(c, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU()]
        c = o
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, 10))
