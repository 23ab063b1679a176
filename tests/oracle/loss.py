"""Losses; each is a value an element and a reduction."""

from __future__ import annotations

import numpy as np

from oracle.activation import log_softmax

Array = np.ndarray


def reduced(values: Array, reduction: str) -> Array:
    """Mean, sum or none."""
    if reduction == "mean":
        return values.mean()
    return values.sum() if reduction == "sum" else values


def nll_loss(
    x: Array, target: Array, weight: Array | None = None, *, ignore_index: int = -100, reduction: str = "mean"
) -> Array:
    """−weight[t]·x[n,t]; the mean divides by Σ weight[t]; x of shape (N, C, …), target (N, …)."""
    return cross_entropy_of(x, target, weight, ignore_index, reduction, 0.0)


def cross_entropy(
    x: Array,
    target: Array,
    weight: Array | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Array:
    """nll_loss of log_softmax(x); with label smoothing ε, target probability (1 − ε)·[c = t] + ε/C."""
    return cross_entropy_of(log_softmax(x, 1), target, weight, ignore_index, reduction, label_smoothing)


def cross_entropy_of(
    log_p: Array, target: Array, weight: Array | None, ignore_index: int, reduction: str, smoothing: float
) -> Array:
    """−Σ_c q[c]·weight[c]·log_p[c], q the smoothed target; ignored targets count nothing."""
    n_classes = log_p.shape[1]
    w = np.ones(n_classes) if weight is None else weight
    values = np.zeros(target.shape)
    total = 0.0
    for at in np.ndindex(*target.shape):
        t = int(target[at])
        if t == ignore_index:
            continue
        row = log_p[(at[0], slice(None), *at[1:])]
        values[at] = -(1 - smoothing) * w[t] * row[t]
        if smoothing:
            values[at] -= smoothing / n_classes * (w * row).sum()
        total += w[t]
    if reduction == "mean":
        return np.asarray(np.float64(values.sum()) / np.float64(total))
    return values.sum() if reduction == "sum" else values


def binary_cross_entropy_with_logits(
    x: Array,
    target: Array,
    weight: Array | None = None,
    pos_weight: Array | None = None,
    *,
    reduction: str = "mean",
) -> Array:
    """−weight·(pos_weight·t·ln σ(x) + (1 − t)·ln(1 − σ(x)))."""
    log_sigmoid = lambda z: np.minimum(z, 0) - np.log1p(np.exp(-np.abs(z)))  # noqa: E731
    p = 1.0 if pos_weight is None else pos_weight
    values = -(p * target * log_sigmoid(x) + (1 - target) * log_sigmoid(-x))
    if weight is not None:
        values = values * weight
    return reduced(values, reduction)


def mse_loss(x: Array, target: Array, *, reduction: str = "mean") -> Array:
    """(x − t)²."""
    return reduced((x - target) ** 2, reduction)


def l1_loss(x: Array, target: Array, *, reduction: str = "mean") -> Array:
    """|x − t|."""
    return reduced(np.abs(x - target), reduction)


def smooth_l1_loss(x: Array, target: Array, *, beta: float = 1.0, reduction: str = "mean") -> Array:
    """½(x − t)²/β where |x − t| < β, else |x − t| − ½β."""
    gap = np.abs(x - target)
    return reduced(np.where(gap < beta, 0.5 * gap**2 / beta, gap - 0.5 * beta), reduction)


def huber_loss(x: Array, target: Array, *, delta: float = 1.0, reduction: str = "mean") -> Array:
    """½(x − t)² where |x − t| ≤ δ, else δ·(|x − t| − ½δ)."""
    gap = np.abs(x - target)
    return reduced(np.where(gap <= delta, 0.5 * gap**2, delta * (gap - 0.5 * delta)), reduction)
