"""Losses."""

from __future__ import annotations

from typing import Any

import numpy as np

from cases.case import Case, Input, index, real
from oracle import activation, bound, loss

Array = np.ndarray


def _summed(f: bound.Format, error: Array, absolute: Array, reduction: str, n_more: int) -> Array:
    """Carry the errors of the values through the reduction, which adds its own roundings."""
    n = np.size(absolute) + n_more if reduction != "none" else n_more
    return loss.reduced(error, reduction) + bound.dot(f, n, loss.reduced(absolute, reduction))


def _nll_bound(
    f: bound.Format,
    y: Array,
    x: Array,
    target: Array,
    weight: Array | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Array:
    w = None if weight is None else np.abs(weight)
    absolute = loss.cross_entropy_of(-np.abs(x), target, w, ignore_index, reduction, 0.0)
    return bound.dot(f, 2 * target.size + 3, absolute)


def _cross_entropy_bound(
    f: bound.Format,
    y: Array,
    x: Array,
    target: Array,
    weight: Array | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Array:
    """Errors of log_softmax weigh as its values do; then C + 2N products and sums."""
    log_p = activation.log_softmax(x, 1)
    error = bound.log_softmax(f, x, log_p, 1)
    rest = (target, weight, ignore_index, reduction, label_smoothing)
    n_terms = x.shape[1] + 2 * target.size + 6
    return 1.01 * loss.cross_entropy_of(-error, *rest) + bound.dot(f, n_terms, loss.cross_entropy_of(log_p, *rest))


def _classes(
    op: str,
    label: str,
    shape: tuple[int, ...],
    *,
    weighted: bool = False,
    special: int | None = None,
    large: bool = False,
    **attributes: Any,
) -> Case:
    target = index(shape[0], *shape[2:], high=shape[1], special=special)
    weight = real(shape[1], uniform=(0.2, 2.0), differentiable=False) if weighted else None
    return Case(
        op=op,
        label=label,
        inputs=(real(*shape, scale=3.0), target, weight),
        names=("weight",),
        attributes=attributes,
        oracle=getattr(loss, op),
        bound=_nll_bound if op == "nll_loss" else _cross_entropy_bound,
        excused="takes a mean or a logarithm",
        large=large,
        constant="a single number" if attributes.get("reduction", "mean") != "none" else "",
    )


def _logits_bound(
    f: bound.Format,
    y: Array,
    x: Array,
    target: Array,
    weight: Array | None = None,
    pos_weight: Array | None = None,
    *,
    reduction: str = "mean",
) -> Array:
    """max(x, 0) − x·t + ln(1 + e^−|x|), each part with a few roundings; the weights multiply."""
    p = 1.0 if pos_weight is None else pos_weight
    w = 1.0 if weight is None else weight
    absolute = (
        w * (1 + np.abs(p - 1) * np.abs(target)) * (np.abs(x) * (1 + np.abs(target)) + np.log1p(np.exp(-np.abs(x))))
    )
    absolute = np.broadcast_to(absolute, x.shape)
    return _summed(f, bound.roundings(f, 14, absolute), absolute, reduction, 2)


def _logits(
    label: str, shape: tuple[int, ...], weight: Input | None = None, pos_weight: Input | None = None, **attributes: Any
) -> Case:
    return Case(
        op="binary_cross_entropy_with_logits",
        label=label,
        inputs=(real(*shape, scale=3.0), real(*shape, uniform=(0.0, 1.0), differentiable=False), weight, pos_weight),
        names=("weight", "pos_weight"),
        attributes=attributes,
        oracle=loss.binary_cross_entropy_with_logits,
        bound=_logits_bound,
        excused="takes a logarithm",
    )


def _gap(op: str, label: str, shape: tuple[int, ...], exact: bool = False, **attributes: Any) -> Case:
    def limit(f: bound.Format, y: Array, x: Array, target: Array, **a: Any) -> Array:
        reduction = a.pop("reduction", "mean")
        values = getattr(loss, op)(x, target, reduction="none", **a)
        return _summed(f, bound.roundings(f, 6, values), values, reduction, 2)

    return Case(
        op=op,
        label=label,
        inputs=(real(*shape), real(*shape)),
        attributes=attributes,
        oracle=getattr(loss, op),
        bound=limit,
        excused="" if exact else "divides by a count",
        batch=(0, 1) if attributes.get("reduction") == "none" else (),
    )


CASES = (
    _classes("nll_loss", "", (5, 10)),
    _classes("nll_loss", "weighted-ignored", (7, 4), weighted=True, special=-100),
    _classes("nll_loss", "images-sum", (2, 3, 4, 5), reduction="sum"),
    _classes("nll_loss", "none-ignored", (6, 9), special=2, ignore_index=2, reduction="none"),
    _classes("cross_entropy", "", (5, 10)),
    _classes("cross_entropy", "one-row", (1, 17)),
    _classes("cross_entropy", "weighted", (6, 7), weighted=True),
    _classes("cross_entropy", "smooth", (5, 10), label_smoothing=0.1),
    _classes("cross_entropy", "smooth-weighted-ignored", (9, 5), weighted=True, special=-100, label_smoothing=0.2),
    _classes("cross_entropy", "sum", (4, 33), reduction="sum"),
    _classes("cross_entropy", "none", (5, 3), reduction="none", special=1, ignore_index=1),
    _classes("cross_entropy", "none-smooth-weighted", (5, 3), reduction="none", weighted=True, label_smoothing=0.3),
    _classes("cross_entropy", "images", (2, 4, 3, 5), special=-100),
    _classes("cross_entropy", "six-axes-none", (2, 4, 3, 2, 2, 3), special=-100, reduction="none"),
    _classes("nll_loss", "six-axes", (2, 4, 3, 2, 2, 3), weighted=True),
    _classes("cross_entropy", "large", (300, 100), large=True),
    _logits("", (6, 5)),
    _logits("none", (4, 9), reduction="none"),
    _logits(
        "weighted",
        (4, 7),
        real(7, uniform=(0.5, 2.0), differentiable=False),
        real(7, uniform=(0.5, 3.0), differentiable=False),
    ),
    _logits("sum", (3, 3, 4), reduction="sum"),
    _gap("mse_loss", "", (5, 9)),
    _gap("mse_loss", "sum", (3, 17), exact=True, reduction="sum"),
    _gap("mse_loss", "none", (2, 3, 4), exact=True, reduction="none"),
    _gap("l1_loss", "", (5, 9)),
    _gap("l1_loss", "sum", (3, 17), exact=True, reduction="sum"),
    _gap("l1_loss", "none", (2, 3, 4), exact=True, reduction="none"),
    _gap("huber_loss", "", (5, 9)),
    _gap("smooth_l1_loss", "", (5, 9), beta=0.7),
    _gap("smooth_l1_loss", "sum", (4, 8), exact=True, reduction="sum", beta=0.5),
    _gap("huber_loss", "delta-sum", (4, 8), exact=True, reduction="sum", delta=0.5),
    _gap("huber_loss", "none", (2, 3, 4), exact=True, reduction="none", delta=2.0),
)
