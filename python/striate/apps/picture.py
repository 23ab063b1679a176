"""Pictures of a training run: curves, confusion, filters and feature maps, drawn without a display.

matplotlib comes with the extra ``app``. Only its object interface is used, so no global figure or back end of the
caller is touched.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Blue and orange of the Okabe-Ito palette: told apart by every kind of colour vision.
TRAIN_COLOUR = "#0072B2"
VALIDATION_COLOUR = "#D55E00"
_INK = "#333333"
_DPI = 150


def draw_curves(history: Sequence[dict[str, float]]) -> bytes:
    """Draw loss and accuracy over the epochs.

    Parameters
    ----------
    history : sequence of dict
        One row for each epoch, with `epoch`, `loss`, `accuracy`, `val_loss` and `val_accuracy` (accuracies from 0 to
        1); at least one row.

    Returns
    -------
    bytes
        A PNG file.
    """
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    figure = _new_figure(9.0, 3.8)
    epochs = [row["epoch"] for row in history]
    panels: list[Axes] = figure.subplots(1, 2)
    for axes, quantity, title in zip(panels, ("loss", "accuracy"), ("Loss", "Accuracy"), strict=True):
        for part, name, colour in (("", "training", TRAIN_COLOUR), ("val_", "validation", VALIDATION_COLOUR)):
            values = [row[part + quantity] for row in history]
            last = f"{values[-1]:.1%}" if quantity == "accuracy" else f"{values[-1]:.3f}"
            marker = "o" if len(epochs) <= 30 else ""
            axes.plot(epochs, values, color=colour, marker=marker, markersize=3.5, lw=1.8, label=f"{name}: {last}")
        axes.set_title(title, loc="left", fontweight="bold")
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(axis="y", color="#DDDDDD", lw=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, title="at the last epoch", alignment="left")
    panels[0].set_ylabel("cross-entropy")
    panels[1].set_ylabel("correctly classified")
    panels[1].yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    return _png(figure)


def draw_confusion(counts: NDArray[np.int64], classes: Sequence[str], *, title: str) -> bytes:
    """Draw which classes are taken for which.

    Parameters
    ----------
    counts : ndarray of int64, shape (K, K)
        Images of class i (row) that were classified as j (column).
    classes : sequence of str, length K
    title : str

    Returns
    -------
    bytes
        A PNG file: colour is the share of the row; the counts are written up to 20 classes, names up to 60.
    """
    from matplotlib.ticker import PercentFormatter

    n_classes = len(classes)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(max(3.2, 0.52 * n_classes), 10.0)
    figure = _new_figure(side + 2.2, side + 1.4)
    axes: Axes = figure.subplots()
    picture = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set_title(title, loc="left", fontweight="bold")
    axes.set_xlabel("classified as")
    axes.set_ylabel("true class")
    if n_classes <= 60:
        size = 9 if n_classes <= 20 else 5
        names = [_shorten(name, 18) for name in classes]
        axes.set_xticks(range(n_classes), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=size)
        axes.set_yticks(range(n_classes), names, fontsize=size)
    if n_classes <= 20:
        for i, j in np.argwhere(counts > 0):
            colour = "white" if share[i, j] > 0.5 else _INK
            axes.text(j, i, f"{counts[i, j]}", ha="center", va="center", fontsize=8, color=colour)
        edges = np.arange(n_classes + 1) - 0.5
        axes.set_xticks(edges, minor=True)
        axes.set_yticks(edges, minor=True)
        axes.grid(which="minor", color="white", lw=1.2)
        axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(picture, ax=axes, shrink=0.75, aspect=30, format=PercentFormatter(1.0))
    bar.set_label("share of the true class")
    bar.outline.set_visible(False)
    return _png(figure)


def draw_filters(weight: NDArray[np.float32], *, name: str) -> bytes:
    """Draw the filters of a first convolution.

    Parameters
    ----------
    weight : ndarray of float32, shape (O, C, P, Q)
        With C = 3 a filter is a coloured tile, mid-grey standing for zero; else its channels are averaged and shown
        from negative (blue) over zero (white) to positive (red).
    name : str
        Name of the layer.

    Returns
    -------
    bytes
        A PNG file; the first 128 filters.
    """
    n_filters, channels, height, width = weight.shape
    shown = weight[:128]
    limit = float(np.abs(shown).max()) or 1.0
    columns = min(8 if len(shown) <= 32 else 16, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure = _new_figure(0.66 * columns + 1.6, 0.66 * rows + 0.6)
    axes: Axes = figure.subplots()
    axes.set_axis_off()
    of_all = f"first {len(shown)} of {n_filters}" if n_filters > len(shown) else f"{n_filters}"
    figure.suptitle(f"{name}: {of_all} filters, {height}×{width}", x=0.01, ha="left", fontsize=10, fontweight="bold")
    if channels == 3:
        axes.imshow(_mosaic(0.5 + shown.transpose(0, 2, 3, 1) / (2 * limit), columns))
    else:
        tiles = _mosaic(shown.mean(axis=1)[..., None], columns, background=np.nan)[..., 0]
        picture = axes.imshow(tiles, cmap="RdBu_r", vmin=-limit, vmax=limit)
        bar = figure.colorbar(picture, ax=axes, shrink=0.9 if rows > 1 else 1.0, aspect=20)
        bar.set_label("weight" if channels == 1 else f"mean weight of {channels} channels")
        bar.outline.set_visible(False)
    return _png(figure)


def draw_feature_maps(
    image: NDArray[np.uint8], layers: Sequence[tuple[str, NDArray[np.float32]]], *, title: str, n_maps: int = 10
) -> bytes:
    """Draw what each layer makes of one picture.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 1) or (H, W, 3)
    layers : sequence of (str, ndarray of float32, shape (C, H, W))
        Name and output of each layer, in order; at least one.
    title : str
    n_maps : int, default 10
        Channels shown for each layer: those that vary most over the picture, the strongest first.

    Returns
    -------
    bytes
        A PNG file; each map is scaled to its own range.
    """
    figure = _new_figure(0.8 * n_maps + 4.0, max(0.8 * len(layers) + 0.5, 2.6))
    source, maps = figure.subfigures(1, 2, squeeze=False, width_ratios=[2.4, 0.8 * n_maps + 1.6])[0]
    axes: Axes = source.subplots()
    axes.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=255)
    axes.set_axis_off()
    axes.set_title(title, fontsize=9)
    for row, (name, values) in zip(maps.subplots(len(layers), squeeze=False)[:, 0], layers, strict=True):
        channels, height, width = values.shape
        order = np.argsort(-values.reshape(channels, -1).var(axis=1), kind="stable")[:n_maps]
        low, high = (extreme(values[order], axis=(1, 2), keepdims=True) for extreme in (np.min, np.max))
        scaled = np.full((n_maps, height, width, 1), np.nan)
        scaled[: len(order), ..., 0] = (values[order] - low) / np.where(high > low, high - low, 1)
        row.imshow(_mosaic(scaled, n_maps, background=np.nan)[..., 0], cmap="magma", vmin=0, vmax=1)
        row.set_xticks([])
        row.set_yticks([])
        row.spines[:].set_visible(False)
        row.set_ylabel(
            f"{name}\n{channels} × {height}×{width}", rotation=0, ha="right", va="center", labelpad=6, fontsize=8
        )
    maps.suptitle("Each layer's most varied channels, bright = strong response", fontsize=10, fontweight="bold")
    return _png(figure)


def _mosaic(tiles: NDArray[np.floating], columns: int, *, background: float = 1.0) -> NDArray[np.floating]:
    """Lay tiles (K, H, W, C) out in rows, in one array: an axes object for each tile takes seconds to draw."""
    n, height, width, depth = tiles.shape
    zoom = max(1, round(32 / max(height, width)))
    tiles = tiles.repeat(zoom, axis=1).repeat(zoom, axis=2)
    gap = max(2, round(0.12 * width * zoom))
    rows = math.ceil(n / columns)
    placed = np.full((rows * columns, height * zoom + gap, width * zoom + gap, depth), background)
    placed[:n, :-gap, :-gap] = tiles
    grid = placed.reshape(rows, columns, *placed.shape[1:]).swapaxes(1, 2)
    return grid.reshape(rows * placed.shape[1], columns * placed.shape[2], depth)[:-gap, :-gap]


def _new_figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=_DPI, layout="constrained", facecolor="white")


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _shorten(name: str, n_letters: int) -> str:
    return name if len(name) <= n_letters else f"{name[: n_letters - 1]}…"
