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
