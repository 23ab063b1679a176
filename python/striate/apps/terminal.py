"""What the commands print to, and how they end when something is wrong."""

from __future__ import annotations

import logging
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

# A terminal's width is its own; piped text must not be broken at 80 columns.
console = Console(soft_wrap=True)

BAD_INPUT = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells report it

logger = logging.getLogger("striate.apps")

_NAME_WIDTH = 16


def say(line: str) -> None:
    """Print a line as it is."""
    console.print(line, highlight=False, markup=False)


def say_fact(name: str, value: str) -> None:
    """Print what something is called and what it is; on a terminal, long values are broken under each other."""
    line = f"{name:<{_NAME_WIDTH - 1}} {value}"
    if console.is_terminal:
        gap = " " * _NAME_WIDTH
        line = textwrap.fill(line, max(console.width, 40), subsequent_indent=gap, break_on_hyphens=False)
    say(line)


def complain(line: str) -> None:
    """Print one line that something is wrong."""
    # The last output of a progress display may still be in the buffer of stdout.
    sys.stdout.flush()
    sys.stderr.write(f"striate: {' '.join(line.split())}\n")


@contextmanager
def reported() -> Iterator[None]:
    """Turn what a user can put right into one line and exit code 2; a bug keeps its traceback."""
    try:
        yield
    except (ValueError, OSError, MemoryError, FloatingPointError, ModuleNotFoundError) as error:
        logger.debug("the error in full", exc_info=True)
        complain(str(error) or ("out of memory" if isinstance(error, MemoryError) else repr(error)))
        raise typer.Exit(BAD_INPUT) from None
    except KeyboardInterrupt:
        complain("stopped")
        raise typer.Exit(INTERRUPTED) from None
