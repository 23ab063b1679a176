"""One kind of error for every file that cannot be what it should be, and the words it is told in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

__all__ = ["FileError"]


class FileError(ValueError):
    """A file that cannot be what it should be; the text names the file, the place in it, and what to do.

    Readers raise nothing else for what they find inside a file. A file that cannot be opened or read at all raises OSError.
    """


def quoted(value: object, n_characters: int = 120) -> str:
    """Return `repr(value)` of a text, number or tuple from a file, cut where it gets long."""
    if isinstance(value, str | bytes):
        return repr(value) if len(value) <= n_characters else f"{value[:n_characters]!r}…"
    text = repr(value)
    return text if len(text) <= n_characters else text[:n_characters] + "…"


@dataclass(frozen=True, slots=True)
class Source:
    """Which reader reads which file: the first words of its errors.

    Parameters
    ----------
    reader : str
        Name of the format.
    path : str
    """

    reader: str
    path: str

    def refuse(self, expected: str, got: str, advice: str, cause: BaseException | None = None) -> NoReturn:
        """Raise the FileError `<reader>: expected <expected> in <path>, got <got>; <advice>`."""
        raise FileError(f"{self.reader}: expected {expected} in {self.path!r}, got {got}; {advice}") from cause
