"""Random draws: the published bits, one stream for any number of threads, and the laws of the distributions."""

from __future__ import annotations

import numpy as np
import pytest

import striate as st
from oracle.philox import KNOWN_ANSWERS, philox4x32

SEED = 0x299F31D0A4093822


def test_oracle_philox() -> None:
    for counter, key, expected in KNOWN_ANSWERS:
        assert philox4x32(counter, key) == expected


def test_oracle_rand_takes_words_in_order() -> None:
    generator = st.Generator(SEED)
    generator.set_state((SEED, 5))
    drawn = st.rand(1003, generator=generator).numpy()
    words = [w for b in range(251) for w in philox4x32((b, 0, 5, 0), (SEED & 0xFFFFFFFF, SEED >> 32))]
    np.testing.assert_array_equal(
        drawn, (np.array(words[:1003], np.uint64) >> 8).astype(np.float32) * np.float32(2**-24)
    )
    assert generator.get_state() == (SEED, 6)


def test_oracle_randn_is_box_muller() -> None:
    drawn = st.randn(400, generator=st.Generator(SEED)).numpy()
    words = [w for b in range(100) for w in philox4x32((b, 0, 0, 0), (SEED & 0xFFFFFFFF, SEED >> 32))]
    u = (np.array(words) >> 8) * 2.0**-24
    radius, angle = np.sqrt(-2 * np.log1p(-u[::2])), 2 * np.pi * u[1::2]
    expected = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).reshape(-1)
    np.testing.assert_allclose(drawn, expected, rtol=3e-7, atol=1e-9)


@pytest.mark.parametrize("kind", ["rand", "randn", "rand64", "randn64", "randint", "randperm", "dropout"])
def test_threads_random_bitwise(kind: str) -> None:
    def draw() -> bytes:
        g = st.Generator(3)
        if kind == "randint":
            return st.randint(-7, 1000, (70_001,), generator=g).numpy().tobytes()
        if kind == "randperm":
            return st.randperm(70_001, generator=g).numpy().tobytes()
        if kind == "dropout":
            return st.dropout(st.ones(7, 11, 31, 33), 0.3, generator=g).numpy().tobytes()
        dtype = st.float64 if kind.endswith("64") else st.float32
        make = st.rand if kind.startswith("rand") and "n" not in kind[4:] else st.randn
        return make(70_001, generator=g, dtype=dtype).numpy().tobytes()

    results = set()
    for n in (1, 2, 3, 7):
        with st.threads(n):
            results.add(draw())
    assert len(results) == 1


def test_closed_form_moments() -> None:
    u, z = st.rand(200_000, generator=st.Generator(1)).numpy(), st.randn(200_000, generator=st.Generator(1)).numpy()
    assert u.min() >= 0
    assert u.max() < 1
    assert abs(u.mean() - 0.5) < 5 * 0.2887 / 447
    assert abs(z.mean()) < 5 / 447
    assert abs(z.var() - 1) < 5 * 1.42 / 447
    assert abs(np.mean(z**4) - 3) < 0.2
    assert np.all(np.sort(st.randperm(1000, generator=st.Generator(2)).numpy()) == np.arange(1000))
    k = st.randint(2, 9, (70_000,), generator=st.Generator(2)).numpy()
    assert set(np.unique(k)) == set(range(2, 9))
    assert np.abs(np.bincount(k)[2:] - 10_000).max() < 500


def test_state_generator() -> None:
    g = st.Generator(9)
    st.rand(3, generator=g)
    state = g.get_state()
    a = st.randn(5, generator=g).numpy().copy()
    g.set_state(state)
    np.testing.assert_array_equal(st.randn(5, generator=g).numpy(), a)
    st.manual_seed(4)
    first = st.rand(8).numpy().copy()
    assert not np.array_equal(st.rand(8).numpy(), first)
    st.manual_seed(4)
    np.testing.assert_array_equal(st.rand(8).numpy(), first)


def test_gradient_dropout_follows_the_mask() -> None:
    x = st.tensor(np.ones((5, 6, 7, 8), np.float32), requires_grad=True)
    y = st.dropout(x, 0.25, generator=st.Generator(5))
    kept = y.detach().numpy() != 0
    assert abs(kept.mean() - 0.75) < 0.05
    np.testing.assert_array_equal(y.detach().numpy()[kept], np.float32(1 / 0.75))
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), y.detach().numpy())
    assert st.dropout(x, 0.25, training=False) is x
    assert not st.dropout(x, 1.0).detach().numpy().any()


def test_gradient_dropout2d_drops_whole_channels() -> None:
    x = st.tensor(np.ones((40, 30, 3, 4), np.float32), requires_grad=True)
    y = st.dropout2d(x, 0.5, generator=st.Generator(5))
    planes = y.detach().numpy().reshape(40 * 30, 12)
    assert (planes == planes[:, :1]).all()
    assert abs((planes[:, 0] != 0).mean() - 0.5) < 0.08
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), y.detach().numpy())


def test_refusal_random() -> None:
    with pytest.raises(ValueError, match=r"dropout: expected p from 0 to 1, got 1\.5"):
        st.dropout(st.ones(3), 1.5)
    with pytest.raises(ValueError, match="randint: expected low < high, got 3 and 3"):
        st.randint(3, 3, (2,))
    with pytest.raises(st.DTypeError, match="rand: expected float32 or float64, got int64"):
        st.rand(3, dtype=st.int64)
