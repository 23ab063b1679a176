"""The pictures of a run: whole PNG files that show what they were given."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("matplotlib")
Image = pytest.importorskip("PIL.Image")

from striate.apps import picture  # noqa: E402


def pixels(png: bytes) -> NDArray[np.uint8]:
    """Decode a picture."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def history(n: int) -> list[dict[str, float]]:
    """Make n epochs."""
    return [
        {"epoch": i, "loss": 1 / i, "accuracy": 0.9, "val_loss": 1.2 / i, "val_accuracy": 0.8} for i in range(1, n + 1)
    ]


def has_colour(image: NDArray[np.uint8], colour: str) -> bool:
    """Tell whether a colour, #RRGGBB, occurs in a picture."""
    return bool((image == np.frombuffer(bytes.fromhex(colour[1:]), np.uint8)).all(axis=-1).any())


@pytest.mark.parametrize("n", [1, 2, 40])
def test_curves_show_both_parts(n: int) -> None:
    image = pixels(picture.draw_curves(history(n)))
    assert image.shape[1] > 1.5 * image.shape[0]
    assert has_colour(image, picture.TRAIN_COLOUR)
    assert has_colour(image, picture.VALIDATION_COLOUR)


@pytest.mark.parametrize("n_classes", [2, 10, 30, 100])
def test_confusion_is_darkest_where_most_images_are(n_classes: int) -> None:
    counts = np.eye(n_classes, dtype=np.int64) * 7
    perfect = pixels(picture.draw_confusion(counts, [f"class {k}" for k in range(n_classes)], title="perfect"))
    empty = pixels(picture.draw_confusion(counts * 0, [f"class {k}" for k in range(n_classes)], title="empty"))
    assert perfect.shape == empty.shape
    darkest = (perfect.sum(axis=-1) < 200) & (empty.sum(axis=-1) > 600)
    # The diagonal of the grid fills 1 / n_classes of it; the axes take most of the picture.
    assert darkest.mean() > 0.15 / n_classes


@pytest.mark.parametrize("shape", [(1, 1, 3, 3), (6, 1, 5, 5), (64, 3, 7, 7), (200, 16, 3, 3)])
def test_filters_of_any_shape(shape: tuple[int, ...]) -> None:
    weight = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    assert pixels(picture.draw_filters(weight, name="conv1")).std() > 10
    assert pixels(picture.draw_filters(weight * 0, name="conv1")).std() < 70


@pytest.mark.parametrize("channels", [1, 3])
def test_feature_maps_show_strong_channels_first(channels: int) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (28, 28, channels)).astype(np.uint8)
    maps = rng.random((4, 14, 14)).astype(np.float32)
    layers = [("conv1", maps), ("conv2", maps[:1, :7, :7])]
    shown = picture.draw_feature_maps(image, layers, title="boot", n_maps=3)
    assert pixels(shown).std() > 10
    reversed_channels = [("conv1", maps[::-1]), ("conv2", maps[:1, :7, :7])]
    assert picture.draw_feature_maps(image, reversed_channels, title="boot", n_maps=3) == shown


def test_drawing_leaves_pyplot_alone() -> None:
    picture.draw_curves(history(2))
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
