"""Write the shapes of this folder: every distinct convolution of known networks, and how often each network has it.

    .venv-peers/bin/python bench/shapes/make.py

Torchvision's networks are recorded as they run on one image; the others are spelled out here. `foundation.toml` is written by hand.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

#: Network → (builder in torchvision, size of the image, paper).
TORCHVISION = {
    "resnet18": ("resnet18", 224, "He et al. 2016, arXiv:1512.03385"),
    "resnet50": ("resnet50", 224, "He et al. 2016, arXiv:1512.03385"),
    "vgg16": ("vgg16", 224, "Simonyan & Zisserman 2015, arXiv:1409.1556"),
    "mobilenet_v2": ("mobilenet_v2", 224, "Sandler et al. 2018, arXiv:1801.04381"),
    "resnext50": ("resnext50_32x4d", 224, "Xie et al. 2017, arXiv:1611.05431, ResNeXt-50 32x4d"),
    "squeezenet": ("squeezenet1_1", 224, "Iandola et al. 2016, arXiv:1602.07360, version 1.1"),
    "efficientnet_b0": ("efficientnet_b0", 224, "Tan & Le 2019, arXiv:1905.11946"),
    "densenet121": ("densenet121", 224, "Huang et al. 2017, arXiv:1608.06993"),
}


class Conv(NamedTuple):
    """One convolution of square maps, kernels and strides."""

    in_channels: int
    out_channels: int
    size: int
    kernel_size: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1

    @property
    def name(self) -> str:
        kind = (
            "depthwise " if self.groups == self.in_channels > 1 else f"{self.groups} groups " if self.groups > 1 else ""
        )
        stride = f" s{self.stride}" if self.stride > 1 else ""
        return (
            f"{kind}{self.kernel_size}x{self.kernel_size}{stride} {self.in_channels}-{self.out_channels} at "
            f"{self.size}x{self.size}"
        )


def recorded(builder: str, size: int) -> list[Conv]:
    """Run a network of torchvision on one image of zeros and note its convolutions."""
    import torch
    import torchvision

    model = getattr(torchvision.models, builder)(weights=None).eval()
    found: list[Conv] = []

    def note(module: Any, inputs: tuple[Any, ...], _: Any) -> None:
        found.append(
            Conv(
                module.in_channels,
                module.out_channels,
                inputs[0].shape[2],
                module.kernel_size[0],
                module.stride[0],
                module.padding[0],
                module.dilation[0],
                module.groups,
            )
        )

    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(note)
    with torch.no_grad():
        model(torch.zeros(1, 3, size, size))
    return found


def lenet() -> list[Conv]:
    return [Conv(1, 6, 28, 5, padding=2), Conv(6, 16, 14, 5)]


def unet(width: int = 32, size: int = 256, levels: int = 4) -> list[Conv]:
    """Two 3×3 convolutions a level, down and up; the map that comes up is concatenated to the one that went down."""
    found = []
    channels = 3
    for level in range(levels + 1):
        o, at = width << level, size >> level
        found += [Conv(channels, o, at, 3, padding=1), Conv(o, o, at, 3, padding=1)]
        channels = o
    for level in reversed(range(levels)):
        o, at = width << level, size >> level
        found += [Conv(2 * o, o, at, 3, padding=1), Conv(o, o, at, 3, padding=1)]
    return [*found, Conv(width, 1, size, 1)]


def yolo_csp(size: int = 320) -> list[Conv]:
    """A detector of cross-stage-partial blocks at the width and depth of YOLOv5s (Wang et al. 2020, arXiv:1911.11929)."""

    def block(i: int, o: int, at: int, depth: int) -> list[Conv]:
        half = o // 2
        inner = [Conv(half, half, at, 1), Conv(half, half, at, 3, padding=1)] * depth
        return [Conv(i, half, at, 1), Conv(i, half, at, 1), *inner, Conv(o, o, at, 1)]

    s8, s16, s32 = size // 8, size // 16, size // 32
    found = [Conv(3, 32, size, 6, 2, 2)]
    for o, depth, at in [(64, 1, size // 4), (128, 2, s8), (256, 3, s16), (512, 1, s32)]:
        found += [Conv(o // 2, o, 2 * at, 3, 2, 1), *block(o, o, at, depth)]
    found += [Conv(512, 256, s32, 1), Conv(1024, 512, s32, 1)]  # pyramid of poolings
    found += [Conv(512, 256, s32, 1), *block(512, 256, s16, 1)]
    found += [Conv(256, 128, s16, 1), *block(256, 128, s8, 1)]
    found += [Conv(128, 128, s8, 3, 2, 1), *block(256, 256, s16, 1)]
    found += [Conv(256, 256, s16, 3, 2, 1), *block(512, 512, s32, 1)]
    return [*found, Conv(128, 255, s8, 1), Conv(256, 255, s16, 1), Conv(512, 255, s32, 1)]


def write(network: str, source: str, found: list[Conv]) -> None:
    lines = [
        f"# Distinct convolutions of {network} ({source}); count is how often it has each. Written by make.py.",
        "",
        "conv2d = [",
    ]
    for conv, count in Counter(found).items():
        fields = ", ".join(f"{key} = {value}" for key, value in conv._asdict().items())
        lines.append(f'  {{name = "{conv.name}", {fields}, count = {count}}},')
    (Path(__file__).parent / f"{network}.toml").write_text("\n".join([*lines, "]", ""]))
    print(f"{network}: {len(set(found))} distinct of {len(found)}")


def main() -> None:
    for network, (builder, size, paper) in TORCHVISION.items():
        write(network, f"{paper}; {size}×{size}", recorded(builder, size))
    write("lenet", "LeCun et al. 1998, doi:10.1109/5.726791; 28×28", lenet())
    write("unet", "Ronneberger et al. 2015, arXiv:1505.04597; 32 channels, padded, 256×256", unet())
    write("yolo_csp", "after YOLOv5s; 320×320", yolo_csp())


if __name__ == "__main__":
    main()
