"""Normalisation over batch, channels, groups of channels, or one map."""

from __future__ import annotations

import math
from collections.abc import Sequence

from striate import ops
from striate.autograd import Tensor
from striate.nn import init
from striate.nn.module import Module, Parameter
from striate.ops.create import DType

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
    "LayerNorm2d",
    "LocalResponseNorm",
    "Normalize",
]


class _RunningNorm(Module):
    """What batch and instance norm share: an affine map and running statistics, each optional."""

    _ranks: tuple[int, ...]
    weight: Parameter | None
    bias: Parameter | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self, num_features: int, eps: float, momentum: float | None, affine: bool, track_running_stats: bool
    ) -> None:
        if num_features < 1:
            raise ValueError(
                f"{type(self).__name__}: expected num_features of at least 1, got {num_features}; give the channels"
            )
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        self.register_parameter("weight", Parameter(ops.new_state((num_features,))) if affine else None)
        self.register_parameter("bias", Parameter(ops.new_state((num_features,))) if affine else None)
        tracks = track_running_stats
        self.register_buffer("running_mean", ops.new_state((num_features,)) if tracks else None)
        self.register_buffer("running_var", ops.new_state((num_features,)) if tracks else None)
        self.register_buffer("num_batches_tracked", ops.new_state((), dtype=DType.int64) if tracks else None)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Set the running mean to 0, the running variance to 1 and the count to 0."""
        for buffer, value in ((self.running_mean, 0), (self.running_var, 1), (self.num_batches_tracked, 0)):
            if buffer is not None:
                init.constant_(buffer, value)

    def reset_parameters(self) -> None:
        """Set weight to 1, bias to 0, and the running statistics to their start."""
        self.reset_running_stats()
        if self.weight is not None and self.bias is not None:
            init.ones_(self.weight)
            init.zeros_(self.bias)

    def _check(self, x: Tensor) -> None:
        if x.ndim not in self._ranks:
            raise ValueError(
                f"{type(self).__name__}: expected {' or '.join(map(str, self._ranks))} axes (N, C, …), got shape {x.shape}; "
                "use the layer of the right number of spatial axes"
            )

    def extra_repr(self) -> str:
        """Show the arguments."""
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}"
        )


class _BatchNorm(_RunningNorm):
    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:
        """Start from weight 1, bias 0, running mean 0 and variance 1."""
        super().__init__(num_features, eps, momentum, affine, track_running_stats)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape; in training, update the running statistics."""
        self._check(x)
        momentum = self.momentum
        count = self.num_batches_tracked
        if self.training and count is not None:
            ops.assign(count, count + 1)
            if momentum is None:  # a plain average over all batches so far
                momentum = 1.0 / count.item()
        return ops.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training=self.training or self.running_mean is None,
            momentum=0.0 if momentum is None else momentum,
            eps=self.eps,
        )


class BatchNorm1d(_BatchNorm):
    """Normalise each channel of (N, C) or (N, C, L) over the batch; see `BatchNorm2d`.

    Parameters
    ----------
    num_features : int
    eps, momentum, affine, track_running_stats
        As `BatchNorm2d`.
    """

    _ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Normalise each channel over the batch, y = (x − mean) / √(var + eps) · weight + bias.

    Parameters
    ----------
    num_features : int
        C.
    eps : float, default 1e-5
    momentum : float or None, default 0.1
        Share of the newest batch in the running statistics; None averages all batches equally.
    affine : bool, default True
        Whether to learn weight and bias.
    track_running_stats : bool, default True
        Whether `eval` mode uses statistics collected in training; otherwise always those of the batch.

    Attributes
    ----------
    weight, bias : Parameter, shape (C,), or None
        Initially 1 and 0.
    running_mean, running_var : Tensor, shape (C,), or None
        Buffers; the running variance is the unbiased one.
    num_batches_tracked : Tensor, shape (), int64, or None

    References
    ----------
    Ioffe and Szegedy, "Batch normalization", 2015, arXiv:1502.03167.
    """

    _ranks = (4,)


class BatchNorm3d(_BatchNorm):
    """Normalise each channel of (N, C, D, H, W) over the batch; see `BatchNorm2d`.

    Parameters
    ----------
    num_features : int
    eps, momentum, affine, track_running_stats
        As `BatchNorm2d`.
    """

    _ranks = (5,)


class _InstanceNorm(_RunningNorm):
    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
    ) -> None:
        """Start from weight 1, bias 0, running mean 0 and variance 1."""
        super().__init__(num_features, eps, momentum, affine, track_running_stats)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape."""
        self._check(x)
        return ops.instance_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            use_input_stats=self.training or not self.track_running_stats,
            momentum=0.0 if self.momentum is None else self.momentum,
            eps=self.eps,
        )


class InstanceNorm1d(_InstanceNorm):
    """Normalise each channel of each sample of (N, C, L); see `InstanceNorm2d`.

    Parameters
    ----------
    num_features : int
    eps, momentum, affine, track_running_stats
        As `InstanceNorm2d`.
    """

    _ranks = (3,)


class InstanceNorm2d(_InstanceNorm):
    """Normalise each channel of each sample, y = (x − mean) / √(var + eps) · weight + bias.

    Parameters
    ----------
    num_features : int
        C.
    eps : float, default 1e-5
    momentum : float, default 0.1
    affine : bool, default False
        Whether to learn weight and bias.
    track_running_stats : bool, default False
        Whether `eval` mode uses running statistics.

    References
    ----------
    Ulyanov et al., "Instance normalization", 2016, arXiv:1607.08022.
    """

    _ranks = (4,)


