"""Keys, shapes and scores of torchvision's networks, as make_torchvision.py recorded them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import striate
from models import formula
from striate import models

_RECORD = json.loads(Path(__file__).with_name("torchvision.json").read_text())
_SCORED = [name for name, record in _RECORD.items() if "scores" in record]


def test_record_holds_every_network_of_torchvision() -> None:
    own = {"lenet", "resnet18_cifar", "resnet20", "resnet56", "small-vgg", "unet", "wide_resnet28_10", "yolo_csp"}
    assert {name for name in models.names() if not name.startswith("plain")} - own == set(_RECORD)


@pytest.mark.parametrize("name", _SCORED)
def test_scores_equal_torchvisions(name: str) -> None:
    network = models.build(name).eval()
    keys = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    network.load_state_dict({key: striate.from_numpy(formula.weight(key, shape)) for key, shape in keys.items()})
    with striate.no_grad():
        y = network(striate.tensor(formula.image(1, 3, *[_RECORD[name]["side"]] * 2)))
    expected = _RECORD[name]["scores"]
    np.testing.assert_allclose(formula.sample(y.numpy()), expected, rtol=0, atol=1e-4 * expected[-1])
