"""Residual networks for large images: ResNet, ResNeXt, and ResNet with a stem for small images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from striate import nn
from striate.autograd import Tensor
from striate.nn import init

__all__ = [
    "BasicBlock",
    "Bottleneck",
    "ResNet",
    "resnet18",
    "resnet18_cifar",
    "resnet34",
    "resnet50",
    "resnext50_32x4d",
]


def _conv3x3(in_channels: int, out_channels: int, stride: int = 1, groups: int = 1, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride, dilation, dilation, groups, bias=False)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions around which the input is added.

    Parameters
    ----------
    in_channels, width : int
        Channels that come and, since `expansion` is 1, go.
    stride : int, default 1
        Of the first convolution.
    downsample : Module, optional
        Brings the input to the shape of the output.
    groups, base_width, dilation : int
        1, 64 and 1; others are for `Bottleneck`.

    Raises
    ------
    ValueError
        Other groups, base width or dilation.
    """

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        groups: int = 1,
        base_width: int = 64,
        dilation: int = 1,
    ) -> None:
        """Draw the weights."""
        if (groups, base_width, dilation) != (1, 64, 1):
            raise ValueError(
                f"BasicBlock: expected groups=1, base_width=64 and dilation=1, got {groups}, {base_width} and {dilation}; "
                "use Bottleneck"
            )
        self.conv1 = _conv3x3(in_channels, width, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.conv2 = _conv3x3(width, width)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, width, H / stride, W / stride), sizes rounded up."""
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """A 1×1, a 3×3 and a 1×1 convolution around which the input is added; the stride is that of the 3×3.

    Parameters
    ----------
    in_channels, width : int
        Channels that come; a fourth of those that go.
    stride : int, default 1
    downsample : Module, optional
        Brings the input to the shape of the output.
    groups : int, default 1
        Of the 3×3 convolution.
    base_width : int, default 64
        Channels of a group of the 3×3 convolution where width is 64.
    dilation : int, default 1
        Of the 3×3 convolution.
    """

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        groups: int = 1,
        base_width: int = 64,
        dilation: int = 1,
    ) -> None:
        """Draw the weights."""
        inner = width * base_width // 64 * groups
        self.conv1 = nn.Conv2d(in_channels, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = _conv3x3(inner, inner, stride, groups, dilation)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, width * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.relu = nn.ReLU()
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, 4·width, H / stride, W / stride), sizes rounded up."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))  # type: ignore[no-any-return]


class ResNet(nn.Module):
    """A residual network of four stages, each but the first halving the image.

    Parameters
    ----------
    block : type
        `BasicBlock` or `Bottleneck`.
    layers : sequence of int
        Blocks of each stage.
    num_classes : int, default 1000
    zero_init_residual : bool, default False
        Whether the last norm of every block starts from 0, so that each block starts as the identity.
    groups, width_per_group : int, default 1, 64
        Of the 3×3 convolutions; 32 and 4 make a ResNeXt.
    replace_stride_with_dilation : three bools, optional
        Whether the second, third and fourth stage keep the size and dilate instead.
    in_channels : int, default 3
    stem : {"imagenet", "cifar"}, default "imagenet"
        A 7×7 convolution of stride 2 and a maximum of stride 2; or one 3×3 convolution of stride 1 for small images.

    Notes
    -----
    Keys are torchvision's; those of the stem are the same for both stems. Any image size fits.

    References
    ----------
    He et al., "Deep residual learning for image recognition", 2015, arXiv:1512.03385.
    Goyal et al., "Accurate, large minibatch SGD", 2017, arXiv:1706.02677, section 5.1 (zero_init_residual).
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        layers: Sequence[int],
        num_classes: int = 1000,
        zero_init_residual: bool = False,
        groups: int = 1,
        width_per_group: int = 64,
        replace_stride_with_dilation: Sequence[bool] | None = None,
        *,
        in_channels: int = 3,
        stem: Literal["imagenet", "cifar"] = "imagenet",
    ) -> None:
        """Draw the weights."""
        is_dilated = (False, *(replace_stride_with_dilation or (False, False, False)))
        if len(is_dilated) != 4:
            raise ValueError(
                f"ResNet: expected replace_stride_with_dilation as three bools, got {replace_stride_with_dilation}; "
                "give one for each stage after the first"
            )
        if stem not in ("imagenet", "cifar"):
            raise ValueError(f"ResNet: expected stem 'imagenet' or 'cifar', got {stem!r}; choose one")
        is_small = stem == "cifar"
        self.conv1 = (
            _conv3x3(in_channels, 64) if is_small else nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        )
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.Identity() if is_small else nn.MaxPool2d(3, stride=2, padding=1)
        channels, dilation = 64, 1
        for i, (n_blocks, dilates) in enumerate(zip(layers, is_dilated, strict=True)):
            width, stride, before = 64 << i, 1 if i == 0 else 2, dilation
            if dilates:
                dilation, stride = dilation * stride, 1
            blocks: list[nn.Module] = []
            for j in range(n_blocks):
                step, shortcut = stride if j == 0 else 1, None
                if step != 1 or channels != width * block.expansion:
                    shortcut = nn.Conv2dNormActivation(
                        channels, width * block.expansion, 1, step, activation_layer=None
                    )
                blocks.append(
                    block(channels, width, step, shortcut, groups, width_per_group, before if j == 0 else dilation)
                )
                channels = width * block.expansion
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif zero_init_residual and isinstance(module, BasicBlock | Bottleneck):
                last = module.bn2 if isinstance(module, BasicBlock) else module.bn3
                assert last.weight is not None
                init.zeros_(last.weight)

    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    def maps(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the outputs of the four stages, what detectors and segmenters build on."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        first = self.layer1(x)
        second = self.layer2(first)
        third = self.layer3(second)
        return first, second, third, self.layer4(third)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to scores (N, num_classes)."""
        return self.fc(self.avgpool(self.maps(x)[-1]).flatten(1))  # type: ignore[no-any-return]


def resnet18(num_classes: int = 1000, *, in_channels: int = 3, zero_init_residual: bool = False) -> ResNet:
    """Build ResNet-18: two basic blocks a stage; arguments as `ResNet`'s."""
    return ResNet(BasicBlock, (2, 2, 2, 2), num_classes, zero_init_residual, in_channels=in_channels)


def resnet34(num_classes: int = 1000, *, in_channels: int = 3, zero_init_residual: bool = False) -> ResNet:
    """Build ResNet-34: 3, 4, 6 and 3 basic blocks; arguments as `ResNet`'s."""
    return ResNet(BasicBlock, (3, 4, 6, 3), num_classes, zero_init_residual, in_channels=in_channels)


def resnet50(
    num_classes: int = 1000,
    *,
    in_channels: int = 3,
    zero_init_residual: bool = False,
    replace_stride_with_dilation: Sequence[bool] | None = None,
) -> ResNet:
    """Build ResNet-50: 3, 4, 6 and 3 bottlenecks, the stride in the 3×3; arguments as `ResNet`'s."""
    return ResNet(
        Bottleneck,
        (3, 4, 6, 3),
        num_classes,
        zero_init_residual,
        replace_stride_with_dilation=replace_stride_with_dilation,
        in_channels=in_channels,
    )


def resnext50_32x4d(num_classes: int = 1000, *, in_channels: int = 3, zero_init_residual: bool = False) -> ResNet:
    """Build ResNeXt-50: ResNet-50 whose 3×3 convolutions have 32 groups of 4 channels and more.

    Arguments are `ResNet`'s.

    References
    ----------
    Xie et al., "Aggregated residual transformations for deep neural networks", 2016, arXiv:1611.05431.
    """
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes, zero_init_residual, 32, 4, in_channels=in_channels)


def resnet18_cifar(num_classes: int = 10, *, in_channels: int = 3, zero_init_residual: bool = False) -> ResNet:
    """Build ResNet-18 for images of about 32×32: a 3×3 stem that keeps the size; arguments as `ResNet`'s."""
    return ResNet(BasicBlock, (2, 2, 2, 2), num_classes, zero_init_residual, in_channels=in_channels, stem="cifar")