class InstanceNorm3d(_InstanceNorm):
    """Normalise each channel of each sample of (N, C, D, H, W); see `InstanceNorm2d`.

    Parameters
    ----------
    num_features : int
    eps, momentum, affine, track_running_stats
        As `InstanceNorm2d`.
    """

    _ranks = (5,)


class LayerNorm(Module):
    """Normalise over the last axes, y = (x − mean) / √(var + eps) · weight + bias.

    Parameters
    ----------
    normalized_shape : int or sequence of int
        Sizes of the axes to normalise over.
    eps : float, default 1e-5
    elementwise_affine : bool, default True
        Whether to learn a weight (initially 1) and bias (initially 0) of that shape.
    bias : bool, default True
        Whether there is a bias when there is a weight.

    References
    ----------
    Ba et al., "Layer normalization", 2016, arXiv:1607.06450.
    """

    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
    ) -> None:
        """Start from weight 1 and bias 0."""
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.normalized_shape = shape
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        self.register_parameter("weight", Parameter(ops.new_state(shape)) if elementwise_affine else None)
        self.register_parameter("bias", Parameter(ops.new_state(shape)) if elementwise_affine and bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set weight to 1 and bias to 0."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape."""
        return ops.layer_norm(x, self.normalized_shape, self.weight, self.bias, eps=self.eps)

    def extra_repr(self) -> str:
        """Show the arguments."""
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class LayerNorm2d(LayerNorm):
    """Normalise the channels of each pixel of (N, C, H, W); arguments and attributes as `LayerNorm`'s.

    References
    ----------
    Liu et al., "A ConvNet for the 2020s", 2022, arXiv:2201.03545, section 2.6.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape; channels lie last in memory, so both permutations are views."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class GroupNorm(Module):
    """Normalise groups of channels of each sample, y = (x − mean) / √(var + eps) · weight + bias.

    Parameters
    ----------
    num_groups, num_channels : int
        The channels are split into groups of equal size.
    eps : float, default 1e-5
    affine : bool, default True
        Whether to learn a weight (initially 1) and bias (initially 0) per channel.

    Raises
    ------
    ValueError
        Groups that do not divide the channels.

    References
    ----------
    Wu and He, "Group normalization", 2018, arXiv:1803.08494.
    """

    weight: Parameter | None
    bias: Parameter | None

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True) -> None:
        """Start from weight 1 and bias 0."""
        if num_groups < 1 or num_channels < 1 or num_channels % num_groups:
            raise ValueError(
                f"GroupNorm: expected num_channels that num_groups divides, got {num_channels} and {num_groups}; "
                f"use {math.gcd(num_groups, num_channels) or 1} groups"
            )
        self.num_groups = num_groups
        self.num_channels = num_channels
        self.eps = eps
        self.affine = affine
        self.register_parameter("weight", Parameter(ops.new_state((num_channels,))) if affine else None)
        self.register_parameter("bias", Parameter(ops.new_state((num_channels,))) if affine else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set weight to 1 and bias to 0."""
        if self.weight is not None and self.bias is not None:
            init.ones_(self.weight)
            init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape."""
        return ops.group_norm(x, self.num_groups, self.weight, self.bias, eps=self.eps)

    def extra_repr(self) -> str:
        """Show the arguments."""
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}"


class LocalResponseNorm(Module):
    """Divide by a power of the squares in neighbouring channels, y = x / (k + alpha / size · Σ x²)^beta.

    Parameters
    ----------
    size : int
        Channels in the sum.
    alpha, beta, k : float, default 1e-4, 0.75, 1

    References
    ----------
    Krizhevsky et al., "ImageNet classification with deep convolutional neural networks", NeurIPS 2012, section 3.3.
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        """Keep the arguments."""
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape."""
        return ops.local_response_norm(x, self.size, alpha=self.alpha, beta=self.beta, k=self.k)

    def extra_repr(self) -> str:
        """Show the arguments."""
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


class Normalize(Module):
    """Bring pixels to zero mean and unit variance, y = (x − mean) / std; the first layer of a network.

    Parameters
    ----------
    mean, std : float or sequence of float
        Per channel, for pixels from 0 to 1.

    Attributes
    ----------
    mean, std : Tensor, shape (C,)
        Buffers, so that a saved network brings its own.

    Raises
    ------
    ValueError
        Lengths that differ, or a std that is not positive.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: float | Sequence[float], std: float | Sequence[float]) -> None:
        """Keep mean and std as buffers."""
        means = [mean] if isinstance(mean, int | float) else list(mean)
        stds = [std] if isinstance(std, int | float) else list(std)
        if len(means) != len(stds) or not means or min(stds) <= 0:
            raise ValueError(
                f"Normalize: expected a mean and a positive std for each channel, got {means} and {stds}; check them"
            )
        self.register_buffer("mean", ops.tensor(means, dtype=DType.float32))
        self.register_buffer("std", ops.tensor(stds, dtype=DType.float32))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W), uint8 (0 to 255) or floating-point (0 to 1), to floating-point of the same shape."""
        shape = (1, self.mean.size, *(1,) * (x.ndim - 2))
        if x.ndim < 2 or self.mean.size not in (1, x.shape[1]):
            raise ValueError(
                f"Normalize: expected {self.mean.size} channels (N, C, …), got shape {x.shape}; convert the images first"
            )
        scale = self.std
        shift = self.mean / self.std
        if x.dtype == DType.uint8:
            x = x.to(self.mean.dtype)
            scale = scale * 255.0
        return x * (1.0 / scale).reshape(shape) - shift.reshape(shape)

    def extra_repr(self) -> str:
        """Show mean and std."""
        return f"mean={[round(v, 4) for v in self.mean.tolist()]}, std={[round(v, 4) for v in self.std.tolist()]}"
