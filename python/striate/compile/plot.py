"""A picture of a program: its nodes in the order they run, the area of each as the time it takes.

matplotlib comes with the extra ``app``. Only its object interface is used, so no global figure or back end of the caller is
touched.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from striate.compile.explain import Explanation, Row

__all__ = ["draw"]

_FORMATS = (".png", ".svg", ".pdf")
_NODES_A_LINE = 14
_WIDTH = 14.0  # inches, of a line
_LINE = 1.3  # inches, from line to line
_HEIGHT = 0.6  # of a line, taken by its boxes; curves run above them
_INK = "#333333"
_UNKNOWN = "#DDDDDD"


def draw(explanation: Explanation, file: str | Path) -> None:
    """Draw a measured program into a file, whose ending says the format: png, svg or pdf.

    Time runs along lines, from the left to the right and from the top down. A node is as wide as the time it takes, its colour is
    its share of the roofline, and a curve leads to it from every node, other than the one before, whose result it reads.
    """
    total = explanation.measured_ms
    if not total:
        raise ValueError("plot: expected measured times, got none; call explain(measure=True)")
    if Path(file).suffix not in _FORMATS:
        raise ValueError(f"plot: expected a file that ends in {', '.join(_FORMATS)}, got {str(file)!r}; rename it")
    try:
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import LinearSegmentedColormap, Normalize
        from matplotlib.figure import Figure
        from matplotlib.patches import Rectangle
    except ImportError as error:
        raise ModuleNotFoundError("plot: expected matplotlib, got none; install striate[app]") from error

    n_lines = max(1, math.ceil(sum(row.measured_ms != 0 for row in explanation.rows) / _NODES_A_LINE))
    a_line = total / n_lines
    figure = Figure(figsize=(_WIDTH, max(_LINE * n_lines + 1.0, 3.0)), dpi=120, layout="constrained", facecolor="white")
    axes = figure.subplots()
    # Light enough for text, and told apart by every kind of colour vision.
    colours = ScalarMappable(
        Normalize(0, 1), LinearSegmentedColormap.from_list("share", ["#F4A582", "#FBE6D4", "#D6E8F2", "#8CC3E0"])
    )
    begins: list[float] = []
    now = 0.0
    for row in explanation.rows:
        begins.append(now)
        taken = row.measured_ms or 0.0
        colour = _UNKNOWN if row.share is None else colours.to_rgba(np.asarray(min(row.share, 1.0)))
        pieces = list(_pieces(now, taken, a_line, n_lines))
        for line, left, width in pieces:
            axes.add_patch(Rectangle((left, -line), width, _HEIGHT, facecolor=colour, edgecolor="white", lw=0.8))
        if pieces:
            line, left, width = max(pieces, key=lambda piece: piece[2])
            _label(figure, row, left + width / 2, _HEIGHT / 2 - line, width / a_line * _WIDTH)
        now += taken
    for i, row in enumerate(explanation.rows):
        for source in row.sources:
            if source != i - 1:
                made = explanation.rows[source]
                _connect(figure, begins[source] + (made.measured_ms or 0.0) / 2, begins[i], a_line, n_lines)
    axes.set_xlim(0, a_line)
    axes.set_ylim(1 - n_lines - 0.1, 0.95)
    axes.set_yticks([])
    axes.set_xlabel(f"milliseconds from the beginning of a line, of {total:.3g} in {len(explanation.rows)} nodes")
    axes.spines[["top", "right", "left"]].set_visible(False)
    bar = figure.colorbar(colours, ax=axes, fraction=0.03, pad=0.01, shrink=min(1.0, 4 / n_lines))
    bar.set_label(f"share of the roofline, {explanation.isa}")
    bar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    figure.savefig(file)


def _pieces(begin: float, taken: float, a_line: float, n_lines: int) -> Iterator[tuple[int, float, float]]:
    """Yield (line, left, width) of every part of a box that runs over the ends of lines."""
    while taken > 1e-9 * a_line:
        line = min(int(begin / a_line * (1 + 1e-12)), n_lines - 1)
        left = begin - line * a_line
        width = min(taken, a_line - left) if line < n_lines - 1 else taken
        yield line, left, width
        begin += width
        taken -= width


def _label(figure: Figure, row: Row, x: float, y: float, inches: float) -> None:
    """Write into a box what fits: on two lines, upright, or nothing."""
    name = " + ".join((row.op, *(word for word in row.fused if word != "bias")))
    shape = "×".join(map(str, row.shape))
    longest = max(len(name), len(shape), 1)
    if inches > 0.075 * longest:
        lines = (name, shape, row.algorithm or "", f"{row.measured_ms:.3g} ms")
        figure.axes[0].text(
            x, y, "\n".join(word for word in lines if word), ha="center", va="center", fontsize=7, color=_INK
        )
    elif inches > 0.14:
        letters = int(_HEIGHT * _LINE / 0.062)
        word = row.op if len(row.op) <= letters else row.op[: letters - 1] + "…"
        figure.axes[0].text(
            x,
            y,
            f"{word}\n{shape[:letters]}" if inches > 0.3 else word,
            ha="center",
            va="center",
            fontsize=6,
            rotation=90,
            color=_INK,
        )


def _connect(figure: Figure, begin: float, end: float, a_line: float, n_lines: int) -> None:
    """Lead a curve above the boxes; one that goes on in another line leaves at the right and comes in at the left."""
    from matplotlib.patches import FancyArrowPatch

    (a, from_line), (b, to_line) = (
        (at - line * a_line, line) for at in (begin, end) for line in [min(int(at / a_line), n_lines - 1)]
    )
    if from_line == to_line:
        parts = [((a, _HEIGHT - from_line), (b, _HEIGHT - to_line), "-|>")]
    else:
        gutter = _HEIGHT + 0.2
        parts = [
            ((a, _HEIGHT - from_line), (a_line, gutter - from_line), "-"),
            ((0.0, gutter - to_line), (b, _HEIGHT - to_line), "-|>"),
        ]
    for start, stop, style in parts:
        bend = -0.12 * min(1.0, a_line / max(abs(stop[0] - start[0]), 1e-9) / 6)
        figure.axes[0].add_patch(
            FancyArrowPatch(
                start,
                stop,
                connectionstyle=f"arc3,rad={bend:.3f}",
                arrowstyle=style,
                mutation_scale=6,
                shrinkA=0,
                shrinkB=0,
                lw=0.7,
                color=_INK,
                alpha=0.6,
            )
        )
