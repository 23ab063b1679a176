"""Layers against what torch did (tests/fixtures/make_torch.py): keys, shapes, results in both modes, initial values."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import striate
from striate import nn

_FIXTURES = Path(__file__).parents[1] / "fixtures"
_LAYERS = json.loads((_FIXTURES / "torch_layers.json").read_text())
_INITIAL = json.loads((_FIXTURES / "torch_initial.json").read_text())


def _ramp(shape: list[int], start: int = 1, scale: float = 1.0) -> np.ndarray[Any, Any]:
    n = math.prod(shape)
    return (np.sin(np.arange(start, start + n, dtype=np.float64)) * scale).astype(np.float32).reshape(shape)


def _make(expression: str) -> nn.Module:
    module = eval(expression, {"nn": nn})
    assert isinstance(module, nn.Module)
    return module


def _fill(module: nn.Module) -> None:
    state = module.state_dict()
    for i, (name, x) in enumerate(state.items()):
        if x.dtype == striate.float32:
            value = _ramp(list(x.shape), 100 * (i + 1), 0.5)
            state[name] = striate.tensor(np.abs(value) + 0.5 if name.endswith("running_var") else value)
    module.load_state_dict(state)


@pytest.mark.parametrize("expression", _LAYERS)
def test_state_dict_keys_equal_torchs(expression: str) -> None:
    state = _make(expression).state_dict()
    assert {key: [list(x.shape), str(x.dtype)] for key, x in state.items()} == _LAYERS[expression]["keys"]
    assert list(state) == list(_LAYERS[expression]["keys"])


@pytest.mark.parametrize("expression", _LAYERS)
def test_results_equal_torchs(expression: str) -> None:
    record = _LAYERS[expression]
    module = _make(expression)
    _fill(module)
    shape = record["input"]
    for mode in ("train", "eval"):
        getattr(module, mode)()
        if isinstance(shape[0], list):
            by_class = isinstance(shape[1], int)
            target = np.arange(shape[1]) % 4 if by_class else _ramp(shape[1], 50, 0.4) + np.float32(0.5)
            y = module(striate.tensor(_ramp(shape[0])), striate.tensor(target))
        else:
            y = module(striate.tensor(_ramp(shape, scale=3.0)))
        assert list(y.shape) == record[mode]["shape"]
        values = np.array(record[mode]["values"]).reshape(y.shape)
        np.testing.assert_allclose(y.detach().numpy(), values, rtol=2e-5, atol=2e-6)
    for key, values in record["state"].items():
        np.testing.assert_allclose(module.state_dict()[key].numpy().ravel(), values, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("expression", _INITIAL["layers"])
def test_initial_values_have_torchs_distribution(expression: str) -> None:
    striate.manual_seed(0)
    for name, quantiles in _INITIAL["layers"][expression].items():

        def draw(name: str = name) -> Any:
            return dict(_make(expression).named_parameters())[name].detach().numpy()

        values = np.concatenate([np.ravel(draw()) for _ in range(20)])
        _check_quantiles(values, quantiles)
        bound = max(abs(quantiles[0]), quantiles[-1])  # all defaults are uniform
        assert np.abs(values).max() <= bound * (1 + 20 / values.size) + 1e-7


def _check_quantiles(values: np.ndarray[Any, Any], quantiles: list[float]) -> None:
    """Kolmogorov: a distance of 2 / √n at any point is exceeded once in 1,500 times; the recorded deciles add their own."""
    inner = np.searchsorted(np.sort(values), quantiles[1:-1], side="right") / values.size
    np.testing.assert_allclose(inner, np.arange(1, 10) / 10, atol=4 / math.sqrt(values.size))


@pytest.mark.parametrize("expression", _INITIAL["functions"])
def test_init_functions_have_torchs_distribution(expression: str) -> None:
    record = _INITIAL["functions"][expression]
    striate.manual_seed(1)
    w = striate.ops.new_state(record["shape"])
    draws = []
    for _ in range(10):
        assert eval(expression, {"nn": nn, "w": w}) is w
        draws.append(w.numpy().ravel().copy())
    _check_quantiles(np.concatenate(draws), record["quantiles"])


def test_gains_equal_torchs() -> None:
    for name, param, gain in _INITIAL["gains"]:
        assert nn.init.calculate_gain(name, param) == pytest.approx(gain, rel=1e-15)
