"""What training makes small."""

from __future__ import annotations

from typing import Literal

from striate import ops
from striate.autograd import Tensor
from striate.nn.module import Module

__all__ = ["BCEWithLogitsLoss", "CrossEntropyLoss", "HuberLoss", "L1Loss", "MSELoss", "NLLLoss"]

Reduction = Literal["mean", "sum", "none"]


class _Loss(Module):
    def __init__(self, reduction: Reduction = "mean") -> None:
        """Check the reduction."""
        if reduction not in ("mean", "sum", "none"):
            raise ValueError(
                f"{type(self).__name__}: expected reduction 'mean', 'sum' or 'none', got {reduction!r}; use one of these"
            )
        self.reduction: Reduction = reduction

    def extra_repr(self) -> str:
        """Show a reduction other than the mean."""
        return "" if self.reduction == "mean" else f"reduction={self.reduction!r}"


class CrossEntropyLoss(_Loss):
    """Softmax and negative log-likelihood of the true class; see `striate.ops.cross_entropy`.

    Parameters
    ----------
    weight : Tensor, shape (C,), optional
        Weight of each class.
    ignore_index : int, default −100
        Targets of this value do not count.
    reduction : {"mean", "sum", "none"}
        The mean is over weights, torch's.
    label_smoothing : float, default 0
        Share of the target spread evenly over all classes.
    """

    weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        *,
        ignore_index: int = -100,
        reduction: Reduction = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        """Check the arguments."""
        super().__init__(reduction)
        if not 0 <= label_smoothing <= 1:
            raise ValueError(
                f"CrossEntropyLoss: expected label_smoothing from 0 to 1, got {label_smoothing}; pass a fraction"
            )
        self.register_buffer("weight", weight)
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """Map scores (N, C, …) and classes (N, …) to a number."""
        return ops.cross_entropy(
            x,
            target,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )


class NLLLoss(_Loss):
    """Negative log-likelihood of the true class, given log-probabilities.

    Parameters
    ----------
    weight : Tensor, shape (C,), optional
    ignore_index : int, default −100
    reduction : {"mean", "sum", "none"}
    """

    weight: Tensor | None

    def __init__(
        self, weight: Tensor | None = None, *, ignore_index: int = -100, reduction: Reduction = "mean"
    ) -> None:
        """Keep the arguments."""
        super().__init__(reduction)
        self.register_buffer("weight", weight)
        self.ignore_index = ignore_index

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """Map log-probabilities (N, C, …) and classes (N, …) to a number."""
        return ops.nll_loss(x, target, weight=self.weight, ignore_index=self.ignore_index, reduction=self.reduction)


class BCEWithLogitsLoss(_Loss):
    """Binary cross-entropy of scores, with the sigmoid inside.

    Parameters
    ----------
    weight : Tensor, optional
        Of each element, broadcast.
    reduction : {"mean", "sum", "none"}
    pos_weight : Tensor, optional
        Weight of positive targets, broadcast.
    """

    weight: Tensor | None
    pos_weight: Tensor | None

    def __init__(
        self, weight: Tensor | None = None, *, reduction: Reduction = "mean", pos_weight: Tensor | None = None
    ) -> None:
        """Keep the arguments."""
        super().__init__(reduction)
        self.register_buffer("weight", weight)
        self.register_buffer("pos_weight", pos_weight)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """Map scores and targets (from 0 to 1) of one shape to a number."""
        return ops.binary_cross_entropy_with_logits(
            x, target, weight=self.weight, pos_weight=self.pos_weight, reduction=self.reduction
        )


class MSELoss(_Loss):
    """Mean of (x − target)².

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
    """

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """Map two tensors of one shape to a number."""
        return ops.mse_loss(x, target, reduction=self.reduction)


class L1Loss(_Loss):
    """Mean of |x − target|.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
    """

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """Map two tensors of one shape to a number."""
        return ops.l1_loss(x, target, reduction=self.reduction)


class HuberLoss(_Loss):
    """Mean of d² / 2 up to |d| = delta, of delta · (|d| − delta / 2) beyond, d = x − target.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
    delta : float, default 1
    """

    def __init__(self, reduction: Reduction = "mean", delta: float = 1.0) -> None:
        """Keep the arguments."""
        super().__init__(reduction)
        self.delta = delta

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """Map two tensors of one shape to a number."""
        return ops.huber_loss(x, target, delta=self.delta, reduction=self.reduction)
