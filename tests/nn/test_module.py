"""What a module is, apart from what any layer computes."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict

import numpy as np
import pytest

import striate
from striate import nn


class _Scale(nn.Module):
    def __init__(self, n: int = 3) -> None:
        self.weight = nn.Parameter(striate.ones(n))
        self.register_buffer("count", striate.zeros(1))
        self.register_buffer("cache", striate.zeros(1), persistent=False)
        self.register_parameter("bias", None)

    def forward(self, x: striate.Tensor) -> striate.Tensor:
        return x * self.weight


class _Net(nn.Module):
    def __init__(self) -> None:
        self.first = _Scale()
        self.layers = nn.ModuleList([_Scale(), nn.ReLU(), _Scale()])
        self.named = nn.ModuleDict({"a": _Scale()})
        self.tied = self.first

    def forward(self, x: striate.Tensor) -> striate.Tensor:
        x = self.first(x)
        for layer in self.layers:
            x = layer(x)
        return self.tied(self.named["a"](x))


def test_names_are_in_torchs_order() -> None:
    net = _Net()
    assert [name for name, _ in net.named_modules()] == [
        "",
        "first",
        "layers",
        "layers.0",
        "layers.1",
        "layers.2",
        "named",
        "named.a",
    ]
    assert [name for name, _ in net.named_parameters()] == [
        "first.weight",
        "layers.0.weight",
        "layers.2.weight",
        "named.a.weight",
    ]
    assert [name for name, _ in net.named_buffers()][:2] == ["first.count", "first.cache"]
    assert [name for name, _ in net.named_children()] == ["first", "layers", "named"]
    assert list(net.state_dict()) == [
        *("first.weight", "first.count", "layers.0.weight", "layers.0.count", "layers.2.weight", "layers.2.count"),
        *("named.a.weight", "named.a.count", "tied.weight", "tied.count"),
    ]
    assert net.get_submodule("layers.2") is net.layers[2]
    with pytest.raises(
        AttributeError, match=r"expected a path in _Net, got 'layers.9'; ModuleList has \['0', '1', '2'\]"
    ):
        net.get_submodule("layers.9")


def test_registers_follow_assignment() -> None:
    module = _Scale()
    assert [name for name, _ in module.named_parameters()] == ["weight"]
    module.bias = nn.Parameter(striate.zeros(3))
    assert [name for name, _ in module.named_parameters()] == ["weight", "bias"]
    module.bias = None
    assert [name for name, _ in module.named_parameters()] == ["weight"]
    del module.weight
    assert list(module.parameters()) == []
    module.count = striate.ones(2)
    assert dict(module.named_buffers())["count"].shape == (2,)
    with pytest.raises(TypeError, match="_Scale: expected a Tensor or None for 'count', got int"):
        module.count = 3  # type: ignore[assignment]
    module = _Scale()
    with pytest.raises(TypeError, match="_Scale: expected a Parameter or None for 'weight', got Tensor"):
        module.weight = striate.ones(3)  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"add_module: expected a name without dots, got 'a\.b'"):
        module.add_module("a.b", nn.ReLU())
    with pytest.raises(TypeError, match="Parameter: expected a Tensor, got list"):
        nn.Parameter([1.0])  # type: ignore[arg-type]


def test_load_state_dict_lists_everything_that_is_wrong() -> None:
    net = nn.Sequential(_Scale(3), _Scale(2))
    before = {key: x.numpy().copy() for key, x in net.state_dict().items()}
    state = {
        "0.weight": striate.zeros(4),
        "0.count": striate.ones(1),
        "1.weight": striate.zeros(2),
        "2.weight": striate.zeros(1),
    }
    with pytest.raises(
        ValueError,
        match=r"load_state_dict: expected the keys and shapes of Sequential, got missing keys: 1\.count; "
        r"unexpected keys: 2\.weight; mis-shaped keys: 0\.weight of shape \(4,\) instead of \(3,\); load the weights",
    ):
        net.load_state_dict(state)
    with pytest.raises(ValueError, match="mis-shaped keys"):
        net.load_state_dict(state, strict=False)
    for key, x in net.state_dict().items():
        np.testing.assert_array_equal(x.numpy(), before[key])
    state["0.weight"] = striate.zeros(3, dtype=striate.float64)
    with pytest.raises(ValueError, match=r"got missing keys: 1\.count; unexpected keys: 2\.weight; pass strict=False"):
        net.load_state_dict(state)
    found = net.load_state_dict(state, strict=False)
    assert found == (["1.count"], ["2.weight"])
    assert net[0].weight.dtype == striate.float32
    assert net[0].weight.detach().tolist() == [0, 0, 0]


def test_load_state_dict_keeps_parameters_the_same_objects() -> None:
    net = _Net()
    weight = net.first.weight
    version = weight.data_version
    net.load_state_dict({key: x * 0 for key, x in net.state_dict().items()})
    assert net.first.weight is weight
    assert weight.detach().tolist() == [0, 0, 0]
    assert weight.data_version > version


def test_train_and_eval_reach_every_part() -> None:
    net = _Net()
    assert net.eval() is net
    assert not any(module.training for module in net.modules())
    assert all(module.training for module in net.train().modules())


def test_hooks_see_and_change() -> None:
    net = nn.Sequential(_Scale(), nn.ReLU())
    seen = []
    handle = net[0].register_forward_hook(
        lambda module, args, y: seen.append((type(module).__name__, args[0].shape, y.shape))
    )
    x = striate.tensor([1.0, -2.0, 3.0])
    net(x)
    assert seen == [("_Scale", (3,), (3,))]
    handle.remove()
    net(x)
    assert len(seen) == 1
    doubled = net.register_forward_pre_hook(lambda module, args: (args[0] * 2.0,))
    with doubled, net.register_forward_hook(lambda module, args, y: y + 1.0):
        assert net(x).tolist() == [3, 1, 7]
    assert net(x).tolist() == [1, 0, 3]


def test_gradients_are_forgotten() -> None:
    net = _Net()
    net(striate.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert net.first.weight.grad is not None
    net.zero_grad(set_to_none=False)
    assert net.first.weight.grad.tolist() == [0, 0, 0]
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())
    net.requires_grad_(False)
    assert not net(striate.tensor([1.0, 2.0, 3.0])).requires_grad


def test_to_converts_floats_only_and_keeps_objects() -> None:
    layer = nn.BatchNorm2d(3)
    weight = layer.weight
    layer.to(striate.float64)
    assert layer.weight is weight
    assert {str(x.dtype) for x in layer.state_dict().values()} == {"float64", "int64"}
    assert weight is not None
    assert weight.requires_grad
    with pytest.raises(TypeError, match=r"Module\.to: expected a floating-point dtype, got int64"):
        layer.to(striate.int64)


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_copies_share_nothing(how: str) -> None:
    net = _Net()
    net.first.weight.grad = striate.ones(3)
    other = copy.deepcopy(net) if how == "deepcopy" else pickle.loads(pickle.dumps(net))
    assert isinstance(other.first.weight, nn.Parameter)
    assert other.first is other.tied
    assert other.first.weight.requires_grad
    other.load_state_dict({key: x * 0 for key, x in other.state_dict().items()})
    assert net.first.weight.detach().tolist() == [1, 1, 1]
    assert [name for name, _ in other.named_parameters()] == [name for name, _ in net.named_parameters()]
    x = striate.tensor([1.0, 2.0, 3.0])
    assert other(x).tolist() == [0, 0, 0]


def test_copies_of_convolutions_keep_their_layout() -> None:
    layer = nn.Conv2d(3, 4, 2)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert other.weight._array.is_channels_last
        assert not other.weight._array.is_exposed
        np.testing.assert_array_equal(other.weight.detach().numpy(), layer.weight.detach().numpy())


def test_parameters_live_in_memory_of_their_own() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 2, 3), nn.BatchNorm2d(2), nn.Linear(3, 2))
    for key, x in net.state_dict().items():
        assert not x._array.is_exposed, key
        assert x._array.is_channels_last, key


def test_same_seed_gives_the_same_weights() -> None:
    def weights(seed: int) -> list[float]:
        striate.manual_seed(seed)
        state = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(5, 2)).state_dict()
        return np.concatenate([x.numpy().ravel() for x in state.values()]).tolist()

    assert weights(3) == weights(3)
    assert weights(3) != weights(4)


def test_repr_is_torchs() -> None:
    net = nn.Sequential(
        OrderedDict(conv=nn.Conv2d(3, 8, 3, padding=1, bias=False), head=nn.Sequential(nn.Linear(8, 2)))
    )
    assert repr(net) == (
        "Sequential(\n"
        "  (conv): Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False)\n"
        "  (head): Sequential(\n"
        "    (0): Linear(in_features=8, out_features=2, bias=True)\n"
        "  )\n"
        ")"
    )


def test_sequential_is_a_list() -> None:
    net = nn.Sequential(nn.ReLU(), nn.Tanh(), nn.Sigmoid())
    assert len(net) == 3
    assert [type(m).__name__ for m in net] == ["ReLU", "Tanh", "Sigmoid"]
    assert isinstance(net[-1], nn.Sigmoid)
    assert isinstance(net[1:], nn.Sequential)
    assert list(net[1:].state_dict()) == []
    net[0] = nn.GELU()
    net.append(nn.Flatten())
    assert [type(m).__name__ for m in net] == ["GELU", "Tanh", "Sigmoid", "Flatten"]
    with pytest.raises(IndexError, match="Sequential: expected an index below 4, got 4"):
        net[4]
    with pytest.raises(TypeError, match="Sequential: expected modules, got type at 0"):
        nn.Sequential(nn.ReLU)  # type: ignore[arg-type]


def test_module_dict_is_a_dict() -> None:
    parts = nn.ModuleDict({"a": nn.ReLU()})
    parts["b"] = nn.Tanh()
    assert parts.keys() == ["a", "b"]
    assert "b" in parts
    del parts["a"]
    assert list(parts) == ["b"]
    assert len(parts) == 1


def test_summary_counts() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(8 * 16, 10),
    )
    net.train()
    version = net[1].running_mean.data_version
    summary = net.summary((2, 3, 8, 8))
    assert [row.output_shape for row in summary.rows] == [
        *[(2, 8, 8, 8)] * 3,
        (2, 8, 4, 4),
        (2, 128),
        (2, 10),
    ]
    assert summary.rows[0].n_parameters == 3 * 8 * 9 + 8
    assert summary.rows[0].n_macs == 2 * 8 * 8 * 8 * 27
    assert summary.rows[-1].n_macs == 2 * 10 * 128
    assert summary.n_parameters == sum(p.size for p in net.parameters()) == summary.n_trainable
    assert net.training
    assert net[1].running_mean.data_version == version
    text = str(summary)
    assert "0 (Conv2d)" in text
    assert "(2, 8, 8, 8)" in text
    assert "1,514" in text.replace(f"{summary.n_parameters:,}", "1,514")


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (
            lambda: nn.Conv2d(4, 6, 3, groups=3),
            "Conv2d: expected in_channels and out_channels that groups divides, got 4, 6",
        ),
        (lambda: nn.Conv2d(4, 6, (3, 3, 3)), "Conv2d: expected kernel_size as one int or 2 of at least 1, got"),
        (lambda: nn.Conv2d(4, 6, 3, stride=0), "Conv2d: expected stride as one int or 2 of at least 1, got 0"),
        (lambda: nn.Conv2d(4, 6, 3, padding="sam"), "Conv2d: expected padding 'same', 'valid' or numbers, got 'sam'"),
        (lambda: nn.Conv2d(4, 6, 3, stride=2, padding="same"), "Conv2d: expected stride 1 with padding='same'"),
        (lambda: nn.Conv2d(4, 6, 3, padding_mode="circular"), "Conv2d: expected padding_mode 'zeros', 'reflect' or"),
        (
            lambda: nn.ConvTranspose2d(4, 6, 3, padding="same"),
            "ConvTranspose2d: expected padding as numbers, got 'same'",
        ),
        (lambda: nn.Linear(0, 3), "Linear: expected sizes of at least 1, got 0 and 3"),
        (lambda: nn.Dropout(1.5), "Dropout: expected a probability p from 0 to 1, got 1.5"),
        (lambda: nn.StochasticDepth(-1.0), "StochasticDepth: expected a probability p from 0 to 1, got -1.0"),
        (lambda: nn.StochasticDepth(0.5, "col"), "StochasticDepth: expected mode 'row' or 'batch', got 'col'"),
        (
            lambda: nn.Conv2dNormActivation(1, 1, (3, 3, 3)),
            "Conv2dNormActivation: expected kernel_size as one int or 2 of at least 1",
        ),
        (lambda: nn.BatchNorm2d(0), "BatchNorm2d: expected num_features of at least 1, got 0"),
        (lambda: nn.BatchNorm2d(3)(striate.zeros(2, 3)), "BatchNorm2d: expected 4 axes"),
        (
            lambda: nn.GroupNorm(3, 4),
            "GroupNorm: expected num_channels that num_groups divides, got 4 and 3; use 1 groups",
        ),
        (lambda: nn.GELU("erf"), "GELU: expected approximate 'none' or 'tanh', got 'erf'"),
        (lambda: nn.Upsample(), "Upsample: expected size or scale_factor, got None and None"),
        (lambda: nn.ZeroPad2d((1, 2)), "ZeroPad2d: expected padding as one int or"),
        (lambda: nn.MSELoss("avg"), "MSELoss: expected reduction 'mean', 'sum' or 'none', got 'avg'"),
        (lambda: nn.CrossEntropyLoss(label_smoothing=2.0), "CrossEntropyLoss: expected label_smoothing from 0 to 1"),
        (lambda: nn.Normalize([0.5], [0.0]), "Normalize: expected a mean and a positive std for each channel"),
        (lambda: nn.Normalize([0.5] * 3, [0.2] * 3)(striate.zeros(1, 2, 3, 3)), "Normalize: expected 3 channels"),
        (lambda: nn.init.calculate_gain("swish"), "calculate_gain: expected a nonlinearity of .*, got 'swish'"),
        (lambda: nn.init.kaiming_uniform_(striate.zeros(3)), "init: expected a weight of at least 2 axes"),
        (lambda: nn.init.kaiming_uniform_(striate.zeros(3, 3), mode="fan"), "kaiming: expected mode 'fan_in' or"),
        (lambda: nn.init.trunc_normal_(striate.zeros(3), 0.0, 1.0, 3.0, 4.0), "trunc_normal_: expected bounds around"),
    ],
)
def test_refusals(make: object, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make()  # type: ignore[operator]


def test_normalize_takes_bytes_and_floats() -> None:
    layer = nn.Normalize([0.5, 0.25], [0.5, 0.125])
    pixels = np.arange(0, 240, 10, dtype=np.uint8).reshape(1, 2, 3, 4)
    expected = (pixels / 255 - np.array([0.5, 0.25]).reshape(1, 2, 1, 1)) / np.array([0.5, 0.125]).reshape(1, 2, 1, 1)
    np.testing.assert_allclose(layer(striate.tensor(pixels)).numpy(), expected, rtol=1e-5, atol=1e-6)
    floats = striate.tensor((pixels / 255).astype(np.float32))
    np.testing.assert_allclose(layer(floats).numpy(), expected, rtol=1e-5, atol=1e-6)
    assert list(layer.state_dict()) == ["mean", "std"]


def test_dropout_is_off_in_eval_mode() -> None:
    x = striate.ones(1000)
    layer = nn.Dropout(0.4)
    striate.manual_seed(0)
    y = layer(x).numpy()
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.6)}
    assert 300 < np.count_nonzero(y == 0) < 500
    assert layer.eval()(x).tolist() == x.tolist()


@pytest.mark.parametrize("mode", ["row", "batch"])
def test_stochastic_depth_drops_whole_samples(mode: str) -> None:
    x = striate.ones(600, 2, 1, 3, requires_grad=True)
    layer = nn.StochasticDepth(0.25, mode)  # type: ignore[arg-type]
    striate.manual_seed(1)
    y = layer(x)
    kept = y.detach().numpy().reshape(600, -1)
    assert (kept == kept[:, :1]).all()
    assert set(np.unique(kept)) <= {np.float32(0), np.float32(1 / 0.75)}
    n_kept = np.count_nonzero(kept[:, 0])
    assert 400 < n_kept < 500 if mode == "row" else n_kept in (0, 600)
    y.sum().backward()
    assert x.grad is not None
    np.testing.assert_array_equal(x.grad.numpy(), y.detach().numpy())
    assert layer.eval()(x) is x


def test_layer_norm_of_pixels_normalises_channels() -> None:
    x = np.random.default_rng(0).standard_normal((2, 5, 3, 4))
    layer = nn.LayerNorm2d(5, eps=1e-6).to(striate.float64)
    expected = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(layer(striate.tensor(x)).detach().numpy(), expected, rtol=1e-12, atol=1e-12)


def test_squeeze_excitation_is_its_formula() -> None:
    striate.manual_seed(0)
    layer = nn.SqueezeExcitation(4, 2, nn.SiLU, nn.Hardsigmoid).to(striate.float64)
    x = striate.randn(2, 4, 3, 3, dtype=striate.float64)
    w1, b1, w2, b2 = (
        p.detach().numpy().reshape(p.shape[0], -1) for p in (*layer.fc1.parameters(), *layer.fc2.parameters())
    )
    inner = x.numpy().mean((2, 3)) @ w1.T + b1.T
    scale = np.clip((inner / (1 + np.exp(-inner)) @ w2.T + b2.T + 3) / 6, 0, 1)
    np.testing.assert_allclose(layer(x).detach().numpy(), x.numpy() * scale[..., None, None], rtol=1e-12)


def test_conv_norm_activation_keeps_the_size_and_has_torchvisions_keys() -> None:
    layer = nn.Conv2dNormActivation(3, 4, (3, 5), dilation=2)
    assert layer(striate.zeros(1, 3, 9, 11)).shape == (1, 4, 9, 11)
    assert list(layer.state_dict())[:3] == ["0.weight", "1.weight", "1.bias"]
    assert list(nn.Conv2dNormActivation(3, 4, norm_layer=None).state_dict()) == ["0.weight", "0.bias"]


def test_permute_is_a_view() -> None:
    x = striate.zeros(2, 3, 4, 5)
    assert nn.Permute([0, 2, 3, 1])(x).shape == (2, 4, 5, 3)
