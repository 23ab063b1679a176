"""A one-stage detector of cross-stage-partial blocks, of the shape of YOLOv5."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

from striate import nn, ops
from striate.autograd import Tensor
from striate.nn import init

__all__ = ["Detections", "YoloCSP", "yolo_csp"]

_conv = partial(
    nn.Conv2dNormActivation, norm_layer=partial(nn.BatchNorm2d, eps=1e-3, momentum=0.03), activation_layer=nn.SiLU
)


class Detections(NamedTuple):
    """Raw scores of a detector at three scales, each (N, n_anchors · (5 + num_classes), H / stride, W / stride)."""

    stride8: Tensor
    stride16: Tensor
    stride32: Tensor


class _Residual(nn.Module):
    """A 1×1 and a 3×3 convolution, around which the input may be added."""

    def __init__(self, channels: int, adds: bool) -> None:
        self.conv1 = _conv(channels, channels, 1)
        self.conv2 = _conv(channels, channels, 3)
        self.adds = adds

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(self.conv1(x))
        return x + y if self.adds else y


class _PartialBlock(nn.Module):
    """Half of the channels go through residuals, the other half past them."""

    def __init__(self, in_channels: int, out_channels: int, depth: int, adds: bool) -> None:
        half = out_channels // 2
        self.conv1 = _conv(in_channels, half, 1)
        self.conv2 = _conv(in_channels, half, 1)
        self.residuals = nn.Sequential(*(_Residual(half, adds) for _ in range(depth)))
        self.conv3 = _conv(2 * half, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(ops.cat((self.residuals(self.conv1(x)), self.conv2(x)), 1))  # type: ignore[no-any-return]


class _PoolingPyramid(nn.Module):
    """Maxima over windows of 5, 9 and 13 pixels, each from the one before, beside the input itself."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        half = in_channels // 2
        self.conv1 = _conv(in_channels, half, 1)
        self.pool = nn.MaxPool2d(5, stride=1, padding=2)
        self.conv2 = _conv(4 * half, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.conv1(x)]
        for _ in range(3):
            maps.append(self.pool(maps[-1]))
        return self.conv2(ops.cat(maps, 1))  # type: ignore[no-any-return]


class YoloCSP(nn.Module):
    """A backbone of cross-stage-partial blocks, a path up and one down again between three scales, and a head at each.

    Parameters
    ----------
    num_classes : int, default 80
    in_channels : int, default 3
    width : int, default 32
        Channels of the first convolution; 32, with `depths`, is the shape of YOLOv5s.
    depths : four ints, default (1, 2, 3, 1)
        Residuals of the backbone's blocks.
    n_anchors : int, default 3
        Boxes that each cell proposes.

    Notes
    -----
    Of each anchor come four numbers of its box, one for "there is an object", and one for each class, all before the
    sigmoid. Sides of images are multiples of 32.

    References
    ----------
    Wang et al., "CSPNet: A new backbone that can enhance learning capability of CNN", 2019, arXiv:1911.11929.
    Liu et al., "Path aggregation network for instance segmentation", 2018, arXiv:1803.01534.
    Redmon and Farhadi, "YOLOv3: An incremental improvement", 2018, arXiv:1804.02767.
    """

    def __init__(
        self,
        num_classes: int = 80,
        in_channels: int = 3,
        width: int = 32,
        depths: tuple[int, int, int, int] = (1, 2, 3, 1),
        n_anchors: int = 3,
    ) -> None:
        """Draw the weights."""
        c4, c8, c16, c32 = (width * 2**i for i in (1, 2, 3, 4))
        self.stem = _conv(in_channels, width, 6, 2, 2)
        self.stage4 = nn.Sequential(_conv(width, c4, 3, 2), _PartialBlock(c4, c4, depths[0], True))
        self.stage8 = nn.Sequential(_conv(c4, c8, 3, 2), _PartialBlock(c8, c8, depths[1], True))
        self.stage16 = nn.Sequential(_conv(c8, c16, 3, 2), _PartialBlock(c16, c16, depths[2], True))
        self.stage32 = nn.Sequential(
            _conv(c16, c32, 3, 2), _PartialBlock(c32, c32, depths[3], True), _PoolingPyramid(c32, c32)
        )
        self.upsample = nn.Upsample(scale_factor=2)
        self.reduce32 = _conv(c32, c16, 1)
        self.up16 = _PartialBlock(c32, c16, 1, False)
        self.reduce16 = _conv(c16, c8, 1)
        self.up8 = _PartialBlock(c16, c8, 1, False)
        self.shrink8 = _conv(c8, c8, 3, 2)
        self.down16 = _PartialBlock(c16, c16, 1, False)
        self.shrink16 = _conv(c16, c16, 3, 2)
        self.down32 = _PartialBlock(c32, c32, 1, False)
        self.heads = nn.ModuleList(nn.Conv2d(c, n_anchors * (5 + num_classes), 1) for c in (c8, c16, c32))
        for head, stride in zip(self.heads, (8, 16, 32), strict=True):
            _start_rare(head, n_anchors, stride)

    def forward(self, x: Tensor) -> Detections:
        """Map (N, C, H, W) to scores at strides 8, 16 and 32."""
        x8 = self.stage8(self.stage4(self.stem(x)))
        x16 = self.stage16(x8)
        y32 = self.reduce32(self.stage32(x16))
        y16 = self.reduce16(self.up16(ops.cat((self.upsample(y32), x16), 1)))
        z8 = self.up8(ops.cat((self.upsample(y16), x8), 1))
        z16 = self.down16(ops.cat((self.shrink8(z8), y16), 1))
        z32 = self.down32(ops.cat((self.shrink16(z16), y32), 1))
        return Detections(*(head(z) for head, z in zip(self.heads, (z8, z16, z32), strict=True)))


def _start_rare(head: nn.Module, n_anchors: int, stride: int) -> None:
    """Start from about eight objects in an image of 640×640, so that the first steps do not fight empty cells.

    Lin et al., "Focal loss for dense object detection", 2017, arXiv:1708.02002, section 3.3.
    """
    assert isinstance(head, nn.Conv2d) and head.bias is not None
    init.zeros_(head.bias)
    per_anchor = head.out_channels // n_anchors
    start = [0.0] * per_anchor
    start[4] = math.log(8 / (640 / stride) ** 2)
    ops.assign(head.bias, ops.tensor(start * n_anchors))


def yolo_csp(num_classes: int = 80, *, in_channels: int = 3) -> YoloCSP:
    """Build the detector at the width and depth of YOLOv5s; arguments as its class's."""
    return YoloCSP(num_classes, in_channels)
