"""Networks by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

from striate.models.cifar_resnet import resnet20, resnet56, wide_resnet28_10
from striate.models.convnext import convnext_tiny
from striate.models.deeplab import deeplabv3_resnet50
from striate.models.densenet import densenet121
from striate.models.efficientnet import efficientnet_b0
from striate.models.googlenet import googlenet
from striate.models.inception import inception_v3
from striate.models.lenet import LeNet
from striate.models.mobilenet import mobilenet_v2, mobilenet_v3_large, mobilenet_v3_small
from striate.models.plain import Plain, SmallVGG
from striate.models.resnet import resnet18, resnet18_cifar, resnet34, resnet50, resnext50_32x4d
from striate.models.shufflenet import shufflenet_v2_x1_0
from striate.models.squeezenet import squeezenet1_1
from striate.models.unet import unet
from striate.models.vgg import vgg11, vgg11_bn, vgg16, vgg16_bn
from striate.models.yolo import yolo_csp
from striate.nn import Module

Builder = Callable[[int, int, tuple[int, int]], Module]
Task = Literal["classify", "segment", "detect"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A network that can be built by name.

    Attributes
    ----------
    builder : callable
        builder(num_classes, in_channels, (height, width)) → Module.
    least_size : int
        Smallest side of an image, in pixels.
    paper : str
        Where it was described.
    n_parameters : int
        Numbers it learns, for the image size, channels and classes below.
    image_size : int
        Side of the images it was described for, in pixels.
    in_channels, num_classes : int
        Those it was described for.
    size_multiple : int
        Sides of images are multiples of it.
    task : {"classify", "segment", "detect"}
        Whether it gives scores of an image (N, num_classes), of each pixel (N, num_classes, H, W), or of boxes.
    """

    builder: Builder
    least_size: int
    paper: str
    n_parameters: int
    image_size: int = 224
    in_channels: int = 3
    num_classes: int = 1000
    size_multiple: int = 1
    task: Task = "classify"


class _AnySize(Protocol):
    def __call__(self, num_classes: int, /, *, in_channels: int) -> Module: ...


def _any_size(build_any: _AnySize) -> Builder:
    """Make a Builder of a function to which the size of images is no matter."""
    return lambda num_classes, in_channels, _: build_any(num_classes, in_channels=in_channels)


def _plain(width: int) -> Builder:
    return _any_size(partial(Plain, widths=(width, 2 * width, 4 * width)))


_VGG = "Simonyan and Zisserman, 2014, arXiv:1409.1556"
_RESNET = "He et al., 2015, arXiv:1512.03385"
_MOBILENET_V3 = "Howard et al., 2019, arXiv:1905.02244"

