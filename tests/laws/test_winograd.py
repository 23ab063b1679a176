"""Laws of Winograd convolution: its own error bound, threads, instruction sets, NaN and Inf, exactness of F(2×2)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import striate
from oracle import bound, conv, winograd

Array = np.ndarray
Pads = tuple[tuple[int, int], tuple[int, int]]
SIZES = (2, 4, 5, 6)
#: m, r and the stride of F(m×m, r×r).
FORMS = (*((m, 3, 1) for m in SIZES), (2, 5, 1), (4, 3, 2), (5, 3, 2))


@dataclass(frozen=True)
class Layer:
    """A convolution."""

    batch: int
    channels: int
    filters: int
    height: int
    width: int
    padding: Pads = ((1, 1), (1, 1))
    groups: int = 1
    kernel: int = 3
    stride: int = 1

    def draw(self, seed: int, integers: bool = False) -> tuple[Array, Array, Array, Array]:
        """x, weight, bias, grad_y; float32 holds them exactly."""
        rng = np.random.default_rng(seed)
        sides = zip((self.height, self.width), self.padding, strict=True)
        out = [(n + sum(p) - self.kernel) // self.stride + 1 for n, p in sides]
        shapes = (
            (self.batch, self.channels, self.height, self.width),
            (self.filters, self.channels // self.groups, self.kernel, self.kernel),
            (self.filters,),
            (self.batch, self.filters, *out),
        )
        if integers:
            return tuple(rng.integers(-4, 5, shape).astype(np.float64) for shape in shapes)
        return tuple(rng.standard_normal(shape).astype(np.float32).astype(np.float64) for shape in shapes)


def run(layer: Layer, arrays: tuple[Array, Array, Array, Array], algorithm: str) -> tuple[Array, ...]:
    """y, grad_x, grad_weight, grad_bias in float32."""
    x, weight, bias = (striate.tensor(a.astype(np.float32)).requires_grad_() for a in arrays[:3])
    with striate.machine.algorithm(algorithm):
        y = striate.ops.conv2d(x, weight, bias, stride=layer.stride, padding=layer.padding, groups=layer.groups)
        y.backward(striate.tensor(arrays[3].astype(np.float32)))
    return tuple(np.array(t.numpy()) for t in (y.detach(), x.grad, weight.grad, bias.grad))


def by_groups(
    layer: Layer, arrays: tuple[Array, ...], of_group: Callable[[Layer, tuple[Array, ...]], tuple[Array, ...]]
) -> tuple[Array, ...]:
    """Join what `of_group` says of y, grad_x and grad_weight of every group."""
    alone = replace(layer, channels=layer.channels // layer.groups, filters=layer.filters // layer.groups, groups=1)
    x, weight, bias, grad_y = (np.split(a, layer.groups, axis) for a, axis in zip(arrays, (1, 0, 0, 1), strict=True))
    parts = [of_group(alone, group) for group in zip(x, weight, bias, grad_y, strict=True)]
    return tuple(np.concatenate(whole, axis) for whole, axis in zip(zip(*parts, strict=True), (1, 1, 0), strict=True))


def exact(layer: Layer, arrays: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array]:
    """y, grad_x, grad_weight of the formula; the gradients tap by tap, as adjoints of the definition."""
    if layer.groups > 1:
        return by_groups(layer, arrays, exact)
    x, weight, bias, grad_y = arrays
    (top, bottom), (left, right) = layer.padding
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    grad_padded = np.zeros_like(padded)
    grad_weight = np.zeros_like(weight)
    h, w = grad_y.shape[2:]
    for p in range(layer.kernel):
        for q in range(layer.kernel):
            s = layer.stride
            window = (slice(None), slice(None), slice(p, p + s * h, s), slice(q, q + s * w, s))
            grad_padded[window] += np.einsum("nohw,oc->nchw", grad_y, weight[:, :, p, q])
            grad_weight[:, :, p, q] = np.einsum("nohw,nchw->oc", grad_y, padded[window])
    grad_x = grad_padded[:, :, top : top + layer.height, left : left + layer.width]
    return conv.conv(x, weight, bias, stride=layer.stride, padding=layer.padding), grad_x, grad_weight


def bounds(layer: Layer, arrays: tuple[Array, Array, Array, Array], m: int) -> tuple[Array, Array, Array]:
    """What each may err by."""
    if layer.groups > 1:
        return by_groups(layer, arrays, lambda alone, group: bounds(alone, group, m))
    x, weight, bias, grad_y = arrays
    pads, stride = layer.padding, layer.stride
    if stride == 1 or (pads[0][0], pads[1][0]) == (1, 1):
        of_grad_x = winograd.grad_input_bound(grad_y, weight, pads, m, stride, x.shape[2:])
    else:  # goes direct
        magnitudes = exact(layer, tuple(np.abs(a) for a in arrays))[1]
        of_grad_x = bound.dot(bound.FLOAT32, layer.kernel**2 * layer.filters, magnitudes)
    return (
        winograd.forward_bound(x, weight, pads, m, bias, stride),
        of_grad_x,
        winograd.grad_weight_bound(grad_y, x, pads, m, layer.kernel, stride),
    )


def assert_in_bounds(layer: Layer, m: int, seed: int = 0) -> None:
    arrays = layer.draw(seed)
    for name, got, expected, limit in zip(
        ("y", "grad_x", "grad_weight"),
        run(layer, arrays, f"winograd{m}"),
        exact(layer, arrays),
        bounds(layer, arrays, m),
        strict=False,
    ):
        error = np.abs(got - expected)
        assert got.shape == expected.shape
        assert (error <= limit).all(), f"{layer} F({m}): {name} errs by {(error / limit).max():.2f} of its bound"


sizes = st.integers(1, 19)
channels = st.sampled_from([1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 48, 65])


@st.composite
def layers(draw: st.DrawFn, kernel: int, stride: int) -> Layer:
    """Sizes around tiles, channels around vectors."""
    begins = st.integers(0, kernel - 1) if stride == 1 else st.sampled_from([0, 1, 1, 1, 2])
    pads = st.tuples(begins, st.integers(0, kernel - 1))
    padding = (draw(pads), draw(pads))
    height, width = (max(draw(sizes), kernel - sum(p)) for p in padding)
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    widths = channels if groups == 1 else st.sampled_from([16, 17, 24, 33])  # smaller groups take no Winograd
    return Layer(
        draw(st.integers(0, 3)),
        groups * draw(widths),
        groups * draw(widths),
        height,
        width,
        padding,
        groups,
        kernel,
        stride,
    )


@pytest.mark.parametrize(("m", "kernel", "stride"), FORMS)
@given(data=st.data(), seed=st.integers(0, 9))
def test_bound_of_winograd(m: int, kernel: int, stride: int, data: st.DataObject, seed: int) -> None:
    assert_in_bounds(data.draw(layers(kernel, stride)), m, seed)


#: Ways through the code: by blocks and by phases of tiles, filters whole and panel by panel; sums by parts, by outputs and by
#: lines.
LARGE = (
    Layer(3, 32, 32, 36, 36),
    Layer(2, 130, 70, 13, 9),
    Layer(1, 20, 300, 8, 8),
    Layer(17, 40, 24, 28, 28),
    Layer(2, 160, 320, 14, 14, groups=10),
    Layer(1, 144, 210, 9, 7, groups=2),
    Layer(1, 260, 284, 7, 8),
    Layer(4, 70, 66, 32, 33),
    Layer(4, 136, 128, 12, 14),
    Layer(16, 180, 176, 8, 8),
)


@pytest.mark.parametrize("layer", LARGE, ids=lambda x: f"{x.channels}-{x.filters}")
@pytest.mark.parametrize(("m", "kernel", "stride"), FORMS)
def test_bound_of_winograd_on_large_layers(m: int, kernel: int, stride: int, layer: Layer) -> None:
    assert_in_bounds(replace(layer, kernel=kernel, stride=stride), m)


SMALL = (
    Layer(2, 19, 35, 11, 14),
    Layer(3, 32, 16, 24, 25, ((0, 1), (2, 0))),
    Layer(2, 57, 51, 9, 10, groups=3),
)


@pytest.mark.parametrize("name", striate.machine.available_isas())
@pytest.mark.parametrize(("m", "kernel", "stride"), FORMS)
def test_isa_keeps_the_bound_of_winograd(m: int, kernel: int, stride: int, name: str) -> None:
    with striate.isa(name):
        for layer in SMALL:
            assert_in_bounds(replace(layer, kernel=kernel, stride=stride), m)


@pytest.mark.parametrize(("m", "kernel", "stride"), FORMS)
@pytest.mark.parametrize(
    "layer", [*LARGE, Layer(2, 5, 6, 7, 7), Layer(9, 72, 66, 48, 48)], ids=lambda x: f"{x.channels}-{x.filters}"
)
def test_threads_change_no_bit_of_winograd(m: int, kernel: int, stride: int, layer: Layer) -> None:
    layer = replace(layer, kernel=kernel, stride=stride)
    arrays = layer.draw(0)
    seen = []
    for n_threads in (1, 2, 3, 7):
        with striate.threads(n_threads):
            seen.append([a.tobytes() for a in run(layer, arrays, f"winograd{m}")])
    assert all(bits == seen[0] for bits in seen)


@pytest.mark.parametrize(("m", "kernel", "stride"), FORMS)
def test_filters_that_serve_once_give_the_bits_of_those_that_stay(m: int, kernel: int, stride: int) -> None:
    x, weight, _, grad_y = (
        striate.tensor(a.astype(np.float32)) for a in replace(LARGE[-1], kernel=kernel, stride=stride).draw(0)
    )
    seen = []
    with striate.machine.algorithm(f"winograd{m}"):
        for _ in range(3):  # kept from the second on
            y = striate.ops.conv2d(x, weight, stride=stride, padding=1)
            back = striate.ops.conv_transpose2d(grad_y, weight, stride=stride, padding=1)
            seen.append(y.numpy().tobytes() + back.numpy().tobytes())
    assert seen[1:] == seen[:1] * 2


def test_winograd_of_two_is_exact_on_integers() -> None:
    for layer in (Layer(2, 9, 17, 7, 10), LARGE[0]):
        arrays = layer.draw(1, integers=True)
        for got, expected in zip(run(layer, arrays, "winograd2"), exact(layer, arrays), strict=False):
            assert np.array_equal(got, expected)


@pytest.mark.parametrize(("channels", "filters", "size"), [(96, 96, 150), (140, 150, 128), (300, 290, 80)])
def test_sums_over_many_tiles_are_exact_on_integers(channels: int, filters: int, size: int) -> None:
    x, weight, _, grad_y = Layer(1, channels, filters, size, size).draw(0, integers=True)
    seen = []
    for algorithm in ("direct", "winograd2"):
        w = striate.tensor(weight.astype(np.float32)).requires_grad_()
        with striate.machine.algorithm(algorithm):
            y = striate.ops.conv2d(striate.tensor(x.astype(np.float32)), w, padding=1)
            (grad,) = striate.autograd.grad(y, w, striate.tensor(grad_y.astype(np.float32)))
        seen.append(grad.numpy().tobytes())
    assert seen[0] == seen[1]


@pytest.mark.parametrize(("m", "kernel", "stride"), FORMS)
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("which", [0, 1, 3], ids=["x", "weight", "grad_y"])
def test_winograd_makes_nothing_finite(m: int, kernel: int, stride: int, value: float, which: int) -> None:
    layer = Layer(2, 18, 20, 9, 11, kernel=kernel, stride=stride)
    arrays = layer.draw(2)
    rng = np.random.default_rng(3)
    arrays[which].reshape(-1)[rng.integers(0, arrays[which].size, 4)] = value
    for got, direct in zip(run(layer, arrays, f"winograd{m}"), run(layer, arrays, "direct"), strict=True):
        assert not np.isfinite(got[~np.isfinite(direct)]).any()


@pytest.mark.parametrize(("m", "kernel", "stride"), FORMS)
def test_winograd_reads_any_strides(m: int, kernel: int, stride: int) -> None:
    rng = np.random.default_rng(4)
    whole = rng.standard_normal((2, 40, 9, 10)).astype(np.float32)
    weight = striate.tensor(rng.standard_normal((8, 20, kernel, kernel)).astype(np.float32))
    with striate.machine.algorithm(f"winograd{m}"):
        strided = striate.ops.conv2d(striate.tensor(whole)[:, 11:31], weight, stride=stride, padding=1)
        dense = striate.ops.conv2d(striate.tensor(whole[:, 11:31].copy()), weight, stride=stride, padding=1)
    assert np.array_equal(strided.numpy(), dense.numpy())


@pytest.mark.parametrize("kernel", [3, 5])
def test_budget_decides(kernel: int) -> None:
    layer = Layer(8, 64, 64, 16, 16, kernel=kernel)
    arrays = layer.draw(5)
    direct = run(layer, arrays, "direct")[0]
    with striate.precision(budget=0):
        assert np.array_equal(run(layer, arrays, "auto")[0], direct)
    assert not np.array_equal(run(layer, arrays, "auto")[0], direct)
    with striate.precision(budget=1.01 * winograd.growth(2, kernel) * 2.0**-24):
        assert np.array_equal(run(layer, arrays, "auto")[0], run(layer, arrays, "winograd2")[0])


@pytest.mark.parametrize(("m", "kernel", "stride"), FORMS)
def test_growth_is_what_the_budget_compares(m: int, kernel: int, stride: int) -> None:
    layer = Layer(8, 64, 64, 16, 16, kernel=kernel, stride=stride)
    arrays = layer.draw(6)
    with striate.precision(budget=0.99 * winograd.growth(m, kernel, stride) * 2.0**-24):
        below = run(layer, arrays, "auto")[0]
    assert not np.array_equal(below, run(layer, arrays, f"winograd{m}")[0])


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (5, 1), (3, 2)])
@pytest.mark.parametrize("pass_", ["forward", "grad_input", "grad_weight"])
@pytest.mark.parametrize("budget", [0.0, 1e-6, 1e-5, 1e-4])
def test_explanation_names_what_runs(pass_: str, budget: float, kernel: int, stride: int) -> None:
    layer = Layer(2, 32, 48, 20, 20, kernel=kernel, stride=stride)
    arrays = layer.draw(7)
    at = ("forward", "grad_input", "grad_weight").index(pass_)
    with striate.precision(budget=budget), striate.machine.algorithm("auto"):
        found = striate.machine.explain(
            "conv2d", (2, 32, 20, 20), (48, 32, kernel, kernel), stride=stride, padding=1, pass_=pass_
        )
        ran = run(layer, arrays, "auto")[at]
    assert [verdict.is_chosen for verdict in found.verdicts].count(True) == 1
    assert np.array_equal(ran, run(layer, arrays, found.chosen.algorithm)[at])
    assert all(verdict.error_bound <= budget for verdict in found.verdicts if verdict.is_chosen)
    for m, verdict in zip(SIZES, found.verdicts[1:], strict=True):
        if (m, kernel, stride) not in FORMS:
            assert "kernel, stride 1," in verdict.reason or "a 3x3 kernel" in verdict.reason
            continue
        assert verdict.error_bound == pytest.approx(winograd.growth(m, kernel, stride) * 2.0**-24, rel=1e-3)
        over = f"its bound is above the budget of {budget:g}" == verdict.reason
        assert over == (winograd.growth(m, kernel, stride) * 2.0**-24 > budget)


@pytest.mark.parametrize("shape", [(16, 3, 224, 224), (4, 3, 256, 256), (64, 3, 32, 32)])
def test_few_channels_go_direct(shape: tuple[int, ...]) -> None:
    # First layers by Winograd took 1.8 to 2.5 times as long (AVX2, Zen 4): their transforms outweigh what they save.
    with striate.machine.algorithm("auto"):
        assert striate.machine.explain("conv2d", shape, (64, 3, 3, 3), padding=1).chosen.algorithm == "direct"
        wide = (shape[0], 32, *shape[2:])
        assert striate.machine.explain("conv2d", wide, (64, 32, 3, 3), padding=1).chosen.algorithm == "winograd4"


def test_explanation_of_what_never_runs_winograd() -> None:
    explain = striate.machine.explain
    for found in (
        explain("conv2d", (1, 64, 9, 9), (64, 64, 5, 5), stride=2),
        explain("conv2d", (1, 64, 9, 9), (64, 64, 3, 3), stride=(1, 2)),
        explain("conv2d", (1, 64, 9, 9), (64, 64, 3, 3), stride=3),
        explain("conv2d", (8, 64, 9, 9), (64, 64, 3, 3), stride=2, padding=0, pass_="grad_input"),
        explain("conv2d", (1, 64, 9, 9), (64, 64, 5, 5), padding=5),
        explain("conv2d", (1, 64, 9, 9), (64, 64, 3, 5)),
        explain("conv2d", (1, 8, 9, 9), (8, 8, 3, 3), dtype=striate.float64),
        explain("conv1d", (1, 8, 9), (8, 8, 3)),
        explain("conv3d", (1, 8, 9, 9, 9), (8, 8, 3, 3, 3)),
        explain("conv2d", (1, 160, 9, 9), (24, 80, 3, 3), groups=2),
    ):
        assert found.chosen.algorithm == "direct"
        assert "needs float32, two spatial axes, a 3x3 or 5x5 kernel" in str(found)
    assert explain("conv2d", (1, 8, 9, 9), (8, 1, 3, 3), groups=8).chosen.algorithm == "depthwise"
    assert explain("conv2d", (1, 32, 9, 9), (32, 4, 3, 3), groups=8).chosen.algorithm == "grouped"
    with striate.machine.algorithm("auto"):
        found = explain("conv2d", (1, 128, 28, 28), (128, 32, 3, 3), padding=1, groups=4)
    assert found.chosen.algorithm == "winograd4"
    assert [verdict.algorithm for verdict in found.verdicts] == ["grouped", *(f"winograd{m}" for m in SIZES)]


@pytest.mark.parametrize("dtype", [striate.float32, striate.float64])
@pytest.mark.parametrize("pass_", ["forward", "grad_input", "grad_weight"])
@pytest.mark.parametrize("weight_shape", [(64, 1, 3, 3), (128, 1, 5, 5), (64, 4, 3, 3), (96, 8, 3, 3)])
def test_predicted_time_of_groups_grows_with_the_batch(
    weight_shape: tuple[int, ...], pass_: str, dtype: striate.DType
) -> None:
    def predicted(batch: int) -> float:
        found = striate.machine.explain(
            "conv2d",
            (batch, 64, 28, 28),
            weight_shape,
            padding=1,
            groups=64 // weight_shape[1],
            pass_=pass_,
            dtype=dtype,
        )
        assert found.chosen.predicted_ms is not None
        return found.chosen.predicted_ms

    assert 0 < predicted(1) < predicted(4) <= 4 * predicted(1)
    assert predicted(16) == pytest.approx(4 * predicted(4), rel=0.2)  # what a call costs beside its pixels is little


def test_sizes_without_a_form_run_directly() -> None:
    layer = Layer(1, 17, 20, 9, 11, kernel=5)
    arrays = layer.draw(9)
    direct = run(layer, arrays, "direct")
    for m in (4, 6):
        for got, expected in zip(run(layer, arrays, f"winograd{m}"), direct, strict=True):
            assert np.array_equal(got, expected)


def test_batch_invariance_keeps_the_bits_of_a_sample(tmp_path: Path) -> None:
    # Where bytes are dear, a sample of this layer takes another algorithm alone than in a batch of 64.
    isa = striate.machine.active_isa()
    tuning = {"format": striate.machine.TUNING_FORMAT, "costs": {isa: striate._core.conv_costs(isa) | {"byte": 2.0}}}
    (tmp_path / "tuning.json").write_text(json.dumps(tuning))
    layer, alone = Layer(64, 512, 512, 7, 7), Layer(1, 512, 512, 7, 7)
    x, weight, *rest = layer.draw(8)
    first = [array[:1] if len(array) == 64 else array for array in (x, weight, *rest)]
    with striate.machine.tuning(tmp_path / "tuning.json"):
        with striate.precision(batch_invariant=True):
            y, grad_x = run(layer, (x, weight, *rest), "auto")[:2]
            y_alone, grad_x_alone = run(alone, tuple(first), "auto")[:2]
        usual = run(layer, (x, weight, *rest), "auto")[0]
    assert np.array_equal(y[:1], y_alone)
    assert np.array_equal(grad_x[:1], grad_x_alone)
    assert not np.array_equal(usual[:1], y_alone)


def test_refusal_of_settings() -> None:
    with pytest.raises(ValueError, match="explain: expected op conv1d, conv2d or conv3d, got 'relu'"):
        striate.machine.explain("relu", (1,), (1,))
    with pytest.raises(ValueError, match="conv2d: expected pass_ forward, grad_input or grad_weight, got 'back'"):
        striate.machine.explain("conv2d", (1, 1, 3, 3), (1, 1, 3, 3), pass_="back")
    with pytest.raises(ValueError, match="explain: expected x_shape of 4 sizes"):
        striate.machine.explain("conv2d", (1, 1, 3), (1, 1, 3))
    with pytest.raises(
        ValueError, match="algorithm: expected auto, direct, winograd2, winograd4, winograd5 or winograd6, got 'fft'"
    ):
        striate.machine.algorithm("fft")
    with pytest.raises(ValueError, match="precision: expected budget of at least 0, got"):
        striate.precision(budget=-1.0)
