"""Element-wise ops keep the layout of their largest dense operand, and copies that change it are counted."""

from __future__ import annotations

import numpy as np
import pytest

import striate as st


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3, 1, 5), (1, 7, 1, 3), (2, 1, 4, 5), (4, 3, 5), (1, 3, 1, 1)])
def test_memory_layout_survives_elementwise_ops(shape: tuple[int, ...]) -> None:
    x = st.ops.relayout(st.tensor(np.random.default_rng(0).standard_normal(shape).astype(np.float32)))
    bias = st.zeros(*[n if axis == 1 else 1 for axis, n in enumerate(shape)])
    st.machine.reset_counters()
    for y in (x.relu(), x + 1.0, x * x, x + bias, bias + x, x.clone(), x.to(st.float64), x > 0, st.dropout(x)):
        assert y._array.is_channels_last
    assert st.machine.counters()["relayouts"] == 0


def test_memory_relayouts_are_counted() -> None:
    x = st.zeros(2, 3, 4, 5)
    st.machine.reset_counters()
    y = st.ops.relayout(x)
    assert st.ops.relayout(y) is not None
    now = st.machine.counters()
    assert (now["relayouts"], now["relayout_bytes"]) == (1, 480)


def test_packed_weight_of_another_layout_is_kept() -> None:
    # From the second use on: the first cannot know whether the weight changes with every step.
    rng = np.random.default_rng(0)
    x = st.ops.relayout(st.tensor(rng.standard_normal((1, 8, 6, 6)).astype(np.float32)))
    weight = st.tensor(rng.standard_normal((8, 8, 3, 3)).astype(np.float32))
    assert not weight._array.is_channels_last
    first = st.conv2d(x, weight, padding=1).numpy()
    assert (st.conv2d(x, weight, padding=1).numpy() == first).all()
    st.machine.reset_counters()
    again = st.conv2d(x, weight, padding=1).numpy()
    assert st.machine.counters()["relayouts"] == 0
    assert (again == first).all()


@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d"])
def test_parts_of_a_weight_are_packed_apart(name: str) -> None:
    # All begin at the same place of one memory; none may be computed with what was packed for another.
    rng = np.random.default_rng(0)
    values = rng.integers(-3, 4, (8, 8, 2, 2)).astype(np.float32)
    weight = st.ops.relayout(st.tensor(values))
    x = st.tensor(rng.integers(-3, 4, (1, 8, 5, 5)).astype(np.float32))
    convolve = getattr(st, name)
    for part in (np.s_[:4], np.s_[:], np.s_[:, :4]):
        image = x[:, : values[part].shape[1 if name == "conv2d" else 0]]
        expected = convolve(image, st.tensor(values[part].copy()))
        np.testing.assert_array_equal(convolve(image, weight[part]).numpy(), expected.numpy())


@pytest.mark.parametrize("name", ["sum", "max", "min", "prod"])
@pytest.mark.parametrize("layout", ["channels_last", "row_major"])
def test_views_are_reduced_where_they_lie(name: str, layout: str) -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((3, 12, 40, 41)).astype(np.float32)
    x = st.tensor(values) if layout == "row_major" else st.ops.relayout(st.tensor(values))
    reduce = getattr(st.ops, name)
    for part in (np.s_[:, 2:9], np.s_[:, :, 3:], np.s_[1:, :, :, 5:], np.s_[:, 4:5], np.s_[:, :, 7:8, 1:]):
        for dim in ((0, 2, 3), (0,), (2, 3), (1, 3), (0, 1, 2, 3)):
            found = reduce(x[part], dim=dim).numpy()
            exact = getattr(np, name)(values[part].astype(np.float64), axis=dim)
            np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-4)
    row = st.tensor(values[0, :, 0, 0])
    spread = row.reshape(1, 12, 1, 1).expand(3, 12, 4, 5)
    expected = getattr(np, name)(
        np.broadcast_to(values[0, :, 0, 0].reshape(1, 12, 1, 1), (3, 12, 4, 5)), axis=(0, 2, 3)
    )
    np.testing.assert_allclose(reduce(spread, dim=(0, 2, 3)).numpy(), expected, rtol=1e-5)
