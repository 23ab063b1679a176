"""Convolutions, their transposes, and products of matrices."""

from __future__ import annotations

from math import nan
from typing import Any

import numpy as np

from cases.case import Case, real
from oracle import bound, conv

Array = np.ndarray
INF = float("inf")


def _magnitude(a: Array | None) -> Array | None:
    return None if a is None else np.abs(a)


def conv_bound(
    f: bound.Format, y: Array, x: Array, weight: Array, bias: Array | None = None, **attributes: Any
) -> Array:
    """Bound C/groups · taps products and a bias."""
    n_terms = int(np.prod(weight.shape[1:])) + 1
    return bound.dot(f, n_terms, conv.conv(np.abs(x), np.abs(weight), _magnitude(bias), **attributes))


def conv_transpose_bound(
    f: bound.Format, y: Array, x: Array, weight: Array, bias: Array | None = None, **attributes: Any
) -> Array:
    """Bound C/groups · taps products (fewer meet in one output when strided) and a bias."""
    n_terms = int(weight.shape[0] / attributes.get("groups", 1) * np.prod(weight.shape[2:])) + 1
    return bound.dot(f, n_terms, conv.conv_transpose(np.abs(x), np.abs(weight), _magnitude(bias), **attributes))


def conv_case(
    label: str,
    x: tuple[int, ...],
    weight: tuple[int, ...],
    *,
    bias: bool = True,
    large: bool = False,
    **attributes: Any,
) -> Case:
    """Make a convolution of x by weight over as many axes as x has."""
    return Case(
        op=f"conv{len(x) - 2}d",
        label=label,
        inputs=(real(*x), real(*weight), real(weight[0]) if bias else None),
        attributes=attributes,
        oracle=conv.conv,
        bound=conv_bound,
        linear=(0, 1, 2) if bias else (0, 1),
        batch=(0,),
        nonfinite=(nan, INF, -INF),
        large=large,
    )


def conv_transpose_case(
    label: str,
    x: tuple[int, ...],
    weight: tuple[int, ...],
    *,
    bias: bool = True,
    large: bool = False,
    **attributes: Any,
) -> Case:
    """Make a transposed convolution; weight is (C, O // groups, *kernel)."""
    n_out = weight[1] * attributes.get("groups", 1)
    return Case(
        op=f"conv_transpose{len(x) - 2}d",
        label=label,
        inputs=(real(*x), real(*weight), real(n_out) if bias else None),
        attributes=attributes,
        oracle=conv.conv_transpose,
        bound=conv_transpose_bound,
        linear=(0, 1, 2) if bias else (0, 1),
        batch=(0,),
        large=large,
    )


def matmul_case(label: str, a: tuple[int, ...], b: tuple[int, ...], large: bool = False) -> Case:
    """Make a product of matrices."""
    return Case(
        op="matmul",
        label=label,
        inputs=(real(*a), real(*b)),
        oracle=conv.matmul,
        bound=lambda f, y, p, q: bound.dot(f, p.shape[-1], conv.matmul(np.abs(p), np.abs(q))),
        linear=(0, 1),
        nonfinite=(nan, INF, -INF),
        large=large,
        batch=(0,) if len(a) == 2 and len(b) <= 2 else (),
    )


def linear_case(
    label: str, x: tuple[int, ...], weight: tuple[int, int], bias: bool = True, large: bool = False
) -> Case:
    """Make a linear layer."""
    return Case(
        op="linear",
        label=label,
        inputs=(real(*x), real(*weight), real(weight[0]) if bias else None),
        oracle=conv.linear,
        bound=lambda f, y, p, w, b=None: bound.dot(f, w.shape[1] + 1, conv.linear(np.abs(p), np.abs(w), _magnitude(b))),
        linear=(0, 1, 2) if bias else (0, 1),
        batch=(0,) if len(x) > 1 else (),
        nonfinite=(nan, INF, -INF),
        large=large,
    )


