"""Optimizer steps: all parameters in one pass over memory, changed in place.

Each call updates parameters and states and raises their versions; nothing is recorded for gradients. In a recording each
parameter's step is a pure operator whose results are assigned. `striate.train.optim` holds the hyper-parameters and states.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from striate import _core
from striate.autograd import tape
from striate.autograd.record import RecordError
from striate.autograd.tensor import Tensor
from striate.ops.state import Update

Tensors = Sequence[Tensor]


def _arrays(tensors: Tensors) -> list[Any]:
    return [x._array for x in tensors]


def _step(kernel: Callable[..., None], n_state_lists: int) -> Callable[..., None]:
    """Return the step of one parameter as an Update wants it; `held` says which kinds of state are given."""

    def step(param: Any, *arrays: Any, held: Sequence[bool], **attributes: Any) -> None:
        *states, grad = arrays
        given = iter(states)
        lists = [[next(given)] if is_held else [] for is_held in held]
        assert len(lists) == n_state_lists
        kernel([param], [grad], *lists, **attributes)

    return step


_sgd_step = Update("sgd_step", _step(_core.sgd, 1))
_adam_step = Update("adam_step", _step(_core.adam, 3))
_rmsprop_step = Update("rmsprop_step", _step(_core.rmsprop, 3))


def _run(
    kernel: Callable[..., None],
    step: Update,
    params: Tensors,
    grads: Tensors,
    states: Sequence[Tensors],
    attributes: dict[str, Any],
) -> None:
    """Run the kernel on all parameters at once, or record a step for each."""
    if tape.recorder() is None:
        numbers = {name: v.item() if isinstance(v, Tensor) else v for name, v in attributes.items()}
        kernel(_arrays(params), _arrays(grads), *[_arrays(kind) for kind in states], **numbers)
        return
    held = tuple([len(kind) > 0 for kind in states])
    for i, (param, grad) in enumerate(zip(params, grads, strict=True)):
        step((param, *[kind[i] for kind in states if len(kind) > 0]), (grad,), held=held, **attributes)


def sgd(
    params: Tensors,
    grads: Tensors,
    moments: Tensors = (),
    *,
    lr: float | Tensor,
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
    lr : float or Tensor of no axes
        Step size; a tensor is a run-time number in a recording.
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
    attributes = {
        "lr": lr,
        "momentum": momentum,
        "dampening": dampening,
        "weight_decay": weight_decay,
        "nesterov": nesterov,
        "maximize": maximize,
        "is_first": is_first,
    }
    _run(_core.sgd, _sgd_step, params, grads, [moments], attributes)


def adam(
    params: Tensors,
    grads: Tensors,
    means: Tensors,
    squares: Tensors,
    largest: Tensors = (),
    *,
    n_steps: int | Tensor,
    lr: float | Tensor = 1e-3,
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
    n_steps: int | Tensor,
    lr: float | Tensor = 1e-3,
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
    n_steps: int | Tensor,
    lr: float | Tensor,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    maximize: bool,
    is_decoupled: bool,
) -> None:
    if tape.recorder() is not None and not isinstance(n_steps, Tensor):
        raise RecordError(
            f"adam: expected n_steps as a tensor while recording, got {n_steps}; the number of steps is a state that grows "
            "with every call"
        )
    attributes = {
        "lr": lr,
        "beta1": betas[0],
        "beta2": betas[1],
        "eps": eps,
        "weight_decay": weight_decay,
        "is_decoupled": is_decoupled,
        "maximize": maximize,
        "n_steps": n_steps,
    }
    _run(_core.adam, _adam_step, params, grads, [means, squares, largest], attributes)


def rmsprop(
    params: Tensors,
    grads: Tensors,
    squares: Tensors,
    means: Tensors = (),
    moments: Tensors = (),
    *,
    lr: float | Tensor = 1e-2,
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
    attributes = {
        "lr": lr,
        "alpha": alpha,
        "eps": eps,
        "weight_decay": weight_decay,
        "momentum": momentum,
        "maximize": maximize,
    }
    _run(_core.rmsprop, _rmsprop_step, params, grads, [squares, means, moments], attributes)
