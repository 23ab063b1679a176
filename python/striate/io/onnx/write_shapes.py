"""Operators that move elements, as ONNX nodes: shapes, axes, joining, splitting, indexing, padding, resizing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from striate import _core
from striate.io.onnx.write_graph import Call, UnwritableError, Value, Writer
from striate.io.onnx.write_ops import row, zeros
from striate.io.onnx.write_sizes import Size

_LAST = np.iinfo(np.int64).max


def _dim(size: Size) -> Any:
    return _core.Dim(size) if isinstance(size, int) else size


def plus(a: Size, b: Size) -> Size:
    """Add two sizes."""
    return _plain(_dim(a).add(_dim(b)))


def times(*sizes: Size) -> Size:
    """Multiply sizes."""
    product = _core.Dim(1)
    for size in sizes:
        product = product.multiply(_dim(size))
    return _plain(product)


def quotient(a: Size, b: Size) -> Size:
    """Divide a size and round down."""
    return _plain(_dim(a).floor_divide(_dim(b)))


def _plain(size: Any) -> Size:
    return int(size) if size.is_constant else size


@row("reshape")
def _reshape(w: Writer, call: Call) -> str:
    """Elements in logical order, in whatever order they lie in memory."""
    old, new = call.x.shape, call.shape
    if len(new) == 2 < len(old) and new[0] == old[0]:
        return w.node("Flatten", call.x.name, axis=1)
    return w.reshape(call.x.name, old, new)


@row("permute")
def _permute(w: Writer, call: Call) -> str:
    return w.node("Transpose", call.x.name, perm=list(call.attributes["dims"]))


@row("expand")
def _expand(w: Writer, call: Call) -> str:
    return w.node("Expand", call.x.name, w.ints(call.shape))


@row("flip")
def _flip(w: Writer, call: Call) -> str:
    dims = list(call.attributes["dims"])
    if not dims:
        return call.x.name
    starts, ends, steps = ([n] * len(dims) for n in (-1, -_LAST, -1))
    return w.node("Slice", call.x.name, *[w.constant(v, "int64") for v in (starts, ends, dims, steps)])


@row("slice")
def _slice(w: Writer, call: Call) -> str:
    a, old = call.attributes, call.x.shape
    axes, starts, ends, steps = [], [], [], []
    for axis, (begin, size, step) in enumerate(zip(a["begin"], a["size"], a["step"], strict=True)):
        if begin == 0 and step == 1 and size == old[axis]:
            continue
        axes.append(axis)
        starts.append(begin)
        ends.append(plus(begin, size if step == 1 else plus(times(plus(size, -1), step), 1)))
        steps.append(step)
    if not axes:
        return call.x.name
    given = [w.ints(starts), w.ints(ends), w.ints(axes)]
    return w.node("Slice", call.x.name, *given, None if set(steps) == {1} else w.ints(steps))


@row("split")
def _split(w: Writer, call: Call) -> list[str]:
    axis, sizes = call.attributes["dim"], call.attributes["sizes"]
    return w.nodes_of("Split", call.x.name, w.ints(sizes), n_outputs=len(sizes), axis=axis)


@row("concat")
def _concat(w: Writer, call: Call) -> str:
    return w.node("Concat", *[x.name for x in call.inputs if x is not None], axis=call.attributes["dim"])


@row("pixel_shuffle")
def _pixel_shuffle(w: Writer, call: Call) -> str:
    return w.node("DepthToSpace", call.x.name, blocksize=call.attributes["factor"], mode="CRD")


@row("pixel_unshuffle")
def _pixel_unshuffle(w: Writer, call: Call) -> str:
    """SpaceToDepth puts the places of a block before the channels; here they come after."""
    r = call.attributes["factor"]
    n, c, height, width = call.x.shape
    cut = (n, c, quotient(height, r), r, quotient(width, r), r)
    y = w.node("Transpose", w.reshape(call.x.name, call.x.shape, cut), perm=[0, 1, 3, 5, 2, 4])
    return w.reshape(y, (n, c, r, r, cut[2], cut[4]), call.shape)


@row("one_hot")
def _one_hot(w: Writer, call: Call) -> str:
    n_classes = call.shape[-1]
    if not isinstance(n_classes, int):
        raise UnwritableError("one_hot (with a number of classes that may change)")
    column = w.node("Unsqueeze", call.x.name, w.constant([-1], "int64"))
    return w.cast_name(w.node("Equal", column, w.constant(np.arange(n_classes), call.x.dtype)), "int64")


@row("triangle")
def _triangle(w: Writer, call: Call) -> str:
    at = w.scalar(call.attributes["diagonal"], "int64")
    return w.node("Trilu", call.x.name, at, upper=int(call.attributes["is_upper"]))


def _indices(w: Writer, index: Value) -> str:
    return index.name if index.dtype in ("int32", "int64") else w.cast(index, "int64")


@row("gather")
def _gather(w: Writer, call: Call) -> str:
    return w.node("GatherElements", call.x.name, _indices(w, call.required(1)), axis=call.attributes["dim"])


@row("scatter_add")
def _scatter_add(w: Writer, call: Call) -> str:
    index = _indices(w, call.required(1))
    onto = zeros(w, call.shape, call.dtype)
    return w.node("ScatterElements", onto, index, call.x.name, axis=call.attributes["dim"], reduction="add")


@row("index")
def _index(w: Writer, call: Call) -> str:
    """The first axes of x by index tensors of one shape."""
    indices = [_indices(w, x) for x in call.inputs[1:] if x is not None]
    if len(indices) == 1:
        return w.node("Gather", call.x.name, indices[0], axis=0)
    last = w.constant([-1], "int64")
    parts = [
        w.node("Unsqueeze", w.cast(x, "int64"), last) for x in call.inputs[1:] if x is not None
    ]  # GatherND takes int64 only
    return w.node("GatherND", call.x.name, w.node("Concat", *parts, axis=-1))


@row("pad")
def _pad(w: Writer, call: Call) -> str:
    a = call.attributes
    value = None if a["value"] == 0 else w.scalar(a["value"], call.dtype)
    return w.node("Pad", call.x.name, w.ints([*a["begin"], *a["end"]]), value, mode="constant")


# Resizing.


@row("interpolate")
def _interpolate(w: Writer, call: Call) -> str:
    nearest = call.attributes["mode"] == "nearest"
    return _nearest(w, call) if nearest else _bilinear(w, call)


def _factor(old: Size, new: Size, scale: float) -> float | None:
    """Return by what an axis grows, where ⌊i / factor⌋ is the same for float32 as for whole numbers; None elsewhere."""
    if scale == 0:
        ratio = int(_dim(new)) // max(int(_dim(old)), 1)
        return float(ratio) if ratio >= 1 and _dim(times(old, ratio)) == _dim(new) else None
    if scale.is_integer() or math.frexp(scale)[0] == 0.5:
        return scale
    return None


def _nearest(w: Writer, call: Call) -> str:
    """Pixel ⌊i·in/out⌋, or ⌊i/scale⌋: by Resize where its float32 arithmetic is exact, else by the numbers of the pixels."""
    a, y = call.attributes, call.x.name
    factors = [1.0, 1.0]
    chosen: list[tuple[int, str]] = []
    for axis, (new, scale) in enumerate(zip(a["size"], a["scale_factor"], strict=True), start=2):
        old = call.x.shape[axis]
        factor = _factor(old, new, scale)
        factors.append(factor or 1.0)
        if factor is None:
            chosen.append((axis, _pixels(w, old, new, scale)))
    if any(factor != 1 for factor in factors):
        y = w.node(
            "Resize",
            y,
            None,
            w.constant(factors, "float32"),
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )
    for axis, pixels in chosen:
        y = w.node("Gather", y, pixels, axis=axis)
    return y


def _pixels(w: Writer, old: Size, new: Size, scale: float) -> str:
    """Return which pixel of an axis each new one copies."""
    if isinstance(old, int) and isinstance(new, int):
        every = np.arange(new)
        found = (every / scale).astype(np.int64) if scale > 0 else every * old // new
        return w.constant(np.minimum(found, old - 1), "int64")
    length = w.node("Squeeze", w.size(new))
    numbers = w.node("Range", w.scalar(0, "int64"), length, w.scalar(1, "int64"))
    return w.node("Div", w.node("Mul", numbers, w.size(old)), w.size(new))


def _bilinear(w: Writer, call: Call) -> str:
    a, old = call.attributes, call.x.shape[2:]
    fits = [
        scale == 0 or not isinstance(n, int) or math.floor(np.float32(n) * np.float32(scale)) == new
        for n, new, scale in zip(old, a["size"], a["scale_factor"], strict=True)
    ]
    if (a["antialias"] and a["align_corners"]) or not all(fits):  # Resize has another notion of the step
        return _by_weights(w, call)
    by_scale = not a["align_corners"] and all(scale > 0 for scale in a["scale_factor"])
    return w.node(
        "Resize",
        call.x.name,
        None,
        w.constant([1.0, 1.0, *a["scale_factor"]], "float32") if by_scale else None,
        None if by_scale else w.ints(call.shape),
        mode="linear",
        coordinate_transformation_mode="align_corners" if a["align_corners"] else "half_pixel",
        antialias=1 if a["antialias"] else None,
        exclude_outside=1 if a["antialias"] else None,
    )


def _by_weights(w: Writer, call: Call) -> str:
    """A product with the weights of the pixels for each axis: rows from the left, columns from the right."""
    a, old = call.attributes, call.x.shape[2:]
    if not all(isinstance(n, int) for n in (*old, *a["size"])):
        raise UnwritableError("interpolate (with these options on axes that may change)")
    rows, columns = (
        axis_weights(n, new, scale, aligned=a["align_corners"], antialias=a["antialias"])
        for n, new, scale in zip(old, a["size"], a["scale_factor"], strict=True)
    )
    y = w.node("MatMul", call.x.name, w.weight("resize", columns.T.astype(call.dtype)))
    return w.node("MatMul", w.weight("resize", rows.astype(call.dtype)), y)


def axis_weights(old: int, new: int, scale: float, *, aligned: bool, antialias: bool) -> np.ndarray[Any, Any]:
    """Return the weight (new, old) of every pixel of an axis in every one of the resized axis; see `interpolate`."""
    step = 1 / scale if scale > 0 else old / new
    if aligned:
        step = (old - 1) / (new - 1) if new > 1 else 0.0
    weights = np.zeros((new, old))
    for i in range(new):
        if antialias:
            support, centre = max(step, 1.0), step * (i + 0.5)
            first, last = max(int(centre - support + 0.5), 0), min(int(centre + support + 0.5), old)
            pixels = np.arange(first, last)
            triangle = np.maximum(0.0, 1 - np.abs((pixels - centre + 0.5) / support))
            weights[i, first:last] = triangle / triangle.sum()
        else:
            at = i * step if aligned else max((i + 0.5) * step - 0.5, 0.0)
            low = min(int(at), old - 1)
            part = min(max(at - low, 0.0), 1.0) if low + 1 < old else 0.0
            weights[i, low] = 1 - part
            if part > 0:
                weights[i, low + 1] = part
    return weights
