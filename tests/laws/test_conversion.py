"""Law: dtypes convert as NumPy does: to floats to nearest even, to integers by truncation, to bool by x ≠ 0."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

import striate

DTYPES = ("float32", "float64", "float16", "int8", "uint8", "int32", "int64", "bool")
HALVES = np.array([0.0, -0.0, 1.0, -2.5, 65504.0, 6.1e-5, 6e-8, 1 / 3, np.inf, -np.inf, 65519.9, 65520.0, 1 + 2**-11])


def _values(source: str, target: str) -> NDArray[np.generic]:
    """Draw values that both dtypes hold."""
    rng = np.random.default_rng(3)
    if source == "bool":
        return rng.random((5, 33)) < 0.5
    if source.startswith("float") and target.startswith("float"):
        return np.concatenate([HALVES, rng.standard_normal(100) * 50]).astype(source)
    low, high = (0, 120) if "uint8" in (source, target) else (-120, 120)
    return rng.uniform(low, high, (5, 33)).astype(source)


@pytest.mark.parametrize("source", DTYPES)
@pytest.mark.parametrize("target", DTYPES)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_conversion_agrees_with_numpy(source: str, target: str) -> None:
    x = _values(source, target)
    got = striate.tensor(x).to(getattr(striate, target)).numpy()
    assert got.dtype == target
    np.testing.assert_array_equal(got, x.astype(target))
    if target.startswith("float"):
        np.testing.assert_array_equal(np.signbit(got), np.signbit(x.astype(target)))


def _bfloat16(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round to 8 bits of significand, halves to even."""
    bits = x.view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return np.where(np.isfinite(x), rounded.astype(np.uint32).view(np.float32), x).astype(np.float32)


def test_conversion_to_bfloat16_rounds_to_even() -> None:
    rng = np.random.default_rng(4)
    ties = (1 + np.arange(64) * 2.0**-8).astype(np.float32)
    x = np.concatenate([ties, rng.standard_normal(500).astype(np.float32), np.float32([np.inf, -np.inf, 0, 3.39e38])])
    got = striate.tensor(x).to(striate.bfloat16).to(striate.float32).numpy()
    np.testing.assert_array_equal(got, _bfloat16(x))
    nan = striate.tensor(np.float32([np.nan])).to(striate.bfloat16).to(striate.float32).numpy()
    assert np.isnan(nan).all()


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_conversion_back_and_forth_keeps_every_half(name: str) -> None:
    bits = np.arange(2**16, dtype=np.uint16)
    x = (
        bits.view(np.float16).astype(np.float32)
        if name == "float16"
        else (bits.astype(np.uint32) << 16).view(np.float32)
    )
    x = x[np.isfinite(x) & ((x == 0) | (np.abs(x) >= 2.0**-126))]
    half = striate.tensor(x).to(getattr(striate, name))
    np.testing.assert_array_equal(half.to(striate.float32).numpy(), x)


def test_conversion_passes_gradients_between_floats() -> None:
    x = striate.tensor(np.float32([1.5, -2]), requires_grad=True)
    (x.to(striate.float64) * 3.0).sum().backward()
    assert str(x.grad.dtype) == "float32"
    assert x.grad.numpy().tolist() == [3.0, 3.0]
