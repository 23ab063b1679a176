"""DeepLabV3: the class of each pixel, from a dilated residual network and a pyramid of dilated convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from striate import nn, ops
from striate.autograd import Tensor
from striate.models.resnet import ResNet, resnet50

__all__ = ["DeepLabHead", "DeepLabOutputs", "DeepLabV3", "deeplabv3_resnet50"]


class DeepLabOutputs(NamedTuple):
    """Scores of each pixel (N, num_classes, H, W), of the classifier and of the auxiliary one."""

    out: Tensor
    aux: Tensor


def _resize(x: Tensor, size: Sequence[int]) -> Tensor:
    return ops.interpolate(x, size=size, mode="bilinear", align_corners=False)


class _GlobalBranch(nn.Sequential):
    """The mean over the image, at every pixel."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return _resize(super().forward(x), x.shape[2:])


class _Pyramid(nn.Module):
    """A 1×1, three dilated 3×3 and the mean, side by side: each pixel seen in surroundings of several sizes."""

    def __init__(self, in_channels: int, out_channels: int, rates: Sequence[int]) -> None:
        self.convs = nn.ModuleList(
            [
                nn.Conv2dNormActivation(in_channels, out_channels, 1),
                *(nn.Conv2dNormActivation(in_channels, out_channels, 3, dilation=rate) for rate in rates),
                _GlobalBranch(in_channels, out_channels),
            ]
        )
        self.project = nn.Sequential(
            nn.Conv2d(len(self.convs) * out_channels, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
            nn.Dropout(0.5),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.project(ops.cat([branch(x) for branch in self.convs], 1))  # type: ignore[no-any-return]


class DeepLabHead(nn.Sequential):
    """The pyramid of dilated convolutions, and the classifier of each pixel of its result.

    Parameters
    ----------
    in_channels, num_classes : int
    atrous_rates : sequence of int, default (12, 24, 36)
        Dilations of the 3×3 convolutions.
    """

    def __init__(self, in_channels: int, num_classes: int, atrous_rates: Sequence[int] = (12, 24, 36)) -> None:
        """Draw the weights."""
        super().__init__(
            _Pyramid(in_channels, 256, atrous_rates),
            nn.Conv2d(256, 256, 3, padding=1, bias=False),
            nn.BatchNorm2d(256),
            nn.ReLU(),
            nn.Conv2d(256, num_classes, 1),
        )


class DeepLabV3(nn.Module):
    """A backbone whose last stages dilate instead of halving the image, and a head that classifies its pixels.

    Parameters
    ----------
    backbone : ResNet
        With `replace_stride_with_dilation`; its classifier is taken away.
    num_classes : int, default 21
    aux_loss : bool, default False
        Whether the third stage has a classifier of its own, which runs in training only.

    Notes
    -----
    Keys are torchvision's. Any image size fits. In eval mode the result is a Tensor, where torchvision's is a dict.

    References
    ----------
    Chen et al., "Rethinking atrous convolution for semantic image segmentation", 2017, arXiv:1706.05587.
    """

    def __init__(self, backbone: ResNet, num_classes: int = 21, aux_loss: bool = False) -> None:
        """Draw the weights of the heads."""
        channels = backbone.fc.in_features
        del backbone.fc
        self.backbone = backbone
        self.classifier = DeepLabHead(channels, num_classes)
        self.aux_classifier: nn.Sequential | None = None
        if aux_loss:
            inner = channels // 8  # a fourth of the third stage's channels, which are half of the fourth's
            self.aux_classifier = nn.Sequential(
                nn.Conv2d(channels // 2, inner, 3, padding=1, bias=False),
                nn.BatchNorm2d(inner),
                nn.ReLU(),
                nn.Dropout(0.1),
                nn.Conv2d(inner, num_classes, 1),
            )

    def forward(self, x: Tensor) -> Tensor | DeepLabOutputs:
        """Map (N, C, H, W) to scores (N, num_classes, H, W); in training with aux_loss, to DeepLabOutputs."""
        size = x.shape[2:]
        *_, third, fourth = self.backbone.maps(x)
        out = _resize(self.classifier(fourth), size)
        if self.training and self.aux_classifier is not None:
            return DeepLabOutputs(out, _resize(self.aux_classifier(third), size))
        return out


def deeplabv3_resnet50(num_classes: int = 21, aux_loss: bool = False, *, in_channels: int = 3) -> DeepLabV3:
    """Build DeepLabV3 on ResNet-50 whose maps are an eighth of the image; arguments as its class's."""
    backbone = resnet50(1, in_channels=in_channels, replace_stride_with_dilation=(False, True, True))
    return DeepLabV3(backbone, num_classes, aux_loss)
