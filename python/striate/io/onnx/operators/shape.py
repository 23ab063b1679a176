"""Shapes: what gives elements another place, and what asks for sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper

from striate import _core, ops
from striate.autograd import Tensor
from striate.autograd.dim import Dim
from striate.io.onnx.node import Node, operator
from striate.io.onnx.value import (
    DTYPES,
    HALVES,
    OnnxError,
    as_array,
    as_tensor,
    axis_of,
    check_size,
    ints,
    number,
    sizes,
)


@operator("Identity", takes_anything=True)
def identity(node: Node, x: Any) -> Any:
    """Return the operand."""
    return (x,)


@operator("Cast")
def cast(node: Node, x: Any) -> Any:
    """Convert to another element type; half floats are rounded and kept as float32."""
    return _cast(as_tensor(x), node.attributes["to"])


def _cast(x: Tensor, kind: int) -> Tensor:
    if kind in HALVES and x.dtype.is_floating_point:
        return ops.to(ops.to(x, HALVES[kind][0]), _core.DType.float32)
    if kind not in DTYPES:
        raise _core.DTypeError(f"cast: no tensor holds elements of type {TensorProto.DataType.Name(kind)}")
    return ops.to(x, DTYPES[kind])


@operator("CastLike")
def cast_like(node: Node, x: Any, target: Any) -> Any:
    """Convert to the element type of another value."""
    if isinstance(target, np.ndarray) and str(target.dtype) not in {str(d) for d in DTYPES.values()}:
        raise _core.DTypeError("types that no tensor holds are the host's")
    return ops.to(as_tensor(x), as_tensor(target).dtype)


@operator("Shape")
def shape(node: Node, x: Any) -> Any:
    """Return sizes, as a host value that follows the input while recording."""
    found = list(x.shape)
    start, end = node.attributes.get("start", 0), node.attributes.get("end")
    return sizes(found[slice(start, end)])


@operator("Size")
def size(node: Node, x: Any) -> Any:
    """Return the number of elements."""
    n = 1
    for m in x.shape:
        n = m * n
    return sizes([n]).reshape(())


@operator("Reshape")
def reshape(node: Node, x: Any, shape: Any) -> Tensor:
    """Give another shape: 0 keeps a size (unless `allowzero`), −1 stands for the rest."""
    x = as_tensor(x)
    wanted = ints(shape)
    if not node.attributes.get("allowzero", 0):
        for i, n in enumerate(wanted):
            if not isinstance(n, Dim) and n == 0:
                if i >= x.ndim:
                    raise OnnxError(f"expected a size to keep at axis {i}, got shape {x.shape}; the file is damaged")
                wanted[i] = x.shape[i]
    return ops.reshape(x, wanted)


@operator("Flatten")
def flatten(node: Node, x: Any) -> Tensor:
    """Make a matrix: the axes before `axis`, and those from it on."""
    x = as_tensor(x)
    axis: int = node.attributes["axis"]
    axis = axis_of(axis, x.ndim) if axis < 0 else axis_of(axis, x.ndim + 1)
    n_rows = 1
    for n in x.shape[:axis]:
        n_rows = n * n_rows
    n_columns = 1
    for n in x.shape[axis:]:
        n_columns = n * n_columns
    if axis == 1 and x.ndim > 2:
        return ops.flatten(x, 1)
    return ops.reshape(x, (n_rows, n_columns))


@operator("Transpose")
def transpose(node: Node, x: Any) -> Tensor:
    """Reorder axes; reverse them by default."""
    x = as_tensor(x)
    return ops.permute(x, node.attributes.get("perm") or list(reversed(range(x.ndim))))


@operator("Squeeze")
def squeeze(node: Node, x: Any, axes: Any = None) -> Tensor:
    """Drop axes of size 1."""
    x = as_tensor(x)
    chosen = node.attributes.get("axes") if axes is None else ints(axes)
    if chosen is None:
        return ops.squeeze(x)
    for axis in chosen:
        if not -x.ndim <= axis < x.ndim or x.shape[axis] != 1:
            raise _core.ShapeError(f"expected axis {axis} of size 1 to drop, got shape {x.shape}; choose another axis")
    return ops.squeeze(x, list(chosen)) if chosen else x


@operator("Unsqueeze")
def unsqueeze(node: Node, x: Any, axes: Any = None) -> Tensor:
    """Insert axes of size 1."""
    x = as_tensor(x)
    chosen = node.attributes.get("axes") if axes is None else ints(axes)
    ndim = x.ndim + len(chosen or ())
    places = sorted(a + ndim if a < 0 else a for a in chosen or ())
    if len(set(places)) != len(places) or any(not 0 <= a < ndim for a in places):
        raise OnnxError(f"expected axes of a result of {ndim} axes, each once, got {chosen}; the file is damaged")
    for axis in places:
        x = ops.unsqueeze(x, axis)
    return x


@operator("Concat")
def concat(node: Node, *values: Any) -> Tensor:
    """Put values one after the other along an axis."""
    tensors = [as_tensor(v) for v in values]
    axis = node.attributes["axis"]
    shape = list(tensors[0].shape)
    if shape:
        shape[axis] = sum(t.shape[axis] for t in tensors)
        check_size(shape, 8 if "64" in str(tensors[0].dtype) else 4)
    return ops.concat(tensors, axis)


@operator("Split")
def split(node: Node, x: Any, lengths: Any = None) -> Any:
    """Cut along an axis into as many parts as there are outputs."""
    x = as_tensor(x)
    axis = node.attributes["axis"]
    given = node.attributes.get("split") if lengths is None else ints(lengths)
    if given is None:
        n_parts = node.attributes.get("num_outputs") or len(node.outputs)
        n = x.shape[axis]
        part = (n + n_parts - 1) // n_parts
        if n % n_parts == 0:
            given = [part] * n_parts
        else:
            given = [part] * (n_parts - 1)
            given.append(n - part * (n_parts - 1))
            if given[-1] < 0:
                raise OnnxError(f"expected an axis of at least {n_parts} to split, got {n}; ask for fewer parts")
    return tuple(ops.split(x, list(given), axis))


@operator("Slice")
def slice_(node: Node, x: Any, starts: Any = None, ends: Any = None, axes: Any = None, steps: Any = None) -> Tensor:
    """Cut ranges out of axes."""
    x = as_tensor(x)
    if node.since < 10:
        begin, end, chosen = node.attributes["starts"], node.attributes["ends"], node.attributes.get("axes")
    else:
        begin, end = ints(starts), ints(ends)
        chosen = None if axes is None else ints(axes)
    stride = [1] * len(begin) if steps is None else ints(steps)
    chosen = list(range(len(begin))) if chosen is None else chosen
    if not len(begin) == len(end) == len(chosen) == len(stride):
        raise OnnxError(
            f"expected as many ends, axes and steps as starts, got {len(begin)}, {len(end)}, {len(chosen)} and {len(stride)}"
        )
    key: list[Any] = [slice(None)] * x.ndim
    for first, last, axis, step in zip(begin, end, chosen, stride, strict=True):
        if not -x.ndim <= axis < x.ndim:
            raise OnnxError(f"expected an axis of {x.ndim}, got {axis}; the file is damaged")
        key[axis] = _range(first, last, step)
    return ops.index(x, tuple(key))


def _range(first: int, last: int, step: int) -> slice:
    """Return a Python slice of the same meaning; ends far beyond an axis mean the end."""
    if step == 0:
        raise OnnxError("expected steps other than 0, got 0; the file is damaged")
    start: int | None = first
    stop: int | None = last
    if not isinstance(last, Dim):
        if step > 0 and last >= 2**31 - 1:
            stop = None
        if step < 0 and last <= -(2**31):
            stop = None
    if not isinstance(first, Dim):
        if step < 0 and first >= 2**31 - 1:
            start = None
        if step > 0 and first <= -(2**31):
            start = None
    return slice(start, stop, step)


@operator("Expand")
def expand(node: Node, x: Any, shape: Any) -> Tensor:
    """Broadcast to a shape; sizes of 1 there keep those of x."""
    x = as_tensor(x)
    wanted = ints(shape)
    own = (*[1] * max(len(wanted) - x.ndim, 0), *x.shape)
    wanted = [*[1] * (len(own) - len(wanted)), *wanted]
    joint = [n if int.__add__(w, 0) == 1 and w == 1 else w for n, w in zip(own, wanted, strict=True)]
    check_size(joint)
    return ops.expand(ops.reshape(x, own), joint)


@operator("Tile")
def tile(node: Node, x: Any, repeats: Any) -> Tensor:
    """Lay copies side by side."""
    x = as_tensor(x)
    counts = ints(repeats)
    check_size([n * r for n, r in zip(x.shape, counts, strict=True)])
    return ops.repeat(x, counts)


@operator("ConstantOfShape")
def constant_of_shape(node: Node, shape: Any) -> Any:
    """Fill a shape with one value; on the host unless sizes follow an input."""
    wanted = ints(shape)
    value = node.attributes.get("value")
    value = np.zeros(1, dtype=np.float32) if value is None else np.asarray(value)
    check_size(wanted, value.dtype.itemsize)
    if any(isinstance(n, Dim) for n in wanted):
        dtype = next(d for d in DTYPES.values() if str(d) == str(value.dtype))
        return ops.full(wanted, value.reshape(-1)[0].item(), dtype=dtype)
    return np.full(wanted, value.reshape(-1)[0], dtype=value.dtype)


@operator("Constant")
def constant(node: Node) -> Any:
    """Return the value that an attribute holds."""
    for name, kind in _CONSTANTS.items():
        if name in node.attributes:
            value = node.attributes[name]
            return np.asarray(value, dtype=kind) if kind is not None else value
    if node.attributes.get("sparse_value") is not None:
        from striate.io.onnx.graph import read_sparse

        return read_sparse(node.attributes["sparse_value"], "sparse_value")
    raise OnnxError("expected one of its attributes to hold a value, got none; the file is damaged")


_CONSTANTS: dict[str, Any] = {
    "value": None,
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
    "value_string": np.str_,
    "value_strings": np.str_,
}


@operator("Trilu")
def trilu(node: Node, x: Any, k: Any = None) -> Tensor:
    """Keep the upper or lower triangle of matrices."""
    diagonal = 0 if k is None else int(number(k))
    x = as_tensor(x)
    diagonal = max(min(diagonal, x.shape[-1] + 1), -x.shape[-2] - 1)
    return ops.triu(x, diagonal) if node.attributes["upper"] else ops.tril(x, diagonal)


@operator("Pad")
def pad(node: Node, x: Any, pads: Any = None, value: Any = None, axes: Any = None) -> Tensor:
    """Grow axes at both ends by a constant, the mirror image, the edge, or from the other end."""
    x = as_tensor(x)
    if node.since < 11:
        counts, fill = list(node.attributes["pads"]), node.attributes["value"]
    else:
        counts = ints(pads)
        fill = 0 if value is None else number(value)
    chosen = list(range(x.ndim)) if axes is None else [axis_of(a, x.ndim) for a in ints(axes)]
    if len(counts) != 2 * len(chosen):
        raise OnnxError(f"expected {2 * len(chosen)} pads, got {len(counts)}; the file is damaged")
    pairs = [(0, 0)] * x.ndim
    for i, axis in enumerate(chosen):
        pairs[axis] = (counts[i], counts[i + len(chosen)])
    check_size([max(n + b + e, 0) for n, (b, e) in zip(x.shape, pairs, strict=True)])
    flat = [n for pair in reversed(pairs) for n in pair]
    mode = node.attributes["mode"]
    if mode == "constant":
        return ops.pad(x, flat, value=float(fill))
    if mode == "wrap":
        for axis, (begin, end) in enumerate(pairs):
            x = _wrapped(x, axis, begin, end)
        return x
    if mode not in ("reflect", "edge"):
        raise OnnxError(f"expected mode constant, reflect, edge or wrap, got {mode!r}; the file is damaged")
    return ops.pad(x, flat, mode="reflect" if mode == "reflect" else "replicate")


def _wrapped(x: Tensor, axis: int, begin: int, end: int) -> Tensor:
    n = int(x.shape[axis])
    places = np.arange(-begin, n + end) % n
    return x if begin == end == 0 else ops.index(x, (*[slice(None)] * axis, places))


@operator("DepthToSpace")
def depth_to_space(node: Node, x: Any) -> Tensor:
    """Turn channels into pixels, in either order of blocks."""
    x = as_tensor(x)
    block = node.attributes["blocksize"]
    if node.attributes.get("mode", "DCR") == "CRD":
        return ops.pixel_shuffle(x, block)
    n, c, h, w = x.shape
    parts = ops.permute(ops.reshape(x, (n, block, block, c // (block * block), h, w)), (0, 3, 4, 1, 5, 2))
    return ops.reshape(parts, (n, c // (block * block), h * block, w * block))


@operator("SpaceToDepth")
def space_to_depth(node: Node, x: Any) -> Tensor:
    """Turn pixels into channels."""
    x = as_tensor(x)
    block = node.attributes["blocksize"]
    n, c, h, w = x.shape
    order = (0, 1, 3, 5, 2, 4) if node.attributes.get("mode", "DCR") == "CRD" else (0, 3, 5, 1, 2, 4)
    parts = ops.permute(ops.reshape(x, (n, c, h // block, block, w // block, block)), order)
    return ops.reshape(parts, (n, c * block * block, h // block, w // block))


@operator("CenterCropPad")
def center_crop_pad(node: Node, x: Any, shape: Any) -> Tensor:
    """Crop or pad axes around their middle to sizes."""
    x = as_tensor(x)
    wanted = ints(shape)
    axes = node.attributes.get("axes") or list(range(x.ndim))
    check_size(wanted)
    key: list[Any] = [slice(None)] * x.ndim
    pairs = [(0, 0)] * x.ndim
    for axis, w in zip(axes, wanted, strict=True):
        n = x.shape[axis]
        if n > w:
            first = (n - w) // 2
            key[axis] = slice(first, first + w)
        elif n < w:
            pairs[axis] = ((w - n) // 2, w - n - (w - n) // 2)
    cropped = ops.index(x, tuple(key))
    return ops.pad(cropped, [n for pair in reversed(pairs) for n in pair])


@operator("Range")
def range_(node: Node, start: Any, limit: Any, delta: Any) -> Any:
    """Count from start to limit by steps."""
    first, last, step = as_array(start), as_array(limit), as_array(delta)
    if number(step) == 0:
        raise OnnxError("expected a delta other than 0, got 0; the file is damaged")
    n = max(int(np.ceil((float(number(last)) - float(number(first))) / float(number(step)))), 0)
    check_size([n], 8)
    first, step = first.reshape(()), step.reshape(())
    return (first + np.arange(n, dtype=first.dtype) * step).astype(first.dtype)


@operator("EyeLike")
def eye_like(node: Node, x: Any) -> Any:
    """Make ones on a diagonal."""
    if len(x.shape) != 2:
        raise OnnxError(f"expected a matrix, got shape {tuple(x.shape)}; reshape it")
    kind = node.attributes.get("dtype")
    dtype = helper.tensor_dtype_to_np_dtype(kind) if kind else np.dtype(str(x.dtype))
    rows, columns = (int(n) for n in x.shape)
    check_size([rows, columns], dtype.itemsize)
    return np.eye(rows, columns, k=node.attributes["k"], dtype=dtype)
