"""Labelled sets of images: Fashion-MNIST, the slice embedded in the package, and held-out splits."""

from __future__ import annotations

import gzip
import logging
import math
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger("striate.data")

FASHION_MNIST_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

_FASHION_MNIST_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
_FASHION_MNIST_DEBIAN = Path("/usr/share/datasets/fashion-mnist")

# SHA-256 of the idx file *inside* the .gz: a gzip header carries a time stamp and a name, so the same data
# packed again (as Debian does) has another checksum outside and the same one inside.
_FASHION_MNIST_SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}

_EMBEDDED = Path(__file__).parent / "embedded" / "fashion_mnist_slice.npz"


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Hold labelled images in memory; indexing with an array of positions gives a batch.

    Parameters
    ----------
    images : ndarray of uint8, shape (N, H, W, C)
        Pixels, 0 to 255.
    labels : ndarray of int64, shape (N,)
        Class of each image, ``0 <= label < len(classes)``.
    classes : tuple of str
        Name of each class.

    Raises
    ------
    ValueError
        When the arrays disagree in shape, dtype or range.

    Examples
    --------
    >>> import numpy as np
    >>> split = Split(np.zeros((3, 2, 2, 1), np.uint8), np.array([0, 1, 1]), ("cat", "dog"))
    >>> len(split), split.counts().tolist()
    (3, [1, 2])
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse arrays that disagree."""
        if self.images.ndim != 4 or self.images.dtype != np.uint8:
            raise ValueError(
                "Split: expected images of dtype uint8 and shape (N, H, W, C), "
                f"got {self.images.dtype} {self.images.shape}"
            )
        if self.labels.dtype != np.int64 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(
                f"Split: expected one int64 label for each of {len(self.images)} images, "
                f"got {self.labels.dtype} {self.labels.shape}"
            )
        if len(self.labels) and not 0 <= self.labels.min() <= self.labels.max() < len(self.classes):
            raise ValueError(
                f"Split: expected labels from 0 to {len(self.classes) - 1}, "
                f"got {self.labels.min()} to {self.labels.max()}"
            )

    def __len__(self) -> int:
        """Count the images."""
        return len(self.labels)

    def __getitem__(self, indices: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Copy the images and labels at ``indices``, shape (K,): ``(K, H, W, C)`` and ``(K,)``."""
        return self.images[indices], self.labels[indices]

    def __repr__(self) -> str:
        """Say how many images, of which shape, in how many classes."""
        _, height, width, channels = self.images.shape
        return f"Split({len(self)} images {height}x{width}x{channels}, {len(self.classes)} classes)"

    def subset(self, indices: NDArray[np.int64]) -> Split:
        """Return the Split of the images at ``indices``, shape (K,), in that order."""
        return Split(self.images[indices], self.labels[indices], self.classes)

    def counts(self) -> NDArray[np.int64]:
        """Count the images of each class, shape (len(classes),)."""
        return np.bincount(self.labels, minlength=len(self.classes)).astype(np.int64)


def shuffled(n: int, *key: int) -> NDArray[np.int64]:
    """Return a permutation of ``range(n)`` that depends on ``n`` and ``key`` alone.

    Parameters
    ----------
    n : int
        Length of the permutation.
    *key : int
        One or two integers, 64 bits each, such as a seed and an epoch.

    Returns
    -------
    ndarray of int64, shape (n,)

    Notes
    -----
    Sorts raw 64-bit draws of a Philox generator, whose stream NumPy keeps stable; ``Generator.permutation``
    may change between NumPy versions, and a resumed run must see the same order.
    """
    words = [k & 0xFFFF_FFFF_FFFF_FFFF for k in key] + [0] * (2 - len(key))
    draws = np.random.Philox(key=np.array(words, np.uint64)).random_raw(n)
    return np.argsort(draws, kind="stable").astype(np.int64)


