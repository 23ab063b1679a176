"""GoogLeNet: convolutions of several sizes side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from striate import nn, ops
from striate.autograd import Tensor
from striate.nn import init

__all__ = ["GoogLeNet", "GoogLeNetOutputs", "googlenet"]


class GoogLeNetOutputs(NamedTuple):
    """Scores (N, num_classes) of the classifier and, in training, of the two auxiliary ones."""

    logits: Tensor
    aux_logits2: Tensor
    aux_logits1: Tensor


class ConvNormReLU(nn.Module):
    """A convolution, batch norm and ReLU, with the keys of torchvision's inception networks.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size : int or (int, int)
    stride : int, default 1
    padding : int or (int, int), optional
        By default half of the kernel, which is a number then.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int = 1,
        padding: int | Sequence[int] | None = None,
    ) -> None:
        """Make the layers."""
        if padding is None:
            padding = kernel_size // 2 if isinstance(kernel_size, int) else [n // 2 for n in kernel_size]
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, out_channels, *)."""
        return ops.relu(self.bn(self.conv(x)))


class InputTransform(nn.Module):
    """Images normalised by ImageNet's mean and deviation, brought to 0.5 and 0.5; it has no keys.

    Parameters
    ----------
    network : str
        Who asks, for the error.
    in_channels : int
        3, or ValueError.
    """

    def __init__(self, network: str, in_channels: int) -> None:
        """Make the factors."""
        if in_channels != 3:
            raise ValueError(
                f"{network}: expected in_channels=3 with transform_input, got {in_channels}; pass transform_input=False"
            )
        # (x·std + mean − 0.5) / 0.5 with ImageNet's mean and std
        deviation, mean = (ops.tensor(v).reshape(1, 3, 1, 1) for v in ([0.229, 0.224, 0.225], [0.485, 0.456, 0.406]))
        self.register_buffer("scale", deviation / 0.5, persistent=False)
        self.register_buffer("shift", (mean - 0.5) / 0.5, persistent=False)

    scale: Tensor
    shift: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 3, H, W) to the same shape."""
        return x * self.scale + self.shift


class _Inception(nn.Module):
    """A 1×1, two 3×3 behind a 1×1, and a maximum before a 1×1: one pixel seen at several scales.

    The third branch is 5×5 in the paper; torchvision's weights are for 3×3.
    """

    def __init__(
        self, in_channels: int, one: int, inner3: int, three: int, inner5: int, five: int, pooled: int
    ) -> None:
        self.branch1 = ConvNormReLU(in_channels, one, 1)
        self.branch2 = nn.Sequential(ConvNormReLU(in_channels, inner3, 1), ConvNormReLU(inner3, three, 3))
        self.branch3 = nn.Sequential(ConvNormReLU(in_channels, inner5, 1), ConvNormReLU(inner5, five, 3))
        self.branch4 = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1, ceil_mode=True), ConvNormReLU(in_channels, pooled, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return ops.cat((self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)), 1)


class _Auxiliary(nn.Module):
    def __init__(self, in_channels: int, num_classes: int, dropout: float) -> None:
        self.conv = ConvNormReLU(in_channels, 128, 1)
        self.fc1 = nn.Linear(2048, 1024)
        self.fc2 = nn.Linear(1024, num_classes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(ops.adaptive_avg_pool2d(x, 4))
        return self.fc2(self.dropout(ops.relu(self.fc1(x.flatten(1)))))  # type: ignore[no-any-return]


class GoogLeNet(nn.Module):
    """Nine inception blocks, with two auxiliary classifiers that help the first ones learn.

    Parameters
    ----------
    num_classes : int, default 1000
    aux_logits : bool, default True
        Whether there are auxiliary classifiers; they run in training only.
    transform_input : bool, default False
        Whether images normalised by ImageNet's mean and deviation are brought to 0.5 and 0.5, which torchvision's weights
        expect.
    dropout, dropout_aux : float, default 0.2, 0.7
        In front of the last layer of the classifier, and of the auxiliary ones.
    in_channels : int, default 3

    Notes
    -----
    Keys are torchvision's, with batch norm, which the paper has not. Images have at least 31 pixels a side.

    References
    ----------
    Szegedy et al., "Going deeper with convolutions", 2014, arXiv:1409.4842, table 1.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        aux_logits: bool = True,
        transform_input: bool = False,
        dropout: float = 0.2,
        dropout_aux: float = 0.7,
        *,
        in_channels: int = 3,
    ) -> None:
        """Draw the weights."""
        self.transform = InputTransform("GoogLeNet", in_channels) if transform_input else None
        self.conv1 = ConvNormReLU(in_channels, 64, 7, 2)
        self.maxpool1 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.conv2 = ConvNormReLU(64, 64, 1)
        self.conv3 = ConvNormReLU(64, 192, 3)
        self.maxpool2 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.inception3a = _Inception(192, 64, 96, 128, 16, 32, 32)
        self.inception3b = _Inception(256, 128, 128, 192, 32, 96, 64)
        self.maxpool3 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.inception4a = _Inception(480, 192, 96, 208, 16, 48, 64)
        self.inception4b = _Inception(512, 160, 112, 224, 24, 64, 64)
        self.inception4c = _Inception(512, 128, 128, 256, 24, 64, 64)
        self.inception4d = _Inception(512, 112, 144, 288, 32, 64, 64)
        self.inception4e = _Inception(528, 256, 160, 320, 32, 128, 128)
        self.maxpool4 = nn.MaxPool2d(2, stride=2, ceil_mode=True)
        self.inception5a = _Inception(832, 256, 160, 320, 32, 128, 128)
        self.inception5b = _Inception(832, 384, 192, 384, 48, 128, 128)
        self.aux1 = _Auxiliary(512, num_classes, dropout_aux) if aux_logits else None
        self.aux2 = _Auxiliary(528, num_classes, dropout_aux) if aux_logits else None
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(1024, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                init.trunc_normal_(module.weight, std=0.01)

    def forward(self, x: Tensor) -> Tensor | GoogLeNetOutputs:
        """Map (N, C, H, W) to scores (N, num_classes); in training with aux_logits, to GoogLeNetOutputs."""
        if self.transform is not None:
            x = self.transform(x)
        x = self.maxpool1(self.conv1(x))
        x = self.maxpool2(self.conv3(self.conv2(x)))
        x = self.maxpool3(self.inception3b(self.inception3a(x)))
        first = self.inception4a(x)
        second = self.inception4d(self.inception4c(self.inception4b(first)))
        x = self.maxpool4(self.inception4e(second))
        x = self.avgpool(self.inception5b(self.inception5a(x)))
        scores: Tensor = self.fc(self.dropout(x.flatten(1)))
        if self.training and self.aux1 is not None and self.aux2 is not None:
            return GoogLeNetOutputs(scores, self.aux2(second), self.aux1(first))
        return scores


def googlenet(
    num_classes: int = 1000, aux_logits: bool = True, transform_input: bool = False, *, in_channels: int = 3
) -> GoogLeNet:
    """Build GoogLeNet; arguments as its class's."""
    return GoogLeNet(num_classes, aux_logits, transform_input, in_channels=in_channels)
