"""Activations."""

from __future__ import annotations

import math
from typing import Any

from striate import _core
from striate.autograd.op import Op, functions, public, register
from striate.autograd.tensor import Tensor
from striate.ops.reduce import sum_to


def _relu_vjp(node: Any, g: Tensor) -> tuple[Tensor]:
    return (_relu_grad(g, node.output.detach()),)


def _relu_grad_vjp(node: Any, g: Tensor) -> tuple[Tensor | None, None]:
    return (_relu_grad(g, node.inputs[1]) if node.needs[0] else None, None)


_relu = register(Op("relu", _core.relu, _relu_vjp, saves_output=True))
_relu_grad = register(Op("relu_grad", _core.relu_grad, _relu_grad_vjp, saves_inputs=(1,)))


def _from_input(name: str, forward: Any, grad: Any) -> Op:
    """Register an activation whose gradient is grad(grad_y, x, **attributes), linear in grad_y."""

    def grad_vjp(node: Any, g: Tensor) -> tuple[Tensor | None, None]:
        if node.needs[1]:
            raise RuntimeError(
                f"{name}: expected first derivatives only, got a request for the second; piecewise linear "
                "activations, sigmoid and tanh have it"
            )
        return grad_row(g, node.inputs[1], **node.attributes), None

    def vjp(node: Any, g: Tensor) -> tuple[Tensor]:
        x = node.inputs[0]
        return (grad_row(g, x.detach() if name in _PIECEWISE else x, **node.attributes),)

    grad_row = register(Op(f"{name}_grad", grad, grad_vjp, saves_inputs=(1,)))
    return register(Op(name, forward, vjp, saves_inputs=(0,)))


#: Linear in pieces: the derivative does not depend on x where it exists.
_PIECEWISE = {"relu6", "leaky_relu", "hardsigmoid", "clip"}


def _sigmoid_vjp(node: Any, g: Tensor) -> tuple[Tensor]:
    return (_sigmoid_grad(g, node.output),)


def _sigmoid_grad_vjp(node: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None]:
    grad_y, y = node.inputs[0], node.inputs[1]
    slope = grad_y * (1.0 - y * 2.0) * g if node.needs[1] else None
    return _sigmoid_grad(g, y) if node.needs[0] else None, slope


def _tanh_vjp(node: Any, g: Tensor) -> tuple[Tensor]:
    return (_tanh_grad(g, node.output),)


def _tanh_grad_vjp(node: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None]:
    grad_y, y = node.inputs[0], node.inputs[1]
    return _tanh_grad(g, y) if node.needs[0] else None, grad_y * y * g * -2.0 if node.needs[1] else None


def _prelu_vjp(node: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None]:
    x, weight = node.inputs[0], node.inputs[1]
    grad_weight = None
    if node.needs[1]:
        grad_weight = sum_to(_prelu_grad_weight(g, x), node.shapes[1], node.dtypes[1])
    return _prelu_grad(g, x.detach(), weight) if node.needs[0] else None, grad_weight


