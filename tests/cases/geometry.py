"""Hypothesis strategies that draw geometry: sizes around lanes, strides over kernels, groups = C, empty batches."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from cases.activation import softmax_case
from cases.case import Case, boolean, in_sequence, real
from cases.conv import conv_case, conv_transpose_case, linear_case, matmul_case
from cases.norm import layer_norm_case
from cases.pool import avg_pool_case, max_pool_case
from oracle import bound, elementwise, reduce
from oracle import shape as moves
from oracle.window import Axis

CHANNELS = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48)
SIZES = (1, 2, 3, 5, 7, 8, 9, 13, 16, 17)
MOST_CELLS = 12_000
MOST_PRODUCTS = 400_000


def _each(draw: st.DrawFn, n_axes: int, low: int, high: int) -> tuple[int, ...]:
    return tuple(draw(st.integers(low, high)) for _ in range(n_axes))


def _volume(shape: tuple[int, ...]) -> int:
    cells = 1
    for n in shape:
        cells *= n
    return cells


@st.composite
def conv_cases(draw: st.DrawFn, n_axes: int) -> Case:
    """Draw any convolution over n_axes axes."""
    sizes = tuple(draw(st.sampled_from(SIZES)) for _ in range(n_axes))
    kernel = _each(draw, n_axes, 1, 5 if n_axes < 3 else 3)
    stride, dilation = _each(draw, n_axes, 1, 4), _each(draw, n_axes, 1, 3)
    spelling = draw(st.sampled_from(["numbers", "pairs", "valid", "same"]))
    padding: Any = spelling
    if spelling == "numbers":
        padding = _each(draw, n_axes, 0, 4)
    elif spelling == "pairs":
        padding = tuple((draw(st.integers(0, 4)), draw(st.integers(0, 4))) for _ in range(n_axes))
    elif spelling == "same":
        stride = (1,) * n_axes
    ends = padding if spelling == "pairs" else [(p, p) for p in padding] if spelling == "numbers" else [(0, 0)] * n_axes
    if spelling != "same":
        for a in range(n_axes):
            assume(Axis(sizes[a], kernel[a], stride[a], dilation[a], *ends[a]).out >= 1)
    grouping = draw(st.sampled_from(["one", "some", "channels"]))
    c = draw(st.sampled_from(CHANNELS))
    o = draw(st.sampled_from(CHANNELS))
    groups = 1
    if grouping == "channels":
        groups, o = c, c * draw(st.integers(1, 2))
    elif grouping == "some":
        groups = draw(st.integers(2, 4))
        c, o = min(c, 17) * groups, min(o, 17) * groups
    n = draw(st.integers(0, 3))
    x, weight = (n, c, *sizes), (o, c // groups, *kernel)
    assume(_volume(x) <= MOST_CELLS)
    assume(_volume((max(n, 1), *sizes)) * _volume(weight) <= MOST_PRODUCTS * 4)
    return conv_case(
        "drawn", x, weight, bias=draw(st.booleans()), stride=stride, padding=padding, dilation=dilation, groups=groups
    )


@st.composite
def conv_transpose_cases(draw: st.DrawFn, n_axes: int) -> Case:
    """Draw any transposed convolution over n_axes axes."""
    sizes = tuple(draw(st.sampled_from(SIZES[:7])) for _ in range(n_axes))
    kernel = _each(draw, n_axes, 1, 4 if n_axes < 3 else 3)
    stride, dilation, padding = _each(draw, n_axes, 1, 3), _each(draw, n_axes, 1, 2), _each(draw, n_axes, 0, 2)
    extra = tuple(draw(st.integers(0, max(stride[a], dilation[a]) - 1)) for a in range(n_axes))
    for a in range(n_axes):
        assume((sizes[a] - 1) * stride[a] - 2 * padding[a] + dilation[a] * (kernel[a] - 1) + extra[a] + 1 >= 1)
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    c, o = draw(st.sampled_from(CHANNELS[:9])) * groups, draw(st.sampled_from(CHANNELS[:9]))
    n = draw(st.integers(0, 2))
    x, weight = (n, c, *sizes), (c, o, *kernel)
    assume(_volume((max(n, 1), *sizes)) * _volume(weight) <= MOST_PRODUCTS)
    return conv_transpose_case(
        "drawn",
        x,
        weight,
        bias=draw(st.booleans()),
        stride=stride,
        padding=padding,
        output_padding=extra,
        dilation=dilation,
        groups=groups,
    )


@st.composite
def pool_cases(draw: st.DrawFn, n_axes: int) -> Case:
    """Draw a max or an average pooling over n_axes axes; padding is at most half the kernel, as torch asks."""
    is_max = draw(st.booleans())
    sizes = tuple(draw(st.sampled_from(SIZES)) for _ in range(n_axes))
    kernel = _each(draw, n_axes, 1, 4)
    stride = _each(draw, n_axes, 1, 5)
    dilation = _each(draw, n_axes, 1, 2) if is_max else (1,) * n_axes
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    ceil_mode = draw(st.booleans())
    for a in range(n_axes):
        axis = Axis(sizes[a], kernel[a], stride[a], dilation[a], padding[a], padding[a], ceil_mode)
        assume(axis.out >= 1)
        for i in range(axis.out):  # every window sees the image
            assume(any(0 <= i * stride[a] + p * dilation[a] - padding[a] < sizes[a] for p in range(kernel[a])))
    shape = (draw(st.integers(0, 2)), draw(st.sampled_from(CHANNELS)), *sizes)
    assume(_volume(shape) <= MOST_CELLS)
    common: dict[str, Any] = {"kernel_size": kernel, "stride": stride, "padding": padding, "ceil_mode": ceil_mode}
    if is_max:
        return max_pool_case("drawn", shape, dilation=dilation, **common)
    return avg_pool_case("drawn", shape, count_include_pad=draw(st.booleans()), **common)


EDGES = (1, 2, 5, 6, 7, 8, 9, 11, 12, 13, 15, 16, 17, 24, 25, 31, 32, 33, 48, 64, 65, 96, 127, 129, 257)


@st.composite
def product_cases(draw: st.DrawFn) -> Case:
    """Draw a linear layer or a product of (stacks of) matrices, sizes around tiles."""
    m, k, n = (draw(st.sampled_from(EDGES)) for _ in range(3))
    assume(m * k * n <= MOST_PRODUCTS)
    kind = draw(st.sampled_from(["linear", "matmul", "stack"]))
    if kind == "linear":
        return linear_case("drawn", (m, k), (n, k), draw(st.booleans()))
    if kind == "matmul":
        return matmul_case("drawn", (m, k), (k, n))
    m, k, n = min(m, 17), min(k, 33), min(n, 17)
    left, right = draw(st.sampled_from([((3,), (3,)), ((2, 1), (3,)), ((1,), (2, 3)), ((), (2,)), ((0,), (0,))]))
    return matmul_case("drawn", (*left, m, k), (*right, k, n))


def _rounding(op: str) -> dict[str, Any]:
    return {} if op in ("maximum", "minimum") else {"bound": lambda f, y, *_: bound.roundings(f, 1, y)}


@st.composite
def broadcast_cases(draw: st.DrawFn) -> Case:
    """Draw arithmetic on two shapes that broadcast, or a choice between two by a third."""
    op = draw(st.sampled_from(["add", "sub", "mul", "maximum", "minimum", "where"]))
    n_inputs = 3 if op == "where" else 2
    shapes = draw(npst.mutually_broadcastable_shapes(num_shapes=n_inputs, max_dims=5, min_side=0, max_side=9))
    assume(_volume(shapes.result_shape) <= MOST_CELLS)
    first = boolean(*shapes.input_shapes[0]) if op == "where" else real(*shapes.input_shapes[0])
    return Case(
        op=op,
        label="drawn",
        inputs=(first, *(real(*shape) for shape in shapes.input_shapes[1:])),
        oracle=getattr(elementwise, op),
        linear=(1, 2) if op == "where" else (0, 1) if op in ("add", "sub", "mul") else (),
        **_rounding(op),
    )


@st.composite
def reduce_cases(draw: st.DrawFn) -> Case:
    """Draw a sum, maximum or minimum over any axes."""
    op = draw(st.sampled_from(["sum", "max", "min"]))
    shape = draw(npst.array_shapes(max_dims=5, min_side=1 if op != "sum" else 0, max_side=17))
    assume(_volume(shape) <= MOST_CELLS)
    axes = draw(st.one_of(st.none(), st.sets(st.integers(0, len(shape) - 1), min_size=1).map(sorted).map(tuple)))
    dim = axes[0] if axes is not None and len(axes) == 1 and draw(st.booleans()) else axes
    return Case(
        op=op,
        label="drawn",
        inputs=(real(*shape, distinct=op != "sum"),),
        attributes={"dim": dim, "keepdim": draw(st.booleans())},
        oracle=getattr(reduce, op),
        linear=(0,) if op == "sum" else (),
    )


@st.composite
def move_cases(draw: st.DrawFn) -> Case:
    """Draw a permutation, an index, a padding or a concatenation."""
    op = draw(st.sampled_from(["permute", "index", "pad", "concat", "stack"]))
    shape = draw(npst.array_shapes(max_dims=5, max_side=9))
    assume(_volume(shape) <= MOST_CELLS)
    n_axes = len(shape)
    common: dict[str, Any] = {"op": op, "label": "drawn"}
    if op == "permute":
        dims = tuple(draw(st.permutations(range(n_axes))))
        return Case(inputs=(real(*shape),), attributes={"dims": dims}, oracle=moves.permute, linear=(0,), **common)
    if op == "index":
        key = draw(npst.basic_indices(shape, allow_newaxis=True))
        parts = key if isinstance(key, tuple) else (key,)
        assume(all(not isinstance(p, slice) or p.step is None or p.step > 0 for p in parts))
        return Case(
            inputs=(real(*shape),),
            attributes={"key": key},
            call=lambda _, x, key: x[key],
            oracle=lambda x, key: np.asarray(x[key]),
            linear=(0,),
            **common,
        )
    if op == "pad":
        mode = draw(st.sampled_from(["constant", "reflect", "replicate"]))
        assume(mode == "constant" or n_axes >= 3)
        n_padded = draw(st.integers(1, min(3, n_axes))) if mode == "constant" else n_axes - 2
        low = -1 if mode == "constant" else 0
        pad: list[int] = []
        for back in range(1, n_padded + 1):
            size = shape[-back]
            high = size - 1 if mode == "reflect" else 4
            begin, end = (draw(st.integers(low if size > 2 else 0, high)) for _ in range(2))
            pad += [begin, end]
        return Case(
            inputs=(real(*shape),),
            attributes={"pad": tuple(pad), "mode": mode},
            oracle=moves.pad,
            linear=(0,),
            **common,
        )
    count = draw(st.integers(1, 4))
    dim = draw(st.integers(0, n_axes - 1))
    rows = [shape] * count
    if op == "concat":
        rows = [(*shape[:dim], draw(st.integers(0, 9)), *shape[dim + 1 :]) for _ in range(count)]
    return Case(
        inputs=tuple(real(*row) for row in rows),
        attributes={"dim": dim},
        call=in_sequence(op),
        oracle=getattr(moves, op),
        linear=tuple(range(count)),
        **common,
    )


@st.composite
def row_cases(draw: st.DrawFn) -> Case:
    """Draw a softmax or a layer_norm over any axis length."""
    n = draw(st.sampled_from([*EDGES[1:], 300]))
    rest = draw(npst.array_shapes(max_dims=3, max_side=5))
    op = draw(st.sampled_from(["softmax", "log_softmax", "layer_norm"]))
    if op == "layer_norm":
        return layer_norm_case("drawn", (*rest, n), 1, draw(st.booleans()))
    dim = draw(st.integers(0, len(rest)))
    return softmax_case(op, "drawn", (*rest[:dim], n, *rest[dim:]), dim)
