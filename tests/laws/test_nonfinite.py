"""Law: NaN and Inf pass through an op exactly as through its formula; a padded tap contributes nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cases import Case
from cases.conv import conv_case
from laws.harness import FLOAT32, assert_within, every, rng_of, run


@every(lambda case: case.nonfinite, small=True)
def test_nonfinite_values_pass_as_in_the_formula(case: Case) -> None:
    for value in case.nonfinite:
        for k, row in enumerate(case.inputs):
            if row is None or row.dtype != "float" or 0 in row.shape:
                continue
            rng = rng_of(case, f"{value}{k}")
            arrays = case.draw(rng)
            hit = np.array(arrays[k])
            n_hits = max(1, hit.size // 40)
            hit.reshape(-1)[rng.permutation(hit.size)[:n_hits]] = value
            arrays[k] = hit
            expected = case.expected(arrays)
            assert_within(case, run(case, arrays), expected, case.bounds(FLOAT32, expected, arrays), FLOAT32)


@pytest.mark.parametrize("value", [math.inf, math.nan])
@pytest.mark.parametrize(
    ("x", "weight"),
    [
        ((1, 16, 5, 6), (16, 16, 3, 3)),
        ((1, 16, 5, 6), (16, 4, 3, 3)),
        ((1, 16, 5, 6), (16, 1, 3, 3)),
        ((1, 3, 5, 200), (32, 3, 3, 3)),
        ((1, 2, 5, 40), (3, 2, 3, 3)),
    ],
)
def test_nonfinite_weights_meet_no_padding(value: float, x: tuple[int, ...], weight: tuple[int, ...]) -> None:
    case = conv_case("padded", x, weight, padding=1, groups=x[1] // weight[1], bias=False)
    arrays = case.draw(np.random.default_rng(0))
    hit = arrays[1]
    assert hit is not None
    hit[:, :, 0, :] = value  # the first row of taps reads padding, and nothing else, for the first row of outputs
    expected = case.expected(arrays)
    assert np.isfinite(expected[0][:, :, 0]).all()
    assert_within(case, run(case, arrays), expected, case.bounds(FLOAT32, expected, arrays), FLOAT32)
