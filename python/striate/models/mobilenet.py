"""MobileNets: inverted residuals of depthwise convolutions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from striate import nn
from striate.autograd import Tensor
from striate.nn import init

__all__ = ["MobileNetV2", "MobileNetV3", "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small", "round_channels"]


def round_channels(channels: float, multiple: int = 8) -> int:
    """Round to a multiple, of which at least one, and never down by more than a tenth."""
    rounded = max(multiple, int(channels + multiple / 2) // multiple * multiple)
    return rounded + multiple if rounded < 0.9 * channels else rounded


class _InvertedResidualV2(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        inner = in_channels * expansion
        self.adds = stride == 1 and in_channels == out_channels
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(nn.Conv2dNormActivation(in_channels, inner, 1, activation_layer=nn.ReLU6))
        self.conv = nn.Sequential(
            *layers,
            nn.Conv2dNormActivation(inner, inner, 3, stride, groups=inner, activation_layer=nn.ReLU6),
            nn.Conv2d(inner, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x + y if self.adds else y


class MobileNetV2(nn.Module):
    """Inverted residuals: 1×1 up to six times the channels, depthwise 3×3, 1×1 down without nonlinearity.

    Parameters
    ----------
    num_classes : int, default 1000
    width_mult : float, default 1
        Factor of all channels.
    dropout : float, default 0.2
        In front of the classifier.
    in_channels : int, default 3

    Notes
    -----
    Keys are torchvision's. Any image size fits; 32 pixels become one.

    References
    ----------
    Sandler et al., "MobileNetV2: Inverted residuals and linear bottlenecks", 2018, arXiv:1801.04381, table 2.
    """

    #: expansion, channels, blocks, stride of the first block
    _STAGES = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )

    def __init__(
        self, num_classes: int = 1000, width_mult: float = 1.0, dropout: float = 0.2, *, in_channels: int = 3
    ) -> None:
        """Draw the weights."""
        channels = round_channels(32 * width_mult)
        last = round_channels(1280 * max(1.0, width_mult))
        layers: list[nn.Module] = [nn.Conv2dNormActivation(in_channels, channels, 3, 2, activation_layer=nn.ReLU6)]
        for expansion, width, n_blocks, stride in self._STAGES:
            out_channels = round_channels(width * width_mult)
            for i in range(n_blocks):
                layers.append(_InvertedResidualV2(channels, out_channels, stride if i == 0 else 1, expansion))
                channels = out_channels
        layers.append(nn.Conv2dNormActivation(channels, last, 1, activation_layer=nn.ReLU6))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(last, num_classes))
        _init_mobile(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to scores (N, num_classes)."""
        return self.classifier(self.avgpool(self.features(x)).flatten(1))  # type: ignore[no-any-return]


