"""Batches prepared by threads, in an order that no thread can change."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray

from striate.data.augment import Draw, Images, Transform
from striate.data.datasets import shuffled

Batch: TypeAlias = tuple[Images, NDArray[np.int64]]


class Dataset(Protocol):
    """What a loader reads from: it has a length, and an array of positions gives a batch."""

    def __len__(self) -> int:
        """Count the samples."""
        ...

    def __getitem__(self, indices: NDArray[np.int64]) -> Batch:
        """Return images (K, H, W, C), a copy, and labels (K,) at ``indices``; called from several threads."""
        ...


class LoaderState(TypedDict):
    """Where a loader stands: the seed, the epoch and the next batch in it."""

    seed: int
    epoch: int
    batch: int


class DataLoader:
    """Iterate over a dataset in batches; each iteration is one epoch.

    The order, and what augmentation does to each sample, are functions of (seed, epoch) alone, whatever the
    number of threads. Threads live only while an epoch is being iterated, and end when it is left by
    ``break``, an exception or Ctrl-C. Processes are never forked.

    Parameters
    ----------
    dataset : Dataset
        Such as a `Split`.
    batch_size : int
        Samples in a batch; the last may be shorter.
    shuffle : bool, default False
        Whether each epoch has an order of its own.
    seed : int, default 0
        Seed of the order and of the augmentation.
    drop_last : bool, default False
        Whether to leave out a last, shorter batch.
    transform : Transform, optional
        Augmentation, see `striate.data.augment`.
    n_workers : int, default 1
        Threads that prepare batches; 0 prepares each batch when it is asked for.
    prefetch : int, default 2
        Batches prepared ahead, at least one for each thread.

    Raises
    ------
    ValueError
        When ``batch_size`` is not positive, or ``n_workers`` or ``prefetch`` is negative.

    Notes
    -----
    An error while a batch is prepared is raised where the batch would have come, with a note that names it.

    Examples
    --------
    >>> import numpy as np
    >>> from striate.data import Split
    >>> split = Split(np.zeros((5, 2, 2, 1), np.uint8), np.arange(5), tuple("abcde"))
    >>> [labels.tolist() for _, labels in DataLoader(split, 2)]
    [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        transform: Transform | None = None,
        n_workers: int = 1,
        prefetch: int = 2,
    ) -> None:
        """Check the sizes; no thread starts before the first iteration."""
        if batch_size < 1:
            raise ValueError(f"DataLoader: expected batch_size ≥ 1, got {batch_size}")
        if n_workers < 0 or prefetch < 0:
            raise ValueError(f"DataLoader: expected n_workers ≥ 0 and prefetch ≥ 0, got {n_workers} and {prefetch}")
        self.dataset = dataset
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.drop_last = drop_last
        self.transform = transform
        self.n_workers = n_workers
        self.prefetch = prefetch
        self._epoch = 0  # of the iteration under way, or of the next one
        self._batch = 0  # the next batch in it
        self._is_under_way = False

    def __len__(self) -> int:
        """Count the batches of an epoch."""
        n = len(self.dataset)
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """Yield ``(images (N, H, W, C), labels (N,))`` of the next epoch, or of the rest of a resumed one."""
        if self._is_under_way:  # the last epoch was left before its end
            self._epoch, self._batch = self._epoch + 1, 0
        self._is_under_way = True
        return self._iterate(self._epoch, self._batch)

    def state_dict(self) -> LoaderState:
        """Return (seed, epoch, batch) of the batch that comes next."""
        return {"seed": self.seed, "epoch": self._epoch, "batch": self._batch}

    def load_state_dict(self, state: LoaderState) -> None:
        """Make the next iteration begin at the batch that came next when ``state`` was taken.

        Parameters
        ----------
        state : dict
            From `state_dict`.

        Raises
        ------
        ValueError
            When the batch lies outside the epoch: another dataset or batch size.
        """
        if not 0 <= state["batch"] <= len(self):
            raise ValueError(
                f"DataLoader: expected a batch from 0 to {len(self)} in the state to resume, "
                f"got {state['batch']}; use the dataset and batch_size of the first run"
            )
        self.seed, self._epoch, self._batch = state["seed"], state["epoch"], state["batch"]
        self._is_under_way = False

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Return the positions of all samples in the order of ``epoch``, shape (len(dataset),)."""
        n = len(self.dataset)
        return shuffled(n, self.seed, epoch) if self.shuffle else np.arange(n)

    def _iterate(self, epoch: int, first_batch: int) -> Iterator[Batch]:
        order = self.order(epoch)
        n_batches = len(self)
        if self.n_workers == 0:
            for b in range(first_batch, n_batches):
                batch = self._prepare(order, epoch, b)
                self._batch = b + 1
                yield batch
        else:
            pool = ThreadPoolExecutor(self.n_workers, "striate-loader")
            try:
                pending: deque[Future[Batch]] = deque()
                n_ahead = max(self.prefetch, self.n_workers)
                for b in range(first_batch, n_batches):
                    while len(pending) <= n_ahead and b + len(pending) < n_batches:
                        pending.append(pool.submit(self._prepare, order, epoch, b + len(pending)))
                    batch = pending.popleft().result()
                    self._batch = b + 1
                    yield batch
                    del batch  # the consumer alone decides how long a batch lives
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
        self._epoch, self._batch, self._is_under_way = epoch + 1, 0, False

    def _prepare(self, order: NDArray[np.int64], epoch: int, batch: int) -> Batch:
        indices = order[batch * self.batch_size : (batch + 1) * self.batch_size]
        try:
            images, labels = self.dataset[indices]
            if self.transform is not None:
                draw = Draw.of(self.seed, epoch, indices)
                images = self.transform(images, draw)
        except Exception as error:
            error.add_note(f"DataLoader: in batch {batch} of epoch {epoch}")
            raise
        return images, labels
