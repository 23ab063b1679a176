"""Law: gradients are made of ops with gradients of their own: second derivatives against differences of first ones."""

from __future__ import annotations

import numpy as np
import pytest

import striate
from cases import Case
from laws.harness import (
    FLOAT64,
    Array,
    Problem,
    as_tuple,
    drawn,
    every,
    exact_gradients,
    in_format,
    is_differentiable,
    tensors,
    to_numpy,
)
from striate.autograd import grad

STEP = 2.0**-16


def differentiate_twice(
    case: Case, given: Problem, direction: dict[int, Array]
) -> tuple[dict[int, Array], list[Array | None]]:
    """Return the derivatives of ⟨gradients, direction⟩ by the inputs, and by the gradients of the outputs."""
    made = tensors(case, given.arrays, FLOAT64)
    inputs = [made[k] for k in direction]
    outputs = as_tuple(case.run(striate.ops, made))
    seeds = [None if g is None else striate.tensor(in_format(g, FLOAT64)).requires_grad_() for g in given.grads]
    pairs = [(y, seed) for y, seed in zip(outputs, seeds, strict=True) if seed is not None]
    first = grad([y for y, _ in pairs], inputs, [seed for _, seed in pairs], create_graph=True)
    total = None
    for g, v in zip(first, direction.values(), strict=True):
        term = (g * striate.tensor(v)).sum()
        total = term if total is None else total + term
    assert total is not None
    wanted = [*inputs, *(seed for _, seed in pairs)]
    found = grad(total, wanted, allow_unused=True) if total.requires_grad else [None] * len(wanted)
    values = iter([np.zeros(tuple(x.shape)) if g is None else to_numpy(g) for x, g in zip(wanted, found, strict=True)])
    by_input = {k: next(values) for k in direction}
    return by_input, [None if seed is None else next(values) for seed in seeds]


@every(is_differentiable, small=True)
def test_second_gradient_equals_differences_of_the_first(case: Case) -> None:
    given = drawn(case, "smooth")
    rng = np.random.default_rng(2)
    shapes = {k: given.arrays[k].shape for k in case.differentiable()}  # type: ignore[union-attr]
    v = {k: rng.standard_normal(shape) for k, shape in shapes.items()}
    w = {k: rng.standard_normal(shape) for k, shape in shapes.items()}
    w_grads = [None if g is None else rng.standard_normal(g.shape) for g in given.grads]
    try:
        by_input, by_grad = differentiate_twice(case, given, v)
    except RuntimeError as error:
        if "expected first derivatives only" not in str(error):
            raise
        pytest.skip("refuses a second derivative, and says so")

    def first(step: float) -> float:
        arrays = [a if a is None or k not in w else a + step * w[k] for k, a in enumerate(given.arrays)]
        grads = [None if g is None or d is None else g + step * d for g, d in zip(given.grads, w_grads, strict=True)]
        gradients = exact_gradients(case, Problem(arrays, given.expected, grads))
        return sum(float(np.sum(g * v[k])) for k, g in gradients.items())

    d1, d2, d4 = [(first(h) - first(-h)) / (2 * h) for h in (STEP, 2 * STEP, 4 * STEP)]
    numeric, coarse = (4 * d1 - d2) / 3, (4 * d2 - d4) / 3
    parts = [by_input[k] * w[k] for k in w]
    parts += [g * d for g, d in zip(by_grad, w_grads, strict=True) if g is not None and d is not None]
    analytic = sum(float(np.sum(part)) for part in parts)
    products = sum(float(np.sum(np.abs(g * v[k]))) for k, g in exact_gradients(case, given).items())
    sizes = sum(float(np.sum(np.abs(part))) for part in parts)
    # An element of a first gradient may be a difference of terms as large as y·g (softmax): they round before they cancel.
    widest = max(float(np.abs(each).max(initial=0.0)) for each in v.values())
    terms = widest * sum(
        float(np.sum(np.abs(y * g))) for y, g in zip(given.expected, given.grads, strict=True) if g is not None
    )
    tolerance = abs(numeric - coarse) + 2.0**-44 * (products + terms) / STEP + 2.0**-40 * sizes
    assert abs(analytic - numeric) <= tolerance, (
        f"{case!r} [{case.id}]: second vjp gives {analytic!r}, differences {numeric!r}, tolerance {tolerance:.3g}"
    )
