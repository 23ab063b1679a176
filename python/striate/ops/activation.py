"""Activations."""

from __future__ import annotations

from typing import Any

from striate import _core
from striate.autograd.op import Op, public, register
from striate.autograd.tensor import Tensor


def _relu_vjp(node: Any, g: Tensor) -> tuple[Tensor]:
    return (_relu_grad(g, node.output.detach()),)


def _relu_grad_vjp(node: Any, g: Tensor) -> tuple[Tensor | None, None]:
    return (_relu_grad(g, node.inputs[1]) if node.needs[0] else None, None)


_relu = register(Op("relu", _core.relu, _relu_vjp, saves_output=True))
_relu_grad = register(Op("relu_grad", _core.relu_grad, _relu_grad_vjp, saves_inputs=(1,)))


@public
def relu(x: Tensor) -> Tensor:
    """Return max(x, 0); NaN stays NaN.

    Parameters
    ----------
    x : Tensor, any shape

    Returns
    -------
    Tensor, shape of x

    Notes
    -----
    The gradient is that of y where y > 0, and 0 at 0; only the output is kept for it.
    """
    return _relu(x)  # type: ignore[no-any-return]
