"""Optimizer steps against the formulas of torch.optim, written in float64 NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import striate as st
from striate.ops import optim

Array = np.ndarray
SHAPES = ((3, 5, 2, 2), (7,), (), (90000,), (0, 4), (2, 3))


def _draw(seed: int) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(np.float32) for shape in SHAPES]


def _tensors(arrays: list[Array]) -> list[Any]:
    return [st.ops.relayout(st.tensor(a)) for a in arrays]


def _states() -> list[Any]:
    return [st.zeros_like(x) for x in _tensors(_draw(0))]


def _check(params: list[Any], expected: list[Array]) -> None:
    for p, e in zip(params, expected, strict=True):
        np.testing.assert_allclose(p.numpy(), e, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weight_decay": 0.1},
        {"momentum": 0.9},
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
        {"momentum": 0.8, "dampening": 0.5, "maximize": True},
    ],
)
def test_formula_sgd(options: dict[str, Any]) -> None:
    params, moments = _tensors(_draw(0)), _states()
    p = [a.astype(np.float64) for a in _draw(0)]
    m: list[Array] = []
    mu, wd = options.get("momentum", 0.0), options.get("weight_decay", 0.0)
    for step in range(3):
        grads = _draw(1 + step)
        optim.sgd(params, _tensors(grads), moments, lr=0.1, is_first=step == 0, **options)
        g = [(-a if options.get("maximize") else a) + wd * b for a, b in zip(grads, p, strict=True)]
        if mu:
            m = [mu * a + (1 - options.get("dampening", 0.0)) * b for a, b in zip(m, g, strict=True)] if m else g
            g = [b + mu * a for a, b in zip(m, g, strict=True)] if options.get("nesterov") else m
        p = [a - 0.1 * b for a, b in zip(p, g, strict=True)]
    _check(params, p)


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("amsgrad", [False, True])
def test_formula_adam(decoupled: bool, amsgrad: bool) -> None:
    params, means, squares, largest = _tensors(_draw(0)), _states(), _states(), _states() if amsgrad else []
    p = [a.astype(np.float64) for a in _draw(0)]
    m, v, top = ([np.zeros_like(a) for a in p] for _ in range(3))
    lr, b1, b2, eps, wd = 0.01, 0.9, 0.99, 1e-8, 0.1
    for t in range(1, 5):
        scale = 0.1 if t == 3 else 1.0
        grads = [np.float32(scale) * a for a in _draw(t)]
        step = optim.adamw if decoupled else optim.adam
        step(
            params, _tensors(grads), means, squares, largest, n_steps=t, lr=lr, betas=(b1, b2), eps=eps, weight_decay=wd
        )
        for i, g32 in enumerate(grads):
            g = g32.astype(np.float64)
            if decoupled:
                p[i] = p[i] * (1 - lr * wd)
            else:
                g = g + wd * p[i]
            m[i] = b1 * m[i] + (1 - b1) * g
            v[i] = b2 * v[i] + (1 - b2) * g * g
            top[i] = np.maximum(top[i], v[i])
            root = np.sqrt((top[i] if amsgrad else v[i]) / (1 - b2**t))
            p[i] = p[i] - lr / (1 - b1**t) * m[i] / (root + eps)
    _check(params, p)


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_formula_rmsprop(centered: bool, momentum: float) -> None:
    params, squares = _tensors(_draw(0)), _states()
    means, moments = _states() if centered else [], _states() if momentum else []
    p = [a.astype(np.float64) for a in _draw(0)]
    s, mean, m = ([np.zeros_like(a) for a in p] for _ in range(3))
    for t in range(3):
        grads = _draw(t + 1)
        optim.rmsprop(
            params, _tensors(grads), squares, means, moments, lr=0.01, alpha=0.9, weight_decay=0.1, momentum=momentum
        )
        for i, g32 in enumerate(grads):
            g = g32 + 0.1 * p[i]
            s[i] = 0.9 * s[i] + 0.1 * g * g
            mean[i] = 0.9 * mean[i] + 0.1 * g
            u = g / (np.sqrt(s[i] - mean[i] ** 2 if centered else s[i]) + 1e-8)
            m[i] = momentum * m[i] + u
            p[i] = p[i] - 0.01 * m[i]
    _check(params, p)


def test_threads_adam_bitwise() -> None:
    results = []
    for n in (1, 2, 3, 7):
        with st.threads(n):
            params = _tensors(_draw(0))
            optim.adam(params, _tensors(_draw(1)), _states(), _states(), n_steps=1)
            results.append(b"".join(p.numpy().tobytes() for p in params))
    assert len(set(results)) == 1


def test_memory_sgd_takes_gradients_in_any_layout_and_raises_versions() -> None:
    param = st.ops.relayout(st.tensor(np.zeros((2, 3, 4, 5), np.float32)))
    grad = np.arange(120, dtype=np.float32).reshape(2, 3, 4, 5)
    before = param.data_version
    optim.sgd([param], [st.tensor(grad)], lr=1.0)
    np.testing.assert_array_equal(param.numpy(), -grad)
    assert param.data_version > before


def test_refusal_sgd() -> None:
    x = st.zeros(2, 3)
    with pytest.raises(st.ShapeError, match=r"sgd: expected a gradient of shape \(2, 3\), got \(3,\)"):
        optim.sgd([x], [st.zeros(3)], lr=1.0)
    with pytest.raises(st.DTypeError, match="sgd: expected a gradient of dtype float32, got float64"):
        optim.sgd([x], [st.zeros(2, 3, dtype=st.float64)], lr=1.0)
    with pytest.raises(ValueError, match="sgd: expected 1 gradients, got 0"):
        optim.sgd([x], [], lr=1.0)
    frozen = np.zeros((2, 3), np.float32)
    frozen.setflags(write=False)
    with pytest.raises(ValueError, match="sgd: expected a parameter that may be written"):
        optim.sgd([st.from_numpy(frozen)], [x], lr=1.0)
    with pytest.raises(ValueError, match="adam: expected a dense parameter and states in its order of axes"):
        optim.adam([st.from_numpy(np.zeros((3, 2), np.float32).T)], [x], [x], [x], n_steps=1)
