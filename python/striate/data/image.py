"""Image files: one picture, or a folder with a sub-folder for each class.

Pillow reads them; it comes with the extra ``app`` and is imported only when a picture is read.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from striate.data.datasets import Split, hold_out

if TYPE_CHECKING:
    from types import ModuleType

    from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg")

MAX_DEFAULT_SIDE = 128
"""Longest side of the size that `image_folder` chooses by itself; a camera's 4000×3000 is no size to train at."""


def read_image(
    path: str | os.PathLike[str], *, size: int | tuple[int, int] | None = None, channels: int | None = None
) -> NDArray[np.uint8]:
    """Read one picture.

    Parameters
    ----------
    path : path
        PNG or JPEG file.
    size : int or (int, int), optional
        Height and width wanted; an int means a square. The picture is scaled until it covers that size and its
        centre is cut out, so that nothing is distorted. Default: as it is.
    channels : {1, 3}, optional
        1 gives luminance, 3 gives red, green, blue. Default: 1 for a grey picture, else 3. Transparency is
        dropped.

    Returns
    -------
    ndarray of uint8, shape (H, W, channels)

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    ValueError
        When the file is not a picture that Pillow can read; the message names it.
    ModuleNotFoundError
        When Pillow is not installed.
    """
    height_width = _check_size("read_image", size)
    _check_channels("read_image", channels)
    pil = _import_pillow()
    if not Path(path).is_file():
        raise FileNotFoundError(f"read_image: expected an image file, got {path}, which does not exist")
    try:
        return _decode(pil, Path(path), height_width, channels)
    except _UnreadableImageError as error:
        raise ValueError(
            f"read_image: expected a readable image, got {path} ({error}); repair it or pass another"
        ) from error


def image_folder(
    path: str | os.PathLike[str],
    *,
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    classes: Sequence[str] | None = None,
) -> Split:
    """Read ``path/<class>/*.png|jpg|jpeg`` into memory.

    Classes are the sub-folders in the order of their names; images are in the order of class and file name.
    Hidden files and other file types are passed over.

    Parameters
    ----------
    path : path
        Folder with one sub-folder for each class.
    size : int or (int, int), optional
        Height and width of every image, see `read_image`. Default: the size most of them have (the larger on
        a tie), shrunk if its longer side is above 128.
    channels : {1, 3}, optional
        Default: 1 when every picture is grey, else 3.
    classes : sequence of str, optional
        The classes of a network trained before: sub-folders must be among them, some may be missing, and
        labels follow this order. Default: as found, at least two.

    Returns
    -------
    Split

    Raises
    ------
    FileNotFoundError
        When the folder does not exist.
    ValueError
        With fewer than two classes, a class without images, a class not in ``classes``, or images that can't
        be read; the message names all of these (the first three files).
    ModuleNotFoundError
        When Pillow is not installed.
    """
    height_width = _check_size("image_folder", size)
    _check_channels("image_folder", channels)
    pil = _import_pillow()
    root = Path(path)
    found = _class_folders(root, classes)
    names = tuple(classes) if classes is not None else tuple(found)
    files = [file for members in found.values() for file in members]
    labels = np.repeat(
        np.array([names.index(name) for name in found], np.int64), [len(members) for members in found.values()]
    )
    # Decoding happens in C without Python's lock, so threads share it; map keeps the order.
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8), "striate-image") as pool:
        if height_width is None or channels is None:
            headers = list(pool.map(lambda file: _header(pil, file), files))
            _refuse_unreadable(root, files, headers)
            shapes = [header for header in headers if not isinstance(header, _UnreadableImageError)]
            if height_width is None:
                height_width = _common_size([shape[:2] for shape in shapes])
            if channels is None:
                channels = max(shape[2] for shape in shapes)
        wanted, depth = height_width, channels
        images = np.empty((len(files), *wanted, depth), np.uint8)

        def fill(i: int) -> _UnreadableImageError | None:
            try:
                images[i] = _decode(pil, files[i], wanted, depth)
            except _UnreadableImageError as error:
                return error
            return None

        _refuse_unreadable(root, files, list(pool.map(fill, range(len(files)))))
    return Split(images, labels, names)


def image_folder_splits(
    path: str | os.PathLike[str],
    *,
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    test_fraction: float = 0.2,
    seed: int = 0,
) -> tuple[Split, Split]:
    """Read an image folder and divide it into a training and a test set.

    A folder with the sub-folders ``train`` and ``test`` (each with sub-folders for the classes) is divided
    already, and that is kept; any other has ``test_fraction`` of each class held out, chosen by ``seed``.

    Parameters
    ----------
    path, size, channels
        As for `image_folder`; the size and channels found in ``train`` hold for ``test`` too.
    test_fraction : float, default 0.2
        Share of each class held out, unused where the folder is divided already.
    seed : int, default 0
        The same seed holds out the same images.

    Returns
    -------
    train, test : Split

    Raises
    ------
    FileNotFoundError, ValueError, ModuleNotFoundError
        As `image_folder` and `hold_out` do.
    """
    root = Path(path)
    parts = (root / "train", root / "test")
    if all(part.is_dir() and any(child.is_dir() for child in part.iterdir()) for part in parts):
        train = image_folder(parts[0], size=size, channels=channels)
        _, height, width, depth = train.images.shape
        test = image_folder(parts[1], size=(height, width), channels=depth, classes=train.classes)
        return train, test
    return hold_out(image_folder(root, size=size, channels=channels), test_fraction, seed=seed)


