"""Nonlinearities. `inplace` is accepted where torch has it and has no effect: results go to memory that is reused anyway."""

from __future__ import annotations

from typing import Literal

from striate import ops
from striate.autograd import Tensor
from striate.nn import init
from striate.nn.module import Module, Parameter

__all__ = [
    "ELU",
    "GELU",
    "SELU",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "LeakyReLU",
    "LogSoftmax",
    "Mish",
    "PReLU",
    "ReLU",
    "ReLU6",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Tanh",
]


class _InPlace(Module):
    def __init__(self, inplace: bool = False) -> None:
        """Ignore `inplace`."""


class ReLU(_InPlace):
    """Return max(x, 0)."""

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape."""
        return ops.relu(x)


class ReLU6(_InPlace):
    """Return min(max(x, 0), 6)."""

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape."""
        return ops.relu6(x)


class SELU(_InPlace):
    """Apply the scaled exponential linear unit; see `striate.ops.selu`."""

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape."""
        return ops.selu(x)


class SiLU(_InPlace):
    """Return x · sigmoid(x)."""

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape."""
        return ops.silu(x)


class Mish(_InPlace):
    """Return x · tanh(softplus(x))."""

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape."""
        return ops.mish(x)


class Hardswish(_InPlace):
    """Return x · min(max(x + 3, 0), 6) / 6."""

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape."""
        return ops.hardswish(x)


class Hardsigmoid(_InPlace):
    """Return min(max(x + 3, 0), 6) / 6."""

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape."""
        return ops.hardsigmoid(x)


class Sigmoid(Module):
    """Return 1 / (1 + exp(−x))."""

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape."""
        return ops.sigmoid(x)


class Tanh(Module):
    """Return the hyperbolic tangent."""

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape."""
        return ops.tanh(x)


class Hardtanh(Module):
    """Return min(max(x, min_val), max_val).

    Parameters
    ----------
    min_val, max_val : float, default −1, 1
    """

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> None:
        """Keep the limits."""
        self.min_val = min_val
        self.max_val = max_val

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape."""
        return ops.clip(x, self.min_val, self.max_val)

    def extra_repr(self) -> str:
        """Show the limits."""
        return f"min_val={self.min_val}, max_val={self.max_val}"


class LeakyReLU(Module):
    """Return x, or negative_slope · x below zero.

    Parameters
    ----------
    negative_slope : float, default 0.01
    """

    def __init__(self, negative_slope: float = 1e-2, inplace: bool = False) -> None:
        """Keep the slope."""
        self.negative_slope = negative_slope

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape."""
        return ops.leaky_relu(x, negative_slope=self.negative_slope)

    def extra_repr(self) -> str:
        """Show the slope."""
        return f"negative_slope={self.negative_slope}"


class PReLU(Module):
    """Return x, or weight · x below zero, with a learned slope.

    Parameters
    ----------
    num_parameters : int, default 1
        One slope for all channels, or one each.
    init : float, default 0.25

    References
    ----------
    He et al., "Delving deep into rectifiers", 2015, arXiv:1502.01852.
    """

    weight: Parameter

    def __init__(self, num_parameters: int = 1, init: float = 0.25) -> None:
        """Start from slopes of `init`."""
        self.num_parameters = num_parameters
        self.init = init
        self.weight = Parameter(ops.new_state((num_parameters,)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the slopes to their initial value."""
        init.constant_(self.weight, self.init)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape."""
        return ops.prelu(x, self.weight)

    def extra_repr(self) -> str:
        """Show the number of slopes."""
        return f"num_parameters={self.num_parameters}"


class ELU(Module):
    """Return x, or alpha · (exp(x) − 1) below zero.

    Parameters
    ----------
    alpha : float, default 1
    """

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        """Keep alpha."""
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape."""
        return ops.elu(x, alpha=self.alpha)

    def extra_repr(self) -> str:
        """Show alpha."""
        return f"alpha={self.alpha}"


class GELU(Module):
    """Return x · Φ(x), Φ the normal distribution function.

    Parameters
    ----------
    approximate : {"none", "tanh"}
    """

    def __init__(self, approximate: Literal["none", "tanh"] = "none") -> None:
        """Check the word."""
        if approximate not in ("none", "tanh"):
            raise ValueError(f"GELU: expected approximate 'none' or 'tanh', got {approximate!r}; use one of these")
        self.approximate: Literal["none", "tanh"] = approximate

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape."""
        return ops.gelu(x, approximate=self.approximate)

    def extra_repr(self) -> str:
        """Show the approximation."""
        return f"approximate={self.approximate!r}"


class Softplus(Module):
    """Return log(1 + exp(beta · x)) / beta; x itself where beta · x exceeds the threshold.

    Parameters
    ----------
    beta : float, default 1
    threshold : float, default 20
    """

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        """Keep the arguments."""
        self.beta = beta
        self.threshold = threshold

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape."""
        return ops.softplus(x, beta=self.beta, threshold=self.threshold)

    def extra_repr(self) -> str:
        """Show the arguments."""
        return f"beta={self.beta}, threshold={self.threshold}"


class _OverAxis(Module):
    def __init__(self, dim: int) -> None:
        """Keep the axis, which must be named."""
        self.dim = dim

    def extra_repr(self) -> str:
        """Show the axis."""
        return f"dim={self.dim}"


class Softmax(_OverAxis):
    """Return exp(x) / Σ exp(x) over one axis.

    Parameters
    ----------
    dim : int
    """

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape."""
        return ops.softmax(x, dim=self.dim)


class LogSoftmax(_OverAxis):
    """Return the logarithm of the softmax over one axis.

    Parameters
    ----------
    dim : int
    """

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape."""
        return ops.log_softmax(x, dim=self.dim)
