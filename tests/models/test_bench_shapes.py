"""The layers that benchmarks time are the layers of these networks."""

from __future__ import annotations

import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import striate
from striate import models, nn

_SHAPES = Path(__file__).parents[2] / "bench" / "shapes"
_NETWORKS = {
    "lenet": "lenet",
    "resnet18": "resnet18",
    "resnet50": "resnet50",
    "resnext50": "resnext50_32x4d",
    "vgg16": "vgg16",
    "squeezenet": "squeezenet1_1",
    "densenet121": "densenet121",
    "mobilenet_v2": "mobilenet_v2",
    "efficientnet_b0": "efficientnet_b0",
    "unet": "unet",
    "yolo_csp": "yolo_csp",
}


def _convolutions(network: nn.Module, shape: tuple[int, ...]) -> Counter[tuple[int, ...]]:
    found: Counter[tuple[int, ...]] = Counter()

    def note(layer: Any, inputs: tuple[striate.Tensor, ...], _: object) -> None:
        geometry = (layer.kernel_size[0], layer.stride[0], layer.padding[0], layer.dilation[0], layer.groups)
        found[(layer.in_channels, layer.out_channels, inputs[0].shape[2], *geometry)] += 1

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(note)
    with striate.no_grad():
        network.eval()(striate.zeros(*shape))
    return found


@pytest.mark.parametrize("name", _NETWORKS)
def test_benchmarks_time_the_layers_of_the_network(name: str) -> None:
    entry = models.CATALOG[_NETWORKS[name]]
    network = models.build(_NETWORKS[name], in_channels=entry.in_channels)
    found = _convolutions(network, (1, entry.in_channels, entry.image_size, entry.image_size))
    rows = tomllib.loads((_SHAPES / f"{name}.toml").read_text())["conv2d"]
    fields = ("in_channels", "out_channels", "size", "kernel_size", "stride", "padding", "dilation", "groups")
    assert found == {tuple(row[field] for field in fields): row["count"] for row in rows}
