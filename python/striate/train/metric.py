"""Numbers that say how good predictions are; sums kept in float64, so that batches may have any size."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Accuracy", "Metric", "TopK", "confusion_matrix", "precision_recall"]

Scores = NDArray[Any]
Labels = NDArray[np.int64]


class Metric(Protocol):
    """Sums something over samples; the mean over all samples is reported."""

    def __call__(self, scores: Scores, labels: Labels) -> float:
        """Return the sum over a batch of scores (N, …) and labels (N, …)."""
        ...


class Accuracy:
    """Share of samples whose highest score is that of their class; the first wins a tie."""

    def __call__(self, scores: Scores, labels: Labels) -> float:
        """Count the samples that are right: scores (N, C), labels (N,)."""
        return float(np.count_nonzero(scores.argmax(axis=1) == labels))


class TopK:
    """Share of samples whose class is among the k highest scores.

    Parameters
    ----------
    k : int

    Raises
    ------
    ValueError
        A k below 1.
    """

    def __init__(self, k: int) -> None:
        """Keep k."""
        if k < 1:
            raise ValueError(f"TopK: expected k of at least 1, got {k}; use 5")
        self.k = k

    def __call__(self, scores: Scores, labels: Labels) -> float:
        """Count the samples that are right: scores (N, C), labels (N,)."""
        own = np.take_along_axis(scores, labels[:, None], axis=1)
        return float(np.count_nonzero((scores > own).sum(axis=1) < self.k))


def confusion_matrix(predictions: Labels, labels: Labels, n_classes: int) -> NDArray[np.int64]:
    """Count how often each class was taken for each.

    Parameters
    ----------
    predictions, labels : ndarray of int, shape (N,)
    n_classes : int
        K.

    Returns
    -------
    ndarray of int64, shape (K, K)
        Row: true class; column: predicted class.

    Raises
    ------
    ValueError
        A class outside 0 to K − 1.
    """
    both = np.concatenate([np.ravel(predictions), np.ravel(labels)])
    if both.size and (both.min() < 0 or both.max() >= n_classes):
        raise ValueError(
            f"confusion_matrix: expected classes from 0 to {n_classes - 1}, got {both.min()} to {both.max()}; "
            "check n_classes"
        )
    counts = np.bincount(np.ravel(labels) * n_classes + np.ravel(predictions), minlength=n_classes**2)
    return counts.reshape(n_classes, n_classes).astype(np.int64)


def precision_recall(confusion: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return precision and recall of each class.

    Parameters
    ----------
    confusion : ndarray, shape (K, K)
        From `confusion_matrix`.

    Returns
    -------
    precision, recall : ndarray, shape (K,)
        Right among predicted, right among true; NaN where nothing was counted.
    """
    right = np.diag(confusion).astype(np.float64)

    def share(total: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.divide(right, total, out=np.full_like(right, np.nan), where=total > 0)

    return share(confusion.sum(axis=0)), share(confusion.sum(axis=1))
