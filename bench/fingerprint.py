"""What a benchmark's figures depend on beside the code: the machine, its limits, versions, date and command."""

from __future__ import annotations

import datetime
import os
import platform
import sys
from typing import Any

from turns import Worker, limits

#: Memory that the bandwidths of the fingerprint are measured over.
STREAMED_BYTES = 192 << 20


def machine(workers: dict[str, Worker]) -> dict[str, Any]:
    """Return the CPU, its cores and caches, what it can do, and what runs on it."""
    return {
        **workers["striate"].ask(machine=True),
        "n_cpus": os.cpu_count(),
        "n_cpus_allowed": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def run(workers: dict[str, Worker], n_threads: int) -> dict[str, Any]:
    """Return what is compared with this many threads, and the limits of the machine now."""
    return {
        "threads": n_threads,
        "libraries": {library: worker.greeting["version"] for library, worker in workers.items()},
        "limits": limits(workers, "start") | {"streams": workers["striate"].ask(streams=STREAMED_BYTES)},
    }


def occasion() -> dict[str, Any]:
    """Return when and how this was started."""
    return {"date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "command": sys.argv}