class _UnreadableImageError(Exception):
    """What Pillow said of a file."""


def _class_folders(root: Path, classes: Sequence[str] | None) -> dict[str, list[Path]]:
    if not root.is_dir():
        kind = "is not a folder" if root.exists() else "does not exist"
        raise FileNotFoundError(
            f"image_folder: expected a folder with one sub-folder of images for each class, got {root}, which {kind}"
        )
    folders = sorted(child for child in root.iterdir() if child.is_dir() and not child.name.startswith("."))
    if classes is None and len(folders) < 2:
        got = f"only {folders[0].name!r}" if folders else "none"
        raise ValueError(
            f"image_folder: expected sub-folders of images for at least two classes in {root}, got {got}; "
            "put the images of each class into a folder of its own"
        )
    unknown = [folder.name for folder in folders if classes is not None and folder.name not in classes]
    if unknown or not folders:
        raise ValueError(
            f"image_folder: expected sub-folders of {root} named after the classes {', '.join(classes or ())}, "
            f"got {', '.join(unknown) or 'none'}"
        )
    found = {
        folder.name: sorted(
            file
            for file in folder.iterdir()
            if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()
        )
        for folder in folders
    }
    empty = [name for name, members in found.items() if not members]
    if empty:
        raise ValueError(
            f"image_folder: expected images ({', '.join(SUFFIXES)}) in every class folder of {root}, "
            f"got none in {', '.join(repr(name) for name in empty)}; add images or remove the folder"
        )
    return found


def _refuse_unreadable(root: Path, files: list[Path], results: Sequence[object]) -> None:
    bad = [
        (file, result) for file, result in zip(files, results, strict=True) if isinstance(result, _UnreadableImageError)
    ]
    if bad:
        named = ", ".join(f"{file} ({error})" for file, error in bad[:3])
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise ValueError(
            f"image_folder: expected readable images in {root}, got {named}{more}; repair or remove "
            f"{'them' if len(bad) > 1 else 'it'}"
        )


def _common_size(sizes: list[tuple[int, int]]) -> tuple[int, int]:
    counts = Counter(sizes)
    height, width = max(counts, key=lambda s: (counts[s], s[0] * s[1], s))
    shrink = min(1.0, MAX_DEFAULT_SIDE / max(height, width))
    return max(round(height * shrink), 1), max(round(width * shrink), 1)


def _check_size(op: str, size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    if size is None:
        return None
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise ValueError(f"{op}: expected a positive height and width, got size={size}")
    return height, width


def _check_channels(op: str, channels: int | None) -> None:
    if channels not in (None, 1, 3):
        raise ValueError(f"{op}: expected channels 1 (grey) or 3 (colour), got {channels}")


def _import_pillow() -> ModuleType:
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "image_folder: expected Pillow to read images, got no such package; run pip install 'striate[app]'",
            name="PIL",
        ) from error
    return Image


def _is_grey(image: Image.Image) -> bool:
    return image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I")


def _header(pil: ModuleType, path: Path) -> tuple[int, int, int] | _UnreadableImageError:
    """Read (height, width, channels) without decoding the pixels; return the error instead of raising it."""
    try:
        with pil.open(path) as image:
            width, height = image.size
            # Values 5 to 8 of the EXIF orientation (tag 0x0112) stand for a quarter turn.
            if image.getexif().get(0x0112, 1) >= 5:
                width, height = height, width
            return height, width, 1 if _is_grey(image) else 3
    except MemoryError:
        raise
    # A damaged file makes Pillow raise almost anything: OSError, SyntaxError, ValueError, struct.error, ...
    except Exception as error:
        return _UnreadableImageError(_reason(error))


def _decode(pil: ModuleType, path: Path, size: tuple[int, int] | None, channels: int | None) -> NDArray[np.uint8]:
    from PIL import ImageOps

    try:
        with pil.open(path) as opened:
            image: Image.Image = ImageOps.exif_transpose(opened)
            depth = channels or (1 if _is_grey(image) else 3)
            if image.mode.startswith("I"):
                # 16-bit grey. Pillow's own conversion to 8 bits clips at 255 instead of scaling.
                image = pil.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
            image = image.convert("L" if depth == 1 else "RGB")
            if size is not None and image.size != size[::-1]:
                image = ImageOps.fit(image, size[::-1], pil.Resampling.BILINEAR)
            return np.array(image, np.uint8).reshape(image.height, image.width, depth)
    except MemoryError:
        raise
    except Exception as error:
        raise _UnreadableImageError(_reason(error)) from error


def _reason(error: Exception) -> str:
    # Pillow repeats the path, which the message around this one names already.
    text = str(error).split(" '/")[0].strip()
    return text or type(error).__name__
