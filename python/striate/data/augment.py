"""Augmentation of whole batches, reproducible for each sample.

What happens to a sample is a function of (seed, epoch, position in the dataset) alone: not of its batch, nor of
the thread that prepares it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Images: TypeAlias = NDArray[np.uint8 | np.float32]
"""Pixels of a batch, shape (N, H, W, C)."""

# Constants of the SplitMix64 generator: its increment and the two multipliers of its output function.
_GAMMA = np.uint64(0x9E37_79B9_7F4A_7C15)
_MULTIPLY_1 = np.uint64(0xBF58_476D_1CE4_E5B9)
_MULTIPLY_2 = np.uint64(0x94D0_49BB_1331_11EB)


def _scramble(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * _MULTIPLY_1
    z = (z ^ (z >> np.uint64(27))) * _MULTIPLY_2
    return z ^ (z >> np.uint64(31))


@dataclass(frozen=True, slots=True, eq=False)
class Draw:
    """Random numbers for the samples of a batch, counter-based: the same key gives the same numbers.

    Parameters
    ----------
    keys : ndarray of uint64, shape (N,)
        One key for each sample.

    References
    ----------
    Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators", OOPSLA, figure 17.

    Examples
    --------
    >>> import numpy as np
    >>> draw = Draw.of(seed=0, epoch=1, indices=np.array([7, 3]))
    >>> bool((draw.uniform(2) == Draw.of(seed=0, epoch=1, indices=np.array([3, 7])).uniform(2)[::-1]).all())
    True
    """

    keys: NDArray[np.uint64]

    @classmethod
    def of(cls, seed: int, epoch: int, indices: NDArray[np.int64]) -> Draw:
        """Return the Draw of the samples at ``indices``, shape (N,), of a dataset in one epoch."""
        keys = np.zeros(len(indices), np.uint64)
        for word in (np.uint64(seed & 0xFFFF_FFFF_FFFF_FFFF), np.uint64(epoch), indices.astype(np.uint64)):
            keys = _scramble((keys ^ word) + _GAMMA)
        return cls(keys)

    def fork(self, branch: int) -> Draw:
        """Return another Draw, independent of this one and of its other branches."""
        branch_key = _scramble(np.array([branch + 1], np.uint64) * _GAMMA)
        return Draw(_scramble((self.keys ^ branch_key) + _GAMMA))

    def uniform(self, n: int) -> NDArray[np.float64]:
        """Draw ``n`` numbers in [0, 1) for each sample, shape (N, n)."""
        counters = np.arange(1, n + 1, dtype=np.uint64) * _GAMMA
        bits = _scramble(self.keys[:, None] + counters)
        return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


class Transform(Protocol):
    """What a loader does to a batch: ``(images, draw) → images``, shapes (N, H, W, C)."""

    def __call__(self, images: Images, draw: Draw) -> Images:
        """Return the transformed batch; ``images`` may be changed in place."""
        ...


@dataclass(frozen=True, slots=True)
class RandomHorizontalFlip:
    """Mirror each image left to right with probability ``p``.

    Parameters
    ----------
    p : float, default 0.5
        0 never mirrors, 1 always does.
    """

    p: float = 0.5

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        _check_probability("RandomHorizontalFlip", self.p)

    def __call__(self, images: Images, draw: Draw) -> Images:
        """Return the batch with some images mirrored, shape (N, H, W, C)."""
        flip = draw.uniform(1)[:, 0] < self.p
        return np.where(flip[:, None, None, None], images[:, :, ::-1], images)


@dataclass(frozen=True, slots=True)
class RandomCrop:
    """Shift each image by up to ``padding`` pixels each way, at its own size.

    The image is padded on four sides, and a window of the old size is cut out at a random place.

    Parameters
    ----------
    padding : int
        Pixels added on each side; 0 leaves images as they are.
    mode : {"constant", "reflect", "edge"}, default "constant"
        What the padding holds: zeros, the mirrored image or its edge.
    """

    padding: int
    mode: str = "constant"

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        if self.padding < 0:
            raise ValueError(f"RandomCrop: expected padding ≥ 0, got {self.padding}")
        if self.mode not in ("constant", "reflect", "edge"):
            raise ValueError(f"RandomCrop: expected mode constant, reflect or edge, got {self.mode!r}")

    def __call__(self, images: Images, draw: Draw) -> Images:
        """Return the batch with each image shifted, shape (N, H, W, C)."""
        n, height, width, _ = images.shape
        pad = self.padding
        places = (0, 0), (pad, pad), (pad, pad), (0, 0)
        # A pad width known only at run time selects no overload of np.pad, hence the three plain calls.
        if self.mode == "constant":
            padded = np.pad(images, places)
        elif self.mode == "reflect":
            padded = np.pad(images, places, mode="reflect")
        else:
            padded = np.pad(images, places, mode="edge")
        # Axes (N, 2·pad + 1, 2·pad + 1, C, H, W); one window for each sample is picked, then put in order.
        windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(1, 2))
        top, left = (draw.uniform(2) * (2 * pad + 1)).astype(np.int64).T
        return np.ascontiguousarray(windows.transpose(0, 1, 2, 4, 5, 3)[np.arange(n), top, left])


@dataclass(frozen=True, slots=True)
class RandomErasing:
    """Overwrite a random rectangle of each image with probability ``p``.

    The rectangle covers a share of the image uniform in ``scale``, with a ratio of height to width whose
    logarithm is uniform in the logarithms of ``ratio``; it is cut to the image's size where it is longer.

    Parameters
    ----------
    p : float, default 0.5
        Probability that an image loses a rectangle.
    scale : (float, float), default (0.02, 0.33)
        Smallest and largest share of the area.
    ratio : (float, float), default (0.3, 3.3)
        Smallest and largest height / width.
    value : int, default 0
        What is written.

    References
    ----------
    Zhong et al. 2017, "Random Erasing Data Augmentation", arXiv:1708.04896, algorithm 1.
    """

    p: float = 0.5
    scale: tuple[float, float] = (0.02, 0.33)
    ratio: tuple[float, float] = (0.3, 3.3)
    value: int = 0

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        _check_probability("RandomErasing", self.p)
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"RandomErasing: expected 0 < scale[0] ≤ scale[1] ≤ 1, got {self.scale}")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"RandomErasing: expected 0 < ratio[0] ≤ ratio[1], got {self.ratio}")

    def __call__(self, images: Images, draw: Draw) -> Images:
        """Return the batch with some rectangles overwritten, shape (N, H, W, C)."""
        _, height, width, _ = images.shape
        chosen, share, shape, down, across = draw.uniform(5).T
        area = (self.scale[0] + share * (self.scale[1] - self.scale[0])) * height * width
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        ratio = np.exp(low + shape * (high - low))
        tall = np.clip(np.round(np.sqrt(area * ratio)), 1, height)
        wide = np.clip(np.round(np.sqrt(area / ratio)), 1, width)
        top = np.floor(down * (height - tall + 1))
        left = np.floor(across * (width - wide + 1))
        rows, columns = np.arange(height), np.arange(width)
        in_rows = (rows >= top[:, None]) & (rows < (top + tall)[:, None])
        in_columns = (columns >= left[:, None]) & (columns < (left + wide)[:, None])
        in_rows &= (chosen < self.p)[:, None]
        erased = in_rows[:, :, None, None] & in_columns[:, None, :, None]
        return np.where(erased, images.dtype.type(self.value), images)


class Compose:
    """Apply transforms one after another, each with random numbers of its own.

    Parameters
    ----------
    *transforms : Transform
        None at all leaves a batch as it is.

    Examples
    --------
    >>> Compose(RandomCrop(2), RandomHorizontalFlip())
    Compose(RandomCrop(padding=2, mode='constant'), RandomHorizontalFlip(p=0.5))
    """

    def __init__(self, *transforms: Transform) -> None:
        """Keep the transforms."""
        self.transforms = transforms

    def __call__(self, images: Images, draw: Draw) -> Images:
        """Return the batch after every transform, shape (N, H, W, C)."""
        for i, transform in enumerate(self.transforms):
            images = transform(images, draw.fork(i))
        return images

    def __repr__(self) -> str:
        """List the transforms in order."""
        return f"Compose({', '.join(map(repr, self.transforms))})"


def channel_statistics(images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Compute mean and standard deviation of each channel, of pixels scaled to 0..1.

    mean[c] = Σ x[n,h,w,c] / (255·NHW),  std[c]² = Σ (x[n,h,w,c]/255 − mean[c])² / NHW

    Parameters
    ----------
    images : ndarray of uint8, shape (N, H, W, C)
        The training set; at least one pixel.

    Returns
    -------
    mean, std : ndarray of float32, shape (C,)
        A channel without contrast has std 1, so that dividing by it changes nothing.

    Raises
    ------
    ValueError
        When there is no pixel.

    Notes
    -----
    Counts how often each of the 256 values occurs, so the sums are exact whatever the number of images.
    """
    if images.size == 0:
        raise ValueError(f"channel_statistics: expected at least one pixel, got images of shape {images.shape}")
    values = np.arange(256) / 255.0
    mean, std = [], []
    for c in range(images.shape[-1]):
        share = np.bincount(images[..., c].ravel(), minlength=256) / (images.size // images.shape[-1])
        m = float(share @ values)
        mean.append(m)
        std.append(math.sqrt(float(share @ (values - m) ** 2)) or 1.0)
    return np.array(mean, np.float32), np.array(std, np.float32)


def _check_probability(name: str, p: float) -> None:
    if not 0 <= p <= 1:
        raise ValueError(f"{name}: expected a probability from 0 to 1, got p={p}")
