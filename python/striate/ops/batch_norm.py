"""Batch normalisation, in training and in evaluation."""

from __future__ import annotations

from typing import Any

from striate import _core
from striate.autograd.op import Op, first_order_only, public, register
from striate.autograd.tape import Node
from striate.autograd.tensor import Tensor
from striate.ops.state import Update

_grad = register(Op("batch_norm_grad", _core.batch_norm_grad, first_order_only("batch_norm_grad")))


def _training_vjp(node: Node, grad_y: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = node.inputs[0], node.inputs[1] if node.shapes[1] is not None else None
    eps = node.attributes["eps"]
    return _grad(grad_y, x, weight, node.results[1].detach(), node.results[2].detach(), eps=eps, training=True)  # type: ignore[no-any-return]


def _eval_vjp(node: Node, grad_y: Tensor) -> tuple[Tensor | None, ...]:
    x, mean, var = node.inputs[0], node.inputs[1], node.inputs[2]
    weight = node.inputs[3] if node.shapes[3] is not None else None
    if node.needs[1] or node.needs[2]:
        raise RuntimeError(
            "batch_norm: expected running statistics without gradient, got one that requires grad; detach() them"
        )
    grad_x, grad_weight, grad_bias = _grad(grad_y, x, weight, mean, var, eps=node.attributes["eps"], training=False)
    return grad_x, None, None, grad_weight, grad_bias


_training = register(
    Op("batch_norm_training", _core.batch_norm_training, _training_vjp, saves_inputs=(0, 1), saves_results=(1, 2))
)


def _move(running_mean: Any, running_var: Any, mean: Any, var: Any, *, n_values: int, momentum: float) -> None:
    _core.batch_norm_update(running_mean, running_var, mean, var, n_values, momentum)


_update = Update("batch_norm_update", _move)
_eval = register(Op("batch_norm_eval", _core.batch_norm_eval, _eval_vjp, saves_inputs=(0, 1, 2, 3)))


@public
def batch_norm(
    x: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise each channel by its mean and variance over the batch, or by running ones.

    y[n,c,…] = (x[n,c,…] − mean[c]) / √(var[c] + eps) · weight[c] + bias[c]

    Parameters
    ----------
    x : Tensor, shape (N, C) or (N, C, *spatial)
    running_mean, running_var : Tensor, shape (C,), optional
        The statistics used in evaluation. In training they are changed in place to
        (1 − momentum)·running + momentum·batch, with the unbiased variance of the batch.
    weight, bias : Tensor, shape (C,), optional
        1 and 0 when not given.
    training : bool, default False
        Normalise by the batch's own mean and biased variance.
    momentum : float, default 0.1
        Share of the batch in the running statistics.
    eps : float, default 1e-5
        Added to the variance.

    Returns
    -------
    Tensor, shape of x

    Raises
    ------
    ShapeError
        Statistics, weight or bias that do not fit the channels, or a single value per channel in training.
    DTypeError
        x of a dtype other than float32 or float64, or the others of another dtype than x.

    Notes
    -----
    Means and squared deviations of blocks that fit the cache are merged in a tree fixed by the shape, so a large mean
    costs no accuracy and results are equal to the bit for any number of threads. Forward and backward go over memory
    twice each. There is no second derivative.

    References
    ----------
    Ioffe and Szegedy 2015, arXiv:1502.03167, algorithms 1 and 2. Chan, Golub and LeVeque 1983, "Algorithms for computing
    the sample variance", eq. 2.1.

    Examples
    --------
    >>> import striate
    >>> striate.batch_norm(striate.tensor([[0.0], [2.0]]), training=True, eps=0.0).numpy().tolist()
    [[-1.0], [1.0]]
    """
    if training or running_mean is None or running_var is None:
        y, mean, var = _training(x, weight, bias, eps=eps)
        if training and running_mean is not None and running_var is not None:
            n_values = x.size // max(x.shape[1], 1)
            _update((running_mean, running_var), (mean, var), n_values=n_values, momentum=momentum)
        return y  # type: ignore[no-any-return]
    return _eval(x, running_mean, running_var, weight, bias, eps=eps)  # type: ignore[no-any-return]