def _init_mobile(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out")
        elif isinstance(module, nn.Linear):
            init.normal_(module.weight, 0.0, 0.01)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            init.zeros_(module.bias)


@dataclass(frozen=True, slots=True)
class _Row:
    """A line of the tables of MobileNetV3."""

    in_channels: int
    kernel_size: int
    inner: int
    out_channels: int
    has_squeeze: bool
    activation: Callable[[], nn.Module]
    stride: int


_SMALL = (
    _Row(16, 3, 16, 16, True, nn.ReLU, 2),
    _Row(16, 3, 72, 24, False, nn.ReLU, 2),
    _Row(24, 3, 88, 24, False, nn.ReLU, 1),
    _Row(24, 5, 96, 40, True, nn.Hardswish, 2),
    _Row(40, 5, 240, 40, True, nn.Hardswish, 1),
    _Row(40, 5, 240, 40, True, nn.Hardswish, 1),
    _Row(40, 5, 120, 48, True, nn.Hardswish, 1),
    _Row(48, 5, 144, 48, True, nn.Hardswish, 1),
    _Row(48, 5, 288, 96, True, nn.Hardswish, 2),
    _Row(96, 5, 576, 96, True, nn.Hardswish, 1),
    _Row(96, 5, 576, 96, True, nn.Hardswish, 1),
)
_LARGE = (
    _Row(16, 3, 16, 16, False, nn.ReLU, 1),
    _Row(16, 3, 64, 24, False, nn.ReLU, 2),
    _Row(24, 3, 72, 24, False, nn.ReLU, 1),
    _Row(24, 5, 72, 40, True, nn.ReLU, 2),
    _Row(40, 5, 120, 40, True, nn.ReLU, 1),
    _Row(40, 5, 120, 40, True, nn.ReLU, 1),
    _Row(40, 3, 240, 80, False, nn.Hardswish, 2),
    _Row(80, 3, 200, 80, False, nn.Hardswish, 1),
    _Row(80, 3, 184, 80, False, nn.Hardswish, 1),
    _Row(80, 3, 184, 80, False, nn.Hardswish, 1),
    _Row(80, 3, 480, 112, True, nn.Hardswish, 1),
    _Row(112, 3, 672, 112, True, nn.Hardswish, 1),
    _Row(112, 5, 672, 160, True, nn.Hardswish, 2),
    _Row(160, 5, 960, 160, True, nn.Hardswish, 1),
    _Row(160, 5, 960, 160, True, nn.Hardswish, 1),
)

_norm = partial(nn.BatchNorm2d, eps=0.001, momentum=0.01)


class _InvertedResidualV3(nn.Module):
    def __init__(self, row: _Row) -> None:
        self.adds = row.stride == 1 and row.in_channels == row.out_channels
        layers: list[nn.Module] = []
        if row.inner != row.in_channels:
            layers.append(nn.Conv2dNormActivation(row.in_channels, row.inner, 1, 1, None, 1, _norm, row.activation))
        layers.append(
            nn.Conv2dNormActivation(
                row.inner, row.inner, row.kernel_size, row.stride, None, row.inner, _norm, row.activation
            )
        )
        if row.has_squeeze:
            squeezed = round_channels(row.inner // 4)
            layers.append(nn.SqueezeExcitation(row.inner, squeezed, scale_activation=nn.Hardsigmoid))
        layers.append(nn.Conv2dNormActivation(row.inner, row.out_channels, 1, 1, None, 1, _norm, None))
        self.block = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.block(x)
        return x + y if self.adds else y


class MobileNetV3(nn.Module):
    """Inverted residuals with squeeze-and-excitation and hard swish, found by search.

    Parameters
    ----------
    size : {"small", "large"}
        Table 2 or table 1.
    num_classes : int, default 1000
    dropout : float, default 0.2
        In front of the last linear layer.
    in_channels : int, default 3

    Notes
    -----
    Keys are torchvision's. Any image size fits; 32 pixels become one.

    Raises
    ------
    ValueError
        Another size.

    References
    ----------
    Howard et al., "Searching for MobileNetV3", 2019, arXiv:1905.02244, tables 1 and 2.
    """

    def __init__(self, size: str, num_classes: int = 1000, dropout: float = 0.2, *, in_channels: int = 3) -> None:
        """Draw the weights."""
        if size not in ("small", "large"):
            raise ValueError(f"MobileNetV3: expected size 'small' or 'large', got {size!r}; choose one")
        rows, hidden = (_SMALL, 1024) if size == "small" else (_LARGE, 1280)
        channels = rows[-1].out_channels
        self.features = nn.Sequential(
            nn.Conv2dNormActivation(in_channels, rows[0].in_channels, 3, 2, None, 1, _norm, nn.Hardswish),
            *(_InvertedResidualV3(row) for row in rows),
            nn.Conv2dNormActivation(channels, 6 * channels, 1, 1, None, 1, _norm, nn.Hardswish),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            nn.Linear(6 * channels, hidden), nn.Hardswish(), nn.Dropout(dropout), nn.Linear(hidden, num_classes)
        )
        _init_mobile(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to scores (N, num_classes)."""
        return self.classifier(self.avgpool(self.features(x)).flatten(1))  # type: ignore[no-any-return]


def mobilenet_v2(
    num_classes: int = 1000, width_mult: float = 1.0, dropout: float = 0.2, *, in_channels: int = 3
) -> MobileNetV2:
    """Build MobileNetV2; arguments as its class's."""
    return MobileNetV2(num_classes, width_mult, dropout, in_channels=in_channels)


def mobilenet_v3_small(num_classes: int = 1000, dropout: float = 0.2, *, in_channels: int = 3) -> MobileNetV3:
    """Build the small MobileNetV3; arguments as its class's."""
    return MobileNetV3("small", num_classes, dropout, in_channels=in_channels)


def mobilenet_v3_large(num_classes: int = 1000, dropout: float = 0.2, *, in_channels: int = 3) -> MobileNetV3:
    """Build the large MobileNetV3; arguments as its class's."""
    return MobileNetV3("large", num_classes, dropout, in_channels=in_channels)
