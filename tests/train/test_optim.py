"""Optimizers against torch's recorded trajectories (tests/fixtures/make_torch.py), their states and refusals."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import striate
from striate import nn, ops
from striate.train import optim

_RECORDED = json.loads((Path(__file__).parents[1] / "fixtures" / "torch_optimizers.json").read_text())


def _ramp(shape: tuple[int, ...], start: int = 1) -> striate.Tensor:
    value = np.sin(np.arange(start, start + math.prod(shape), dtype=np.float64)).astype(np.float32).reshape(shape)
    result = ops.new_state(shape)
    ops.assign(result, striate.tensor(value))
    return result


def _params() -> list[nn.Parameter]:
    return [nn.Parameter(_ramp((3, 4))), nn.Parameter(_ramp((2, 3, 2, 2), 30)), nn.Parameter(_ramp((5,), 60))]


def _step(optimizer: optim.Optimizer, params: list[nn.Parameter], t: int) -> None:
    for i, p in enumerate(params):
        p.grad = _ramp(p.shape, 7 * t + i) + p.detach() * 0.3
    if t == 3:
        params[1].grad = None
    optimizer.step()


@pytest.mark.parametrize("expression", _RECORDED)
def test_trajectory_equals_torchs(expression: str) -> None:
    params = _params()
    optimizer = eval(expression, {"optim": optim, "params": params})
    for t, recorded in enumerate(_RECORDED[expression]):
        _step(optimizer, params, t)
        for p, values in zip(params, recorded, strict=True):
            np.testing.assert_allclose(p.detach().numpy().ravel(), values, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("expression", _RECORDED)
def test_state_goes_on_bitwise(expression: str) -> None:
    params = _params()
    optimizer = eval(expression, {"optim": optim, "params": params})
    for t in range(2):
        _step(optimizer, params, t)
    tensors, numbers = optimizer.export_state()
    others = _params()
    for p, q in zip(params, others, strict=True):
        ops.assign(q, p.detach())
    resumed = eval(expression.replace("lr=0.1", "lr=0.7"), {"optim": optim, "params": others})
    resumed.import_state(tensors, json.loads(json.dumps(numbers)))
    for t in range(2, 5):
        _step(optimizer, params, t)
        _step(resumed, others, t)
    for p, q in zip(params, others, strict=True):
        np.testing.assert_array_equal(p.detach().numpy(), q.detach().numpy())


def test_steps_raise_versions_and_keep_layouts() -> None:
    params = _params()
    optimizer = optim.SGD(params, lr=0.1, momentum=0.9)
    versions = [p.data_version for p in params]
    _step(optimizer, params, 0)
    assert all(p.data_version > v for p, v in zip(params, versions, strict=True))
    assert params[1]._array.is_channels_last
    assert not params[1]._array.is_exposed


def test_set_lr_scales_groups() -> None:
    params = _params()
    optimizer = optim.SGD([{"params": params[:1]}, {"params": params[1:], "lr_scale": 0.1}], lr=1.0)
    optimizer.set_lr(0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.05]
    assert optimizer.lr == 0.5


def test_zero_grad() -> None:
    params = _params()
    optimizer = optim.SGD(params)
    params[0].grad = striate.ones(3, 4)
    optimizer.zero_grad(set_to_none=False)
    assert params[0].grad.numpy().sum() == 0
    assert params[1].grad is None
    optimizer.zero_grad()
    assert params[0].grad is None


def test_clip_grad_norm_scales_all_together() -> None:
    params = _params()
    params[0].grad = striate.full((3, 4), 1.0)
    params[2].grad = striate.full((5,), 2.0)
    norm = math.sqrt(12 + 20)
    assert optim.clip_grad_norm_(params, 100.0) == pytest.approx(norm)
    assert params[0].grad.numpy().max() == 1
    assert optim.clip_grad_norm_(params, 1.0) == pytest.approx(norm)
    assert params[2].grad is not None
    np.testing.assert_allclose(params[2].grad.numpy(), 2 / norm, rtol=1e-5)
    with pytest.raises(ValueError, match="clip_grad_norm_: expected a positive max_norm, got 0"):
        optim.clip_grad_norm_(params, 0)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda p: optim.SGD([]), ValueError, "SGD: expected at least one parameter, got none"),
        (lambda p: optim.SGD([p[0], p[0]]), ValueError, "SGD: expected each parameter once"),
        (lambda p: optim.SGD(p, lr=-0.1), ValueError, "SGD: expected lr of at least 0, got -0.1"),
        (lambda p: optim.SGD(p, lr=math.nan), ValueError, "SGD: expected lr of at least 0, got nan"),
        (lambda p: optim.SGD(p, nesterov=True), ValueError, "SGD: expected momentum and no dampening with nesterov"),
        (lambda p: optim.Adam(p, betas=(0.9, 1.0)), ValueError, "Adam: expected betas from 0 to below 1"),
        (
            lambda p: optim.Adam([{"params": p, "beta": 1}]),
            ValueError,
            r"Adam: expected group entries of .*got \['beta'\]",
        ),
        (lambda p: optim.SGD([p[0] * 2.0]), TypeError, "SGD: expected parameters that are leaves"),
        (
            lambda p: optim.SGD(p).load_state_dict(optim.SGD(p[:1]).state_dict()),
            ValueError,
            r"SGD: expected groups of \[3\] parameters, got \[1\]",
        ),
        (
            lambda p: optim.SGD(p).load_state_dict(
                {
                    "state": {0: {"momentum_buffer": striate.zeros(2)}},
                    "param_groups": optim.SGD(p).state_dict()["param_groups"],
                }
            ),
            ValueError,
            r"SGD: expected momentum_buffer of shape \(3, 4\) for parameter 0, got \(2,\)",
        ),
    ],
)
def test_refusals(make: Callable[[Any], object], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        make(_params())
