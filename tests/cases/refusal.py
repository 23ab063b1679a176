"""What an op must refuse, and with which error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Refusal:
    """A call that must fail: (make, ops) → never; `make(shape, dtype)` makes a tensor of zeros."""

    op: str
    why: str
    error: str
    """Name of the error in striate's namespace, or of a built-in; several are joined by |."""
    call: Callable[[Any, Any], Any]

    @property
    def id(self) -> str:
        """Name the row in test ids."""
        return f"{self.op}-{self.why}"


def _rows(op: str, *rows: tuple[str, str, Callable[[Any, Any], Any]]) -> list[Refusal]:
    return [Refusal(op, why, error, call) for why, error, call in rows]


S, D, V, I = "ShapeError", "DTypeError", "ValueError", "IndexError|ShapeError"  # noqa: E741

REFUSALS: tuple[Refusal, ...] = (
    *_rows(
        "conv2d",
        ("rank", S, lambda t, o: o.conv2d(t(3, 4, 4), t(2, 3, 3, 3))),
        ("weight-rank", S, lambda t, o: o.conv2d(t(1, 3, 4, 4), t(2, 3, 3))),
        ("channels", S, lambda t, o: o.conv2d(t(1, 3, 4, 4), t(2, 4, 3, 3))),
        ("groups-channels", S, lambda t, o: o.conv2d(t(1, 3, 4, 4), t(2, 3, 3, 3), groups=2)),
        ("groups-filters", S, lambda t, o: o.conv2d(t(1, 4, 4, 4), t(3, 2, 3, 3), groups=2)),
        ("groups-zero", V, lambda t, o: o.conv2d(t(1, 4, 4, 4), t(3, 4, 3, 3), groups=0)),
        ("bias", S, lambda t, o: o.conv2d(t(1, 3, 4, 4), t(2, 3, 3, 3), t(3))),
        ("kernel-over-image", S, lambda t, o: o.conv2d(t(1, 3, 2, 4), t(2, 3, 3, 3))),
        ("stride", V, lambda t, o: o.conv2d(t(1, 3, 4, 4), t(2, 3, 3, 3), stride=0)),
        ("huge-dilation", V, lambda t, o: o.conv2d(t(1, 3, 4, 4), t(2, 3, 3, 3), dilation=2**63 - 1)),
        ("stride-length", V, lambda t, o: o.conv2d(t(1, 3, 4, 4), t(2, 3, 3, 3), stride=(1, 1, 1))),
        ("dilation", V, lambda t, o: o.conv2d(t(1, 3, 4, 4), t(2, 3, 3, 3), dilation=0)),
        ("padding", V, lambda t, o: o.conv2d(t(1, 3, 4, 4), t(2, 3, 3, 3), padding=-1)),
        ("padding-word", V, lambda t, o: o.conv2d(t(1, 3, 4, 4), t(2, 3, 3, 3), padding="full")),
        ("padding-pairs", V, lambda t, o: o.conv2d(t(1, 3, 4, 4), t(2, 3, 3, 3), padding=((1, 1),))),
        ("same-strided", V, lambda t, o: o.conv2d(t(1, 3, 4, 4), t(2, 3, 3, 3), padding="same", stride=2)),
        ("dtypes", D, lambda t, o: o.conv2d(t(1, 3, 4, 4), t(2, 3, 3, 3, dtype="float64"))),
        ("integers", D, lambda t, o: o.conv2d(t(1, 3, 4, 4, dtype="int32"), t(2, 3, 3, 3, dtype="int32"))),
    ),
    *_rows("conv1d", ("rank", S, lambda t, o: o.conv1d(t(1, 3, 4, 4), t(2, 3, 3)))),
    *_rows("conv3d", ("rank", S, lambda t, o: o.conv3d(t(1, 3, 4, 4), t(2, 3, 3, 3, 3)))),
    *_rows(
        "conv_transpose2d",
        ("channels", S, lambda t, o: o.conv_transpose2d(t(1, 3, 4, 4), t(2, 3, 3, 3))),
        ("groups", S, lambda t, o: o.conv_transpose2d(t(1, 3, 4, 4), t(3, 3, 3, 3), groups=2)),
        ("output-padding", V, lambda t, o: o.conv_transpose2d(t(1, 3, 4, 4), t(3, 2, 3, 3), output_padding=1)),
        ("bias", S, lambda t, o: o.conv_transpose2d(t(1, 3, 4, 4), t(3, 2, 3, 3), t(3))),
    ),
    *_rows(
        "max_pool2d",
        ("rank", S, lambda t, o: o.max_pool2d(t(4, 4), 2)),
        ("kernel-over-image", S, lambda t, o: o.max_pool2d(t(1, 1, 2, 2), 3)),
        ("padding", V, lambda t, o: o.max_pool2d(t(1, 1, 4, 4), 2, padding=2)),
        ("stride", V, lambda t, o: o.max_pool2d(t(1, 1, 4, 4), 2, stride=0)),
    ),
    *_rows(
        "avg_pool2d",
        ("rank", S, lambda t, o: o.avg_pool2d(t(4, 4), 2)),
        ("padding", V, lambda t, o: o.avg_pool2d(t(1, 1, 4, 4), 2, padding=2)),
        ("kernel", V, lambda t, o: o.avg_pool2d(t(1, 1, 4, 4), 0)),
    ),
    *_rows("adaptive_avg_pool2d", ("rank", S, lambda t, o: o.adaptive_avg_pool2d(t(4, 4), 1))),
    *_rows(
        "linear",
        ("features", S, lambda t, o: o.linear(t(2, 3), t(4, 5))),
        ("bias", S, lambda t, o: o.linear(t(2, 3), t(4, 3), t(3))),
        ("dtypes", D, lambda t, o: o.linear(t(2, 3), t(4, 3, dtype="float64"))),
    ),
    *_rows(
        "matmul",
        ("inner", S, lambda t, o: o.matmul(t(2, 3), t(4, 5))),
        ("batch", S, lambda t, o: o.matmul(t(2, 2, 3), t(3, 3, 5))),
        ("dtypes", D, lambda t, o: o.matmul(t(2, 3), t(3, 3, dtype="float64"))),
    ),
    *_rows(
        "add",
        ("shapes", S, lambda t, o: o.add(t(2, 3), t(4))),
    ),
    *_rows("mul", ("dtypes", D, lambda t, o: o.mul(t(2, 3, dtype="uint8"), t(3, dtype="int8")))),
    *_rows("where", ("shapes", S, lambda t, o: o.where(t(2, dtype="bool"), t(3), t(3)))),
    *_rows("prelu", ("weights", S, lambda t, o: o.prelu(t(2, 3, 4), t(4)))),
    *_rows("softmax", ("dim", I, lambda t, o: o.softmax(t(2, 3), dim=2))),
    *_rows("log_softmax", ("dim", I, lambda t, o: o.log_softmax(t(2, 3), dim=-3))),
    *_rows(
        "sum",
        ("dim", I, lambda t, o: o.sum(t(2, 3), dim=2)),
        ("dim-twice", V, lambda t, o: o.sum(t(2, 3), dim=(0, -2))),
    ),
    *_rows("max", ("empty", V, lambda t, o: o.max(t(0, 3)))),
    *_rows("argmax", ("empty", V, lambda t, o: o.argmax(t(0, 3), dim=0))),
    *_rows(
        "batch_norm",
        (
            "weight",
            S,
            lambda t, o: o.batch_norm(t(2, 3, 4), t(3), t(3), t(4), t(3), training=False, momentum=0.1, eps=1e-5),
        ),
        (
            "one-value",
            V,
            lambda t, o: o.batch_norm(t(1, 3), t(3), t(3), t(3), t(3), training=True, momentum=0.1, eps=1e-5),
        ),
    ),
    *_rows("layer_norm", ("shape", S, lambda t, o: o.layer_norm(t(2, 3), (4,)))),
    *_rows("group_norm", ("groups", V, lambda t, o: o.group_norm(t(2, 3, 4), 2))),
    *_rows("dropout", ("p", V, lambda t, o: o.dropout(t(2, 3), p=1.5))),
    *_rows(
        "reshape",
        ("size", S, lambda t, o: o.reshape(t(2, 3), (4, 2))),
        ("two-unknown", V, lambda t, o: o.reshape(t(2, 3), (-1, -1))),
        ("indivisible", S, lambda t, o: o.reshape(t(2, 3), (4, -1))),
    ),
    *_rows(
        "permute",
        ("twice", V, lambda t, o: o.permute(t(2, 3), (0, 0))),
        ("count", I, lambda t, o: o.permute(t(2, 3), (0, 1, 2))),
    ),
    *_rows("transpose", ("dim", I, lambda t, o: o.transpose(t(2, 3), 0, 2))),
    *_rows("flatten", ("order", V, lambda t, o: o.flatten(t(2, 3, 4), 2, 1))),
    *_rows(
        "concat",
        ("none", V, lambda t, o: o.concat([], dim=0)),
        ("shapes", S, lambda t, o: o.concat([t(2, 3), t(2, 4)], dim=0)),
        ("dtypes", D, lambda t, o: o.concat([t(2, 3), t(2, 3, dtype="float64")], dim=0)),
    ),
    *_rows("stack", ("shapes", S, lambda t, o: o.stack([t(2, 3), t(2, 4)], dim=0))),
    *_rows("split", ("sum", V, lambda t, o: o.split(t(5, 2), [2, 2], 0))),
    *_rows(
        "gather",
        ("dtype", D, lambda t, o: o.gather(t(2, 3), index=t(2, 1), dim=1)),
        ("rank", S, lambda t, o: o.gather(t(2, 3), index=t(2, dtype="int64"), dim=1)),
    ),
    *_rows(
        "pad",
        ("odd", V, lambda t, o: o.pad(t(2, 3), (1,))),
        ("reflect", V, lambda t, o: o.pad(t(1, 2, 3), (3, 0), mode="reflect")),
        ("mode", V, lambda t, o: o.pad(t(1, 2, 3), (1, 1), mode="mirror")),
    ),
    *_rows(
        "channel_shuffle",
        ("channels", S, lambda t, o: o.channel_shuffle(t(1, 3, 2, 2), 2)),
        ("axes", S, lambda t, o: o.channel_shuffle(t(1, 4, 2), 2)),
    ),
    *_rows("pixel_shuffle", ("channels", S, lambda t, o: o.pixel_shuffle(t(1, 3, 2, 2), 2))),
    *_rows("pixel_unshuffle", ("size", S, lambda t, o: o.pixel_unshuffle(t(1, 3, 3, 2), 2))),
    *_rows("one_hot", ("dtype", D, lambda t, o: o.one_hot(t(3), 4))),
    *_rows(
        "interpolate",
        ("nothing", V, lambda t, o: o.interpolate(t(1, 1, 2, 2))),
        ("both", V, lambda t, o: o.interpolate(t(1, 1, 2, 2), size=3, scale_factor=2)),
        ("mode", V, lambda t, o: o.interpolate(t(1, 1, 2, 2), size=3, mode="cubist")),
    ),
    *_rows(
        "cross_entropy",
        ("target-shape", S, lambda t, o: o.cross_entropy(t(2, 3), t(3, dtype="int64"))),
        ("target-dtype", D, lambda t, o: o.cross_entropy(t(2, 3), t(2))),
        ("class", V, lambda t, o: o.cross_entropy(t(2, 3), t(2, dtype="int64", fill=3))),
        ("reduction", V, lambda t, o: o.cross_entropy(t(2, 3), t(2, dtype="int64"), reduction="median")),
        ("smoothing", V, lambda t, o: o.cross_entropy(t(2, 3), t(2, dtype="int64"), label_smoothing=1.5)),
    ),
    *_rows("nll_loss", ("weight", S, lambda t, o: o.nll_loss(t(2, 3), t(2, dtype="int64"), weight=t(2)))),
    *_rows("mse_loss", ("reduction", V, lambda t, o: o.mse_loss(t(2), t(2), reduction="all"))),
)