#: Every network by name; those that torchvision has too have its names.
CATALOG = {
    "lenet": Entry(LeNet, 12, "LeCun et al., Proc. IEEE 86(11), 1998", 61_706, 28, 1, 10),
    "plain-16": Entry(_plain(16), 4, _VGG, 72_954, 32, 3, 10),
    "plain-32": Entry(_plain(32), 4, _VGG, 288_746, 32, 3, 10),
    "plain-64": Entry(_plain(64), 4, _VGG, 1_148_874, 32, 3, 10),
    "small-vgg": Entry(_any_size(SmallVGG), 8, _VGG, 4_692_426, 32, 3, 10),
    "vgg11": Entry(_any_size(vgg11), 32, _VGG, 132_863_336),
    "vgg11_bn": Entry(_any_size(vgg11_bn), 32, _VGG, 132_868_840),
    "vgg16": Entry(_any_size(vgg16), 32, _VGG, 138_357_544),
    "vgg16_bn": Entry(_any_size(vgg16_bn), 32, _VGG, 138_365_992),
    "resnet18": Entry(_any_size(resnet18), 1, _RESNET, 11_689_512),
    "resnet34": Entry(_any_size(resnet34), 1, _RESNET, 21_797_672),
    "resnet50": Entry(_any_size(resnet50), 1, _RESNET, 25_557_032),
    "resnet18_cifar": Entry(_any_size(resnet18_cifar), 1, _RESNET, 11_173_962, 32, 3, 10),
    "resnet20": Entry(_any_size(resnet20), 1, _RESNET, 269_722, 32, 3, 10),
    "resnet56": Entry(_any_size(resnet56), 1, _RESNET, 853_018, 32, 3, 10),
    "wide_resnet28_10": Entry(
        _any_size(wide_resnet28_10), 1, "Zagoruyko and Komodakis, 2016, arXiv:1605.07146", 36_479_194, 32, 3, 10
    ),
    "resnext50_32x4d": Entry(_any_size(resnext50_32x4d), 1, "Xie et al., 2016, arXiv:1611.05431", 25_028_904),
    "googlenet": Entry(
        _any_size(partial(googlenet, aux_logits=False)), 31, "Szegedy et al., 2014, arXiv:1409.4842", 6_624_904
    ),
    "inception_v3": Entry(
        _any_size(partial(inception_v3, aux_logits=False)),
        75,
        "Szegedy et al., 2015, arXiv:1512.00567",
        23_834_568,
        299,
    ),
    "densenet121": Entry(_any_size(densenet121), 29, "Huang et al., 2016, arXiv:1608.06993", 7_978_856),
    "squeezenet1_1": Entry(_any_size(squeezenet1_1), 25, "Iandola et al., 2016, arXiv:1602.07360", 1_235_496),
    "mobilenet_v2": Entry(_any_size(mobilenet_v2), 1, "Sandler et al., 2018, arXiv:1801.04381", 3_504_872),
    "mobilenet_v3_small": Entry(_any_size(mobilenet_v3_small), 1, _MOBILENET_V3, 2_542_856),
    "mobilenet_v3_large": Entry(_any_size(mobilenet_v3_large), 1, _MOBILENET_V3, 5_483_032),
    "shufflenet_v2_x1_0": Entry(_any_size(shufflenet_v2_x1_0), 1, "Ma et al., 2018, arXiv:1807.11164", 2_278_604),
    "efficientnet_b0": Entry(_any_size(efficientnet_b0), 1, "Tan and Le, 2019, arXiv:1905.11946", 5_288_548),
    "convnext_tiny": Entry(_any_size(convnext_tiny), 32, "Liu et al., 2022, arXiv:2201.03545", 28_589_128),
    "unet": Entry(
        _any_size(unet), 16, "Ronneberger et al., 2015, arXiv:1505.04597", 7_763_041, 256, 3, 1, 16, "segment"
    ),
    "deeplabv3_resnet50": Entry(
        _any_size(deeplabv3_resnet50), 1, "Chen et al., 2017, arXiv:1706.05587", 39_638_869, 520, 3, 21, 1, "segment"
    ),
    "yolo_csp": Entry(
        _any_size(yolo_csp), 32, "Wang et al., 2019, arXiv:1911.11929", 7_235_389, 320, 3, 80, 32, "detect"
    ),
}


def names(task: Task | None = None) -> tuple[str, ...]:
    """Return the names of all networks, or of those for one task."""
    return tuple(name for name, entry in CATALOG.items() if task in (None, entry.task))


def build(
    name: str, num_classes: int | None = None, *, in_channels: int = 3, image_size: tuple[int, int] | None = None
) -> Module:
    """Build a network with fresh weights.

    Parameters
    ----------
    name : str
        One of `names()`.
    num_classes : int, optional
        By default that of the paper.
    in_channels : int, default 3
    image_size : (int, int), optional
        Height and width of the images to come; by default those of the paper. Only LeNet is made for one size.

    Returns
    -------
    Module

    Raises
    ------
    ValueError
        An unknown name, or images that are too small or no multiple of what the network halves them to.

    Examples
    --------
    >>> from striate import models
    >>> net = models.build("resnet18", 10)
    >>> net.fc
    Linear(in_features=512, out_features=10, bias=True)
    """
    if name not in CATALOG:
        raise ValueError(
            f"models.build: expected one of {', '.join(CATALOG)}, got {name!r}; choose a name of the catalog"
        )
    entry = CATALOG[name]
    size = (entry.image_size, entry.image_size) if image_size is None else image_size
    if min(size) < entry.least_size:
        raise ValueError(
            f"models.build: expected images of at least {entry.least_size}×{entry.least_size} pixels for {name!r}, got "
            f"{size[0]}×{size[1]}; scale them up"
        )
    if any(side % entry.size_multiple for side in size):
        raise ValueError(
            f"models.build: expected images with sides that are multiples of {entry.size_multiple} for {name!r}, got "
            f"{size[0]}×{size[1]}; pad or scale them"
        )
    return entry.builder(entry.num_classes if num_classes is None else num_classes, in_channels, size)
