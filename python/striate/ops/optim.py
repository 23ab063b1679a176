"""Optimizer steps: all parameters in one pass over memory, changed in place.

Each call updates parameters and states and raises their versions; nothing is recorded. `striate.train.optim` holds the
hyper-parameters and the states.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from striate import _core
from striate.autograd.tensor import Tensor

Tensors = Sequence[Tensor]


def _arrays(tensors: Tensors) -> list[Any]:
    return [x._array for x in tensors]


def sgd(
    params: Tensors,
    grads: Tensors,
    moments: Tensors = (),
    *,
    lr: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    maximize: bool = False,
    is_first: bool = False,
) -> None:
    """Take a step of gradient descent with momentum, in place.

    g ← grad + weight_decay · param; m ← momentum · m + (1 − dampening) · g; param ← param − lr · m
    (Nesterov: param − lr · (g + momentum · m); without momentum: param − lr · g).

    Parameters
    ----------
    params : sequence of Tensor
        float32 or float64, dense.
    grads : sequence of Tensor
        One per parameter, of its shape and dtype, in any layout.
    moments : sequence of Tensor
        One per parameter, made by `zeros_like`; not used when momentum=0.
    lr : float
        Step size.
    momentum, dampening, weight_decay : float
    nesterov : bool
    maximize : bool
        Go up the gradient instead of down.
    is_first : bool
        Set m ← g, whatever the moments hold (the first step of torch's SGD, which dampening leaves alone).

    Raises
    ------
    ShapeError, DTypeError
        A gradient or state unlike its parameter.
    ValueError
        Lists of different lengths, read-only memory, a parameter with gaps, or states in another order of axes.
    """
    _core.sgd(
        _arrays(params),
        _arrays(grads),
        _arrays(moments),
        lr=lr,
        momentum=momentum,
        dampening=dampening,
        weight_decay=weight_decay,
        nesterov=nesterov,
        maximize=maximize,
        is_first=is_first,
    )


def adam(
    params: Tensors,
    grads: Tensors,
    means: Tensors,
    squares: Tensors,
    largest: Tensors = (),
    *,
    n_steps: int,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    maximize: bool = False,
) -> None:
    """Take a step of Adam, in place.

    g ← grad + weight_decay · param; m ← β₁ m + (1 − β₁) g; v ← β₂ v + (1 − β₂) g²;
    param ← param − lr / (1 − β₁ᵗ) · m / (√v / √(1 − β₂ᵗ) + eps).

    Parameters
    ----------
    params, grads : sequence of Tensor
        As in `sgd`.
    means, squares : sequence of Tensor
        m and v, one per parameter, made by `zeros_like`.
    largest : sequence of Tensor
        The largest v so far, for AMSGrad; empty for plain Adam.
    n_steps : int
        t, steps taken including this one.
    lr : float
    betas : tuple of float
        (β₁, β₂)
    eps : float
    weight_decay : float
        Joins the gradient; see `adamw` for decoupled decay.
    maximize : bool

    Raises
    ------
    ShapeError, DTypeError, ValueError
        As in `sgd`.

    References
    ----------
    Kingma & Ba 2015, arXiv:1412.6980, algorithm 1; Reddi et al. 2018, arXiv:1904.09237 (AMSGrad).
    """
    _adam(params, grads, means, squares, largest, n_steps, lr, betas, eps, weight_decay, maximize, False)


def adamw(
    params: Tensors,
    grads: Tensors,
    means: Tensors,
    squares: Tensors,
    largest: Tensors = (),
    *,
    n_steps: int,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    maximize: bool = False,
) -> None:
    """Take a step of Adam with decoupled weight decay, param ← (1 − lr · weight_decay) · param first; else as `adam`.

    References
    ----------
    Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2.
    """
    _adam(params, grads, means, squares, largest, n_steps, lr, betas, eps, weight_decay, maximize, True)


def _adam(
    params: Tensors,
    grads: Tensors,
    means: Tensors,
    squares: Tensors,
    largest: Tensors,
    n_steps: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    maximize: bool,
    is_decoupled: bool,
) -> None:
    _core.adam(
        _arrays(params),
        _arrays(grads),
        _arrays(means),
        _arrays(squares),
        _arrays(largest),
        lr=lr,
        beta1=betas[0],
        beta2=betas[1],
        eps=eps,
        weight_decay=weight_decay,
        is_decoupled=is_decoupled,
        maximize=maximize,
        n_steps=n_steps,
    )


def rmsprop(
    params: Tensors,
    grads: Tensors,
    squares: Tensors,
    means: Tensors = (),
    moments: Tensors = (),
    *,
    lr: float = 1e-2,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    maximize: bool = False,
) -> None:
    """Take a step of RMSprop, in place.

    g ← grad + weight_decay · param; s ← α s + (1 − α) g²; u = g / (√s + eps), centered with s − a² for s, a the running
    mean of g; param ← param − lr · u, or with momentum m ← momentum · m + u; param ← param − lr · m.

    Parameters
    ----------
    params, grads : sequence of Tensor
        As in `sgd`.
    squares : sequence of Tensor
        s, one per parameter, made by `zeros_like`.
    means : sequence of Tensor
        a, for the centered form; empty otherwise.
    moments : sequence of Tensor
        m; not used when momentum=0.
    lr, alpha, eps, weight_decay, momentum : float
    maximize : bool

    Raises
    ------
    ShapeError, DTypeError, ValueError
        As in `sgd`.

    References
    ----------
    Hinton 2012, Neural Networks for Machine Learning, lecture 6e; Graves 2013, arXiv:1308.0850 (centered).
    """
    _core.rmsprop(
        _arrays(params),
        _arrays(grads),
        _arrays(squares),
        _arrays(means),
        _arrays(moments),
        lr=lr,
        alpha=alpha,
        eps=eps,
        weight_decay=weight_decay,
        momentum=momentum,
        maximize=maximize,
    )
