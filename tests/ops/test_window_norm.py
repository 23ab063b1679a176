"""Pooling, normalisation, depthwise convolution, resizing and padding: what the laws do not ask."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import striate

RNG = np.random.default_rng(7)


def _normal(*shape: int) -> striate.Tensor:
    return striate.tensor(RNG.standard_normal(shape).astype(np.float32))


REFUSALS: list[tuple[type[Exception], str, Callable[[], object]]] = [
    (
        striate.ShapeError,
        r"max_pool2d: expected x with 4 axes .* got shape \(2, 3, 4\)",
        lambda: striate.max_pool2d(_normal(2, 3, 4), 2),
    ),
    (
        striate.ShapeError,
        "max_pool2d: expected padding of at most half the dilated kernel size 2",
        lambda: striate.max_pool2d(_normal(1, 1, 4, 4), 2, padding=2),
    ),
    (
        striate.ShapeError,
        "max_pool1d: expected a padded input of at least the dilated kernel size 5",
        lambda: striate.max_pool1d(_normal(1, 1, 4), 5),
    ),
    (
        striate.ShapeError,
        r"max_pool2d: expected a padded input of at least the dilated kernel size 5 - \(stride - 1\) = 4, got size 3",
        lambda: striate.max_pool2d(_normal(1, 1, 3, 4), 3, stride=2, dilation=2, ceil_mode=True),
    ),
    (
        striate.ShapeError,
        r"avg_pool1d: expected a padded input of at least the dilated kernel size 2 - \(stride - 1\) = 1, got size 0",
        lambda: striate.avg_pool1d(_normal(1, 1, 0), 2, stride=2, ceil_mode=True),
    ),
    (
        striate.ShapeError,
        "max_pool2d: expected kernel_size as one number or 2 of them",
        lambda: striate.max_pool2d(_normal(1, 1, 4, 4), (1, 2, 3)),
    ),
    (
        striate.ShapeError,
        r"max_pool2d: expected padding as 2 \(begin, end\) pairs",
        lambda: striate.max_pool2d(_normal(1, 1, 4, 4), 2, padding=((0, 1),)),
    ),
    (
        striate.DTypeError,
        "max_pool2d: expected float32 or float64, got int64",
        lambda: striate.max_pool2d(striate.zeros(1, 1, 4, 4, dtype=striate.int64), 2),
    ),
    (
        striate.ShapeError,
        "adaptive_max_pool2d: expected output_size as one number or 2 of them",
        lambda: striate.adaptive_max_pool2d(_normal(1, 1, 4, 4), (1, 2, 3)),
    ),
    (
        striate.ShapeError,
        "adaptive_avg_pool2d: expected output_size of at least 0",
        lambda: striate.adaptive_avg_pool2d(_normal(1, 1, 4, 4), -3),
    ),
    (
        striate.ShapeError,
        "adaptive_avg_pool1d: .* an image of at least one pixel",
        lambda: striate.adaptive_avg_pool1d(striate.zeros(1, 2, 0), 2),
    ),
    (
        ValueError,
        "avg_pool2d: expected divisor_override other than 0",
        lambda: striate.avg_pool2d(_normal(1, 1, 4, 4), 2, divisor_override=0),
    ),
    (
        striate.ShapeError,
        "batch_norm: expected more than one value per channel in training",
        lambda: striate.batch_norm(_normal(1, 3), training=True),
    ),
    (
        striate.ShapeError,
        r"batch_norm: expected running_mean of shape \(3,\)",
        lambda: striate.batch_norm(_normal(2, 3), striate.zeros(4), striate.ones(3)),
    ),
    (
        striate.ShapeError,
        r"batch_norm: expected x of shape \(N, C\)",
        lambda: striate.batch_norm(_normal(3), training=True),
    ),
    (
        striate.DTypeError,
        "batch_norm: expected weight of x's dtype float32, got float64",
        lambda: striate.batch_norm(_normal(2, 3), weight=striate.ones(3, dtype=striate.float64), training=True),
    ),
    (
        striate.ShapeError,
        "group_norm: expected groups that divide the 3 channels of x, got 2",
        lambda: striate.group_norm(_normal(2, 3, 4), 2),
    ),
    (
        striate.ShapeError,
        r"group_norm: expected weight and bias of shape \(4,\)",
        lambda: striate.group_norm(_normal(2, 4, 4), 2, striate.ones(3)),
    ),
    (
        striate.ShapeError,
        "instance_norm: expected more than one pixel per channel",
        lambda: striate.instance_norm(_normal(2, 3, 1)),
    ),
    (
        striate.ShapeError,
        "layer_norm: expected normalized_shape to be the last sizes of x",
        lambda: striate.layer_norm(_normal(2, 3), 4),
    ),
    (
        striate.ShapeError,
        r"layer_norm: expected weight and bias of shape \(3,\)",
        lambda: striate.layer_norm(_normal(2, 3), 3, striate.ones(2)),
    ),
    (
        striate.ShapeError,
        "local_response_norm: expected x of shape",
        lambda: striate.local_response_norm(_normal(2, 3), 3),
    ),
    (
        ValueError,
        "interpolate: expected one of size and scale_factor",
        lambda: striate.interpolate(_normal(1, 1, 4, 4)),
    ),
    (
        ValueError,
        "interpolate: expected mode 'nearest' or 'bilinear', got 'cubic'",
        lambda: striate.interpolate(_normal(1, 1, 4, 4), 2, mode="cubic"),
    ),
    (
        ValueError,
        "interpolate: expected align_corners=None",
        lambda: striate.interpolate(_normal(1, 1, 4, 4), 2, align_corners=True),
    ),
    (
        striate.ShapeError,
        "interpolate: expected x with 4 axes for mode 'bilinear'",
        lambda: striate.interpolate(_normal(1, 1, 4), 2, mode="bilinear"),
    ),
    (
        striate.ShapeError,
        "interpolate: expected sizes of at least 1",
        lambda: striate.interpolate(_normal(1, 1, 4), 0),
    ),
    (
        ValueError,
        "interpolate: expected scale_factor above 0",
        lambda: striate.interpolate(_normal(1, 1, 4), scale_factor=-1),
    ),
    (
        striate.ShapeError,
        r"pad: expected \(begin, end\) pairs for at most 2 axes",
        lambda: striate.pad(_normal(2, 3), (1, 2, 3)),
    ),
    (striate.ShapeError, "pad: expected an output of at least size 0", lambda: striate.pad(_normal(2, 3), (-2, -2))),
    (
        striate.ShapeError,
        "pad: expected at most 2 elements of reflect padding on axis 1",
        lambda: striate.pad(_normal(2, 3), (3, 0), "reflect"),
    ),
    (ValueError, "pad: expected mode 'constant'", lambda: striate.pad(_normal(2, 3), (1, 1), "wrap")),
    (
        ValueError,
        "pad: expected no value with mode 'reflect'",
        lambda: striate.pad(_normal(2, 3), (1, 1), "reflect", 1.0),
    ),
]


@pytest.mark.parametrize(("error", "match", "call"), REFUSALS, ids=[match[:60] for _, match, _ in REFUSALS])
def test_refusal(error: type[Exception], match: str, call: Callable[[], object]) -> None:
    with pytest.raises(error, match=match):
        call()


def test_max_pool_indices_read_the_maxima() -> None:
    x = _normal(2, 5, 9, 8)
    y, indices = striate.max_pool2d(x, 3, stride=2, padding=1, return_indices=True)
    flat = x.numpy().reshape(2, 5, -1)
    read = np.take_along_axis(flat, indices.numpy().reshape(2, 5, -1), axis=2)
    np.testing.assert_array_equal(read.reshape(y.shape), y.numpy())


def test_max_pool_windows_of_many_taps_keep_wide_indices() -> None:
    x = _normal(1, 3, 20, 19).requires_grad_()
    striate.max_pool2d(x, 18, stride=1).sum().backward()
    assert x.grad is not None
    assert x.grad.numpy().sum() == 3 * 3 * 2


def test_batch_norm_changes_running_statistics_in_place() -> None:
    x = _normal(4, 3, 5, 5)
    mean, var = striate.zeros(3), striate.ones(3)
    before = mean.data_version
    striate.batch_norm(x, mean, var, training=True, momentum=0.25)
    values = np.moveaxis(x.numpy().astype(np.float64), 1, 0).reshape(3, -1)
    np.testing.assert_allclose(mean.numpy(), 0.25 * values.mean(axis=1), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(var.numpy(), 0.75 + 0.25 * values.var(axis=1, ddof=1), rtol=1e-5)
    assert mean.data_version > before


def test_batch_norm_keeps_accuracy_far_from_zero() -> None:
    rng = np.random.default_rng(0)  # its own: what other tests draw before it differs from run to run
    x = striate.tensor((1e4 + rng.standard_normal((64, 3, 8, 8))).astype(np.float32))
    y = striate.batch_norm(x, training=True).numpy()
    assert abs(y.std() - 1) < 1e-3
    assert abs(y.mean()) < 1e-3


def test_batch_norm_of_nothing_leaves_running_statistics() -> None:
    mean, var = striate.zeros(3), striate.ones(3)
    assert striate.batch_norm(striate.zeros(0, 3, 2, 2), mean, var, training=True).shape == (0, 3, 2, 2)
    assert mean.numpy().tolist() == [0, 0, 0]


@pytest.mark.parametrize("op", ["batch_norm", "group_norm", "layer_norm"])
def test_second_derivatives_of_normalisation_are_refused(op: str) -> None:
    x = _normal(4, 6).requires_grad_()
    y = {
        "batch_norm": lambda: striate.batch_norm(x, training=True),
        "group_norm": lambda: striate.group_norm(x, 2),
        "layer_norm": lambda: striate.layer_norm(x, 6),
    }[op]()
    (grad,) = striate.autograd.grad([(y * y).sum()], [x], create_graph=True)
    with pytest.raises(RuntimeError, match=f"{op}_grad: expected first derivatives only"):
        grad.sum().backward()


@pytest.mark.parametrize("multiplier", [1, 3])
def test_depthwise_equals_one_dense_convolution(multiplier: int) -> None:
    channels = 5
    x, weight = _normal(2, channels, 7, 9), _normal(channels * multiplier, 1, 3, 3)
    dense = np.zeros((channels * multiplier, channels, 3, 3), np.float32)
    for o in range(channels * multiplier):
        dense[o, o // multiplier] = weight.numpy()[o, 0]
    y = striate.conv2d(x, weight, stride=2, padding=1, groups=channels)
    expected = striate.conv2d(x, striate.tensor(dense), stride=2, padding=1)
    np.testing.assert_allclose(y.numpy(), expected.numpy(), rtol=1e-5, atol=1e-5)


def test_depthwise_padded_tap_contributes_nothing() -> None:
    weight = np.ones((2, 1, 3, 3), np.float32)
    weight[:, :, 0] = np.inf
    y = striate.conv2d(striate.ones(1, 2, 1, 4), striate.tensor(weight), padding=1, groups=2)
    assert y.numpy().tolist() == [[[[2, 3, 3, 2]], [[2, 3, 3, 2]]]]


@pytest.mark.parametrize("name", striate.machine.available_isas())
@pytest.mark.parametrize(("group", "stride"), [(1, 1), (1, 2), (4, 1)])
def test_depthwise_past_the_caches_equals_image_by_image(name: str, group: int, stride: int) -> None:
    # 42 MB of gradient, and of result where stride is 1: results of more than 32 MB are stored past the caches.
    x, weight = _normal(2, 32, 404, 404), _normal(32, group, 3, 3)
    grad_y = _normal(2, 32, 404 // stride, 404 // stride)

    def passes(n: slice) -> tuple[np.ndarray, np.ndarray]:
        images = striate.tensor(x.numpy()[n], requires_grad=True)
        y = striate.conv2d(images, weight, stride=stride, padding=1, groups=32 // group)
        striate.autograd.backward([y], [striate.tensor(grad_y.numpy()[n])])
        assert images.grad is not None
        return y.detach().numpy(), images.grad.numpy()

    with striate.isa(name):
        whole, first, second = passes(slice(0, 2)), passes(slice(0, 1)), passes(slice(1, 2))
    for both, one, other in zip(whole, first, second, strict=True):
        np.testing.assert_array_equal(both, np.concatenate([one, other]))


def test_avg_pool_divides_by_an_override() -> None:
    y = striate.avg_pool2d(striate.ones(1, 3, 4, 4), 2, divisor_override=8)
    assert y.numpy().ravel().tolist() == [0.5] * 12


def test_interpolate_recomputes_the_scale() -> None:
    x = _normal(1, 2, 5, 5)
    given = striate.interpolate(x, scale_factor=1.5, mode="bilinear")
    recomputed = striate.interpolate(x, scale_factor=1.5, mode="bilinear", recompute_scale_factor=True)
    np.testing.assert_array_equal(recomputed.numpy(), striate.interpolate(x, 7, mode="bilinear").numpy())
    assert np.abs(given.numpy() - recomputed.numpy()).max() > 1e-3


def test_windows_mean_the_same_however_they_are_spelled() -> None:
    x = striate.tensor(np.random.default_rng(0).standard_normal((1, 4, 7, 7)).astype(np.float32))
    weight = striate.tensor(np.random.default_rng(1).standard_normal((4, 4, 3, 3)).astype(np.float32))
    spellings = (
        {"stride": 2, "padding": 1},
        {"stride": [2, 2], "padding": (1, 1)},
        {"stride": (2,), "padding": [(1, 1)] * 2},
    )
    for op in (
        lambda **window: striate.conv2d(x, weight, **window),
        lambda **window: striate.max_pool2d(x, 3, **window),
    ):
        first = op(**spellings[0]).numpy()
        for window in (*spellings, *spellings):  # the second time from memory
            np.testing.assert_array_equal(op(**window).numpy(), first)


def test_window_errors_come_each_time() -> None:
    x = striate.zeros(1, 4, 7, 7)
    for _ in range(2):
        with pytest.raises(striate.ShapeError, match=r"conv2d: expected stride as one number or 2, got \(1, 2, 3\)"):
            striate.conv2d(x, striate.zeros(4, 4, 3, 3), stride=(1, 2, 3))
        with pytest.raises(TypeError, match="float"):
            striate.conv2d(x, striate.zeros(4, 4, 3, 3), stride=1.5)
        with pytest.raises(striate.ShapeError, match="expected x of 4 axes"):
            striate.conv2d(x[0], striate.zeros(4, 4, 3, 3))


def test_windows_of_a_recording_follow_its_sizes() -> None:
    # A size met while recording is a number that equals one met before, and must stay what it is.
    image = striate.zeros(1, 4, 6, 6)
    striate.max_pool2d(image, 6)
    program = striate.compile(lambda x: striate.max_pool2d(x, x.shape[2]), image)
    assert program(striate.zeros(1, 4, 8, 8)).shape == (1, 4, 1, 1)


#: Images of more than 16 MiB, which batch-norm stores past the caches: whole pixels, and several that make a row, with a rest.
LARGE = [(3, 96, 122, 122), (9, 32, 123, 121)]


@pytest.mark.parametrize("shape", LARGE)
def test_batch_norm_past_the_caches_gives_the_bits_of_parts(shape: tuple[int, ...]) -> None:
    x, grad_y = _normal(*shape), _normal(*shape)
    assert x.numpy().nbytes > 16 << 20
    mean, weight, bias = (_normal(shape[1]) for _ in range(3))
    var = striate.tensor(RNG.uniform(0.5, 2, shape[1]).astype(np.float32))
    x, grad_y = (striate.ops.clone(striate.ops.relayout(t)) for t in (x, grad_y))

    def both(x: striate.Tensor, grad_y: striate.Tensor) -> list[np.ndarray]:
        x = striate.ops.clone(x).requires_grad_()
        y = striate.ops.batch_norm(x, mean, var, weight, bias)
        return [y.detach().numpy(), striate.autograd.grad(y, x, grad_y)[0].numpy()]

    parts = [both(x[i : i + 1], grad_y[i : i + 1]) for i in range(shape[0])]
    for whole, pieces in zip(both(x, grad_y), zip(*parts, strict=True), strict=True):
        assert np.array_equal(whole, np.concatenate(pieces))


@pytest.mark.parametrize("shape", LARGE)
def test_gradient_of_a_training_batch_norm_past_the_caches(shape: tuple[int, ...]) -> None:
    x, grad_y, weight = _normal(*shape), _normal(*shape), _normal(shape[1])
    x, grad_y = (striate.ops.clone(striate.ops.relayout(t)) for t in (x, grad_y))
    x.requires_grad_()
    found = striate.autograd.grad(striate.ops.batch_norm(x, weight=weight, training=True), x, grad_y)[0].numpy()
    pixels = (0, 2, 3)
    d, g, w = (t.detach().numpy().astype(np.float64) for t in (x, grad_y, weight))
    d -= d.mean(pixels, keepdims=True)
    invstd = 1 / np.sqrt(d.var(pixels, keepdims=True) + 1e-5)
    a = w[:, None, None] * invstd
    slope, shift = (g * d).mean(pixels, keepdims=True) * invstd**2, g.mean(pixels, keepdims=True)
    error = np.abs(found - a * (g - shift - d * slope))
    # A few roundings of three terms; their factors come from sums in trees, tens of roundings.
    assert np.all(
        error <= 64 * 2.0**-24 * np.abs(a) * (np.abs(g) + np.abs(shift) + np.abs(d * slope) + np.abs(d) * invstd)
    )
