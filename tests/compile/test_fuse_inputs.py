"""What comes before a pointwise convolution joins it: its pixels are made where they are multiplied. Equal to the bit to the
operators one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import striate
from striate import Tensor, nn, ops

rng = np.random.default_rng(3)

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": ops.relu,
    "relu6": ops.relu6,
    "silu": ops.silu,
    "hardswish": ops.hardswish,
}
#: (samples, channels in, out, height, width). "far" ones are larger than any core's caches.
SIZES = {
    "small": (3, 24, 40, 9, 7),
    "one-pixel": (2, 16, 8, 1, 1),
    "few": (2, 5, 3, 6, 5),
    "wide": (1, 700, 530, 4, 3),
}


def drawn(*shape: int, dtype: Any = np.float32) -> Tensor:
    return striate.tensor(rng.standard_normal(shape).astype(dtype))


def nodes_of(program: Any) -> list[str]:
    return [node.op for node in program.graph.nodes]


def far(channels: int, height: int, width: int) -> int:
    """Samples of an image that is larger than what kernels take for near."""
    bytes_each = 4 * channels * height * width
    l2_bytes = striate.machine.info()["l2_bytes"]
    assert isinstance(l2_bytes, int)
    return -(-9 * l2_bytes // (2 * bytes_each))


def norm_of(channels: int, dtype: Any = np.float32, *, affine: bool = True) -> Callable[[Tensor], Tensor]:
    mean, var = drawn(channels, dtype=dtype), ops.abs(drawn(channels, dtype=dtype)) + 0.1
    weight, bias = (drawn(channels, dtype=dtype), drawn(channels, dtype=dtype)) if affine else (None, None)
    return lambda x: ops.batch_norm(x, mean, var, weight, bias, training=False)


def assert_equal(program: Any, function: Callable[..., Tensor], *inputs: Tensor) -> None:
    with striate.no_grad():
        expected = function(*inputs).numpy()
    for n in (1, 2, 3):
        with striate.threads(n):
            assert np.array_equal(program(*inputs).numpy(), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("activation", ["none", "relu", "relu6"])
@pytest.mark.parametrize("size", SIZES)
def test_a_batch_norm_joins_the_convolution_behind_it(size: str, activation: str, dtype: Any) -> None:
    n, c, o, h, w = SIZES[size]
    norm, weight, bias = (
        norm_of(c, dtype, affine=activation != "relu6"),
        drawn(o, c, 1, 1, dtype=dtype),
        drawn(o, dtype=dtype),
    )
    f = ACTIVATIONS[activation]
    x = drawn(n, c, h, w, dtype=dtype)
    for tail in (lambda y: y, ops.silu):

        def function(x: Tensor, tail: Any = tail) -> Tensor:
            return tail(ops.conv2d(f(norm(x)), weight, bias))

        program = striate.compile(function, x)
        assert nodes_of(program) == ["conv2d"]
        assert_equal(program, function, x)
        assert_equal(program, function, drawn(n + 1, c, h, w, dtype=dtype))


def test_a_batch_norm_against_float64() -> None:
    n, c, o, h, w = SIZES["small"]
    mean, var = rng.standard_normal(c), rng.random(c) + 0.1
    scale, shift, weight, x = (rng.standard_normal(s) for s in (c, c, (o, c), (n, c, h, w)))
    column = (slice(None), None, None)
    made = (x - mean[column]) / np.sqrt(var[column] + 1e-5) * scale[column] + shift[column]
    expected = np.einsum("oc,nchw->nohw", weight, np.clip(made, 0, 6))
    m, v, s, b, k, y = (
        striate.tensor(a.astype(np.float32)) for a in (mean, var, scale, shift, weight[:, :, None, None], x)
    )
    program = striate.compile(lambda x: ops.conv2d(ops.relu6(ops.batch_norm(x, m, v, s, b, training=False)), k), y)
    assert nodes_of(program) == ["conv2d"]
    np.testing.assert_allclose(program(y).numpy(), expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_a_batch_norm_of_a_concatenation_joins() -> None:
    """As in DenseNet: the pixels lie in a buffer that is wider than they are."""
    c = 24
    first, second = drawn(c, c, 3, 3), drawn(c, c, 3, 3)
    norms = [norm_of(2 * c), norm_of(3 * c)]
    weights = [drawn(c, 2 * c, 1, 1), drawn(8, 3 * c, 1, 1)]

    def function(x: Tensor) -> Tensor:
        y = ops.concat([x, ops.conv2d(x, first, padding=1)], 1)
        z = ops.conv2d(ops.relu(ops.conv2d(ops.relu(norms[0](y)), weights[0])), second, padding=1)
        return ops.conv2d(ops.relu(norms[1](ops.concat([y, z], 1))), weights[1])

    x = drawn(2, c, 10, 8)
    program = striate.compile(function, x)
    assert "batch_norm_eval" not in nodes_of(program)
    with striate.no_grad():
        expected = function(x).numpy()
    np.testing.assert_allclose(program(x).numpy(), expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    rows = program.explain(x).rows
    assert [row.fused for row in rows if "batch_norm" in row.fused] == [
        ("batch_norm", "relu", "relu"),
        ("batch_norm", "relu"),
    ]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [name for name in SIZES if name != "one-pixel"])
def test_a_gate_joins_the_convolution_behind_it(size: str, dtype: Any) -> None:
    """As in squeeze-and-excite: one factor for each sample and channel."""
    n, c, o, h, w = SIZES[size]
    weight, bias = drawn(o, c, 1, 1, dtype=dtype), drawn(o, dtype=dtype)

    def gate(x: Tensor) -> Tensor:
        return ops.sigmoid(ops.adaptive_avg_pool2d(x, 1))

    x = drawn(n, c, h, w, dtype=dtype)
    for function in (
        lambda x: ops.relu(ops.conv2d(x * gate(x), weight, bias)),
        lambda x: ops.conv2d(gate(x) * x, weight),
    ):
        program = striate.compile(function, x)
        assert sorted(nodes_of(program)) == ["adaptive_avg_pool2d", "conv2d", "sigmoid"]
        assert_equal(program, function, x)
        assert_equal(program, function, drawn(n + 1, c, h, w, dtype=dtype))


def test_a_gate_that_all_samples_share_is_none() -> None:
    """Recorded with one sample it looks like one, and is repeated for three."""
    weight, scale, x = drawn(5, 8, 1, 1), drawn(1, 8, 1, 1), drawn(1, 8, 4, 4)
    program = striate.compile(lambda x: ops.conv2d(x * scale, weight), x)
    assert nodes_of(program) == ["mul", "conv2d"]
    for n in (1, 3):
        y = drawn(n, 8, 4, 4)
        assert np.array_equal(program(y).numpy(), ops.conv2d(y * scale, weight).numpy())


def test_what_is_read_elsewhere_or_is_not_pointwise_stays() -> None:
    n, c, o, h, w = SIZES["small"]
    norm, weight, wide = norm_of(c), drawn(o, c, 1, 1), drawn(o, c, 3, 3)
    halves = drawn(c, c // 2, 1, 1)
    x = drawn(n, c, h, w)
    for function in (
        lambda x: ops.conv2d(norm(x), wide, padding=1),
        lambda x: ops.conv2d(norm(x), weight, stride=2),
        lambda x: ops.conv2d(norm(x), weight, padding=1),
        lambda x: ops.conv2d(norm(x), halves, groups=2),
    ):
        program = striate.compile(function, x)
        assert sorted(nodes_of(program)) == ["batch_norm_eval", "conv2d"]
        assert np.array_equal(program(x).numpy(), function(x).numpy())

    def twice(x: Tensor) -> tuple[Tensor, Tensor]:
        y = ops.relu(norm(x))
        return ops.conv2d(y, weight), y

    program = striate.compile(twice, x)
    assert sorted(nodes_of(program)) == ["batch_norm_eval", "conv2d"]


def separable(
    c: int, o: int, kernel: int, stride: int, first: str, last: str, dtype: Any
) -> Callable[[Tensor], Tensor]:
    depthwise, bias = drawn(c, 1, kernel, kernel, dtype=dtype), drawn(c, dtype=dtype)
    pointwise, shift = drawn(o, c, 1, 1, dtype=dtype), drawn(o, dtype=dtype)

    def function(x: Tensor) -> Tensor:
        y = ops.conv2d(x, depthwise, bias, stride=stride, padding=kernel // 2, groups=c)
        return ACTIVATIONS[last](ops.conv2d(ACTIVATIONS[first](y), pointwise, shift))

    return function


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2), (7, 1)])
@pytest.mark.parametrize("size", SIZES)
def test_depthwise_and_pointwise_are_one_node(size: str, kernel: int, stride: int, dtype: Any) -> None:
    n, c, o, h, w = SIZES[size]
    for first, last in (("none", "none"), ("relu6", "none"), ("silu", "relu")):
        function = separable(c, o, kernel, stride, first, last, dtype)
        x = drawn(n, c, h, w, dtype=dtype)
        program = striate.compile(function, x)
        assert nodes_of(program) == ["separable_conv2d"]
        assert_equal(program, function, x)
        fused = {"none": (), "relu6": ("clip(0, 6)",), "silu": ("silu",), "relu": ("relu",)}
        row = program.explain(x).rows[0]
        assert row.fused == ("bias", *fused[first], "pointwise", "bias", *fused[last])
        pixels = row.shape[0] * row.shape[2] * row.shape[3]
        assert row.macs == pixels * c * (kernel**2 + o)


#: Whose result between is made row by row where it is multiplied: (channels in, out, height, width, kernel, stride).
FAR = {
    "lines-of-one": (32, 16, 112, 112, 3, 1),
    "blocks-of-channels": (392, 40, 23, 31, 3, 1),
    "strided": (96, 24, 112, 75, 3, 2),
    "five": (40, 257, 56, 57, 5, 1),
    "odd": (17, 9, 61, 53, 3, 2),
    "narrow": (136, 64, 190, 3, 3, 1),
}


@pytest.mark.parametrize("name", FAR)
def test_far_images_are_made_row_by_row(name: str) -> None:
    c, o, h, w, kernel, stride = FAR[name]
    for first, last in (("relu6", "none"), ("silu", "silu")):
        function = separable(c, o, kernel, stride, first, last, np.float32)
        x = drawn(far(c, -(-h // stride), -(-w // stride)), c, h, w)
        program = striate.compile(function, x)
        assert_equal(program, function, x)


def test_networks_hold_them() -> None:
    from striate import models

    x = drawn(1, 3, 64, 64)
    with striate.no_grad():
        for network, op, n in ((models.mobilenet_v2, "separable_conv2d", 17), (models.efficientnet_b0, "mul", 0)):
            model: nn.Module = network().eval()
            assert nodes_of(striate.compile(model, x)).count(op) == n
