"""ShuffleNetV2: half of the channels pass, the other half is convolved, then both are shuffled."""

from __future__ import annotations

from collections.abc import Sequence

from striate import nn, ops
from striate.autograd import Tensor

__all__ = ["ShuffleNetV2", "shufflenet_v2_x1_0"]


class _ShuffleUnit(nn.Module):
    """A unit of stride 1 (half passes) or of stride 2 (both halves are convolved)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        half = out_channels // 2
        self.stride = stride
        first: list[nn.Module] = []
        if stride > 1:
            first = [*_depthwise(in_channels, stride), *_pointwise(in_channels, half)]
        self.branch1 = nn.Sequential(*first)
        self.branch2 = nn.Sequential(
            *_pointwise(in_channels if stride > 1 else half, half), *_depthwise(half, stride), *_pointwise(half, half)
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            passed, x = ops.chunk(x, 2, 1)
        else:
            passed = self.branch1(x)
        return ops.channel_shuffle(ops.cat((passed, self.branch2(x)), 1), 2)


def _depthwise(channels: int, stride: int) -> list[nn.Module]:
    conv = nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False)
    return [conv, nn.BatchNorm2d(channels)]


def _pointwise(in_channels: int, out_channels: int) -> list[nn.Module]:
    return [nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU()]


class ShuffleNetV2(nn.Module):
    """Three stages of units whose cost is memory traffic more than arithmetic.

    Parameters
    ----------
    stages_repeats : three ints, default (4, 8, 4)
        Units of each stage.
    stages_out_channels : five ints, default (24, 116, 232, 464, 1024)
        Channels of the stem, the stages and the last convolution.
    num_classes : int, default 1000
    in_channels : int, default 3

    Notes
    -----
    Keys are torchvision's. Any image size fits; 32 pixels become one. Weights start from the layers' defaults.

    References
    ----------
    Ma et al., "ShuffleNet V2: Practical guidelines for efficient CNN architecture design", 2018, arXiv:1807.11164, table 5.
    """

    stage2: nn.Sequential
    stage3: nn.Sequential
    stage4: nn.Sequential

    def __init__(
        self,
        stages_repeats: Sequence[int] = (4, 8, 4),
        stages_out_channels: Sequence[int] = (24, 116, 232, 464, 1024),
        num_classes: int = 1000,
        *,
        in_channels: int = 3,
    ) -> None:
        """Draw the weights."""
        channels, *widths, last = stages_out_channels
        self.conv1 = nn.Conv2dNormActivation(in_channels, channels, 3, 2)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        for i, (n_units, width) in enumerate(zip(stages_repeats, widths, strict=True), 2):
            units = [_ShuffleUnit(channels, width, 2), *(_ShuffleUnit(width, width, 1) for _ in range(n_units - 1))]
            self.add_module(f"stage{i}", nn.Sequential(*units))
            channels = width
        self.conv5 = nn.Conv2dNormActivation(channels, last, 1)
        self.fc = nn.Linear(last, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to scores (N, num_classes)."""
        x = self.stage4(self.stage3(self.stage2(self.maxpool(self.conv1(x)))))
        return self.fc(ops.adaptive_avg_pool2d(self.conv5(x), 1).flatten(1))  # type: ignore[no-any-return]


def shufflenet_v2_x1_0(num_classes: int = 1000, *, in_channels: int = 3) -> ShuffleNetV2:
    """Build ShuffleNetV2 of width 1; arguments as its class's."""
    return ShuffleNetV2(num_classes=num_classes, in_channels=in_channels)
