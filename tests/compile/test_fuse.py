"""What fusion makes of neighbours: fewer nodes, the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import striate
from striate import Tensor, ops

rng = np.random.default_rng(1)

#: Convolutions of every kernel: (channels in, out, kernel size, stride, groups, size of the image).
LAYERS = {
    "pointwise": (16, 24, 1, 1, 1, 9),
    "pointwise-wide": (64, 257, 1, 1, 1, 14),
    "winograd": (32, 40, 3, 1, 1, 14),
    "winograd-strided": (32, 40, 3, 2, 1, 27),
    "strided": (8, 19, 3, 2, 1, 13),
    "first": (3, 20, 7, 2, 1, 32),
    "depthwise": (24, 24, 3, 1, 24, 11),
    "grouped": (16, 16, 3, 1, 4, 10),
    "groups-of-16": (64, 64, 3, 1, 4, 12),
}

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": ops.relu,
    "relu6": ops.relu6,
    "clip": lambda x: ops.clip(x, -0.5, 0.25),
    "silu": ops.silu,
    "hardswish": ops.hardswish,
    "sigmoid": ops.sigmoid,
    "leaky_relu": lambda x: ops.leaky_relu(x, 0.2),
    "gelu": ops.gelu,
}


def drawn(*shape: int, dtype: Any = np.float32) -> Tensor:
    return striate.tensor(rng.standard_normal(shape).astype(dtype))


def ops_of(program: Any) -> list[str]:
    return [node.op for node in program.graph.nodes]


def assert_close(y: Tensor, expected: Tensor) -> None:
    """An addend joins the sum before it is rounded: an ulp or two of the largest value."""
    a, b = y.numpy(), expected.numpy()
    assert a.shape == b.shape
    assert np.abs(a - b).max() <= 4 * np.finfo(b.dtype).eps * np.abs(b).max() + 1e-30


def layer(name: str, dtype: Any = np.float32) -> tuple[Callable[[Tensor], Tensor], Tensor, Tensor]:
    """Return a convolution, an input and an addend of its result's shape."""
    c, o, k, stride, groups, size = LAYERS[name]
    weight, bias = drawn(o, c // groups, k, k, dtype=dtype), drawn(o, dtype=dtype)
    x = drawn(2, c, size, size, dtype=dtype)

    def conv(x: Tensor) -> Tensor:
        return ops.conv2d(x, weight, bias, stride=stride, padding=k // 2, groups=groups)

    return conv, x, drawn(*conv(x).shape, dtype=dtype)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", LAYERS)
def test_an_activation_joins_the_convolution(name: str, activation: str) -> None:
    conv, x, _ = layer(name)
    f = ACTIVATIONS[activation]
    program = striate.compile(lambda x: f(conv(x)), x)
    assert ops_of(program) == ["conv2d"]
    for _ in range(2):
        assert np.array_equal(program(x).numpy(), f(conv(x)).numpy())


@pytest.mark.parametrize("activation", ["none", "relu", "silu"])
@pytest.mark.parametrize("name", LAYERS)
def test_an_addition_joins_the_convolution(name: str, activation: str) -> None:
    conv, x, z = layer(name)
    f = ACTIVATIONS[activation]
    for function in (lambda x, z: f(conv(x) + z), lambda x, z: z + f(conv(x))):
        program = striate.compile(function, x, z)
        assert ops_of(program) == ["conv2d"]
        assert_close(program(x, z), function(x, z))
        assert np.array_equal(program(x, z).numpy(), program(x, z).numpy())


@pytest.mark.parametrize("name", ["pointwise", "winograd", "winograd-strided", "depthwise"])
def test_threads_do_not_change_bits(name: str) -> None:
    conv, x, z = layer(name)
    program = striate.compile(lambda x, z: ops.silu(conv(x)) + z, x, z)
    expected = program(x, z).numpy()
    for n in (1, 2, 3, 7):
        with striate.threads(n):
            assert np.array_equal(program(x, z).numpy(), expected)


@pytest.mark.parametrize("name", ["pointwise", "winograd", "depthwise"])
def test_float64(name: str) -> None:
    conv, x, z = layer(name, np.float64)
    for function in (lambda x, z: ops.relu(conv(x) + z), lambda x, z: ops.silu(conv(x)) + z):
        assert_close(striate.compile(function, x, z)(x, z), function(x, z))


def test_an_addend_in_another_layout_or_batch() -> None:
    conv, x, z = layer("pointwise")
    program = striate.compile(lambda x, z: ops.relu(conv(x) + z), x, z)
    for n in (2, 1, 3):
        other = drawn(n, *x.shape[1:])
        addend = striate.tensor(np.ascontiguousarray(rng.standard_normal((n, *z.shape[1:]))).astype(np.float32))
        assert_close(program(other, addend), ops.relu(conv(other) + addend))


def test_of_two_convolutions_the_later_one_adds() -> None:
    conv, x, _ = layer("winograd")
    shortcut = drawn(40, 32, 1, 1)

    def block(x: Tensor) -> Tensor:
        return ops.relu(conv(x) + ops.conv2d(x, shortcut))

    program = striate.compile(block, x)
    assert ops_of(program) == ["conv2d", "conv2d"]
    assert program.graph.nodes[1].attributes["padding"] == "explicit"
    assert len(program.graph.nodes[1].inputs) == 4
    assert_close(program(x), block(x))


def test_what_others_read_is_not_fused() -> None:
    conv, x, z = layer("pointwise")

    def both(x: Tensor, z: Tensor) -> tuple[Tensor, ...]:
        y = conv(x)
        return y, ops.relu(y), y + z, y + y

    program = striate.compile(both, x, z)
    assert ops_of(program) == ["conv2d", "relu", "add", "add"]
    for a, b in zip(program(x, z), both(x, z), strict=True):
        assert np.array_equal(a.numpy(), b.numpy())


def test_a_broadcast_addend_is_not_fused() -> None:
    conv, x, z = layer("pointwise")
    column = drawn(1, z.shape[1], 1, 1)
    program = striate.compile(lambda x, b: conv(x) + b, x, column)
    assert ops_of(program) == ["conv2d", "add"]
    assert np.array_equal(program(x, column).numpy(), (conv(x) + column).numpy())


def test_transposed_convolutions_and_products_take_activations() -> None:
    x = drawn(2, 6, 5, 5)
    weight = drawn(6, 4, 2, 2)
    function = lambda x: ops.silu(ops.conv_transpose2d(x, weight, stride=2))  # noqa: E731
    program = striate.compile(function, x)
    assert ops_of(program) == ["conv_transpose2d"]
    assert np.array_equal(program(x).numpy(), function(x).numpy())
    rows, matrix, bias = drawn(5, 7), drawn(9, 7), drawn(9)
    dense = lambda x: ops.gelu(ops.linear(x, matrix, bias))  # noqa: E731
    program = striate.compile(dense, rows)
    assert ops_of(program) == ["linear"]
    assert np.array_equal(program(rows).numpy(), dense(rows).numpy())


def test_constants_are_computed_once() -> None:
    table = drawn(3, 4)
    program = striate.compile(lambda x: x + ops.exp(table).sum(dim=0) * 2.0, drawn(5, 4))
    assert ops_of(program) == ["add"]


AFFINE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "number": lambda x, c: x * 1.5 + 0.25,
    "channels": lambda x, c: x * c + c,
    "reversed": lambda x, c: 2.0 - c * x,
    "divided": lambda x, c: (x - c) / 0.75 - 1.0,
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", AFFINE)
def test_arithmetic_with_constants_joins_the_convolution_before(kind: str, dtype: type) -> None:
    convolve, x, _ = layer("winograd", dtype)
    by_channel = drawn(1, 40, 1, 1, dtype=dtype)
    program = striate.compile(lambda x: ops.relu(AFFINE[kind](convolve(x), by_channel)), x)
    assert ops_of(program) == ["conv2d"]
    y, expected = program(x).numpy(), ops.relu(AFFINE[kind](convolve(x), by_channel)).numpy()
    assert y.dtype == dtype
    # One rounding of each weight, over 9 · 32 products of numbers about 1.
    assert np.abs(y - expected).max() <= 40 * np.finfo(dtype).eps * np.abs(expected).max()


@pytest.mark.parametrize("kind", AFFINE)
def test_arithmetic_with_constants_becomes_one_batch_norm(kind: str) -> None:
    convolve, x, _ = layer("winograd")
    by_channel = drawn(1, 40, 1, 1)

    def model(x: Tensor) -> Tensor:
        return ops.relu(AFFINE[kind](ops.sin(convolve(x)), by_channel))

    program = striate.compile(model, x)
    assert ops_of(program) == ["conv2d", "sin", "batch_norm_eval"]
    y, expected = program(x).numpy(), model(x).numpy()
    assert np.abs(y - expected).max() <= 8 * np.finfo(np.float32).eps * np.abs(expected).max()


def test_arithmetic_that_widens_or_is_no_constant_stays() -> None:
    convolve, x, _ = layer("pointwise")
    pixels, other, wide = drawn(1, 1, 9, 9), drawn(1, 24, 1, 1), drawn(2, 24, 9, 9)
    program = striate.compile(lambda x: convolve(x) * pixels, x)
    assert ops_of(program) == ["conv2d", "mul"]
    gate = striate.compile(lambda x, c: convolve(x) * c, x, other)
    assert ops_of(gate) == ["conv2d", "mul"]
    widened = striate.compile(lambda x: convolve(x[:1]) * wide, x)
    assert ops_of(widened)[-1] == "mul"
    assert_close(widened(x), convolve(x[:1]) * wide)


def test_dead_nodes_are_gone() -> None:
    def function(x: Tensor) -> Tensor:
        ops.exp(x)
        return x * 2.0

    assert ops_of(striate.compile(function, drawn(2, 2))) == ["mul"]


def norm_tensors(c: int) -> list[Tensor]:
    return [drawn(c), striate.tensor(rng.uniform(0.5, 2.0, c).astype(np.float32)), drawn(c), drawn(c)]


@pytest.mark.parametrize("channels", [3, 8, 24, 257])
def test_a_relu_and_an_addition_join_batch_norm(channels: int) -> None:
    x, z = drawn(2, channels, 7, 5), drawn(2, channels, 7, 5)
    mean, var, weight, bias = norm_tensors(channels)
    y = lambda x: ops.batch_norm(x, mean, var, weight, bias)  # noqa: E731
    for function in (
        lambda x, z: ops.relu(y(x)) * z,
        lambda x, z: ops.relu(y(x) + z),
        lambda x, z: z + y(x),
        lambda x, z: ops.relu(z + ops.relu(y(x))),
        lambda x, z: ops.relu6(4 * z + y(x)),
    ):
        program = striate.compile(function, x, z)
        assert "batch_norm_eval" in ops_of(program)
        assert len(ops_of(program)) <= 3
        for _ in range(2):
            assert np.array_equal(program(x, z).numpy(), function(x, z).numpy())


@pytest.mark.parametrize("channels", [3, 8, 24])
@pytest.mark.parametrize("kind", ["relu", "relu6", "add-relu", "add", "twice", "twice6"])
def test_training_batch_norm_and_its_gradient(channels: int, kind: str) -> None:
    """Forward and backward as one program: the bits of eager calls."""
    weight, bias = ops.mul(drawn(channels), 4.0), drawn(channels)
    functions = {
        "relu": lambda y, z: ops.relu(y),
        "relu6": lambda y, z: ops.relu6(y),
        "add-relu": lambda y, z: ops.relu(y + z),
        "add": lambda y, z: z + y,
        "twice": lambda y, z: ops.relu(y) + y * z,
        "twice6": lambda y, z: ops.relu6(y) + y * z,
    }

    def gradients(x: Tensor, z: Tensor, g: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor | None, ...]:
        y = functions[kind](ops.batch_norm(x, weight=w, bias=b, training=True), z)
        found = striate.autograd.grad([y], [x, w, b], [g])
        return y, *found

    inputs = [drawn(4, channels, 6, 5) for _ in range(3)] + [weight, bias]
    for i in (0, 3, 4):
        inputs[i].requires_grad_()
    expected = gradients(*inputs)
    with striate.autograd.record(inputs=inputs) as recording:
        recording.returns(*[x for x in gradients(*inputs) if x is not None])
    program = striate._core.Program(striate._core.fuse(recording.graph))
    nodes = [node.op for node in program.graph.nodes]
    assert ("relu" in nodes) == (kind == "twice")
    assert ("relu_grad" in nodes) == (kind in ("add-relu", "twice"))
    assert ("relu6" in nodes, "relu6_grad" in nodes) == ((kind == "twice6",) * 2)
    for _ in range(2):
        for a, b in zip(program.run([x._array for x in inputs], []), expected, strict=True):
            assert b is not None
            assert np.array_equal(a.numpy(), b.detach().numpy())


def fused_gradients(function: Callable[..., Any], inputs: list[Tensor]) -> tuple[list[str], list[Any]]:
    """Record gradients, fuse, run twice; return the operators and the results, which are the bits of eager calls."""
    expected = function(*inputs)
    with striate.autograd.record(inputs=inputs) as recording:
        recording.returns(*function(*inputs))
    program = striate._core.Program(striate._core.fuse(recording.graph))
    for _ in range(2):
        found = program.run([x._array for x in inputs], [])
        for a, b in zip(found, expected, strict=True):
            assert np.array_equal(a.numpy(), b.detach().numpy(), equal_nan=True)
    return [node.op for node in program.graph.nodes], program.graph.nodes


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", LAYERS)
def test_an_addition_and_the_gradient_of_a_relu_join_a_data_gradient(name: str, dtype: type) -> None:
    c, o, k, stride, groups, size = LAYERS[name]
    x, weight = drawn(2, c, size, size), drawn(o, c // groups, k, k)
    skip = drawn(2, c, size, size)

    def convolve(y: Tensor, w: Tensor) -> Tensor:
        return ops.conv2d(y, w, stride=stride, padding=k // 2, groups=groups)

    inputs = [x, weight, ops.clone(convolve(x, weight)), skip]
    inputs = [ops.tensor(t.numpy().astype(dtype)) for t in inputs]
    inputs[0].requires_grad_()

    def branches(x: Tensor, w: Tensor, g: Tensor, skip: Tensor) -> tuple[Tensor, ...]:
        y = ops.relu(x)
        return striate.autograd.grad([convolve(y, w), y], [x], [g, skip])

    def alone(x: Tensor, w: Tensor, g: Tensor, _: Tensor) -> tuple[Tensor, ...]:
        return striate.autograd.grad([convolve(ops.relu(x), w)], [x], [g])

    for function, operands in ((branches, [True, True]), (alone, [False, True])):
        names, nodes = fused_gradients(function, inputs)
        assert "relu_grad" not in names
        assert "add" not in names
        gradient = next(node for node in nodes if node.op == "conv2d_grad_input")
        assert [i >= 0 for i in gradient.inputs[2:]] == operands


@pytest.mark.parametrize("pool", [{"kernel_size": 2}, {"kernel_size": 3, "stride": 2, "padding": 1}])
def test_the_gradient_of_a_relu_goes_before_that_of_a_maximum(pool: dict[str, int]) -> None:
    x, first, second = drawn(2, 5, 9, 8), drawn(16, 5, 3, 3), drawn(20, 16, 3, 3)

    def gradients(x: Tensor, first: Tensor, second: Tensor, g: Tensor) -> tuple[Tensor, ...]:
        y = ops.max_pool2d(ops.relu(ops.conv2d(x, first, padding=1)), **pool)
        return striate.autograd.grad([ops.conv2d(y, second, padding=1)], [x, first, second], [g])

    y = ops.conv2d(ops.max_pool2d(ops.conv2d(x, first, padding=1), **pool), second, padding=1)
    inputs = [x, first, second, ops.clone(y)]
    for i in range(3):
        inputs[i].requires_grad_()
    names, nodes = fused_gradients(gradients, inputs)
    assert "relu_grad" not in names  # in the data gradient before the maximum's
    gated = next(node for node in nodes if node.op == "conv2d_grad_input")
    assert next(node for node in nodes if node.op == "max_pool2d_grad").inputs[0] == gated.outputs[0]


def test_concatenation_is_written_in_place() -> None:
    a, b = drawn(8, 4, 3, 3), drawn(5, 4, 1, 1)
    up, wide_up = drawn(4, 6, 2, 2), drawn(4, 3, 5, 5)

    def fire(x: Tensor) -> Tensor:
        return ops.cat([ops.relu(ops.conv2d(x, a, padding=1)), ops.silu(ops.conv2d(x, b)), x], dim=1)

    def with_a_skip(x: Tensor) -> tuple[Tensor, ...]:
        y = ops.relu(ops.conv2d(x, a, padding=1))
        pooled = ops.max_pool2d(x, 2)
        z = ops.conv_transpose2d(pooled, up, stride=2)
        few = ops.conv_transpose2d(pooled, wide_up, stride=2, padding=2, output_padding=1)
        joined = ops.cat([y, few, z], dim=1)
        return joined, ops.max_pool2d(y, 2), y + 1.0

    x = drawn(2, 4, 8, 8)
    for function in (fire, lambda x: ops.cat([x, x * 2.0], dim=1), lambda x: ops.cat([x, x], dim=1)):
        program = striate.compile(function, x)
        for n in (2, 1, 3):
            y = drawn(n, 4, 8, 8)
            assert np.array_equal(program(y).numpy(), function(y).numpy())
    assert "concat" not in ops_of(striate.compile(fire, x))
    program = striate.compile(with_a_skip, x)
    assert "concat" not in ops_of(program)
    for _ in range(3):
        for found, expected in zip(program(x), with_a_skip(x), strict=True):
            assert np.array_equal(found.numpy(), expected.numpy())


def test_concatenations_that_grow_share_a_buffer() -> None:
    weights = [drawn(6, 5 + 6 * i, 3, 3) for i in range(4)]

    def dense(x: Tensor) -> Tensor:
        features = [x]
        for weight in weights:
            features.append(
                ops.relu(ops.conv2d(ops.cat(features, dim=1) if len(features) > 1 else x, weight, padding=1))
            )
        return ops.cat(features, dim=1)

    x = drawn(2, 5, 6, 6)
    program = striate.compile(dense, x)
    names = ops_of(program)
    assert names.count("buffer") == 1
    assert names.count("place") == 1  # the input
    assert names.count("joined") == 4
    for n in (2, 1):
        y = drawn(n, 5, 6, 6)
        assert np.array_equal(program(y).numpy(), dense(y).numpy())
