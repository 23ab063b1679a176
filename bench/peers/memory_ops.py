"""Ops of bench/shapes/ops.toml: their inputs, the bytes they move, and how striate and PyTorch, whose names agree, do them.

Passes: `forward`; `backward`, the gradient alone; `training`, both in one call; `step`, an optimizer's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
#: What the gradient reads beside grad_y. A max pool could do with a byte for each output, other ops with nothing.
SAVED = {"batch_norm": "x", "silu": "x", "relu": "y", "softmax": "y", "log_softmax": "y", "max_pool2d": "taps"}
#: Copies of the parameters that a step reads and writes: parameter, gradient, moments.
STEP_COPIES = {"sgd": 5, "adam": 7}
LEARNING_RATE, MOMENTUM = 0.05, 0.9
STEPS_BEFORE_CHECK = 3


def inputs(row: dict[str, Any], batch: int | None) -> tuple[list[Array], Array]:
    """Return the tensors and grad_y; of an optimizer, the parameters and all gradients end to end."""
    rng = np.random.default_rng(0)

    def draw(shape: tuple[int, ...]) -> Array:
        return rng.standard_normal(shape, np.float32)

    if "parameters" in row:
        params = [draw(tuple(p["shape"])) for p in row["parameters"] for _ in range(p.get("count", 1))]
        return params, draw((sum(p.size for p in params),))
    assert batch is not None
    channels = row["channels"] if isinstance(row["channels"], list) else [row["channels"]]
    map_shape = (row["size"], row["size"]) if "size" in row else ()
    tensors = [draw((batch, c, *map_shape)) for c in channels]
    c, out = sum(channels), map_shape
    match row["op"]:
        case "max_pool2d" | "avg_pool2d":
            out = ((row["size"] + 2 * row["padding"] - row["kernel_size"]) // row["stride"] + 1,) * 2
        case "global_avg_pool2d":
            out = (1, 1)
        case "interpolate":
            out = (2 * row["size"],) * 2
        case "add":
            c = channels[0]
        case "batch_norm":  # weight, bias, running mean and variance
            tensors += [draw((c,)), draw((c,)), np.zeros(c, np.float32), np.ones(c, np.float32)]
    return tensors, draw((batch, c, *out))


def moved_bytes(row: dict[str, Any], pass_: str, tensors: list[Array], grad_y: Array) -> int:
    """Count each input once and each output once, though batch-norm's passes have to read their input twice."""
    if pass_ == "step":
        return STEP_COPIES[row["op"]] * grad_y.nbytes
    saved = {"x": tensors[0].nbytes, "y": grad_y.nbytes, "taps": grad_y.size, None: 0}[SAVED.get(row["op"])]
    forward = sum(x.nbytes for x in tensors) + grad_y.nbytes
    backward = grad_y.nbytes + saved + tensors[0].nbytes
    return {"forward": forward, "backward": backward, "training": forward + backward}[pass_]


def _forward(f: Any, row: dict[str, Any], tensors: list[Any]) -> Any:
    match row["op"]:
        case "max_pool2d" | "avg_pool2d" as pool:
            return getattr(f, pool)(tensors[0], row["kernel_size"], stride=row["stride"], padding=row["padding"])
        case "global_avg_pool2d":
            return f.adaptive_avg_pool2d(tensors[0], 1)
        case "batch_norm":
            x, weight, bias, running_mean, running_var = tensors
            return f.batch_norm(x, running_mean, running_var, weight, bias, training=True)
        case "relu" | "silu" as activation:
            return getattr(f, activation)(tensors[0])
        case "softmax" | "log_softmax" as normalise:
            return getattr(f, normalise)(tensors[0], dim=1)
        case "add":
            return tensors[0] + tensors[1]
        case "concat":
            return f.cat(tensors, dim=1)
        case "interpolate":
            return f.interpolate(tensors[0], scale_factor=2, mode=row["mode"])
    raise SystemExit(f"memory_ops: expected an op of this file, got {row['op']!r}; add it to _forward")


def call(f: Any, row: dict[str, Any], pass_: str, tensors: list[Any], grad_y: Any) -> Callable[[], tuple[Any, ...]]:
    """Return what to time; `f` holds a library's functions, its `no_grad` and its `grad`."""
    if pass_ == "forward":

        def forward() -> tuple[Any, ...]:
            with f.no_grad():
                return (_forward(f, row, tensors),)

        return forward
    wanted = [x.requires_grad_() for x in (tensors[:3] if row["op"] == "batch_norm" else tensors)]
    if pass_ == "backward":
        y = _forward(f, row, tensors)
        return lambda: tuple(f.grad(y, wanted, grad_y, retain_graph=True))

    def training() -> tuple[Any, ...]:
        y = _forward(f, row, tensors)
        return (y, *f.grad(y, wanted, grad_y))

    return training


def optimizer(optim: Any, row: dict[str, Any], params: list[Any], grads: list[Any], **settings: Any) -> Any:
    """Return an optimizer after a few steps."""
    for p, g in zip(params, grads, strict=True):
        p.requires_grad_().grad = g
    if row["op"] == "sgd":
        made = optim.SGD(params, lr=LEARNING_RATE, momentum=MOMENTUM, **settings)
    else:
        made = optim.Adam(params, lr=LEARNING_RATE, **settings)
    for _ in range(STEPS_BEFORE_CHECK):
        made.step()
    return made


def split(tensors: list[Array], grad_y: Array) -> list[Array]:
    """Return an optimizer's gradients, each of its parameter's shape."""
    ends = np.cumsum([p.size for p in tensors])[:-1]
    return [g.reshape(p.shape) for p, g in zip(tensors, np.split(grad_y, ends), strict=True)]
