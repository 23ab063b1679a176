"""Ops that move elements: every result is exact."""

from __future__ import annotations

from collections.abc import Callable
from math import nan
from typing import Any

import numpy as np

from cases.case import Case, Input, boolean, in_sequence, index, integer, real
from oracle import bound
from oracle import shape as oracle

INF = float("inf")
EVERY = (nan, INF, -INF)


def _move(op: str, label: str, *inputs: Input, batch: bool = False, **fields: Any) -> Case:
    fields.setdefault("oracle", getattr(oracle, op, None))
    fields.setdefault("nonfinite", EVERY)
    linear = tuple(k for k, i in enumerate(inputs) if i.dtype == "float")
    return Case(op=op, label=label, inputs=inputs, linear=linear, batch=(0,) if batch else (), **fields)


def _split(label: str, shape: tuple[int, ...], split_size: int | list[int], dim: int, batch: bool = False) -> Case:
    return _move(
        "split",
        label,
        real(*shape),
        attributes={"split_size": split_size, "dim": dim},
        call=lambda ops, x, split_size, dim: ops.split(x, split_size, dim),
        batch=batch,
    )


def _key(label: str, shape: tuple[int, ...], key: Any) -> Case:
    return _move(
        "index",
        label,
        real(*shape),
        attributes={"key": key},
        call=lambda _, x, key: x[key],
        oracle=lambda x, key: x[key],
    )


def _pick(label: str, shape: tuple[int, ...], where: Input, pick: Callable[..., Any]) -> Case:
    return Case(
        op="index",
        label=f"by-{label}",
        inputs=(real(*shape), where),
        call=lambda _, x, i: pick(x, i),
        oracle=pick,
        linear=(0,),
        nonfinite=EVERY,
    )


