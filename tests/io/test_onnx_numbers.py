"""Exported models compute what striate computes: every case of every operator, the zoo, and all that a program fuses.

In the default suite ONNX's own reference evaluator runs them; with `needs_peers` it is ONNX Runtime.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import striate
from cases import CASES, Case
from laws.harness import FLOAT32, as_tuple, drawn, tensors, to_numpy
from striate import Tensor, models, nn, ops
from striate.models.catalog import CATALOG

pytest.importorskip("onnx")
import striate.onnx
from striate.onnx import to_model

Array = np.ndarray[Any, Any]
Engine = Callable[[Any, Sequence[Array]], list[Array]]
U = 2.0**-24


def reference(proto: Any, arrays: Sequence[Array]) -> list[Array]:
    from onnx.reference import ReferenceEvaluator

    names = [value.name for value in proto.graph.input]
    with np.errstate(all="ignore"):
        return [np.asarray(y) for y in ReferenceEvaluator(proto).run(None, dict(zip(names, arrays, strict=True)))]


def runtime(proto: Any, arrays: Sequence[Array]) -> list[Array]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in proto.graph.input]
    return [np.asarray(y) for y in session.run(None, dict(zip(names, arrays, strict=True)))]


def reader(proto: Any, arrays: Sequence[Array]) -> list[Array]:
    """Read the model back; a program of it gives what it gives eagerly, up to rounding."""
    module = striate.onnx.load(proto)
    with striate.no_grad():
        eager = [to_numpy(y) for y in as_tuple(module(*arrays))]
    program = striate.compile(module, *arrays) if arrays else None
    compiled = [to_numpy(y) for y in as_tuple(program(*arrays))] if program is not None else eager
    for y, z in zip(eager, compiled, strict=True):
        assert y.dtype == z.dtype
        finite = np.isfinite(y) if y.dtype.kind == "f" else np.ones(y.shape, dtype=bool)
        scale = np.abs(y[finite].astype(float)).max(initial=0.0)
        assert np.abs(y[finite].astype(float) - z[finite].astype(float)).max(initial=0.0) <= 1e-4 * scale
    return eager


@pytest.fixture(
    params=[pytest.param("reference"), pytest.param("reader"), pytest.param("runtime", marks=pytest.mark.needs_peers)],
)
def engine(request: pytest.FixtureRequest) -> Engine:
    if request.param == "runtime":
        pytest.importorskip("onnxruntime")
        return runtime
    return reader if request.param == "reader" else reference


# Every case of every operator.

#: Cases that no model can hold, by the start of their name, and the text of the refusal.
REFUSED = {
    "batch_norm-training": "expected a state of the recording",
    "index-by-mask": "got a read of values",
    "index-by-whole-mask": "got a read of values",
    "require_finite": "got require_finite",
    "adaptive_max_pool1d-indices": "cells of different sizes",
    "adaptive_max_pool2d-indices": "cells of different sizes",
    "adaptive_max_pool3d-indices": "cells of different sizes",
}
#: Cases that the reference evaluator gets wrong or does not take; ONNX Runtime does.
BEYOND_REFERENCE = {
    "conv_transpose2d-groups": "it reshapes the result of groups wrongly",
    "conv_transpose2d-depthwise": "it reshapes the result of groups wrongly",
    "conv_transpose2d-groups-large": "it reshapes the result of groups wrongly",
    "log_softmax-far": "it takes the logarithm of a softmax that is 0",
    "gather-first": "it wants an index of the size of x",
    "pad-crop": "it does not crop",
}


def refusal_of(case: Case) -> str | None:
    return next((text for name, text in REFUSED.items() if case.id.startswith(name)), None)


def function_of(case: Case, given: Sequence[Any]) -> Callable[..., Any]:
    """Return a function of the inputs that are given."""

    def function(*inputs: Tensor) -> Any:
        left = iter(inputs)
        y = case.run(ops, [None if x is None else next(left) for x in given])
        return tuple(y) if isinstance(y, tuple | list) else y

    return function


def taken_in(case: Case) -> tuple[Callable[..., Any], list[Tensor]]:
    given = tensors(case, drawn(case).arrays, FLOAT32)
    return function_of(case, given), [x for x in given if x is not None]


def check_case(case: Case, engine: Engine) -> None:
    """Compare with the oracle: within the case's bound, and 4 units of the largest value for what runtimes approximate.

    No runtime promises a number of ulps for exp, tanh or erf, and sigmoid, gelu and others are made of these.
    """
    function, inputs = taken_in(case)
    got = engine(to_model(function, inputs), [to_numpy(x) for x in inputs])
    problem = drawn(case)
    bounds = case.bounds(FLOAT32, problem.expected, problem.arrays)
    ours = [to_numpy(y) for y in as_tuple(function(*inputs))]
    for y, our, expected, bound in zip(got, ours, problem.expected, bounds, strict=True):
        assert y.shape == our.shape and y.dtype == our.dtype
        finite = np.isfinite(expected)
        np.testing.assert_array_equal(y[~finite].astype(float), expected[~finite].astype(float))
        size = np.abs(expected[finite].astype(float)).max(initial=0.0)
        slack = 0.0 if case.bound is None else 4 * U * size
        error = np.abs(y.astype(float) - expected.astype(float), where=finite, out=np.zeros(y.shape))
        assert (error <= bound + slack).all()


WRITABLE = [case for case in CASES if refusal_of(case) is None]


@pytest.mark.parametrize(
    "case", [c for c in WRITABLE if not c.large and c.id not in BEYOND_REFERENCE], ids=lambda case: case.id
)
def test_case_runs_in_the_reference_evaluator(case: Case) -> None:
    check_case(case, reference)


@pytest.mark.parametrize("case", WRITABLE, ids=lambda case: case.id)
def test_case_comes_back(case: Case) -> None:
    check_case(case, reader)


@pytest.mark.needs_peers
@pytest.mark.parametrize("case", WRITABLE, ids=lambda case: case.id)
def test_case_runs_in_onnx_runtime(case: Case) -> None:
    pytest.importorskip("onnxruntime")
    check_case(case, runtime)


@pytest.mark.parametrize("case", [c for c in CASES if refusal_of(c) is not None], ids=lambda case: case.id)
def test_case_is_refused(case: Case) -> None:
    function, inputs = taken_in(case)
    with pytest.raises((ValueError, striate.RecordError), match=refusal_of(case)):
        to_model(function, inputs)


@pytest.mark.parametrize("opset", [19, 21, 24])
def test_newer_opsets_take_the_same_nodes(opset: int, engine: Engine) -> None:
    x = striate.tensor(np.random.default_rng(0).standard_normal((2, 8, 9, 9)).astype(np.float32))

    def model(x: Tensor) -> Tensor:
        y = ops.avg_pool2d(ops.gelu(x), 2, ceil_mode=True, padding=1)
        return ops.group_norm(ops.interpolate(y, scale_factor=2), 4).mean((2, 3)).softmax(1)

    (y,) = engine(to_model(model, x, opset_version=opset), [to_numpy(x)])
    np.testing.assert_allclose(y, model(x).numpy(), rtol=0, atol=32 * U)


# The zoo.

SMALL = ("lenet", "resnet20", "squeezenet1_1", "shufflenet_v2_x1_0")
#: Networks with a layer that fits one size of image.
OF_ONE_SIZE = ("lenet",)

#: Networks of more than 400 MB, or of as many operations: seen at one size of image, and only beside ONNX Runtime.
HEAVY = ("vgg11", "vgg11_bn", "vgg16", "vgg16_bn", "wide_resnet28_10")


def network(name: str) -> tuple[nn.Module, int]:
    """Return a network away from where its statistics start, and the side of its images."""
    entry = CATALOG[name]
    side = entry.image_size if entry.image_size <= 32 else max(64, -(-entry.least_size // 32) * 32)
    striate.manual_seed(0)
    n_classes = 10 if entry.task == "classify" else None
    net = models.build(name, n_classes, in_channels=entry.in_channels, image_size=(side, side)).eval()
    rng = np.random.default_rng(0)
    for key, value in [*net.named_buffers(), *net.named_parameters()]:
        if key.endswith("running_mean"):
            drawn_values = rng.normal(0, 0.2, value.shape)
        elif key.endswith("running_var") or (key.endswith("weight") and value.ndim == 1):
            drawn_values = rng.uniform(0.5, 1.5, value.shape)
        else:
            continue
        ops.assign(value.detach(), striate.tensor(drawn_values.astype(np.float32)))
    return net, side


def flat(result: Any) -> list[Array]:
    if isinstance(result, Tensor):
        return [to_numpy(result)]
    parts = result.values() if isinstance(result, dict) else result
    return [y for part in parts for y in flat(part)]


class Judge:
    """Says how far a float32 pass may be off: eight times as far as striate's own is from the pass in float64.

    Two orders of summation differ by as much as each of them does from the truth; 16 units of the largest result besides.
    """

    def __init__(self, net: nn.Module, images: Sequence[Array]) -> None:
        with striate.no_grad():
            self._ours = [flat(net(striate.tensor(x))) for x in images]
            state = {key: to_numpy(value) for key, value in net.state_dict().items()}
            net.to(striate.float64)
            self._exact = [flat(net(striate.tensor(x.astype(np.float64)))) for x in images]
            net.to(striate.float32).load_state_dict({key: striate.tensor(value) for key, value in state.items()})

    def check(self, i: int, got: Sequence[Array]) -> None:
        for y, our, exact in zip(got, self._ours[i], self._exact[i], strict=True):
            assert y.shape == exact.shape
            bound = 8 * np.abs(our - exact).max() + 16 * U * np.abs(exact).max()
            assert np.abs(y - exact).max() <= bound


def images_of(name: str, shapes: Sequence[tuple[int, int, int]]) -> list[Array]:
    rng, channels = np.random.default_rng(1), CATALOG[name].in_channels
    return [rng.standard_normal((n, channels, h, w)).astype(np.float32) for n, h, w in shapes]


def check_network(name: str, *engines: Engine) -> None:
    net, side = network(name)
    shapes = [(1, side, side), (2, side, side)]
    axes = {0: "batch"}
    if name not in OF_ONE_SIZE and name not in HEAVY:
        shapes += [(1, side + 32, side + 64), (3, side + 64, side)]
        axes |= {2: "height", 3: "width"}
    images = images_of(name, shapes)
    judge = Judge(net, images)
    x = striate.tensor(images[0])
    program = striate.compile(net, x)
    for model in [program] if name in HEAVY else [net, program]:
        proto = to_model(model, x, dynamic_axes={"input0": axes})
        for engine in engines:
            for i, image in enumerate(images):
                judge.check(i, engine(proto, [image]))
    if name not in HEAVY:
        proto = to_model(net, x)
        for engine in engines:
            judge.check(0, engine(proto, images[:1]))


@pytest.mark.parametrize("name", SMALL)
def test_network_runs_in_the_reference_evaluator(name: str) -> None:
    check_network(name, reference)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in models.names() if name not in HEAVY])
def test_network_comes_back(name: str) -> None:
    check_network(name, reader)


@pytest.mark.needs_peers
@pytest.mark.slow
@pytest.mark.parametrize("name", models.names())
def test_network_runs_in_onnx_runtime(name: str) -> None:
    pytest.importorskip("onnxruntime")
    if name in ("vgg11", "vgg16", "vgg16_bn") and os.environ.get("HYPOTHESIS_PROFILE") != "deep":
        pytest.skip("of the networks of 500 MB, one is enough outside the deep profile")
    check_network(name, *([runtime, reader] if name in HEAVY else [runtime]))


def test_network_of_one_size_says_so() -> None:
    net, side = network("lenet")
    for model in (net, lambda x: ops.var(x, (2, 3))):  # a linear layer; a number of pixels less one
        with pytest.raises(ValueError, match=r"got axis 2 of input 0 \('height'\) in a record that holds for .*height"):
            to_model(model, striate.zeros(1, 1, side, side), dynamic_axes={0: {2: "height", 3: "width"}})


# What a program fuses.


def _conv(c: int, o: int, k: int, **attributes: Any) -> nn.Conv2d:
    return nn.Conv2d(c, o, k, padding=k // 2, **attributes)


class Gated(nn.Module):
    """A gate before a pointwise convolution, an addition behind its activation."""

    def __init__(self) -> None:
        self.squeeze, self.point = _conv(8, 8, 1), _conv(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = ops.adaptive_avg_pool2d(x, 1)
        return ops.relu(self.point(x * ops.hardsigmoid(self.squeeze(gate)))) + x


class Normed(nn.Module):
    """A batch-norm with a ReLU before a pointwise convolution, another behind an addition."""

    def __init__(self, six: bool) -> None:
        self.norm, self.last, self.point = nn.BatchNorm2d(8), nn.BatchNorm2d(8), _conv(8, 8, 1)
        self.activate = ops.relu6 if six else ops.relu

    def forward(self, x: Tensor) -> Tensor:
        y = self.point(self.activate(self.norm(x)))
        return self.activate(self.last(ops.max_pool2d(y, 3, stride=1, padding=1)) + x)


class Joined(nn.Module):
    """Concatenations, the shorter one the first channels of the longer; parts that a convolution does not make."""

    def __init__(self) -> None:
        self.a, self.b = _conv(8, 4, 3), _conv(8, 5, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        a, b, c = ops.silu(self.a(x)), self.b(x), ops.max_pool2d(x, 3, stride=1, padding=1)
        return {"short": ops.concat([a, b], 1), "long": ops.concat([a, b, c], 1)}


class Flattened(nn.Module):
    """A product of a flattened image in channels-last memory, with an activation behind."""

    def __init__(self) -> None:
        self.conv, self.fc = _conv(8, 6, 3), nn.Linear(6 * 81, 10)

    def forward(self, x: Tensor) -> Tensor:
        return ops.gelu(self.fc(ops.flatten(self.conv(x), 1)))


def _sequence(*activations: nn.Module) -> nn.Module:
    parts: list[nn.Module] = []
    for activation in activations:
        parts += [_conv(8, 8, 3, bias=False), nn.BatchNorm2d(8), activation]
    return nn.Sequential(*parts)


FUSED: dict[str, Callable[[], nn.Module]] = {
    "activations": lambda: _sequence(nn.ReLU6(), nn.LeakyReLU(0.2), nn.ELU(0.5), nn.Softplus(beta=2, threshold=3)),
    "more-activations": lambda: _sequence(nn.SiLU(), nn.Hardswish(), nn.GELU(), nn.Mish(), nn.SELU(), nn.Tanh()),
    "separable": lambda: nn.Sequential(_conv(8, 8, 3, groups=8), nn.ReLU6(), _conv(8, 12, 1), nn.LeakyReLU(0.1)),
    "transposed": lambda: nn.Sequential(nn.ConvTranspose2d(8, 6, 3, stride=2), nn.ReLU()),
    "statistics-of-the-batch": lambda: nn.Sequential(
        _conv(8, 8, 3), nn.BatchNorm2d(8, track_running_stats=False), nn.ReLU()
    ),
    "gated": Gated,
    "normed": lambda: Normed(six=False),
    "normed-six": lambda: Normed(six=True),
    "joined": Joined,
    "flattened": Flattened,
}


@pytest.mark.parametrize("name", FUSED)
def test_program_is_taken_apart(name: str, engine: Engine, tmp_path: Any) -> None:
    striate.manual_seed(3)
    net = FUSED[name]().eval()
    rng = np.random.default_rng(2)
    for key, value in net.named_buffers():
        if key.endswith(("mean", "var")):
            ops.assign(value, striate.tensor(rng.uniform(0.5, 1.5, value.shape).astype(np.float32)))
    image = rng.standard_normal((2, 8, 9, 9)).astype(np.float32)
    judge = Judge(net, [image])
    x = striate.tensor(image)
    program = striate.compile(net, x)
    judge.check(0, engine(to_model(program, x), [image]))
    program.save(tmp_path / "program.safetensors")
    loaded = striate.load_program(tmp_path / "program.safetensors")
    judge.check(0, engine(to_model(loaded, x), [image]))


# Sizes that change.


def _unet_like(x: Tensor) -> Tensor:
    y = ops.max_pool2d(x, 2)
    return ops.concat([x, ops.interpolate(y, x.shape[2:])], 1)


def _flat(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return ops.permute(ops.reshape(x, (n, c // 2, 2, h * w)), (0, 3, 2, 1))[:, 1:, ::2]


CHANGING: dict[str, Callable[[Tensor], Tensor]] = {
    "ceil-mode": lambda x: ops.max_pool2d(x, 3, stride=2, padding=1, ceil_mode=True),
    "ceil-mode-cut": lambda x: ops.max_pool2d(x, 2, stride=3, padding=1, ceil_mode=True),
    "ceil-mode-mean": lambda x: ops.avg_pool2d(x, 3, stride=2, padding=1, ceil_mode=True),
    "ceil-mode-mean-of-image": lambda x: ops.avg_pool2d(x, 3, stride=2, ceil_mode=True, count_include_pad=False),
    "ceil-mode-divisor": lambda x: ops.avg_pool2d(x, 2, stride=3, padding=1, ceil_mode=True, divisor_override=3),
    "cells": lambda x: ops.adaptive_avg_pool2d(x, (2, 3)),
    "cells-max": lambda x: ops.adaptive_max_pool2d(x, (1, 3)),
    "indices": lambda x: ops.max_pool2d(x, 2, return_indices=True)[1],
    "upsample": lambda x: ops.interpolate(x, scale_factor=2),
    "to-the-size-of-another": _unet_like,
    "bilinear": lambda x: ops.interpolate(x, (7, 5), mode="bilinear", align_corners=False),
    "bilinear-by-scale": lambda x: ops.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True),
    "reshape": _flat,
    "chunk": lambda x: ops.concat(ops.chunk(ops.flip(x, 3), 2, dim=2)[::-1], 2),
    "last": lambda x: x[:, :, -2:, -1] + x[:, :, :2, 0],
    "pixels": lambda x: ops.pixel_unshuffle(ops.pixel_shuffle(x, 2), 2),
    "expand": lambda x: ops.expand(x[:, :1], x.shape) * 2.0 + ops.zeros_like(x),
    "group-norm": lambda x: ops.group_norm(x, 2),
    "layer-norm": lambda x: ops.layer_norm(x, x.shape[2:]),
    "reflect": lambda x: ops.pad(x, (1, 2, 3, 0), mode="reflect"),
}


@pytest.mark.parametrize("name", CHANGING)
def test_sizes_follow_the_inputs(name: str, engine: Engine) -> None:
    model, rng = CHANGING[name], np.random.default_rng(4)
    example = rng.standard_normal((2, 4, 10, 8)).astype(np.float32)
    proto = to_model(
        model, striate.tensor(example), dynamic_axes={0: {0: "batch", 2: "height", 3: "width"}}, output_names=["y"]
    )
    for shape in ((2, 4, 10, 8), (1, 4, 16, 12), (3, 4, 14, 20)):
        x = rng.standard_normal(shape).astype(np.float32)
        (y,) = engine(proto, [x])
        expected = model(striate.tensor(x)).numpy()
        assert y.shape == expected.shape
        np.testing.assert_allclose(y, expected, rtol=0, atol=32 * U * max(1.0, float(np.abs(expected).max())))
