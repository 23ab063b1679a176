"""Every network of the catalog: what it gives, what it learns, that it can be recorded and never relays an image."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import striate
from models import formula
from striate import Tensor, machine, models, nn
from striate.autograd import record

_TORCHVISION = json.loads(Path(__file__).with_name("torchvision.json").read_text())


class Built:
    """A network, and a small batch for it that lies in memory as pixels do."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.entry = models.CATALOG[name]
        self.side = max(64 if self.entry.task == "detect" else 28 if name == "lenet" else 32, self.entry.least_size)
        striate.manual_seed(0)
        self.network = models.build(name, in_channels=self.entry.in_channels, image_size=(self.side, self.side))

    def batch(self) -> Tensor:
        rng = np.random.default_rng(0)
        pixels = rng.standard_normal((2, self.side, self.side, self.entry.in_channels)).astype(np.float32)
        return striate.tensor(pixels).permute(0, 3, 1, 2)

    def run(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.network(x)
        return y if isinstance(y, tuple) else (y,)

    @property
    def states(self) -> dict[str, Tensor]:
        return {**dict(self.network.named_parameters()), **dict(self.network.named_buffers())}


# One network lives at a time: pytest runs all tests of one parameter before it makes the next.
@pytest.fixture(scope="module", params=models.names())
def built(request: pytest.FixtureRequest) -> Iterator[Built]:
    return Built(request.param)


def _loss(results: tuple[Tensor, ...]) -> Tensor:
    total = results[0].square().mean()
    for y in results[1:]:
        total = total + y.square().mean()
    return total


def test_number_of_parameters(built: Built) -> None:
    if built.name == "lenet":
        assert built.side == built.entry.image_size
    assert sum(p.size for p in built.network.parameters()) == built.entry.n_parameters
    if built.name in _TORCHVISION:
        assert built.entry.n_parameters == _TORCHVISION[built.name]["n_parameters"]


def test_keys_equal_torchvisions(built: Built) -> None:
    if built.name not in _TORCHVISION:
        pytest.skip("torchvision has no such network")
    keys = [(key, tuple(value.shape)) for key, value in built.network.state_dict().items()]
    assert len(keys) == _TORCHVISION[built.name]["n_keys"]
    assert formula.digest(keys) == _TORCHVISION[built.name]["sha256"]


def test_no_parameter_starts_degenerate(built: Built) -> None:
    for key, p in built.network.named_parameters():
        values = p.detach().numpy()
        assert np.isfinite(values).all(), key
        if values.ndim > 1 and not key.endswith("layer_scale"):
            assert values.std() > 0, key


def test_forward_in_eval_mode(built: Built) -> None:
    built.network.eval()
    x = built.batch()
    machine.reset_counters()
    with striate.no_grad():
        results = built.run(x)
    assert machine.counters()["relayouts"] == 0
    side, n = built.side, built.entry.num_classes
    shapes = {
        "classify": [(2, n)],
        "segment": [(2, n, side, side)],
        "detect": [(2, 3 * (5 + n), side // stride, side // stride) for stride in (8, 16, 32)],
    }
    assert [tuple(y.shape) for y in results] == shapes[built.entry.task]
    for y in results:
        assert np.isfinite(y.numpy()).all()


def test_backward_in_training(built: Built) -> None:
    built.network.train()
    built.network.zero_grad()
    x = built.batch()
    machine.reset_counters()
    _loss(built.run(x)).backward()
    assert machine.counters()["relayouts"] == 0
    for key, p in built.network.named_parameters():
        assert p.grad is not None, key
        assert np.isfinite(p.grad.numpy()).all(), key
    built.network.zero_grad()


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_forward_is_recorded_for_any_size(built: Built, mode: str) -> None:
    built.network.train(mode == "train")
    x = built.batch()
    with striate.no_grad(), record(inputs=[x], states=built.states) as recording:
        recording.returns(*built.run(x))
    graph: Any = recording.graph
    graph.validate()
    assert graph.fixed_ops == []
    assert [node.op for node in graph.nodes if node.op == "relayout"] == []
    assert not any(graph.value(i).array.size > 10_000 for i in _constants(graph)), "a weight that is no state"


@pytest.mark.parametrize("name", ["resnet18", "shufflenet_v2_x1_0", "unet", "deeplabv3_resnet50", "yolo_csp"])
def test_record_holds_for_larger_images_and_batches(name: str) -> None:
    network = models.build(name, 3).eval()
    x = striate.zeros(2, 3, 64, 128)
    with striate.no_grad(), record(inputs=[x], states=network.state_dict()) as recording:
        y = network(x)
        recording.returns(*(y if isinstance(y, tuple) else (y,)))
    assert recording.graph.guards_hold([[5, 3, 192, 96]])
    assert not recording.graph.guards_hold([[5, 4, 192, 96]])


def _constants(graph: Any) -> list[int]:
    return [i for i in range(graph.n_values) if graph.value(i).kind == "constant"]


def test_state_dict_goes_round(built: Built) -> None:
    state = {key: value.clone() for key, value in built.network.state_dict().items()}
    zero = {dtype: striate.zeros((), dtype=dtype) for dtype in (striate.float32, striate.int64)}
    built.network.load_state_dict({key: zero[value.dtype].expand(value.shape) for key, value in state.items()})
    assert all(not p.detach().numpy().any() for p in built.network.parameters())
    assert built.network.load_state_dict(state) == ([], [])
    for key, value in built.network.state_dict().items():
        assert np.array_equal(value.numpy(), state[key].numpy()), key


def test_every_network_is_exported() -> None:
    plain = {"lenet", "plain-16", "plain-32", "plain-64", "small-vgg"}
    for name in set(models.names()) - plain:
        assert name in models.__all__
        assert (getattr(models, name).__doc__ or "").startswith("Build")
    assert isinstance(models.build("lenet"), nn.Module)
