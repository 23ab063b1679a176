"""Sampling images at places that other values give."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from striate import ops
from striate.autograd import Tensor
from striate.io.onnx.node import Node, operator
from striate.io.onnx.value import OnnxError, as_array, as_tensor, check_size, ints, number


@operator("AffineGrid")
def affine_grid(node: Node, theta: Any, size: Any) -> Tensor:
    """Return the places that an affine map gives to every pixel, from −1 to 1 along each axis."""
    theta = as_tensor(theta)
    spatial = [int(n) for n in ints(size)[2:]]
    check_size([*spatial, len(spatial) + 1], 8)
    aligned = bool(node.attributes["align_corners"])
    lines = []
    for n in spatial:
        step = 2.0 / (n - 1) if aligned and n > 1 else 2.0 / n
        lines.append(np.arange(n) * step - 1.0 + (0.0 if aligned and n > 1 else step / 2))
        if aligned and n == 1:
            lines[-1] = np.zeros(1)
    grid = np.meshgrid(*lines, indexing="ij")
    points = np.stack([*reversed(grid), np.ones(spatial)], axis=-1).reshape(1, -1, len(spatial) + 1)
    base = as_tensor(np.ascontiguousarray(points).astype(str(theta.dtype)))
    n_images = theta.shape[0]
    base = ops.expand(base, (n_images, *base.shape[1:]))
    return ops.reshape(ops.matmul(base, ops.transpose(theta, 1, 2)), (n_images, *spatial, len(spatial)))


def _unfold(x: Tensor) -> Tensor:
    """Return images as (N · pixels, C), so that pixels are picked as rows."""
    order = (0, *range(2, x.ndim), 1)
    return ops.reshape(ops.permute(x, order), (-1, x.shape[1]))


def _reflected(at: Tensor, low: float, high: float) -> Tensor:
    """Mirror coordinates into [low, high], as often as it takes."""
    span = high - low
    if span <= 0:
        return ops.zeros_like(at)
    distance = ops.abs(at - low)
    turns = ops.floor(distance / span)
    rest = distance - turns * span
    is_even = ops.floor(turns / 2.0) * 2.0 == turns
    return ops.where(is_even, rest + low, high - rest)


@operator("GridSample")
def grid_sample(node: Node, x: Any, grid: Any) -> Tensor:
    """Read images at the places of a grid, from −1 to 1 along each axis; nearest, linear or cubic."""
    x, grid = as_tensor(x), as_tensor(grid)
    a = node.attributes
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(a["mode"], a["mode"])
    n_axes = x.ndim - 2
    if mode not in ("nearest", "linear", "cubic") or a["padding_mode"] not in ("zeros", "border", "reflection"):
        raise OnnxError(f"expected a mode and padding of ONNX, got {a['mode']!r} and {a['padding_mode']!r}")
    if grid.ndim != x.ndim or grid.shape[-1] != n_axes:
        raise OnnxError(f"expected a grid of shape (N, …, {n_axes}), got {grid.shape}; check its last axis")
    sizes = [int(n) for n in x.shape[2:]]
    aligned = bool(a["align_corners"])
    places = []
    for axis, n in enumerate(sizes):
        g = ops.index(grid, (..., n_axes - 1 - axis))
        places.append((g + 1.0) * ((n - 1) / 2.0) if aligned else ((g + 1.0) * float(n) - 1.0) * 0.5)

    def bounded(at: Tensor, n: int) -> Tensor:
        if a["padding_mode"] == "border":
            return ops.clip(at, 0.0, n - 1.0)
        if a["padding_mode"] == "reflection":
            low, high = (0.0, n - 1.0) if aligned else (-0.5, n - 0.5)
            return ops.clip(_reflected(at, low, high), 0.0, n - 1.0)
        return at

    if mode != "cubic":
        places = [bounded(at, n) for at, n in zip(places, sizes, strict=True)]
    taps = [_taps_of(at, mode) for at in places]
    return _blend(x, taps, sizes, grid.shape[1:-1], bounded if mode == "cubic" else None)


def _taps_of(at: Tensor, mode: str) -> list[tuple[Tensor, Tensor | None]]:
    """Return (place, weight) pairs of what is blended along one axis."""
    if mode == "nearest":
        return [(ops.round(at), None)]
    first = ops.floor(at)
    part = at - first
    if mode == "linear":
        return [(first, 1.0 - part), (first + 1.0, part)]
    a = -0.75

    def near(d: Tensor) -> Tensor:
        return ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0

    def far(d: Tensor) -> Tensor:
        return ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a

    return [
        (first - 1.0, far(part + 1.0)),
        (first, near(part)),
        (first + 1.0, near(1.0 - part)),
        (first + 2.0, far(2.0 - part)),
    ]


def _blend(x: Tensor, taps: list[Any], sizes: list[int], out: tuple[int, ...], bounded: Any) -> Tensor:
    """Add up the pixels of all combinations of taps; what lies outside counts as 0."""
    n_images, channels = int(x.shape[0]), x.shape[1]
    table = _unfold(x)
    n_pixels = math.prod(sizes)
    base = as_tensor((np.arange(n_images) * n_pixels).reshape(-1, *[1] * len(out)).astype(np.int64))
    total: Tensor | None = None
    for combination in itertools.product(*taps):
        weight: Tensor | None = None
        is_inside: Tensor | None = None
        flat: Tensor | None = None
        for (place, w), n in zip(combination, sizes, strict=True):
            at = (place if bounded is None else ops.round(bounded(place, n))).detach()
            inside = ops.logical_and(at >= 0.0, at <= n - 1.0)
            is_inside = inside if is_inside is None else ops.logical_and(is_inside, inside)
            whole = ops.to(ops.clip(at, 0.0, n - 1.0), base.dtype)
            flat = whole if flat is None else flat * n + whole
            weight = w if weight is None else weight if w is None else weight * w
        assert flat is not None and is_inside is not None
        picked = ops.index(table, ops.reshape(flat + base, (-1,)))
        factor = ops.to(is_inside, x.dtype) if weight is None else ops.where(is_inside, weight, ops.zeros_like(weight))
        part = picked * ops.reshape(factor, (-1, 1))
        total = part if total is None else total + part
    assert total is not None
    y = ops.reshape(total, (n_images, *out, channels))
    return ops.permute(y, (0, y.ndim - 1, *range(1, y.ndim - 1)))


@operator("RoiAlign")
def roi_align(node: Node, x: Any, rois: Any, batch: Any) -> Tensor:
    """Average, or take the maximum of, samples of a grid in each region of an image.

    K. He et al., "Mask R-CNN", arXiv:1703.06870, section 3.
    """
    x = as_tensor(x)
    a = node.attributes
    boxes = as_array(rois).astype(np.float64) * a["spatial_scale"]
    images = np.array(ints(batch), dtype=np.int64)
    offset = 0.5 if a.get("coordinate_transformation_mode", "output_half_pixel") == "half_pixel" else 0.0
    height, width, rows, columns = int(x.shape[2]), int(x.shape[3]), a["output_height"], a["output_width"]
    channels = x.shape[1]
    if images.size and (images.min() < 0 or images.max() >= x.shape[0]):
        raise OnnxError(f"expected batch indices below {x.shape[0]}, got {images.max()}; check them")
    table = _unfold(x)
    parts = []
    for box, image in zip(boxes, images, strict=True):
        x1, y1, x2, y2 = box - offset
        w, h = x2 - x1, y2 - y1
        if offset == 0.0:
            w, h = max(w, 1.0), max(h, 1.0)
        ratio = a["sampling_ratio"]
        n_y = ratio if ratio > 0 else int(np.ceil(h / rows))
        n_x = ratio if ratio > 0 else int(np.ceil(w / columns))
        check_size([rows * n_y, columns * n_x, channels, 4], 4)
        if n_y * n_x == 0:
            parts.append(ops.zeros(rows, columns, channels, dtype=x.dtype))
            continue
        at_y = y1 + (np.arange(rows * n_y) + 0.5) * (h / rows / n_y)
        at_x = x1 + (np.arange(columns * n_x) + 0.5) * (w / columns / n_x)
        parts.append(
            _sampled(table, image * height * width, at_y, at_x, height, width, (rows, n_y, columns, n_x), a["mode"])
        )
    if not parts:
        return ops.zeros(0, channels, rows, columns, dtype=x.dtype)
    return ops.permute(ops.stack(parts, 0), (0, 3, 1, 2))


def _line(at: Any, n: int) -> tuple[Any, Any, Any, Any]:
    """Return (lower place, upper place, upper weight, whether inside) of bilinear samples along an axis."""
    is_inside = (at >= -1.0) & (at <= n)
    at = np.maximum(at, 0.0)
    low = np.minimum(np.floor(at).astype(np.int64), n - 1)
    high = np.minimum(low + 1, n - 1)
    part = np.where(low >= n - 1, 0.0, at - low)
    return low, high, part, is_inside


def _sampled(
    table: Tensor, base: int, at_y: Any, at_x: Any, height: int, width: int, grid: tuple[int, ...], mode: str
) -> Tensor:
    """Return (rows, columns, C): samples at all pairs of places, brought together for each cell."""
    rows, n_y, columns, n_x = grid
    y_low, y_high, y_part, y_inside = _line(at_y, height)
    x_low, x_high, x_part, x_inside = _line(at_x, width)
    inside = (y_inside[:, None] & x_inside[None, :]).astype(np.float64)
    total: list[Tensor] = []
    for ys, wy in ((y_low, 1 - y_part), (y_high, y_part)):
        for xs, wx in ((x_low, 1 - x_part), (x_high, x_part)):
            places = base + ys[:, None] * width + xs[None, :]
            weight = wy[:, None] * wx[None, :] * inside
            picked = ops.index(table, as_tensor(places.reshape(-1)))
            total.append(picked * as_tensor(weight.reshape(-1, 1).astype(str(table.dtype))))
    cells = [ops.reshape(part, (rows, n_y, columns, n_x, -1)) for part in total]
    if mode == "max":  # ONNX takes the maximum of the four weighted corners of all samples
        return ops.max(ops.stack(cells, 0), dim=[0, 2, 4])
    return ops.mean(cells[0] + cells[1] + cells[2] + cells[3], dim=[1, 3])


@operator("NonMaxSuppression")
def non_max_suppression(
    node: Node,
    boxes: Any,
    scores: Any,
    most: Any = None,
    iou_threshold: Any = None,
    score_threshold: Any = None,
) -> Any:
    """Keep the best boxes of each class of each image, and none that overlaps a better one by more than a threshold.

    Returns
    -------
    ndarray of int64, shape (kept, 3)
        Image, class and box; the best of a class first.
    """
    corners, chances = as_array(boxes), as_array(scores)
    if corners.ndim != 3 or chances.ndim != 3 or corners.shape[1:] != (chances.shape[2], 4):
        raise OnnxError(f"expected boxes (N, B, 4) and scores (N, C, B), got {corners.shape} and {chances.shape}")
    if node.attributes["center_point_box"]:
        centre, half = corners[..., :2], corners[..., 2:] / 2
        low, high = centre - half, centre + half
    else:
        low, high = np.minimum(corners[..., :2], corners[..., 2:]), np.maximum(corners[..., :2], corners[..., 2:])
    n_most = 0 if most is None else min(max(int(number(most)), 0), corners.shape[1])
    overlap = 0.0 if iou_threshold is None else float(number(iou_threshold))
    least = None if score_threshold is None else float(number(score_threshold))
    found: list[tuple[int, int, int]] = []
    for image in range(chances.shape[0]) if n_most else ():
        for label in range(chances.shape[1]):
            row = chances[image, label]
            kept = _suppress(low[image], high[image], row, n_most, overlap, least)
            found += [(image, label, box) for box in kept]
    return np.array(found, dtype=np.int64).reshape(-1, 3)


def _suppress(low: Any, high: Any, scores: Any, n_most: int, overlap: float, least: float | None) -> list[int]:
    """Return the boxes of one class that stay, the best first."""
    order = np.argsort(-scores, kind="stable")
    if least is not None:
        order = order[scores[order] > least]
    x1, y1, x2, y2 = np.ascontiguousarray(np.concatenate([low[order], high[order]], axis=1).T)
    area = (x2 - x1) * (y2 - y1)
    kept: list[int] = []
    with np.errstate(invalid="ignore", divide="ignore"):
        while len(order) and len(kept) < n_most:
            kept.append(int(order[0]))
            # Those that share nothing with the box are most of them: what they share need not be worked out.
            near = np.flatnonzero((x1 < x2[0]) & (x2 > x1[0]) & (y1 < y2[0]) & (y2 > y1[0]))
            width = np.minimum(x2[0], x2[near]) - np.maximum(x1[0], x1[near])
            shared = width * (np.minimum(y2[0], y2[near]) - np.maximum(y1[0], y1[near]))
            gone = near[shared / (area[0] + area[near] - shared) > overlap]
            stays = np.ones(len(order), dtype=bool)
            stays[gone] = stays[0] = False
            if len(gone) > 0:
                order, area, x1, y1, x2, y2 = [values[stays] for values in (order, area, x1, y1, x2, y2)]
            else:
                order, area, x1, y1, x2, y2 = [values[1:] for values in (order, area, x1, y1, x2, y2)]
    return kept
