"""What goes into a model and what comes out of it, as a file declares it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Port"]


@dataclass(frozen=True, slots=True)
class Port:
    """One input or output of a model.

    Parameters
    ----------
    name : str
    dtype : str
        Of the elements, as striate and NumPy call it: "float32"; else the kind of value: "string", "sequence", "optional".
    shape : tuple of (int, str or None), or None
        An open size is the name that the file gives it, or None. None as a whole: the file does not say.
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...] | None

    def __str__(self) -> str:
        if self.shape is None:
            return f"{self.name}: {self.dtype} of any shape"
        sizes = "×".join("?" if n is None else str(n) for n in self.shape)
        return f"{self.name}: {self.dtype} {sizes or 'number'}"