CASES = (
    _move("reshape", "", real(2, 6, 4), attributes={"shape": (4, 12)}),
    _move("reshape", "inferred", real(3, 4, 2, 5), attributes={"shape": (3, -1)}),
    _move("reshape", "int64", integer(4, 3), attributes={"shape": (12,)}),
    _move("flatten", "", real(3, 17, 2, 4), attributes={"start_dim": 1}, batch=True),
    _move("flatten", "all", real(3, 4, 5)),
    _move("flatten", "middle", real(2, 3, 4, 5), attributes={"start_dim": 1, "end_dim": 2}),
    _move("transpose", "", real(3, 8, 5), attributes={"dim0": 0, "dim1": 2}),
    _move("transpose", "negative", real(2, 3, 9), attributes={"dim0": -1, "dim1": -2}, batch=True),
    _move("permute", "", real(2, 9, 4, 3), attributes={"dims": (0, 2, 3, 1)}, batch=True),
    _move("permute", "reverse", real(2, 3, 5), attributes={"dims": (2, 1, 0)}),
    _move("concat", "channels", real(2, 3, 4, 5), real(2, 17, 4, 5), call=in_sequence("concat"), attributes={"dim": 1}),
    _move("concat", "first", real(2, 7), real(1, 7), real(4, 7), call=in_sequence("concat"), attributes={"dim": 0}),
    _move("concat", "empty", real(2, 0), real(2, 5), call=in_sequence("concat"), attributes={"dim": 1}),
    _move("stack", "first", real(3, 8), real(3, 8), call=in_sequence("stack"), attributes={"dim": 0}),
    _move("stack", "last", real(3, 4), real(3, 4), real(3, 4), call=in_sequence("stack"), attributes={"dim": -1}),
    _split("equal", (2, 8, 3), 4, 1, batch=True),
    _split("rest", (7, 3), 3, 0),
    _split("sizes", (2, 9, 2), [2, 6, 1], 1),
    _key("row", (5, 4), 2),
    _key("range", (6, 7, 4), (slice(1, 4), slice(None), slice(2, None))),
    _key("step", (9, 8), (slice(None, None, 3), slice(1, None, 2))),
    _key("negative", (5, 6, 3), (-1, slice(-4, -1))),
    _key("ellipsis", (2, 3, 4, 5), (Ellipsis, 1)),
    _key("new-axis", (3, 4), (slice(None), None, slice(1, 3))),
    _move("gather", "rows", real(5, 9), index(5, 3, high=9), attributes={"dim": 1}),
    _move("gather", "first", real(6, 4, 2), index(8, 3, 2, high=6), attributes={"dim": 0}),
    _move("gather", "one", real(7, 10), index(7, 1, high=10), attributes={"dim": 1}),
    _key("reversed", (5, 4), (slice(None, None, -1),)),
    _pick("rows", (6, 4), index(5, high=6), lambda x, i: x[i]),
    _pick("columns", (3, 9, 2), index(2, 4, high=9), lambda x, i: x[:, i]),
    _pick("negative", (7, 3), index(4, low=-7, high=0), lambda x, i: x[i, 1:]),
    _pick("mask", (9, 4), boolean(9), lambda x, m: x[m]),
    _pick("whole-mask", (9, 4), boolean(9, 4), lambda x, m: x[m]),
    Case(
        op="scatter_add",
        label="",
        inputs=(real(4, 6), index(4, 9, high=6), real(4, 9)),
        attributes={"dim": 1},
        oracle=oracle.scatter_add,
        bound=lambda f, y, x, i, s, dim: bound.dot(f, 10, oracle.scatter_add(np.abs(x), i, np.abs(s), dim)),
        linear=(0, 2),
        nonfinite=EVERY,
    ),
    _move("chunk", "", real(7, 4), attributes={"chunks": 3, "dim": 0}),
    _move("narrow", "", real(3, 9, 2), attributes={"dim": 1, "start": 2, "length": 5}, batch=True),
    _move("squeeze", "all", real(3, 1, 4, 1)),
    _move("squeeze", "one", real(1, 4, 1), attributes={"dim": -1}),
    _move("unsqueeze", "", real(3, 4), attributes={"dim": 1}, batch=True),
    _move("expand", "", real(3, 1, 4), attributes={"shape": (2, -1, 5, 4)}),
    _move("broadcast_to", "", real(3, 1), attributes={"shape": (2, 3, 4)}),
    _move("cat", "", real(2, 7), real(1, 7), call=in_sequence("cat"), attributes={"dim": 0}, oracle=oracle.concat),
    _move(
        "relayout",
        "",
        real(2, 9, 4, 3),
        attributes={"channels_last": True},
        oracle=lambda x, channels_last: np.array(x),
        batch=True,
    ),
    _move("clone", "", real(3, 5), oracle=np.array),
    _move("require_finite", "", real(3, 5), oracle=np.array, nonfinite=()),
    _move("repeat", "", real(3, 4), attributes={"repeats": (2, 1, 3)}),
    _move("tile", "", real(3, 4), attributes={"dims": (2,)}),
    _move("flip", "", real(3, 9, 4), attributes={"dims": (0, 2)}, batch=True),
    _move("tril", "", real(2, 9, 8), attributes={"diagonal": 1}, batch=True),
    _move("triu", "", real(8, 9), attributes={"diagonal": -2}),
    _move("pad", "constant", real(2, 9, 4, 5), attributes={"pad": (1, 2, 0, 3)}, batch=True),
    _move("pad", "value", real(2, 3, 5), attributes={"pad": (2, 1), "value": 1.5}),
    _move("pad", "channels", real(2, 3, 4, 4), attributes={"pad": (0, 0, 1, 1, 2, 0)}),
    _move("pad", "crop", real(2, 3, 6, 7), attributes={"pad": (-1, 2, 1, -2)}),
    _move("pad", "reflect", real(2, 8, 5, 6), attributes={"pad": (2, 3, 4, 1), "mode": "reflect"}, batch=True),
    _move("pad", "reflect-1d", real(2, 3, 9), attributes={"pad": (4, 8), "mode": "reflect"}),
    _move("pad", "replicate", real(1, 17, 3, 4), attributes={"pad": (5, 1, 2, 3), "mode": "replicate"}, batch=True),
    _move(
        "channel_shuffle",
        "2",
        real(2, 6, 3, 2),
        attributes={"groups": 2},
        call=lambda ops, x, groups: ops.channel_shuffle(x, groups),
        batch=True,
    ),
    _move("pixel_shuffle", "2", real(2, 12, 3, 4), attributes={"upscale_factor": 2}, batch=True),
    _move("pixel_shuffle", "3", real(1, 9, 2, 3), attributes={"upscale_factor": 3}),
    _move("pixel_unshuffle", "2", real(2, 3, 6, 8), attributes={"downscale_factor": 2}, batch=True),
    _move("pixel_unshuffle", "3", real(1, 2, 3, 9), attributes={"downscale_factor": 3}),
    Case(
        op="one_hot",
        label="",
        inputs=(index(4, 3, high=5),),
        attributes={"num_classes": 5},
        oracle=oracle.one_hot,
        constant="one element in num_classes",
    ),
)
