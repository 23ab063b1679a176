"""Softmax and its logarithm."""

from __future__ import annotations

from typing import Any

from striate import _core
from striate.autograd.op import Op, functions, public, register
from striate.autograd.tensor import Tensor


def _softmax_vjp(node: Any, g: Tensor) -> tuple[Tensor]:
    return (_softmax_grad(g, node.output, dim=node.attributes["dim"]),)


def _softmax_grad_vjp(node: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None]:
    # grad_x = y·(h − Σ h·y), h the gradient that came in.
    h, y, dim = node.inputs[0], node.inputs[1], node.attributes["dim"]
    grad_y = None
    if node.needs[1]:
        total = functions["sum"]
        inner = total(h * y, dim=dim, keepdim=True)
        grad_y = g * (h - inner) - h * total(g * y, dim=dim, keepdim=True)
    return _softmax_grad(g, y, dim=dim) if node.needs[0] else None, grad_y


def _log_softmax_vjp(node: Any, g: Tensor) -> tuple[Tensor]:
    return (_log_softmax_grad(g, node.output, dim=node.attributes["dim"]),)


def _log_softmax_grad_vjp(node: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None]:
    # grad_x = h − e^y·Σ h, h the gradient that came in.
    h, y, dim = node.inputs[0], node.inputs[1], node.attributes["dim"]
    total = functions["sum"]
    p = functions["exp"](y)
    grad_h = g - total(g * p, dim=dim, keepdim=True) if node.needs[0] else None
    return grad_h, functions["neg"](g * p * total(h, dim=dim, keepdim=True)) if node.needs[1] else None


_softmax = register(Op("softmax", _core.softmax, _softmax_vjp, saves_output=True))
_softmax_grad = register(Op("softmax_grad", _core.softmax_grad, _softmax_grad_vjp, saves_inputs=(0, 1)))
_log_softmax = register(Op("log_softmax", _core.log_softmax, _log_softmax_vjp, saves_output=True))
_log_softmax_grad = register(Op("log_softmax_grad", _core.log_softmax_grad, _log_softmax_grad_vjp, saves_inputs=(0, 1)))


@public
def softmax(x: Tensor, dim: int) -> Tensor:
    """Normalise exponentials along one axis, y = eˣ / Σ eˣ.

    Parameters
    ----------
    x : Tensor, any shape
        float32 or float64.
    dim : int
        The axis of the sum.

    Returns
    -------
    Tensor, shape of x
        Channels-last when dim is the channel axis 1.

    Raises
    ------
    ShapeError
        An axis that does not exist.
    DTypeError
        Not a floating dtype to compute in.

    Notes
    -----
    The largest element is taken off first, so nothing overflows; sums are kept in float64.
    """
    return _softmax(x, dim=dim)  # type: ignore[no-any-return]


@public
def log_softmax(x: Tensor, dim: int) -> Tensor:
    """Return the logarithm of the softmax along one axis, y = x − ln Σ eˣ; arguments and errors as `softmax`."""
    return _log_softmax(x, dim=dim)  # type: ignore[no-any-return]