def hold_out(split: Split, fraction: float, *, seed: int = 0) -> tuple[Split, Split]:
    """Divide a Split into the part kept and a part held out, class by class.

    Each class gives ``round(fraction · n)`` of its n images, at least one and never all of them.

    Parameters
    ----------
    split : Split
        Images to divide.
    fraction : float
        Share held out, ``0 < fraction < 1``.
    seed : int, default 0
        The same seed holds out the same images.

    Returns
    -------
    kept, held_out : Split
        Both in the order of ``split``; together they are ``split``.

    Raises
    ------
    ValueError
        When ``fraction`` is out of range, or a class has a single image.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"hold_out: expected a fraction between 0 and 1, got {fraction}")
    held = np.zeros(len(split), bool)
    for label, name in enumerate(split.classes):
        members = np.flatnonzero(split.labels == label)
        if len(members) == 0:
            continue
        if len(members) == 1:
            raise ValueError(f"hold_out: expected at least 2 images of class {name!r}, got 1; add images of it")
        n_held = min(max(round(fraction * len(members)), 1), len(members) - 1)
        held[members[shuffled(len(members), seed, label)[:n_held]]] = True
    return split.subset(np.flatnonzero(~held)), split.subset(np.flatnonzero(held))


def embedded() -> tuple[Split, Split]:
    """Load the slice of Fashion-MNIST that comes with the package: 6,000 + 1,000 images of ten classes.

    Returns
    -------
    train, test : Split
        600 and 100 images of each class, 28×28×1, from the training and test sets of Fashion-MNIST.

    Notes
    -----
    Fashion-MNIST is © 2017 Zalando SE, MIT licence; the notice is kept beside the data.

    References
    ----------
    Xiao, Rasul, Vollgraf 2017, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
    Algorithms", arXiv:1708.07747.

    Examples
    --------
    >>> train, test = embedded()
    >>> train
    Split(6000 images 28x28x1, 10 classes)
    """
    with np.load(_EMBEDDED, allow_pickle=False) as arrays:
        train, test = (
            Split(
                arrays[f"{part}_images"][..., None],
                arrays[f"{part}_labels"].astype(np.int64),
                FASHION_MNIST_CLASSES,
            )
            for part in ("train", "test")
        )
    return train, test


def fashion_mnist(root: str | os.PathLike[str] | None = None, *, download: bool = True) -> tuple[Split, Split]:
    """Load Fashion-MNIST: 60,000 + 10,000 grey images, 28×28, of ten kinds of clothes.

    Looks for the four idx files, plain or ``.gz``, in ``root`` when given; else in the cache
    (``$XDG_CACHE_HOME/striate/fashion-mnist``, by default ``~/.cache/striate/fashion-mnist``) and where
    Debian's package ``dataset-fashion-mnist`` puts them. What is found nowhere is downloaded once.

    Parameters
    ----------
    root : path, optional
        Folder with the four files; a download goes there too. Default: the cache.
    download : bool, default True
        Whether to fetch missing files (30 MB). Their SHA-256 is checked, and a file appears under its name
        only when it is whole.

    Returns
    -------
    train, test : Split

    Raises
    ------
    FileNotFoundError
        When the files are found nowhere and can't be downloaded; the message says where it looked and what
        to do.
    ValueError
        When a file is not an idx file, is truncated, or images and labels disagree; the message names it.

    References
    ----------
    Xiao, Rasul, Vollgraf 2017, arXiv:1708.07747.
    """
    cache = _cache_folder() / "fashion-mnist"
    folders = [Path(root)] if root is not None else [cache, _FASHION_MNIST_DEBIAN]
    for folder in folders:
        files = {name: _find_idx(folder, name) for name in _FASHION_MNIST_SHA256}
        if all(files.values()):
            break
    else:
        folder = folders[0]
        files = {name: _find_idx(folder, name) for name in _FASHION_MNIST_SHA256}
        missing = [name for name, path in files.items() if path is None]
        looked = " and ".join(str(f) for f in folders)
        advice = (
            "run `apt-get install dataset-fashion-mnist`, or put the files of "
            f"https://github.com/zalandoresearch/fashion-mnist into {folder}"
        )
        if not download:
            raise FileNotFoundError(
                f"fashion_mnist: expected {', '.join(missing)} (plain or .gz) in {looked}, got no such file; "
                f"allow the download, or {advice}"
            )
        try:
            for name in missing:
                files[name] = _download_idx(folder, name)
        except OSError as error:
            raise FileNotFoundError(
                f"fashion_mnist: expected {', '.join(missing)} (plain or .gz) in {looked}, got no such file, "
                f"and the download failed ({error}); {advice}"
            ) from error
    train, test = (
        _read_pair(files[f"{part}-images-idx3-ubyte"], files[f"{part}-labels-idx1-ubyte"]) for part in ("train", "t10k")
    )
    return train, test


def read_idx(path: str | os.PathLike[str], *, n_axes: int) -> NDArray[np.uint8]:
    """Read an idx file of unsigned bytes, plain or gzipped.

    The format: two zero bytes, the type (8: unsigned byte), the number of axes, each extent as a big-endian
    32-bit integer, then the values, the last axis fastest.

    Parameters
    ----------
    path : path
        File to read; whether it is gzipped is told by its content, not by its name.
    n_axes : int
        Number of axes it must have.

    Returns
    -------
    ndarray of uint8
        Of the extents the header states.

    Raises
    ------
    ValueError
        When the header, the length or the compression is wrong; the message names the file.
    """
    content = Path(path).read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(
                f"read_idx: expected a whole gzip file, got {path}, which is damaged ({error}); fetch it again"
            ) from error
    expected_magic = (8).to_bytes(3, "big") + bytes([n_axes])
    if content[:4] != expected_magic:
        raise ValueError(
            f"read_idx: expected an idx file of unsigned bytes with {n_axes} axes (first bytes "
            f"{expected_magic.hex()}), got {content[:4].hex() or 'nothing'} in {path}"
        )
    header_bytes = 4 + 4 * n_axes
    if len(content) < header_bytes:
        raise ValueError(
            f"read_idx: expected a header of {header_bytes} bytes, got {len(content)} bytes in {path}; fetch it again"
        )
    shape = tuple(int.from_bytes(content[4 + 4 * i : 8 + 4 * i], "big") for i in range(n_axes))
    n_values = math.prod(shape)
    if len(content) - header_bytes != n_values:
        raise ValueError(
            f"read_idx: expected {n_values} bytes of values for shape {shape}, "
            f"got {len(content) - header_bytes} in {path}; fetch it again"
        )
    return np.frombuffer(content, np.uint8, offset=header_bytes).reshape(shape)


def _read_pair(images_path: Path | None, labels_path: Path | None) -> Split:
    assert images_path is not None
    assert labels_path is not None
    images = read_idx(images_path, n_axes=3)
    labels = read_idx(labels_path, n_axes=1)
    if len(images) != len(labels):
        raise ValueError(
            f"fashion_mnist: expected as many labels as the {len(images)} images of {images_path}, "
            f"got {len(labels)} in {labels_path}"
        )
    n_classes = len(FASHION_MNIST_CLASSES)
    if len(labels) and labels.max() >= n_classes:
        raise ValueError(
            f"fashion_mnist: expected labels from 0 to {n_classes - 1}, got {labels.max()} in {labels_path}"
        )
    return Split(images[..., None], labels.astype(np.int64), FASHION_MNIST_CLASSES)


def _find_idx(folder: Path, name: str) -> Path | None:
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.is_file():
            return candidate
    return None


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    # The XDG specification says that a relative path here is to be ignored.
    return (Path(base) if base and os.path.isabs(base) else Path.home() / ".cache") / "striate"


def _download_idx(folder: Path, name: str) -> Path:
    # Imported here because urllib.request alone takes longer to import than the rest of striate.data.
    import hashlib
    import tempfile
    import urllib.request

    url = f"{_FASHION_MNIST_URL}{name}.gz"
    logger.info("downloading %s", url)
    with urllib.request.urlopen(url, timeout=30) as response:
        packed: bytes = response.read()
    try:
        content = gzip.decompress(packed)
    except (EOFError, OSError, zlib.error) as error:
        raise OSError(f"{url} gave a damaged gzip file: {error}") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != _FASHION_MNIST_SHA256[name]:
        raise OSError(f"{url} gave content with SHA-256 {digest}, not {_FASHION_MNIST_SHA256[name]}")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.gz"
    handle, partial = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(packed)
        os.replace(partial, path)
    except BaseException:
        os.unlink(partial)
        raise
    return path
