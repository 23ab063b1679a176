"""Networks by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from striate.models.lenet import LeNet
from striate.models.plain import Plain, SmallVGG
from striate.nn import Module

Builder = Callable[[int, int, tuple[int, int]], Module]


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
    """

    builder: Builder
    least_size: int
    paper: str


def _plain(width: int) -> Builder:
    def build_plain(num_classes: int, in_channels: int, image_size: tuple[int, int]) -> Module:
        return Plain(num_classes, in_channels, (width, 2 * width, 4 * width))

    return build_plain


_VGG = "Simonyan and Zisserman, 2014, arXiv:1409.1556"

#: Every network by name.
CATALOG = {
    "lenet": Entry(LeNet, 12, "LeCun et al., Proc. IEEE 86(11), 1998"),
    "plain-16": Entry(_plain(16), 4, _VGG),
    "plain-32": Entry(_plain(32), 4, _VGG),
    "plain-64": Entry(_plain(64), 4, _VGG),
    "small-vgg": Entry(lambda num_classes, in_channels, _: SmallVGG(num_classes, in_channels), 8, _VGG),
}


def names() -> tuple[str, ...]:
    """Return the names of all networks."""
    return tuple(CATALOG)


def build(name: str, num_classes: int, *, in_channels: int = 3, image_size: tuple[int, int] = (32, 32)) -> Module:
    """Build a network with fresh weights.

    Parameters
    ----------
    name : str
        One of `names()`.
    num_classes : int
    in_channels : int, default 3
    image_size : (int, int), default (32, 32)
        Height and width of the images to come.

    Raises
    ------
    ValueError
        An unknown name, or images that are too small.
    """
    if name not in CATALOG:
        raise ValueError(
            f"models.build: expected one of {', '.join(CATALOG)}, got {name!r}; choose a name of the catalog"
        )
    entry = CATALOG[name]
    if min(image_size) < entry.least_size:
        raise ValueError(
            f"models.build: expected images of at least {entry.least_size}×{entry.least_size} pixels for {name!r}, got "
            f"{image_size[0]}×{image_size[1]}; scale them up"
        )
    return entry.builder(num_classes, in_channels, image_size)
