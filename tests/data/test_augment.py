"""Augmentation against slow and obvious loops, and its random numbers."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from striate.data import Compose, Draw, RandomCrop, RandomErasing, RandomHorizontalFlip, Transform, channel_statistics

TRANSFORMS = [
    RandomHorizontalFlip(),
    RandomCrop(3),
    RandomCrop(2, "reflect"),
    RandomErasing(),
    Compose(RandomCrop(1), RandomErasing()),
]


def batch(n: int = 40) -> NDArray[np.uint8]:
    """Make images without a zero, so that what was filled in is told apart."""
    return np.random.default_rng(0).integers(1, 256, (n, 9, 7, 2)).astype(np.uint8)


def draw(n: int = 40, seed: int = 0, epoch: int = 0) -> Draw:
    """Make the Draw of samples 0 … n-1."""
    return Draw.of(seed, epoch, np.arange(n))


@pytest.mark.parametrize("transform", TRANSFORMS, ids=repr)
def test_each_sample_is_transformed_by_itself(transform: Transform) -> None:
    images = batch()
    whole = transform(images.copy(), draw())
    alone = [transform(images[i : i + 1].copy(), Draw.of(0, 0, np.array([i]))) for i in range(40)]
    assert np.array_equal(whole, np.concatenate(alone))
    assert whole.dtype == images.dtype
    assert whole.shape == images.shape


@pytest.mark.parametrize("transform", TRANSFORMS, ids=repr)
def test_seed_and_epoch_change_the_result(transform: Transform) -> None:
    results = {transform(batch(), draw(seed=s, epoch=e)).tobytes() for s, e in ((0, 0), (0, 1), (1, 0), (1, 1))}
    assert len(results) == 4


@pytest.mark.parametrize("transform", TRANSFORMS, ids=repr)
def test_empty_batch_and_float_images_pass(transform: Transform) -> None:
    assert transform(batch()[:0], draw(0)).shape == (0, 9, 7, 2)
    floats = transform(batch().astype(np.float32), draw())
    assert floats.dtype == np.float32
    assert np.array_equal(floats, transform(batch(), draw()))


def test_uniform_is_uniform() -> None:
    u = Draw.of(0, 0, np.arange(20_000)).uniform(3)
    assert 0 <= u.min() < u.max() < 1
    # A bin of 10 holds 2,000 ± 42 (standard deviation of a binomial); 5 deviations.
    for column in u.T:
        assert np.abs(np.histogram(column, 10, (0, 1))[0] - 2_000).max() < 5 * 42
    # Neighbours, columns and branches are not correlated: |r| stays below 5/√n.
    others = (
        Draw.of(0, 0, np.arange(20_000)).fork(0).uniform(1)[:, 0],
        Draw.of(0, 1, np.arange(20_000)).uniform(1)[:, 0],
    )
    for other in (u[:, 1], u[:, 2], np.roll(u[:, 0], 1), *others):
        assert abs(np.corrcoef(u[:, 0], other)[0, 1]) < 5 / np.sqrt(20_000)


def test_draw_is_pinned() -> None:
    # A resumed run relies on these numbers.
    assert Draw.of(7, 2, np.array([0, 5])).fork(1).uniform(1).ravel().tolist() == [
        0.532938555467067,
        0.32101359631982496,
    ]


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0])
def test_horizontal_flip(p: float) -> None:
    images = batch(400)
    flipped = RandomHorizontalFlip(p)(images, draw(400))
    is_same = np.array([np.array_equal(a, b) for a, b in zip(images, flipped, strict=True)])
    is_mirrored = np.array([np.array_equal(a[:, ::-1], b) for a, b in zip(images, flipped, strict=True)])
    assert np.all(is_same | is_mirrored)
    assert abs(is_mirrored.mean() - p) <= 5 * np.sqrt(p * (1 - p) / 400)


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
@pytest.mark.parametrize("padding", [0, 1, 4])
def test_random_crop_is_a_window_of_the_padded_image(padding: int, mode: str) -> None:
    images = batch()
    cropped = RandomCrop(padding, mode)(images, draw())
    places = set()
    for image, crop in zip(images, cropped, strict=True):
        padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)), mode=mode)  # type: ignore[call-overload]
        hits = [
            (i, j)
            for i in range(2 * padding + 1)
            for j in range(2 * padding + 1)
            if np.array_equal(padded[i : i + 9, j : j + 7], crop)
        ]
        assert hits
        places.add(hits[0])
    assert len(places) > padding * 5 or padding == 0


def test_random_erasing_writes_one_rectangle() -> None:
    images = batch(300)
    erased = RandomErasing(p=0.5, scale=(0.1, 0.4), value=0)(images, draw(300))
    n_erased = 0
    for image, result in zip(images, erased, strict=True):
        changed = (result != image).all(axis=-1)
        assert np.array_equal((result != image).any(axis=-1), changed)
        if changed.any():
            n_erased += 1
            rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
            assert changed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
            assert np.all(result[changed] == 0)
            # The area was asked between 6.3 and 25.2 of 63 pixels; sides are rounded to whole pixels.
            assert 2 <= changed.sum() <= 36
    assert abs(n_erased / 300 - 0.5) < 5 * np.sqrt(0.25 / 300)
    assert np.array_equal(RandomErasing(p=0)(images, draw(300)), images)


def test_compose_gives_each_transform_its_own_numbers() -> None:
    images = batch(200)
    twice = Compose(RandomHorizontalFlip(), RandomHorizontalFlip())(images, draw(200))
    # With the same numbers both flips would cancel and nothing would change.
    assert not np.array_equal(twice, images)
    assert np.array_equal(Compose()(images, draw(200)), images)


def test_channel_statistics_against_float64() -> None:
    images = batch(50)
    scaled = images.astype(np.float64) / 255
    mean, std = channel_statistics(images)
    assert mean.dtype == std.dtype == np.float32
    # Both are correct to float64 rounding before the last rounding to float32.
    np.testing.assert_array_almost_equal_nulp(mean, scaled.mean((0, 1, 2)).astype(np.float32), 1)
    np.testing.assert_array_almost_equal_nulp(std, scaled.std((0, 1, 2)).astype(np.float32), 1)
    mean, std = channel_statistics(np.full((2, 3, 3, 1), 51, np.uint8))
    assert mean.tolist() == [np.float32(0.2)]
    assert std.tolist() == [1.0]


def test_augment_refuses() -> None:
    with pytest.raises(ValueError, match=r"RandomHorizontalFlip: expected a probability from 0 to 1, got p=1.5"):
        RandomHorizontalFlip(1.5)
    with pytest.raises(ValueError, match="RandomErasing: expected a probability from 0 to 1, got p=-1"):
        RandomErasing(-1)
    with pytest.raises(ValueError, match=r"RandomErasing: expected 0 < scale\[0\] ≤ scale\[1\] ≤ 1, got"):
        RandomErasing(scale=(0.5, 0.1))
    with pytest.raises(ValueError, match=r"RandomErasing: expected 0 < ratio\[0\] ≤ ratio\[1\], got"):
        RandomErasing(ratio=(0, 1))
    with pytest.raises(ValueError, match="RandomCrop: expected padding ≥ 0, got -1"):
        RandomCrop(-1)
    with pytest.raises(ValueError, match="RandomCrop: expected mode constant, reflect or edge, got 'wrap'"):
        RandomCrop(1, "wrap")
    with pytest.raises(ValueError, match="channel_statistics: expected at least one pixel, got"):
        channel_statistics(batch()[:0])
