"""Layers without geometry: linear maps, dropout, stochastic depth."""

from __future__ import annotations

import math
from typing import Literal

from striate import ops
from striate.autograd import Tensor
from striate.nn import init
from striate.nn.module import Module, Parameter

__all__ = ["Dropout", "Dropout2d", "Linear", "StochasticDepth"]


class Linear(Module):
    """Map the last axis linearly, y = x · weightᵀ + bias.

    Parameters
    ----------
    in_features, out_features : int
        I and O.
    bias : bool, default True

    Attributes
    ----------
    weight : Parameter, shape (O, I)
        Initially U(−b, b), b = 1 / √I.
    bias : Parameter, shape (O,), or None
        Initially from the same distribution.

    Raises
    ------
    ValueError
        A size below 1.
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        """Check the sizes and draw the parameters."""
        if in_features < 1 or out_features < 1:
            raise ValueError(
                f"Linear: expected sizes of at least 1, got {in_features} and {out_features}; check the shapes"
            )
        self.in_features = in_features
        self.out_features = out_features
        self.weight = Parameter(ops.new_state((out_features, in_features)))
        self.register_parameter("bias", Parameter(ops.new_state((out_features,))) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias from U(−b, b), b = 1 / √I, torch's default."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            init.uniform_(self.bias, -1 / math.sqrt(self.in_features), 1 / math.sqrt(self.in_features))

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, I) to (…, O)."""
        return ops.linear(x, self.weight, self.bias)

    def count_macs(self, x: Tensor, y: Tensor) -> int:
        """Return output elements · I."""
        return y.size * self.in_features

    def extra_repr(self) -> str:
        """Show the sizes."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class _Dropout(Module):
    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        """Check the probability."""
        if not 0 <= p <= 1:
            raise ValueError(f"{type(self).__name__}: expected a probability p from 0 to 1, got {p}; pass a fraction")
        self.p = p

    def extra_repr(self) -> str:
        """Show the probability."""
        return f"p={self.p}"


class Dropout(_Dropout):
    """Set elements to zero at random in training, and scale the others by 1 / (1 − p).

    Parameters
    ----------
    p : float, default 0.5
        Probability of zero.
    inplace : bool
        Accepted for torch's sake; without effect.

    References
    ----------
    Hinton et al., "Improving neural networks by preventing co-adaptation of feature detectors", 2012, arXiv:1207.0580.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape."""
        return ops.dropout(x, p=self.p, training=self.training)


class Dropout2d(_Dropout):
    """Set whole channels of (N, C, H, W) to zero at random in training, and scale the others by 1 / (1 − p).

    Parameters
    ----------
    p : float, default 0.5
        Probability of zero.
    inplace : bool
        Accepted for torch's sake; without effect.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape."""
        return ops.dropout2d(x, p=self.p, training=self.training)


class StochasticDepth(Module):
    """Set whole samples to zero at random in training, and scale the others by 1 / (1 − p).

    It ends the branch of a residual block, which then passes its input alone.

    Parameters
    ----------
    p : float
        Probability of zero.
    mode : {"row", "batch"}, default "row"
        Whether each sample is drawn by itself, or one draw decides for all.

    Raises
    ------
    ValueError
        A probability outside [0, 1], or another mode.

    References
    ----------
    Huang et al., "Deep networks with stochastic depth", 2016, arXiv:1603.09382.
    """

    def __init__(self, p: float, mode: Literal["row", "batch"] = "row") -> None:
        """Check the probability and the mode."""
        if not 0 <= p <= 1:
            raise ValueError(f"StochasticDepth: expected a probability p from 0 to 1, got {p}; pass a fraction")
        if mode not in ("row", "batch"):
            raise ValueError(f"StochasticDepth: expected mode 'row' or 'batch', got {mode!r}; choose one")
        self.p = p
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape."""
        if not self.training or self.p == 0:
            return x
        one = x.detach()  # an element a draw, of which only the size counts
        for dim in range(0 if self.mode == "batch" else 1, x.ndim):
            one = ops.narrow(one, dim, 0, 1)
        return x * ops.dropout(ops.ones_like(one), p=self.p)

    def extra_repr(self) -> str:
        """Show the arguments."""
        return f"p={self.p}, mode={self.mode}"
