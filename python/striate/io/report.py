"""What happened, or would happen, when weights are poured into a model."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field

from striate.io.errors import FileError, quoted

__all__ = ["LoadReport", "Misfit", "WeightsError"]

_MAX_LINES = 20
_MAX_CANDIDATES = 100
_MAX_KEY = 200


@dataclass(frozen=True, slots=True)
class Misfit:
    """A value that differs in shape or dtype between weights and model.

    Attributes
    ----------
    key : str
        The model's key.
    given, wanted : str
        Shape or dtype in the weights, and in the model.
    """

    key: str
    given: str
    wanted: str

    def __str__(self) -> str:
        return f"{_short(self.key)}: {self.given} in the weights, {self.wanted} in the model"


@dataclass(frozen=True, slots=True)
class LoadReport:
    """Which weights went where.

    Attributes
    ----------
    model, source : str
        Class of the model, and the file (or "a mapping").
    matched : tuple of str
        Keys of the model that the weights have, in the right shape and kind.
    missing : tuple of str
        Keys of the model that the weights lack. Counters of batches (`num_batches_tracked`), which old files lack, are not
        among them.
    unexpected : tuple of str
        Keys of the weights that the model lacks, again without these counters.
    mis_shaped : tuple of Misfit
        Keys whose shapes differ.
    mis_typed : tuple of Misfit
        Keys whose kinds of numbers differ: an integer for a float, say.
    converted : tuple of Misfit
        Keys of another dtype of the same kind, which are converted.
    non_finite : tuple of (str, int)
        Keys with NaN or infinity, once in the model's dtype, and how many numbers are. They are loaded all the same.
    renamed : tuple of (str, str)
        (key of the weights, key of the model) where they differ.
    skipped : tuple of str
        Keys of the weights outside `prefix`.
    suggestions : dict of str to str
        Missing key → unexpected key of the same shape and a similar name.
    notes : tuple of str
        What else was done, and hints.
    """

    model: str
    source: str
    matched: tuple[str, ...]
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mis_shaped: tuple[Misfit, ...] = ()
    mis_typed: tuple[Misfit, ...] = ()
    converted: tuple[Misfit, ...] = ()
    non_finite: tuple[tuple[str, int], ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    skipped: tuple[str, ...] = ()
    suggestions: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether every key of the model and of the weights found its partner."""
        return not (self.missing or self.unexpected or self.mis_shaped or self.mis_typed)

    def __str__(self) -> str:
        rows: list[tuple[str, list[str]]] = [
            ("missing", [self._missing(key) for key in self.missing]),
            ("unexpected", [_short(key) for key in self.unexpected]),
            ("mis-shaped", [str(misfit) for misfit in self.mis_shaped]),
            ("mis-typed", [str(misfit) for misfit in self.mis_typed]),
            ("converted", [f"{_short(m.key)}: {m.given} to {m.wanted}" for m in self.converted]),
            ("not finite", [f"{_short(key)}: {n} numbers" for key, n in self.non_finite]),
            ("renamed", [f"{_short(old)} to {_short(new)}" for old, new in self.renamed]),
            ("skipped", [_short(key) for key in self.skipped]),
        ]
        lines = [f"{self.source} into {self.model}", f"{'matched':<12}{len(self.matched):>6}"]
        for title, entries in rows:
            if entries:
                shown = entries if len(entries) <= _MAX_LINES else [*entries[:_MAX_LINES], "…"]
                lines += [f"{title:<12}{len(entries):>6}", *(f"    {entry}" for entry in shown)]
        return "\n".join(lines + [f"note: {note}" for note in self.notes])

    def _missing(self, key: str) -> str:
        similar = self.suggestions.get(key)
        return _short(key) + (f" (the weights have {_short(similar)})" if similar is not None else "")


class WeightsError(FileError):
    """Weights that do not fit a model.

    Attributes
    ----------
    report : LoadReport
        What fits and what does not.
    """

    def __init__(self, message: str, report: LoadReport) -> None:
        super().__init__(message)
        self.report = report


def similar_keys(
    missing: Iterable[tuple[str, tuple[int, ...]]], unexpected: Iterable[tuple[str, tuple[int, ...]]]
) -> dict[str, str]:
    """Return for the first missing keys the unexpected key of the same shape whose name is nearest, if one is near.

    Names are compared for what is shown only, since comparing all with all takes minutes for large networks.
    """
    by_shape: dict[tuple[int, ...], list[str]] = {}
    for key, shape in unexpected:
        if len(key) <= _MAX_KEY:
            by_shape.setdefault(shape, []).append(key)
    found = {}
    for key, shape in list(missing)[:_MAX_LINES]:
        candidates = by_shape.get(shape, [])[:_MAX_CANDIDATES]
        near = difflib.get_close_matches(key, candidates, 1, 0.5) if len(key) <= _MAX_KEY else []
        if near:
            found[key] = near[0]
    return found


def _short(key: str) -> str:
    return key if len(key) <= _MAX_KEY and key.isprintable() else quoted(key, _MAX_KEY)
