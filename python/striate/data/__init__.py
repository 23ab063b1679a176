"""Data: datasets, image folders, a thread-based loader and batched augmentation.

Everything here is NumPy: images are ``(N, H, W, C)`` arrays, labels are ``int64``. The training loop turns
a batch into a Tensor without a copy, because channels-last is the memory layout of the engine.
"""

from striate.data.augment import (
    Compose,
    Draw,
    RandomCrop,
    RandomErasing,
    RandomHorizontalFlip,
    Transform,
    channel_statistics,
)
from striate.data.datasets import Split, embedded, fashion_mnist, hold_out
from striate.data.image import image_folder, image_folder_splits, read_image
from striate.data.loader import DataLoader, Dataset

__all__ = [
    "Compose",
    "DataLoader",
    "Dataset",
    "Draw",
    "RandomCrop",
    "RandomErasing",
    "RandomHorizontalFlip",
    "Split",
    "Transform",
    "channel_statistics",
    "embedded",
    "fashion_mnist",
    "hold_out",
    "image_folder",
    "image_folder_splits",
    "read_image",
]
