"""LeNet-5, the network that read cheques."""

from __future__ import annotations

from striate import nn
from striate.autograd import Tensor


class LeNet(nn.Module):
    """LeNet-5 with rectified units and maximum pooling.

    Parameters
    ----------
    num_classes : int, default 10
    in_channels : int, default 1
    image_size : (int, int), default (28, 28)
        At least 12 pixels a side.

    Raises
    ------
    ValueError
        Smaller images.

    References
    ----------
    LeCun et al., "Gradient-based learning applied to document recognition", Proc. IEEE 86(11), 1998, section II.B.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 1, image_size: tuple[int, int] = (28, 28)) -> None:
        """Draw the weights."""
        height, width = ((side // 2 - 4) // 2 for side in image_size)
        if height < 1 or width < 1:
            raise ValueError(f"LeNet: expected images of at least 12×12 pixels, got {image_size}; scale them up")
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 6, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Linear(16 * height * width, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, num_classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to scores (N, num_classes)."""
        return self.classifier(self.features(x).flatten(1))  # type: ignore[no-any-return]
