"""ConvNeXt: a residual network rebuilt with the choices of vision transformers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from striate import nn, ops
from striate.autograd import Tensor
from striate.nn import init

__all__ = ["ConvNeXt", "convnext_tiny"]

_norm = partial(nn.LayerNorm2d, eps=1e-6)


class _Block(nn.Module):
    """A depthwise 7×7 convolution and two linear maps of each pixel, scaled by a learned number per channel.

    Channels lie last in memory, so the permutations around the linear maps are views.
    """

    def __init__(self, channels: int, layer_scale: float, drop_rate: float) -> None:
        self.block = nn.Sequential(
            nn.Conv2d(channels, channels, 7, padding=3, groups=channels),
            nn.Permute((0, 2, 3, 1)),
            nn.LayerNorm(channels, eps=1e-6),
            nn.Linear(channels, 4 * channels),
            nn.GELU(),
            nn.Linear(4 * channels, channels),
            nn.Permute((0, 3, 1, 2)),
        )
        self.layer_scale = nn.Parameter(ops.new_state((channels, 1, 1)))
        init.constant_(self.layer_scale, layer_scale)
        self.stochastic_depth = nn.StochasticDepth(drop_rate, "row")

    def forward(self, x: Tensor) -> Tensor:
        return x + self.stochastic_depth(self.block(x) * self.layer_scale)  # type: ignore[no-any-return]


class ConvNeXt(nn.Module):
    """Four stages of depthwise 7×7 blocks, with strided convolutions between them.

    Parameters
    ----------
    widths : sequence of int
        Channels of each stage.
    depths : sequence of int
        Blocks of each stage.
    stochastic_depth_prob : float, default 0
        Probability that the last block drops its branch; it grows linearly from 0 at the first.
    layer_scale : float, default 1e-6
        Start of the factors of the branches.
    num_classes : int, default 1000
    in_channels : int, default 3

    Notes
    -----
    Keys are torchvision's. Images have at least 32 pixels a side.

    References
    ----------
    Liu et al., "A ConvNet for the 2020s", 2022, arXiv:2201.03545.
    """

    def __init__(
        self,
        widths: Sequence[int],
        depths: Sequence[int],
        stochastic_depth_prob: float = 0.0,
        layer_scale: float = 1e-6,
        num_classes: int = 1000,
        *,
        in_channels: int = 3,
    ) -> None:
        """Draw the weights."""
        layers: list[nn.Module] = [nn.Conv2dNormActivation(in_channels, widths[0], 4, 4, 0, 1, _norm, None, bias=True)]
        n_blocks = sum(depths)
        block_index = 0
        for i, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            if i:
                layers.append(nn.Sequential(_norm(widths[i - 1]), nn.Conv2d(widths[i - 1], width, 2, stride=2)))
            blocks: list[nn.Module] = []
            for _ in range(depth):
                blocks.append(_Block(width, layer_scale, stochastic_depth_prob * block_index / max(n_blocks - 1, 1)))
                block_index += 1
            layers.append(nn.Sequential(*blocks))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(_norm(widths[-1]), nn.Flatten(1), nn.Linear(widths[-1], num_classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to scores (N, num_classes)."""
        return self.classifier(self.avgpool(self.features(x)))  # type: ignore[no-any-return]


def convnext_tiny(num_classes: int = 1000, stochastic_depth_prob: float = 0.1, *, in_channels: int = 3) -> ConvNeXt:
    """Build ConvNeXt-T; arguments as its class's."""
    return ConvNeXt(
        (96, 192, 384, 768),
        (3, 3, 9, 3),
        stochastic_depth_prob,
        num_classes=num_classes,
        in_channels=in_channels,
    )
