"""Small groups of layers that many networks repeat, with torchvision's names and keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from striate.autograd import Tensor
from striate.nn.activation import ReLU, Sigmoid
from striate.nn.container import Sequential
from striate.nn.conv import Conv2d, per_axis
from striate.nn.module import Module
from striate.nn.norm import BatchNorm2d
from striate.nn.pool import AdaptiveAvgPool2d

__all__ = ["Conv2dNormActivation", "SqueezeExcitation"]


class Conv2dNormActivation(Sequential):
    """A convolution, a normalisation of its channels, a nonlinearity: parts "0", "1" and "2", as torchvision's.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size, stride : int or (int, int), default 3, 1
    padding : int or (int, int), optional
        By default (kernel_size − 1) // 2 · dilation: an odd kernel of stride 1 keeps the size.
    groups : int, default 1
    norm_layer : callable of the channels, optional, default BatchNorm2d
        None leaves it out.
    activation_layer : callable, optional, default ReLU
        None leaves it out.
    dilation : int or (int, int), default 1
    bias : bool, optional
        By default only where there is no normalisation, which has a bias of its own.

    Attributes
    ----------
    out_channels : int
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int] = 3,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] | None = None,
        groups: int = 1,
        norm_layer: Callable[[int], Module] | None = BatchNorm2d,
        activation_layer: Callable[[], Module] | None = ReLU,
        dilation: int | Sequence[int] = 1,
        bias: bool | None = None,
    ) -> None:
        """Make the layers that are asked for."""
        if padding is None:
            sizes = per_axis("Conv2dNormActivation", "kernel_size", kernel_size, 2, 1)
            steps = per_axis("Conv2dNormActivation", "dilation", dilation, 2, 1)
            padding = [(n - 1) // 2 * step for n, step in zip(sizes, steps, strict=True)]
        layers: list[Module] = [
            Conv2d(
                in_channels,
                out_channels,
                kernel_size,
                stride,
                padding,
                dilation,
                groups,
                bias=norm_layer is None if bias is None else bias,
            )
        ]
        if norm_layer is not None:
            layers.append(norm_layer(out_channels))
        if activation_layer is not None:
            layers.append(activation_layer())
        super().__init__(*layers)
        self.out_channels = out_channels


class SqueezeExcitation(Module):
    """Scale each channel by a number from 0 to 1 that the means of all channels decide.

    y = x · σ(fc2(δ(fc1(mean of x over H and W))))

    Parameters
    ----------
    input_channels : int
        C.
    squeeze_channels : int
        Channels between fc1 and fc2.
    activation : callable, default ReLU
        Makes δ.
    scale_activation : callable, default Sigmoid
        Makes σ.

    References
    ----------
    Hu et al., "Squeeze-and-excitation networks", 2017, arXiv:1709.01507, equation 3.
    """

    def __init__(
        self,
        input_channels: int,
        squeeze_channels: int,
        activation: Callable[[], Module] = ReLU,
        scale_activation: Callable[[], Module] = Sigmoid,
    ) -> None:
        """Draw the parameters."""
        self.avgpool = AdaptiveAvgPool2d(1)
        self.fc1 = Conv2d(input_channels, squeeze_channels, 1)
        self.fc2 = Conv2d(squeeze_channels, input_channels, 1)
        self.activation = activation()
        self.scale_activation = scale_activation()

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape (N, C, H, W)."""
        scale = self.fc2(self.activation(self.fc1(self.avgpool(x))))
        return x * self.scale_activation(scale)  # type: ignore[no-any-return]
