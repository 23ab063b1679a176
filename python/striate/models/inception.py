"""Inception-v3: large kernels taken apart into chains of small ones, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from striate import nn, ops
from striate.autograd import Tensor
from striate.models.googlenet import ConvNormReLU, InputTransform
from striate.nn import init

__all__ = ["Inception3", "InceptionOutputs", "inception_v3"]

#: Channels, kernel and stride of a convolution; one without a stride keeps the size.
_Conv = tuple[int, tuple[int, int], int]
#: Convolutions in order by their keys. Two in a tuple of keys read the same, the second with the kernel turned, and are joined.
_Branch = Mapping[str | tuple[str, str], _Conv]

_ONE, _THREE, _FIVE, _ROW, _COLUMN = (1, 1), (3, 3), (5, 5), (1, 7), (7, 1)


class InceptionOutputs(NamedTuple):
    """Scores (N, num_classes) of the classifier and, in training, of the auxiliary one."""

    logits: Tensor
    aux_logits: Tensor


class _Mixed(nn.Module):
    """Branches that read the same pixels, joined along the channels; the last one is a pool.

    With `pooled` channels the pool is a mean before a 1×1 convolution, else a maximum of stride 2.
    """

    def __init__(self, in_channels: int, branches: Sequence[_Branch], pooled: int | None) -> None:
        self._branches = [list(branch) for branch in branches]
        for branch in branches:
            channels = in_channels
            for keys, (out_channels, kernel_size, stride) in branch.items():
                parts = (keys,) if isinstance(keys, str) else keys
                for key, size in zip(parts, (kernel_size, kernel_size[::-1]), strict=False):
                    padding = [n // 2 if stride == 1 else 0 for n in size]
                    setattr(self, f"branch{key}", ConvNormReLU(channels, out_channels, size, stride, padding))
                channels = out_channels * len(parts)
        self.branch_pool = ConvNormReLU(in_channels, pooled, 1) if pooled is not None else None

    def forward(self, x: Tensor) -> Tensor:
        results = []
        for branch in self._branches:
            y = x
            for keys in branch:
                if isinstance(keys, str):
                    y = getattr(self, f"branch{keys}")(y)
                else:
                    y = ops.cat([getattr(self, f"branch{key}")(y) for key in keys], 1)
            results.append(y)
        if self.branch_pool is not None:
            results.append(self.branch_pool(ops.avg_pool2d(x, 3, stride=1, padding=1)))
        else:
            results.append(ops.max_pool2d(x, 3, stride=2))
        return ops.cat(results, 1)


def _mixed_5(in_channels: int, pooled: int) -> _Mixed:
    return _Mixed(
        in_channels,
        [
            {"1x1": (64, _ONE, 1)},
            {"5x5_1": (48, _ONE, 1), "5x5_2": (64, _FIVE, 1)},
            {"3x3dbl_1": (64, _ONE, 1), "3x3dbl_2": (96, _THREE, 1), "3x3dbl_3": (96, _THREE, 1)},
        ],
        pooled,
    )


def _mixed_6a() -> _Mixed:
    return _Mixed(
        288,
        [
            {"3x3": (384, _THREE, 2)},
            {"3x3dbl_1": (64, _ONE, 1), "3x3dbl_2": (96, _THREE, 1), "3x3dbl_3": (96, _THREE, 2)},
        ],
        None,
    )


def _mixed_6(inner: int) -> _Mixed:
    return _Mixed(
        768,
        [
            {"1x1": (192, _ONE, 1)},
            {"7x7_1": (inner, _ONE, 1), "7x7_2": (inner, _ROW, 1), "7x7_3": (192, _COLUMN, 1)},
            {
                "7x7dbl_1": (inner, _ONE, 1),
                "7x7dbl_2": (inner, _COLUMN, 1),
                "7x7dbl_3": (inner, _ROW, 1),
                "7x7dbl_4": (inner, _COLUMN, 1),
                "7x7dbl_5": (192, _ROW, 1),
            },
        ],
        192,
    )


def _mixed_7a() -> _Mixed:
    return _Mixed(
        768,
        [
            {"3x3_1": (192, _ONE, 1), "3x3_2": (320, _THREE, 2)},
            {
                "7x7x3_1": (192, _ONE, 1),
                "7x7x3_2": (192, _ROW, 1),
                "7x7x3_3": (192, _COLUMN, 1),
                "7x7x3_4": (192, _THREE, 2),
            },
        ],
        None,
    )


def _mixed_7(in_channels: int) -> _Mixed:
    return _Mixed(
        in_channels,
        [
            {"1x1": (320, _ONE, 1)},
            {"3x3_1": (384, _ONE, 1), ("3x3_2a", "3x3_2b"): (384, (1, 3), 1)},
            {
                "3x3dbl_1": (448, _ONE, 1),
                "3x3dbl_2": (384, _THREE, 1),
                ("3x3dbl_3a", "3x3dbl_3b"): (384, (1, 3), 1),
            },
        ],
        192,
    )


class _Auxiliary(nn.Module):
    def __init__(self, in_channels: int, num_classes: int) -> None:
        self.conv0 = ConvNormReLU(in_channels, 128, 1)
        self.conv1 = ConvNormReLU(128, 768, 5, padding=0)
        self.fc = nn.Linear(768, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(self.conv0(ops.avg_pool2d(x, 5, stride=3)))
        scores: Tensor = self.fc(ops.adaptive_avg_pool2d(x, 1).flatten(1))
        return scores


class Inception3(nn.Module):
    """Inception-v3: eleven blocks of branches, with an auxiliary classifier that helps the first ones learn.

    Parameters
    ----------
    num_classes : int, default 1000
    aux_logits : bool, default True
        Whether there is an auxiliary classifier; it runs in training only, where images have at least 299 pixels a side.
    transform_input : bool, default False
        Whether images normalised by ImageNet's mean and deviation are brought to 0.5 and 0.5, which torchvision's weights
        expect.
    dropout : float, default 0.5
        In front of the last layer.
    in_channels : int, default 3

    Notes
    -----
    Keys are torchvision's. Images have at least 75 pixels a side; the paper's have 299.

    References
    ----------
    Szegedy et al., "Rethinking the inception architecture for computer vision", 2015, arXiv:1512.00567, table 1.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        aux_logits: bool = True,
        transform_input: bool = False,
        dropout: float = 0.5,
        *,
        in_channels: int = 3,
    ) -> None:
        """Draw the weights."""
        self.transform = InputTransform("Inception3", in_channels) if transform_input else None
        self.Conv2d_1a_3x3 = ConvNormReLU(in_channels, 32, 3, 2, 0)
        self.Conv2d_2a_3x3 = ConvNormReLU(32, 32, 3, padding=0)
        self.Conv2d_2b_3x3 = ConvNormReLU(32, 64, 3)
        self.maxpool1 = nn.MaxPool2d(3, stride=2)
        self.Conv2d_3b_1x1 = ConvNormReLU(64, 80, 1)
        self.Conv2d_4a_3x3 = ConvNormReLU(80, 192, 3, padding=0)
        self.maxpool2 = nn.MaxPool2d(3, stride=2)
        self.Mixed_5b = _mixed_5(192, 32)
        self.Mixed_5c = _mixed_5(256, 64)
        self.Mixed_5d = _mixed_5(288, 64)
        self.Mixed_6a = _mixed_6a()
        self.Mixed_6b = _mixed_6(128)
        self.Mixed_6c = _mixed_6(160)
        self.Mixed_6d = _mixed_6(160)
        self.Mixed_6e = _mixed_6(192)
        self.AuxLogits = _Auxiliary(768, num_classes) if aux_logits else None
        self.Mixed_7a = _mixed_7a()
        self.Mixed_7b = _mixed_7(1280)
        self.Mixed_7c = _mixed_7(2048)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(2048, num_classes)
        deviations = {}
        if self.AuxLogits is not None:
            deviations = {self.AuxLogits.conv1.conv: 0.01, self.AuxLogits.fc: 0.001}
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                init.trunc_normal_(module.weight, std=deviations.get(module, 0.1))

    def forward(self, x: Tensor) -> Tensor | InceptionOutputs:
        """Map (N, C, H, W) to scores (N, num_classes); in training with aux_logits, to InceptionOutputs."""
        if self.transform is not None:
            x = self.transform(x)
        x = self.maxpool1(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))))
        x = self.maxpool2(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        middle = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        x = self.avgpool(self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(middle))))
        scores: Tensor = self.fc(self.dropout(x).flatten(1))
        if self.training and self.AuxLogits is not None:
            return InceptionOutputs(scores, self.AuxLogits(middle))
        return scores


def inception_v3(
    num_classes: int = 1000, aux_logits: bool = True, transform_input: bool = False, *, in_channels: int = 3
) -> Inception3:
    """Build Inception-v3; arguments as its class's."""
    return Inception3(num_classes, aux_logits, transform_input, in_channels=in_channels)
