"""Torchvision's networks, their weights loaded unchanged: the same scores, and the same gradients in training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import striate
from striate import models, nn

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")
pytestmark = pytest.mark.needs_peers


def _theirs(name: str, aux: bool) -> Any:
    """Build torchvision's network, its statistics and scales away from where they start."""
    torch.manual_seed(0)
    if name in ("googlenet", "inception_v3"):
        network = getattr(torchvision.models, name)(aux_logits=aux, init_weights=True)
    elif name == "deeplabv3_resnet50":
        network = torchvision.models.segmentation.deeplabv3_resnet50(weights=None, weights_backbone=None, aux_loss=aux)
    else:
        network = getattr(torchvision.models, name)(weights=None)
    with torch.no_grad():
        for key, value in network.state_dict().items():
            if key.endswith("running_mean"):
                value.normal_(0, 0.2)
            elif key.endswith("running_var"):
                value.uniform_(0.5, 1.5)
            elif key.endswith("layer_scale"):
                value.normal_(0, 0.3)
            elif key.endswith("weight") and value.ndim == 1:
                value.uniform_(0.5, 1.5)
    return network


def _ours(name: str, aux: bool, theirs: Any) -> nn.Module:
    """Build striate's network with the weights of the other."""
    if name in ("googlenet", "inception_v3"):
        network: nn.Module = getattr(models, name)(aux_logits=aux)
    elif name == "deeplabv3_resnet50":
        network = models.deeplabv3_resnet50(aux_loss=aux)
    else:
        network = models.build(name)
    state = {key: striate.tensor(value.numpy()) for key, value in theirs.state_dict().items()}
    network.to(next(iter(state.values())).dtype).load_state_dict(state)
    return network


_NAMES = [
    name
    for name in models.names()
    if hasattr(torchvision.models, name) or hasattr(torchvision.models.segmentation, name)
]


def _image(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def _difference(ours: np.ndarray[Any, Any], theirs: np.ndarray[Any, Any]) -> float:
    """Return the largest difference, relative to the largest element."""
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


@pytest.mark.parametrize("name", _NAMES)
def test_scores_equal_torchvisions(name: str, record_property: Any) -> None:
    theirs = _theirs(name, True).eval()
    ours = _ours(name, True, theirs).eval()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    x = _image(2, 3, 96, 80)
    with torch.no_grad():
        y = theirs(torch.from_numpy(x))
    with striate.no_grad():
        z = ours(striate.tensor(x))
    difference = _difference(z.numpy(), (y["out"] if isinstance(y, dict) else y).numpy())
    record_property("difference", difference)
    assert difference <= 1e-4


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet50", "mobilenet_v2", "densenet121", "shufflenet_v2_x1_0", "convnext_tiny"]
)
def test_gradients_equal_torchvisions(name: str, record_property: Any) -> None:
    theirs = _theirs(name, False).double().train()
    ours = _ours(name, False, theirs).train()
    for module in theirs.modules():  # what is random stands still
        if isinstance(module, torch.nn.Dropout | torchvision.ops.StochasticDepth):
            module.p = 0.0
    for part in ours.modules():
        if isinstance(part, nn.Dropout | nn.StochasticDepth):
            part.p = 0.0
    x = _image(3, 3, 64, 64).astype(np.float64)
    towards = _image(3, 1000).astype(np.float64)
    (theirs(torch.from_numpy(x)) * torch.from_numpy(towards)).sum().backward()
    (ours(striate.tensor(x)) * striate.tensor(towards)).sum().backward()
    gradients = {key: p.grad.numpy() for key, p in theirs.named_parameters()}
    largest = max(np.abs(g).max() for g in gradients.values())
    worst = 0.0
    for key, p in ours.named_parameters():
        assert p.grad is not None
        # A bias in front of batch norm has no gradient but rounding: what is far below the others counts as zero.
        scale = max(np.abs(gradients[key]).max(), 1e-6 * largest)
        worst = max(worst, float(np.abs(p.grad.numpy() - gradients[key]).max() / scale))
    record_property("difference", worst)
    assert worst <= 1e-8
    for key, value in theirs.state_dict().items():
        if "running" in key or "num_batches" in key:
            np.testing.assert_allclose(ours.state_dict()[key].numpy(), value.numpy(), rtol=1e-9, atol=1e-9)
