"""Record what torchvision's networks are and give, as the JSON file beside this script; the tests need no torch.

    PYTHONPATH=tests python tests/models/make_torchvision.py

Of each network: number of parameters, number of keys, SHA-256 of the keys and shapes, and of some the scores of one image with
the weights of `formula.py`, as `formula.sample` picks them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torchvision

from models import formula

#: name in the catalog → arguments in torchvision
NETWORKS: dict[str, dict[str, Any]] = {
    "vgg11": {},
    "vgg11_bn": {},
    "vgg16": {},
    "vgg16_bn": {},
    "resnet18": {},
    "resnet34": {},
    "resnet50": {},
    "resnext50_32x4d": {},
    "googlenet": {"aux_logits": False, "init_weights": False},
    "inception_v3": {"aux_logits": False, "init_weights": False},
    "densenet121": {},
    "squeezenet1_1": {},
    "mobilenet_v2": {},
    "mobilenet_v3_small": {},
    "mobilenet_v3_large": {},
    "shufflenet_v2_x1_0": {},
    "efficientnet_b0": {},
    "convnext_tiny": {},
    "deeplabv3_resnet50": {"weights_backbone": None, "aux_loss": False},
}
#: those whose scores are recorded: one of each family that is small
SCORED = (
    "resnet18",
    "googlenet",
    "inception_v3",
    "densenet121",
    "squeezenet1_1",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "shufflenet_v2_x1_0",
    "efficientnet_b0",
)
SIDE = 64
SIDES = {"inception_v3": 80}  # of images for those that take no smaller ones


def make(name: str) -> Any:
    """Build torchvision's network of a name, in eval mode."""
    models: Any = torchvision.models
    build = getattr(models, name, None) or getattr(models.segmentation, name)
    return build(weights=None, **NETWORKS[name]).eval()


def main() -> None:
    """Write torchvision.json."""
    found: dict[str, Any] = {}
    for name in NETWORKS:
        network = make(name)
        state = network.state_dict()
        keys = [(key, tuple(value.shape)) for key, value in state.items()]
        found[name] = {
            "n_parameters": sum(p.numel() for p in network.parameters()),
            "n_keys": len(keys),
            "sha256": formula.digest(keys),
        }
        if name in SCORED:
            network.load_state_dict({key: torch.from_numpy(formula.weight(key, shape)) for key, shape in keys})
            side = found[name]["side"] = SIDES.get(name, SIDE)
            with torch.no_grad():
                scores = network(torch.from_numpy(formula.image(1, 3, side, side)))
            found[name]["scores"] = [float(f"{v:.7g}") for v in formula.sample(scores.numpy())]
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(record)}" for name, record in found.items())
    Path(__file__).with_name("torchvision.json").write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    main()