CASES = (
    conv_case("3x3", (2, 3, 9, 8), (8, 3, 3, 3), padding=1),
    conv_case("1x1", (2, 16, 5, 7), (33, 16, 1, 1)),
    conv_case("1x1-strided", (1, 9, 7, 7), (17, 9, 1, 1), stride=2, bias=False),
    conv_case("3x3-stride2", (2, 7, 9, 10), (15, 7, 3, 3), stride=2, padding=1),
    conv_case("7x7-stride2", (1, 3, 15, 17), (17, 3, 7, 7), stride=2, padding=3),
    conv_case("first-layer", (2, 3, 9, 52), (32, 3, 3, 3), stride=2, padding=1),
    conv_case("first-layer-7x7", (1, 3, 9, 50), (48, 3, 7, 7), stride=2, padding=3, bias=False),
    conv_case("first-layer-long-lines", (1, 3, 5, 98), (20, 3, 3, 5), padding=(1, 2)),
    conv_case("first-layer-grey", (2, 1, 10, 31), (16, 1, 5, 5), padding=2),
    conv_case("first-layer-few-outputs", (2, 1, 12, 30), (6, 1, 5, 5), padding=2),
    conv_case("first-layer-edges", (1, 3, 5, 201), (20, 3, 3, 3), stride=(1, 2), padding=(2, 1)),
    conv_case("first-layer-no-padding", (2, 3, 7, 33), (20, 3, 3, 2)),
    conv_case("few-outputs-colour", (2, 3, 13, 35), (5, 3, 3, 3), padding=1),
    conv_case("few-outputs-stride2", (1, 2, 12, 37), (3, 2, 5, 5), stride=2, padding=2, bias=False),
    conv_case("few-outputs-uneven", (2, 4, 9, 31), (7, 4, 2, 3), stride=(2, 3), dilation=(3, 2), padding=(1, 2)),
    conv_case("few-outputs-1x1", (1, 3, 4, 21), (2, 3, 1, 1)),
    conv_case("few-outputs-blocks", (2, 4, 60, 70), (6, 4, 3, 3), padding=1, large=True),
    conv_case("few-outputs-segments", (1, 2, 2, 2100), (3, 2, 1, 9), padding=(0, 4), large=True),
    conv_case("5x5-few-channels", (1, 6, 12, 14), (16, 6, 5, 5)),
    conv_case("1x1-few-channels", (2, 8, 3, 30), (32, 8, 1, 1)),
    conv_case("1x1-joined-lines", (2, 128, 9, 11), (40, 128, 1, 1)),
    conv_case("9x9", (1, 7, 11, 12), (9, 7, 9, 9), padding=4),
    conv_case("5x5-no-bias", (2, 8, 9, 9), (16, 8, 5, 5), padding=2, bias=False),
    conv_case("dilated", (1, 9, 11, 12), (8, 9, 3, 3), padding=2, dilation=2),
    conv_case("dilated-uneven", (1, 4, 13, 11), (5, 4, 3, 2), padding=(0, 1), dilation=(3, 2), stride=(2, 1)),
    conv_case("stride-over-kernel", (2, 5, 11, 11), (6, 5, 2, 2), stride=3),
    conv_case("kernel-over-image", (1, 3, 2, 3), (4, 3, 5, 5), padding=2),
    conv_case("valid", (1, 15, 6, 6), (9, 15, 3, 3), padding="valid"),
    conv_case("same-even-kernel", (2, 6, 7, 8), (7, 6, 4, 2), padding="same"),
    conv_case("same-dilated", (1, 3, 8, 9), (4, 3, 3, 3), padding="same", dilation=(2, 1)),
    conv_case("asymmetric", (2, 3, 7, 6), (9, 3, 3, 3), padding=((0, 2), (1, 0)), stride=2),
    conv_case("groups", (2, 6, 7, 7), (10, 3, 3, 3), padding=1, groups=2),
    conv_case("groups-wide", (1, 48, 5, 5), (33, 16, 3, 3), padding=1, groups=3),
    conv_case("groups-of-2", (1, 32, 9, 10), (32, 2, 3, 3), padding=1, groups=16),
    conv_case("groups-of-4", (2, 32, 9, 8), (32, 4, 3, 3), padding=1, groups=8),
    conv_case("groups-of-4-stride2", (1, 16, 9, 10), (16, 4, 3, 3), padding=1, stride=2, groups=4, bias=False),
    conv_case("groups-of-8", (1, 32, 8, 7), (32, 8, 3, 3), padding=(0, 2), groups=4),
    conv_case("groups-of-8-dilated", (1, 16, 9, 9), (16, 8, 2, 3), dilation=2, groups=2),
    conv_case("groups-of-8-stride2", (1, 16, 9, 11), (16, 8, 3, 3), padding=1, stride=2, groups=2),
    conv_case("groups-of-16", (2, 64, 7, 9), (64, 16, 3, 3), padding=1, groups=4),
    conv_case("groups-of-16-one-lines", (1, 32, 2, 40), (32, 16, 3, 3), padding=(2, 1), groups=2),
    conv_case("groups-of-32-stride2", (1, 64, 9, 8), (64, 32, 3, 3), padding=1, stride=2, groups=2, bias=False),
    conv_case("groups-uneven", (2, 27, 6, 7), (33, 9, 3, 2), padding=(1, 0), stride=(2, 1), dilation=(1, 2), groups=3),
    conv_case("groups-stride-over-kernel", (1, 34, 7, 8), (20, 17, 2, 1), stride=3, groups=2),
    conv_case("depthwise", (2, 17, 9, 9), (17, 1, 3, 3), padding=1, groups=17),
    conv_case("depthwise-stride2", (1, 33, 9, 8), (33, 1, 3, 3), padding=1, stride=2, groups=33, bias=False),
    conv_case("depthwise-5x5-dilated", (1, 8, 11, 11), (8, 1, 5, 5), padding=4, dilation=2, groups=8),
    conv_case("depthwise-5x5", (1, 18, 14, 15), (18, 1, 5, 5), padding=2, groups=18),
    conv_case("depthwise-5x5-stride2", (1, 40, 15, 16), (40, 1, 5, 5), padding=(1, 2), stride=2, groups=40),
    conv_case("depthwise-stride2-odd-padding", (1, 24, 18, 19), (24, 1, 3, 3), padding=(0, 1), stride=2, groups=24),
    conv_case("depthwise-stride2-no-padding", (2, 20, 11, 21), (20, 1, 5, 5), stride=2, groups=20, bias=False),
    conv_case("depthwise-stride2-wide-padding", (1, 16, 7, 12), (16, 1, 3, 3), padding=(1, 4), stride=2, groups=16),
    conv_case("depthwise-uneven-stride", (1, 19, 10, 13), (19, 1, 5, 3), padding=1, stride=(3, 2), groups=19),
    conv_case("depthwise-many-channels", (1, 347, 7, 7), (347, 1, 3, 3), padding=1, groups=347),
    conv_case("depthwise-7x7", (1, 16, 9, 9), (16, 1, 7, 7), padding=3, groups=16),
    conv_case("depthwise-multiplier", (2, 5, 7, 7), (10, 1, 3, 3), padding=1, groups=5),
    conv_case("one-pixel", (1, 1, 1, 1), (1, 1, 1, 1)),
    conv_case("one-channel", (3, 1, 8, 8), (1, 1, 3, 3), padding=1),
    conv_case("row-kernel", (1, 4, 6, 17), (31, 4, 1, 7), padding=(0, 3)),
    conv_case("deep", (1, 130, 4, 5), (31, 130, 3, 3), padding=1),
    conv_case("large", (3, 32, 28, 28), (48, 32, 3, 3), padding=1, large=True),
    conv_case("large-1x1", (4, 65, 20, 20), (70, 65, 1, 1), large=True),
    conv_case("large-depthwise", (4, 40, 30, 30), (40, 1, 3, 3), padding=1, groups=40, large=True),
    conv_case(
        "large-depthwise-5x5-stride2", (2, 170, 29, 29), (170, 1, 5, 5), padding=2, stride=2, groups=170, large=True
    ),
    conv_case("large-groups", (2, 96, 15, 14), (96, 16, 3, 3), padding=1, groups=6, large=True),
    conv_case("3", (2, 3, 17), (8, 3, 3), padding=1),
    conv_case("5-stride3", (2, 9, 31), (16, 9, 5), stride=3, padding=2),
    conv_case("dilated-groups", (2, 8, 33), (12, 4, 3), dilation=4, groups=2, bias=False),
    conv_case("same", (1, 7, 16), (9, 7, 4), padding="same"),
    conv_case("asymmetric", (1, 3, 9), (4, 3, 3), padding=((2, 0),)),
    conv_case("depthwise", (2, 16, 15), (16, 1, 3), padding=1, groups=16),
    conv_case("groups-of-16", (2, 32, 19), (32, 16, 3), padding=1, groups=2),
    conv_case("3x3x3", (2, 3, 5, 6, 7), (8, 3, 3, 3, 3), padding=1),
    conv_case(
        "stride-dilation", (1, 5, 7, 8, 9), (9, 5, 2, 3, 2), stride=(2, 1, 2), padding=(1, 0, 1), dilation=(1, 2, 3)
    ),
    conv_case("groups", (1, 6, 4, 5, 4), (8, 3, 1, 3, 3), padding=(0, 1, 1), groups=2, bias=False),
    conv_case("depthwise", (1, 9, 4, 5, 6), (9, 1, 3, 3, 3), padding=1, groups=9),
    conv_case("depthwise-stride2", (1, 16, 4, 5, 10), (16, 1, 3, 3, 3), stride=(1, 2, 2), padding=1, groups=16),
    conv_case("groups-of-16", (1, 32, 3, 4, 5), (32, 16, 2, 3, 3), padding=1, stride=(2, 1, 1), groups=2),
    conv_transpose_case("4x4-stride2", (2, 8, 5, 6), (8, 9, 4, 4), stride=2, padding=1),
    conv_transpose_case("3x3", (1, 3, 6, 6), (3, 16, 3, 3), padding=1),
    conv_transpose_case("output-padding", (2, 7, 4, 5), (7, 5, 3, 3), stride=2, padding=1, output_padding=1),
    conv_transpose_case(
        "uneven", (1, 4, 4, 3), (4, 3, 2, 3), stride=(3, 2), padding=(0, 1), output_padding=(2, 0), dilation=(1, 2)
    ),
    # Kernels that meet nowhere: lines of the result are lines of a product, or are not, for a pixel behind them.
    conv_transpose_case("2x2-stride2", (2, 9, 5, 6), (9, 18, 2, 2), stride=2),
    conv_transpose_case("2x2-stride2-and-a-pixel", (2, 9, 5, 6), (9, 18, 2, 2), stride=2, output_padding=1),
    conv_transpose_case("2x4-stride1-4", (1, 16, 4, 7), (16, 12, 2, 4), stride=(1, 4), bias=False),
    conv_transpose_case("3-stride3", (2, 8, 9), (8, 16, 3), stride=3),
    conv_transpose_case("groups", (2, 6, 4, 4), (6, 5, 3, 3), stride=2, groups=2, bias=False),
    conv_transpose_case("depthwise", (1, 9, 5, 5), (9, 1, 4, 4), stride=2, padding=1, groups=9),
    conv_transpose_case("stride-over-kernel", (1, 3, 3, 4), (3, 4, 2, 2), stride=3),
    conv_transpose_case("one-pixel", (2, 17, 1, 1), (17, 8, 4, 4)),
    conv_transpose_case("large", (2, 32, 14, 14), (32, 24, 4, 4), stride=2, padding=1, large=True),
    conv_transpose_case("4-stride2", (2, 8, 9), (8, 7, 4), stride=2, padding=1),
    conv_transpose_case("dilated", (1, 3, 8), (3, 4, 3), dilation=3, stride=2, output_padding=1),
    conv_transpose_case("2x2x2", (1, 5, 3, 4, 3), (5, 9, 2, 2, 2), stride=2),
    conv_transpose_case(
        "3x3x3", (1, 4, 3, 3, 4), (4, 3, 3, 3, 3), stride=(1, 2, 1), padding=1, output_padding=(0, 1, 0), bias=False
    ),
    linear_case("", (7, 16), (9, 16)),
    linear_case("no-bias", (1, 33), (17, 33), bias=False),
    linear_case("three-axes", (2, 3, 15), (31, 15)),
    linear_case("vector", (8,), (3, 8)),
    linear_case("large", (130, 200), (150, 200), large=True),
    matmul_case("", (5, 9), (9, 17)),
    matmul_case("one", (1, 1), (1, 1)),
    matmul_case("batched", (3, 4, 15), (3, 15, 8)),
    matmul_case("broadcast", (2, 1, 3, 7), (4, 7, 5)),
    matmul_case("shared-right", (4, 6, 8), (8, 3)),
    matmul_case("vector-right", (6, 33), (33,)),
    matmul_case("vector-left", (9,), (9, 4)),
    matmul_case("dot", (31,), (31,)),
    matmul_case("large", (100, 130), (130, 97), large=True),
)
