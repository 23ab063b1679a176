"""The caching allocator: what it holds, and how to give it back."""

from __future__ import annotations

from striate import _core

__all__ = ["set_cap", "stats", "trim"]


def stats() -> dict[str, int]:
    """Return the allocator's counters.

    Returns
    -------
    dict
        `in_use_bytes`, `cached_bytes` (freed and kept for reuse), `peak_bytes` (of in_use_bytes since the last trim),
        `n_system_allocations`, `cap_bytes` (most that is kept).
    """
    return _core.memory_stats()


def trim() -> None:
    """Give all cached memory back to the system."""
    _core.trim_memory()


def set_cap(n_bytes: int) -> None:
    """Keep at most `n_bytes` of freed memory for reuse; 0 means twice the peak, and at least 256 MiB."""
    _core.set_memory_cap(n_bytes)
