"""Initial values of parameters, torch's distributions.

Every function overwrites its tensor in place and returns it; values depend on the generator and the shape only, not on how
the tensor is stored.

References
----------
Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks", AISTATS 2010.
He et al., "Delving deep into rectifiers", 2015, arXiv:1502.01852.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from striate import ops
from striate.autograd import Tensor, no_grad
from striate.ops.create import DType

if TYPE_CHECKING:
    from striate.ops import Generator

__all__ = [
    "calculate_fan_in_and_fan_out",
    "calculate_gain",
    "constant_",
    "kaiming_normal_",
    "kaiming_uniform_",
    "normal_",
    "ones_",
    "trunc_normal_",
    "uniform_",
    "xavier_normal_",
    "xavier_uniform_",
    "zeros_",
]

Mode = Literal["fan_in", "fan_out"]


def calculate_fan_in_and_fan_out(tensor: Tensor) -> tuple[int, int]:
    """Return the number of inputs and of outputs that one value of a layer with this weight (O, I, *kernel) touches.

    Raises
    ------
    ValueError
        A tensor of fewer than two axes.
    """
    if tensor.ndim < 2:
        raise ValueError(
            f"init: expected a weight of at least 2 axes (O, I, …), got shape {tensor.shape}; use uniform_ or normal_"
        )
    taps = math.prod(tensor.shape[2:])
    return tensor.shape[1] * taps, tensor.shape[0] * taps


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """Return the factor that keeps the variance of signals through a nonlinearity.

    Parameters
    ----------
    nonlinearity : {"linear", "conv1d", …, "sigmoid", "tanh", "relu", "leaky_relu", "selu"}
    param : float, optional
        Negative slope of leaky_relu, default 0.01.

    Raises
    ------
    ValueError
        Another nonlinearity.
    """
    linear = (
        "linear",
        "conv1d",
        "conv2d",
        "conv3d",
        "conv_transpose1d",
        "conv_transpose2d",
        "conv_transpose3d",
        "sigmoid",
    )
    if nonlinearity in linear:
        return 1.0
    if nonlinearity == "tanh":
        return 5.0 / 3
    if nonlinearity == "relu":
        return math.sqrt(2.0)
    if nonlinearity == "leaky_relu":
        return math.sqrt(2.0 / (1 + (0.01 if param is None else param) ** 2))
    if nonlinearity == "selu":
        return 0.75
    raise ValueError(
        f"calculate_gain: expected a nonlinearity of {', '.join(linear)}, tanh, relu, leaky_relu or selu, got {nonlinearity!r}; "
        "scale the tensor yourself"
    )


def _assign(tensor: Tensor, value: Tensor) -> Tensor:
    ops.assign(tensor, value if value.dtype == tensor.dtype else value.to(tensor.dtype))
    return tensor


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Fill with U(a, b)."""
    with no_grad():
        return _assign(tensor, ops.rand(tensor.shape, generator=generator) * (b - a) + a)


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Fill with N(mean, std²)."""
    with no_grad():
        return _assign(tensor, ops.randn(tensor.shape, generator=generator) * std + mean)


def trunc_normal_(
    tensor: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: Generator | None = None,
) -> Tensor:
    """Fill with N(mean, std²), drawing again what falls outside [a, b].

    Raises
    ------
    ValueError
        Bounds more than 2 standard deviations away from the mean on the same side, or an empty interval: too many draws.
    """
    if not a < b or (a - mean) / std > 2 or (b - mean) / std < -2:
        raise ValueError(
            f"trunc_normal_: expected bounds around or near the mean, got [{a}, {b}] for mean {mean} and std {std}; "
            "use bounds within 2 standard deviations"
        )
    with no_grad():
        value = ops.randn(tensor.shape, generator=generator) * std + mean
        while True:
            is_outside = ops.logical_or(value < a, value > b)
            if tensor.size == 0 or not is_outside.to(DType.int64).sum().item():
                return _assign(tensor, value)
            value = ops.where(is_outside, ops.randn(tensor.shape, generator=generator) * std + mean, value)


def constant_(tensor: Tensor, val: float) -> Tensor:
    """Fill with one value."""
    return _assign(tensor, ops.full_like(tensor.detach(), val))


def zeros_(tensor: Tensor) -> Tensor:
    """Fill with 0."""
    return constant_(tensor, 0)


def ones_(tensor: Tensor) -> Tensor:
    """Fill with 1."""
    return constant_(tensor, 1)


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Fill with U(−a, a), a = gain · √(6 / (fan_in + fan_out))."""
    fan_in, fan_out = calculate_fan_in_and_fan_out(tensor)
    bound = gain * math.sqrt(6.0 / max(fan_in + fan_out, 1))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Fill with N(0, std²), std = gain · √(2 / (fan_in + fan_out))."""
    fan_in, fan_out = calculate_fan_in_and_fan_out(tensor)
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / max(fan_in + fan_out, 1)), generator)


def _kaiming_std(tensor: Tensor, a: float, mode: Mode, nonlinearity: str) -> float:
    fan_in, fan_out = calculate_fan_in_and_fan_out(tensor)
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"kaiming: expected mode 'fan_in' or 'fan_out', got {mode!r}; choose one")
    fan = fan_in if mode == "fan_in" else fan_out
    return calculate_gain(nonlinearity, a) / math.sqrt(max(fan, 1))


def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0,
    mode: Mode = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """Fill with U(−b, b), b = gain · √(3 / fan).

    Parameters
    ----------
    tensor : Tensor, shape (O, I, *kernel)
    a : float, default 0
        Negative slope of the leaky_relu that follows.
    mode : {"fan_in", "fan_out"}
        Whether signals keep their variance forward or backward.
    nonlinearity : str
        See `calculate_gain`.
    generator : Generator, optional
    """
    bound = math.sqrt(3.0) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor,
    a: float = 0,
    mode: Mode = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """Fill with N(0, std²), std = gain / √fan; arguments as `kaiming_uniform_`."""
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity), generator)
