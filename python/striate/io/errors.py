"""What every reader of files raises."""

from __future__ import annotations

__all__ = ["FileError"]


class FileError(ValueError):
    """A file that cannot be what it should be; the text names the file, the key or node, and what to do."""
