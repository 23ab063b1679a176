"""A layer of your own: squeeze and excitation, in a small network that learns to count dots.

Usage: python examples/custom_layer.py

Hu, Shen and Sun, 2018, "Squeeze-and-Excitation Networks", arXiv:1709.01507, section 3.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

import striate
from striate import Tensor, nn, train


class SqueezeExcite(nn.Module):
    """y[n,c,i,j] = x[n,c,i,j] · s[n,c], where s is a small network on the mean of each channel."""

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, channels // reduction, 1),
            nn.ReLU(),
            nn.Conv2d(channels // reduction, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


def dots(n: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Draw n images of 12×12 with zero to three dots of 2×2, in places that do not touch."""
    rng = np.random.default_rng(seed)
    images = np.zeros((n, 12, 12, 1), np.float32)
    labels = rng.integers(0, 4, n)
    for image, count in zip(images, labels, strict=True):
        for place in rng.permutation(9)[:count]:
            row, column = 4 * (place // 3), 4 * (place % 3)
            image[row + 1 : row + 3, column + 1 : column + 3] = 1.0
    return images, labels


def main() -> None:
    striate.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        SqueezeExcite(8),
        nn.Conv2d(8, 8, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 5 * 5, 4),
    )
    images, labels = dots(512, seed=0)
    batches = [(images[i : i + 32], labels[i : i + 32]) for i in range(0, len(images), 32)]
    run = train.fit(
        model,
        batches,
        [dots(200, seed=1)],
        optimizer=train.Adam(model.parameters(), lr=1e-2),
        loss=nn.CrossEntropyLoss(),
        metrics={"accuracy": train.Accuracy()},
        epochs=12,
    )
    accuracy = run.history[-1]["val_accuracy"]
    print(f"counts the dots of {accuracy:.0%} of new images")
    assert accuracy > 0.9


if __name__ == "__main__":
    main()
