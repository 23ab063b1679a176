"""Normalisation."""

from __future__ import annotations

from typing import Any

import numpy as np

from cases.case import Case, real
from oracle import bound, norm

Array = np.ndarray
DIVIDES = "divides by a standard deviation"


def _spread(v: Array | None, ndim: int, otherwise: float) -> Array | float:
    return otherwise if v is None else v.reshape(1, -1, *(1,) * (ndim - 2))


def _batch_bound(
    f: bound.Format,
    y: Any,
    x: Array,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    weight: Array | None = None,
    bias: Array | None = None,
    *,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    w, b = _spread(weight, x.ndim, 1.0), _spread(bias, x.ndim, 0.0)
    if training:
        return bound.normalised(f, x, (0, *range(2, x.ndim)), eps, w, b)
    assert running_mean is not None
    assert running_var is not None
    mean, var = _spread(running_mean, x.ndim, 0.0), _spread(running_var, x.ndim, 1.0)
    size = (np.abs(x) + np.abs(mean)) * np.abs(w) / np.sqrt(var + eps) + np.abs(b)
    return bound.roundings(f, 8, size)


def _batch(label: str, shape: tuple[int, ...], *, affine: bool = True, large: bool = False, **attributes: Any) -> Case:
    c = shape[1]
    affine_inputs = (real(c), real(c)) if affine else (None, None)
    return Case(
        op="batch_norm",
        label=label,
        inputs=(
            real(*shape),
            real(c, differentiable=False),
            real(c, uniform=(0.5, 2.0), integers=(1, 4), differentiable=False),
            *affine_inputs,
        ),
        attributes=attributes,
        oracle=norm.batch_norm,
        bound=_batch_bound,
        writes=(1, 2) if attributes["training"] else (),
        excused=DIVIDES,
        batch=() if attributes["training"] else (0,),
        meet=int(np.prod(shape)) // c if attributes["training"] else 1,
        large=large,
    )


def layer_norm_case(label: str, shape: tuple[int, ...], n_axes: int, affine: bool = True, large: bool = False) -> Case:
    """Make a layer_norm over the last axes."""
    inner = shape[-n_axes:]
    return Case(
        op="layer_norm",
        label=label,
        inputs=(real(*shape), real(*inner) if affine else None, real(*inner) if affine else None),
        attributes={"normalized_shape": inner},
        names=("weight", "bias"),
        oracle=norm.layer_norm,
        bound=lambda f, y, x, normalized_shape, weight, bias: bound.normalised(
            f, x, tuple(range(-n_axes, 0)), 1e-5, 1.0 if weight is None else weight, 0.0 if bias is None else bias
        ),
        excused=DIVIDES,
        batch=(0,),
        large=large,
        meet=int(np.prod(inner)),
    )


def _grouped_bound(f: bound.Format, x: Array, n_groups: int, weight: Array | None, bias: Array | None) -> Array:
    n, c = x.shape[:2]
    z = x.reshape(n, n_groups, c // n_groups, *x.shape[2:])
    w = np.ones(c) if weight is None else weight
    b = np.zeros(c) if bias is None else bias
    inner = (1, n_groups, c // n_groups, *(1,) * (x.ndim - 2))
    return bound.normalised(f, z, tuple(range(2, z.ndim)), 1e-5, w.reshape(inner), b.reshape(inner)).reshape(x.shape)


def _group(label: str, shape: tuple[int, ...], n_groups: int, affine: bool = True) -> Case:
    c = shape[1]
    return Case(
        op="group_norm",
        label=label,
        inputs=(real(*shape), real(c) if affine else None, real(c) if affine else None),
        attributes={"num_groups": n_groups},
        names=("weight", "bias"),
        oracle=norm.group_norm,
        bound=lambda f, y, x, num_groups, weight, bias: _grouped_bound(f, x, num_groups, weight, bias),
        excused=DIVIDES,
        batch=(0,),
        meet=int(np.prod(shape[1:])) // n_groups,
    )


def _instance(label: str, shape: tuple[int, ...], affine: bool = True) -> Case:
    c = shape[1]
    return Case(
        op="instance_norm",
        label=label,
        inputs=(real(*shape), real(c) if affine else None, real(c) if affine else None),
        names=("weight", "bias"),
        oracle=norm.instance_norm,
        bound=lambda f, y, x, weight, bias: _grouped_bound(f, x, c, weight, bias),
        excused=DIVIDES,
        batch=(0,),
        meet=int(np.prod(shape[2:])),
    )


def _local_response(label: str, shape: tuple[int, ...], **attributes: Any) -> Case:
    def limit(f: bound.Format, y: Array, x: Array, size: int, alpha: float, beta: float, k: float) -> Array:
        # The base is a sum of `size` squares, a product and a sum; the power scales its relative error, adds 2 ulp.
        return (beta * bound.gamma(f, size + 5) + bound.gamma(f, 7)) * np.abs(y) + 4 * f.tiny

    return Case(
        op="local_response_norm",
        label=label,
        inputs=(real(*shape),),
        attributes=attributes,
        oracle=norm.local_response_norm,
        bound=limit,
        excused="takes a power",
        batch=(0,),
        meet=attributes["size"],
    )


CASES = (
    _batch("training", (4, 9, 5, 6), training=True),
    _batch("training-eps", (3, 17, 3, 3), training=True, eps=0.1, momentum=0.3),
    _batch("training-plain", (8, 7), affine=False, training=True),
    _batch("training-1d", (4, 16, 11), training=True),
    _batch("training-3d", (2, 3, 3, 4, 5), training=True),
    _batch("training-large", (8, 33, 28, 28), training=True, large=True),
    _batch("eval", (2, 33, 4, 5), training=False),
    _batch("eval-plain", (5, 8), affine=False, training=False),
    _batch("eval-large", (8, 48, 28, 28), training=False, large=True),
    layer_norm_case("last", (4, 5, 33), 1),
    layer_norm_case("two", (3, 4, 7), 2),
    layer_norm_case("plain", (6, 10), 1, affine=False),
    layer_norm_case("image", (2, 8, 5, 6), 3),
    layer_norm_case("large", (200, 260), 1, large=True),
    _group("", (2, 6, 5, 4), 3),
    _group("wide", (2, 32, 4, 3), 4),
    _group("plain", (3, 8, 7), 2, affine=False),
    _group("one", (2, 9, 3, 3), 1),
    _instance("", (2, 17, 5, 6)),
    _instance("plain", (3, 4, 9), affine=False),
    _instance("3d", (2, 3, 3, 4, 3)),
    _local_response("", (2, 9, 4, 5), size=5, alpha=0.5, beta=0.75, k=2.0),
    _local_response("even", (1, 16, 3, 3), size=4, alpha=1.0, beta=0.5, k=1.0),
    _local_response("wider-than-channels", (2, 3, 4, 3), size=9, alpha=0.3, beta=0.75, k=1.0),
)