def _no_second(node: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    raise RuntimeError(f"{node.op.name}: expected first derivatives only, got a request for the second")


_sigmoid = register(Op("sigmoid", _core.sigmoid, _sigmoid_vjp, saves_output=True))
_sigmoid_grad = register(Op("sigmoid_grad", _core.sigmoid_grad, _sigmoid_grad_vjp, saves_inputs=(0, 1)))
_tanh = register(Op("tanh", _core.tanh, _tanh_vjp, saves_output=True))
_tanh_grad = register(Op("tanh_grad", _core.tanh_grad, _tanh_grad_vjp, saves_inputs=(0, 1)))
_prelu = register(Op("prelu", _core.prelu, _prelu_vjp, saves_inputs=(0, 1)))
_prelu_grad = register(Op("prelu_grad", _core.prelu_grad, _no_second))
_prelu_grad_weight = register(Op("prelu_grad_weight", _core.prelu_grad_weight, _no_second))
_relu6 = _from_input("relu6", _core.relu6, _core.relu6_grad)
_leaky_relu = _from_input("leaky_relu", _core.leaky_relu, _core.leaky_relu_grad)
_hardswish = _from_input("hardswish", _core.hardswish, _core.hardswish_grad)
_hardsigmoid = _from_input("hardsigmoid", _core.hardsigmoid, _core.hardsigmoid_grad)
_elu = _from_input("elu", _core.elu, _core.elu_grad)
_selu = _from_input("selu", _core.selu, _core.selu_grad)
_gelu = _from_input("gelu", _core.gelu, _core.gelu_grad)
_gelu_tanh = _from_input("gelu_tanh", _core.gelu_tanh, _core.gelu_tanh_grad)
_silu = _from_input("silu", _core.silu, _core.silu_grad)
_mish = _from_input("mish", _core.mish, _core.mish_grad)
_softplus = _from_input("softplus", _core.softplus, _core.softplus_grad)
_clip = _from_input("clip", _core.clip, _core.clip_grad)


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


@public
def relu6(x: Tensor) -> Tensor:
    """Return min(max(x, 0), 6); the gradient at 0 and 6 is 0."""
    return _relu6(x)  # type: ignore[no-any-return]


@public
def leaky_relu(x: Tensor, negative_slope: float = 0.01) -> Tensor:
    """Return x where x > 0, else negative_slope · x.

    Parameters
    ----------
    x : Tensor, any shape
    negative_slope : float, default 0.01

    Returns
    -------
    Tensor, shape of x
    """
    return _leaky_relu(x, negative_slope=float(negative_slope))  # type: ignore[no-any-return]


@public
def prelu(x: Tensor, weight: Tensor) -> Tensor:
    """Return x where x > 0, else weight[c] · x, c the channel.

    Parameters
    ----------
    x : Tensor, shape (N, C, ...)
    weight : Tensor, shape (C,) or (1,)

    Returns
    -------
    Tensor, shape of x

    Raises
    ------
    ShapeError
        A weight that is neither one number nor one a channel.
    """
    n_channels = x.shape[1] if x.ndim > 1 else 1
    if weight.ndim != 1 or weight.shape[0] not in (1, n_channels):
        raise _core.ShapeError(
            f"prelu: expected a weight of shape (1,) or ({n_channels},), got {weight.shape}; pass one number or one a channel"
        )
    if weight.shape[0] > 1 and x.ndim > 2:
        weight = functions["reshape"](weight, (weight.shape[0],) + (1,) * (x.ndim - 2))
    return _prelu(x, weight)  # type: ignore[no-any-return]


@public
def elu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """Return x where x > 0, else alpha · (eˣ − 1).

    Parameters
    ----------
    x : Tensor, any shape
    alpha : float, default 1

    Returns
    -------
    Tensor, shape of x

    References
    ----------
    Clevert, Unterthiner & Hochreiter 2016, arXiv:1511.07289.
    """
    return _elu(x, alpha=float(alpha))  # type: ignore[no-any-return]


@public
def selu(x: Tensor) -> Tensor:
    """Return scale · (x where x > 0, else α(eˣ − 1)), α ≈ 1.6733 and scale ≈ 1.0507 keeping mean 0 and variance 1.

    References
    ----------
    Klambauer et al. 2017, arXiv:1706.02515, equation 14.
    """
    return _selu(x)  # type: ignore[no-any-return]


@public
def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """Return x · Φ(x), Φ the normal distribution function.

    Parameters
    ----------
    x : Tensor, any shape
    approximate : {"none", "tanh"}
        "tanh": ½x(1 + tanh(√(2/π)(x + 0.044715x³))).

    Returns
    -------
    Tensor, shape of x
        To 4 ulp, also in the far left tail.

    Raises
    ------
    ValueError
        Another value of `approximate`.

    References
    ----------
    Hendrycks & Gimpel 2016, arXiv:1606.08415.
    """
    if approximate == "none":
        return _gelu(x)  # type: ignore[no-any-return]
    if approximate == "tanh":
        return _gelu_tanh(x)  # type: ignore[no-any-return]
    raise ValueError(f"gelu: expected approximate 'none' or 'tanh', got {approximate!r}; choose one of them")


@public
def silu(x: Tensor) -> Tensor:
    """Return x · sigmoid(x), to 4 ulp."""
    return _silu(x)  # type: ignore[no-any-return]


@public
def mish(x: Tensor) -> Tensor:
    """Return x · tanh(ln(1 + eˣ)), to 4 ulp.

    References
    ----------
    Misra 2019, arXiv:1908.08681.
    """
    return _mish(x)  # type: ignore[no-any-return]


@public
def sigmoid(x: Tensor) -> Tensor:
    """Return 1 / (1 + e⁻ˣ), to 2 ulp."""
    return _sigmoid(x)  # type: ignore[no-any-return]


@public
def tanh(x: Tensor) -> Tensor:
    """Return the hyperbolic tangent, to 2 ulp."""
    return _tanh(x)  # type: ignore[no-any-return]


@public
def hardswish(x: Tensor) -> Tensor:
    """Return x · min(max(x + 3, 0), 6) / 6.

    References
    ----------
    Howard et al. 2019, arXiv:1905.02244, section 5.2.
    """
    return _hardswish(x)  # type: ignore[no-any-return]


@public
def hardsigmoid(x: Tensor) -> Tensor:
    """Return min(max(x + 3, 0), 6) / 6."""
    return _hardsigmoid(x)  # type: ignore[no-any-return]


@public
def softplus(x: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """Return ln(1 + e^{βx}) / β, and x itself where βx > threshold.

    Parameters
    ----------
    x : Tensor, any shape
    beta, threshold : float

    Returns
    -------
    Tensor, shape of x
        To 4 ulp.
    """
    return _softplus(x, beta=float(beta), threshold=float(threshold))  # type: ignore[no-any-return]


@public
def clip(x: Tensor, min: float | None = None, max: float | None = None) -> Tensor:  # torch's names
    """Return min(max(x, min), max); NaN stays NaN.

    Parameters
    ----------
    x : Tensor, any shape
    min, max : float or None
        None leaves that side open. Where both bind, max wins.

    Returns
    -------
    Tensor, shape of x
        The gradient passes where min ≤ x ≤ max.
    """
    lo = -math.inf if min is None else float(min)
    hi = math.inf if max is None else float(max)
    return _clip(x, lo=lo, hi=hi)  # type: ignore[no-any-return]
