"""The order of batches, threads, errors, abandonment and resuming."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from numpy.typing import NDArray

from striate.data import Compose, DataLoader, RandomCrop, RandomHorizontalFlip, Split
from striate.data.loader import Batch


def numbered(n: int) -> Split:
    """Make a Split of n random images whose label is their position."""
    images = np.random.default_rng(n).integers(0, 256, (n, 6, 5, 2)).astype(np.uint8)
    return Split(images, np.arange(n), tuple(map(str, range(n))))


AUGMENT = Compose(RandomCrop(2), RandomHorizontalFlip())


def epochs(loader: DataLoader, n: int = 2) -> list[tuple[bytes, list[int]]]:
    """Run n epochs and return what each batch held."""
    return [(images.tobytes(), labels.tolist()) for _ in range(n) for images, labels in loader]


def loader_threads() -> list[str]:
    """List the loader's threads that are alive."""
    return [t.name for t in threading.enumerate() if t.name.startswith("striate-loader")]


@pytest.mark.parametrize(("n_workers", "prefetch"), [(0, 0), (1, 0), (1, 4), (2, 1), (3, 2), (7, 20)])
def test_loader_is_bitwise_the_same_whatever_the_threads(n_workers: int, prefetch: int) -> None:
    options = {"shuffle": True, "seed": 5, "transform": AUGMENT}
    expected = epochs(DataLoader(numbered(53), 8, n_workers=0, **options))
    assert epochs(DataLoader(numbered(53), 8, n_workers=n_workers, prefetch=prefetch, **options)) == expected


def test_augmentation_does_not_depend_on_the_batch_size() -> None:
    def images(batch_size: int) -> NDArray[np.uint8]:
        loader = DataLoader(numbered(20), batch_size, shuffle=True, transform=AUGMENT)
        return np.concatenate([images for images, _ in loader])

    assert np.array_equal(images(3), images(20))


def test_loader_shuffles_by_seed_and_epoch() -> None:
    def order(seed: int) -> list[list[int]]:
        loader = DataLoader(numbered(100), 100, shuffle=True, seed=seed)
        return [labels.tolist() for _ in range(2) for _, labels in loader]

    first, second = order(0)
    assert sorted(first) == sorted(second) == list(range(100))
    assert len({tuple(o) for o in (first, second, *order(1))}) == 4


@pytest.mark.parametrize("n_workers", [0, 2])
@pytest.mark.parametrize(
    ("n", "drop_last", "sizes"), [(10, False, [4, 4, 2]), (10, True, [4, 4]), (3, True, []), (0, False, [])]
)
def test_loader_lengths(n: int, drop_last: bool, sizes: list[int], n_workers: int) -> None:
    loader = DataLoader(numbered(n), 4, drop_last=drop_last, n_workers=n_workers)
    assert [len(labels) for _, labels in loader] == sizes
    assert len(loader) == len(sizes)


class Failing:
    """A dataset with one sample that cannot be read."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, indices: NDArray[np.int64]) -> Batch:
        if 9 in indices:
            raise OSError("sample 9 is broken")
        return np.zeros((len(indices), 1, 1, 1), np.uint8), indices


@pytest.mark.parametrize("n_workers", [0, 1, 3])
def test_worker_error_reaches_the_consumer_in_its_place(n_workers: int) -> None:
    seen: list[list[int]] = []
    loader = DataLoader(Failing(), 2, n_workers=n_workers)
    with pytest.raises(OSError, match="sample 9 is broken") as caught:
        seen.extend(labels.tolist() for _, labels in loader)
    assert seen == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert caught.value.__notes__ == ["DataLoader: in batch 4 of epoch 0"]
    assert not loader_threads()


@pytest.mark.parametrize("leave", ["break", "exception", "interrupt", "end", "close"])
def test_no_thread_outlives_an_iteration(leave: str) -> None:
    loader = DataLoader(numbered(100), 2, n_workers=3, prefetch=6)
    errors = {"exception": RuntimeError, "interrupt": KeyboardInterrupt}

    def consume() -> None:
        for i, _ in enumerate(loader):
            if i == 3:
                assert loader_threads()
                if leave == "break":
                    break
                if leave in errors:
                    raise errors[leave]

    if leave in errors:
        with pytest.raises(errors[leave]):
            consume()
    elif leave == "close":
        iterator = iter(loader)
        next(iterator)
        iterator.close()  # type: ignore[attr-defined]
    else:
        consume()
    assert not loader_threads()


def test_left_epoch_is_over() -> None:
    loader = DataLoader(numbered(20), 2, shuffle=True)
    for _ in loader:
        break
    second = [labels.tolist() for _, labels in loader]
    assert np.concatenate(second).tolist() == loader.order(1).tolist()
    assert loader.state_dict() == {"seed": 0, "epoch": 2, "batch": 0}


@pytest.mark.parametrize("n_workers", [0, 2])
@pytest.mark.parametrize("n_before", [0, 1, 6, 7, 8, 13])
def test_resume_continues_to_the_bit(n_before: int, n_workers: int) -> None:
    def make(seed: int) -> DataLoader:
        return DataLoader(numbered(50), 8, shuffle=True, seed=seed, transform=AUGMENT, n_workers=n_workers)

    expected = epochs(make(3), 3)
    first, state, n = make(3), None, 0
    state = first.state_dict()
    while n < n_before:
        for _ in first:
            n += 1
            state = first.state_dict()
            if n == n_before:
                break
    resumed = make(99)
    resumed.load_state_dict(state)
    n_epochs = 3 - state["epoch"]
    assert epochs(resumed, n_epochs) == expected[n_before:]


def test_loader_refuses() -> None:
    with pytest.raises(ValueError, match="DataLoader: expected batch_size ≥ 1, got 0"):
        DataLoader(numbered(3), 0)
    with pytest.raises(ValueError, match="expected n_workers ≥ 0 and prefetch ≥ 0, got -1 and 2"):
        DataLoader(numbered(3), 1, n_workers=-1)
    with pytest.raises(ValueError, match="expected a batch from 0 to 3 in the state to resume, got 4"):
        DataLoader(numbered(3), 1).load_state_dict({"seed": 0, "epoch": 0, "batch": 4})
