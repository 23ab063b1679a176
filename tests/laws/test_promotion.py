"""Law: dtypes of a pair promote as in PyTorch; Python numbers and 0-d tensors yield to tensors of their kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import striate

#: Ladder of dtypes: a pair promotes to the higher one. uint8 meets int8 at int16, which striate does not have.
LADDER = ("bool", "int8", "uint8", "int32", "int64", "float32", "float64")
#: Halves are for storage and refuse arithmetic.
HALVES = ("float16", "bfloat16")


def _promoted(a: str, b: str) -> str | None:
    if {a, b} == {"int8", "uint8"}:
        return None
    return max(a, b, key=LADDER.index)


def _tensor(dtype: str, shape: tuple[int, ...] = (3,)) -> Any:
    return striate.tensor(np.ones(shape, np.float32)).to(getattr(striate, dtype))


@pytest.mark.parametrize("a", LADDER)
@pytest.mark.parametrize("b", LADDER)
def test_promotion_of_pairs(a: str, b: str) -> None:
    expected = _promoted(a, b)
    if expected is None:
        with pytest.raises(striate.DTypeError, match=r"(?s)^add: expected .+, got .+"):
            striate.ops.add(_tensor(a), _tensor(b))
        return
    assert str(striate.ops.add(_tensor(a), _tensor(b)).dtype) == expected


@pytest.mark.parametrize("a", HALVES)
@pytest.mark.parametrize("b", [*HALVES, "float32"])
def test_promotion_of_halves_is_refused(a: str, b: str) -> None:
    with pytest.raises(striate.DTypeError, match=r"(?s)^add: expected .+, got .*float16.*; convert"):
        striate.ops.add(_tensor(a), _tensor(b))


@pytest.mark.parametrize(
    ("dtype", "number", "expected"),
    [
        ("float32", 2, "float32"),
        ("float32", 2.0, "float32"),
        ("float64", 2.0, "float64"),
        ("int64", 2, "int64"),
        ("uint8", 2, "uint8"),
        ("int32", 2.0, "float32"),
        ("bool", 2, "int64"),
        ("bool", True, "bool"),
        ("bool", 0.5, "float32"),
    ],
)
def test_promotion_of_python_numbers(dtype: str, number: float, expected: str) -> None:
    for y in (_tensor(dtype) + number, number + _tensor(dtype)):
        assert str(y.dtype) == expected


@pytest.mark.parametrize(
    ("dtype", "scalar", "expected"),
    [
        ("float32", "float64", "float32"),
        ("int32", "int64", "int32"),
        ("int32", "float64", "float64"),
        ("bool", "int32", "int32"),
    ],
)
def test_promotion_of_tensors_without_axes(dtype: str, scalar: str, expected: str) -> None:
    for y in (_tensor(dtype) + _tensor(scalar, ()), _tensor(scalar, ()) + _tensor(dtype)):
        assert str(y.dtype) == expected
    assert str((_tensor(dtype, ()) + _tensor(scalar, ())).dtype) == _promoted(dtype, scalar)


def test_promotion_of_division() -> None:
    assert str((_tensor("int64") / _tensor("int64")).dtype) == "float32"
    assert str((_tensor("int64") / 2).dtype) == "float32"
