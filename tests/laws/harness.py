"""Run a case on striate and compare it with the oracle; all that the laws share."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import striate
from cases import CASES, Case
from oracle import bound
from oracle.bound import FLOAT32, Format

Array = np.ndarray
Maker = Callable[[Array], Any]

#: float64 exists for the gradient checks; it is held to a coarser roundoff than its own, as the oracle rounds too.
FLOAT64 = Format("float64", 2.0**-45, 2.0**-1022)
FORMATS = (FLOAT32, FLOAT64)


def every(*wanted: Callable[[Case], Any], small: bool = False) -> pytest.MarkDecorator:
    """Parametrise a test over all cases that fulfil the conditions."""
    chosen = [case for case in CASES if all(w(case) for w in wanted) and not (small and case.large)]
    return pytest.mark.parametrize("case", chosen, ids=[case.id for case in chosen])


def is_differentiable(case: Case) -> bool:
    """Say whether any input has a gradient."""
    return bool(case.differentiable())


def rng_of(case: Case, salt: str = "") -> np.random.Generator:
    """Return the case's own random stream."""
    return np.random.default_rng(zlib.crc32(f"{case!r}{case.label}{salt}".encode()))


@dataclass(frozen=True)
class Problem:
    """Drawn inputs, the oracle's answer, and output gradients to propagate."""

    arrays: list[Array | None]
    expected: tuple[Array, ...]
    grads: list[Array | None]


def problem(case: Case, kind: str = "real") -> Problem:
    """Draw a case's inputs and evaluate the oracle; output gradients are small integers for integer inputs."""
    rng = rng_of(case, kind)
    arrays = case.draw(rng, kind)
    expected = case.expected(arrays)
    grads: list[Array | None] = []
    for y in expected:
        if y.dtype.kind != "f":
            grads.append(None)
        elif kind == "integer":
            grads.append(rng.integers(-3, 4, y.shape).astype(np.float64))
        else:
            grads.append(rng.standard_normal(y.shape).astype(np.float32).astype(np.float64))
    return Problem(arrays, expected, grads)


@functools.cache
def _remembered(number: int, kind: str) -> Problem:
    return problem(CASES[number], kind)


def drawn(case: Case, kind: str = "real") -> Problem:
    """Return the problem of a listed case, drawn once a session; nobody may write to it."""
    return _remembered(CASES.index(case), kind)


def in_format(array: Array, f: Format) -> Array:
    """Round a float array to a format; leave integers and truth values."""
    return array.astype(f.name) if array.dtype.kind == "f" else array


def tensors(case: Case, arrays: list[Array | None], f: Format, make: Maker = striate.tensor) -> list[Any]:
    """Make fresh tensors of the inputs, those with a gradient asking for it."""
    wanted = set(case.differentiable())
    made: list[Any] = []
    for k, array in enumerate(arrays):
        if array is None:
            made.append(None)
            continue
        tensor = make(in_format(array, f))
        made.append(tensor.requires_grad_() if k in wanted else tensor)
    return made


def as_tuple(y: Any) -> tuple[Any, ...]:
    """Make one result a tuple of one."""
    return tuple(y) if isinstance(y, tuple | list) else (y,)


def to_numpy(tensor: Any) -> Array:
    """Copy a tensor out."""
    return np.array(tensor.detach().numpy())


def run(case: Case, arrays: list[Array | None], f: Format = FLOAT32, make: Maker = striate.tensor) -> tuple[Array, ...]:
    """Return what striate makes of the inputs."""
    with striate.no_grad():
        return tuple(to_numpy(y) for y in as_tuple(case.run(striate.ops, tensors(case, arrays, f, make))))


def backpropagate(outputs: tuple[Any, ...], grads: list[Array | None], f: Format, make: Maker = striate.tensor) -> None:
    """Send the given gradients back from the outputs."""
    pairs = [(y, make(in_format(g, f))) for y, g in zip(outputs, grads, strict=True) if g is not None]
    striate.autograd.backward([y for y, _ in pairs], [g for _, g in pairs])


def run_with_gradients(
    case: Case, given: Problem, f: Format = FLOAT32, make: Maker = striate.tensor
) -> tuple[tuple[Array, ...], dict[int, Array]]:
    """Return outputs, and the gradient of Σ y·grad_y for every input that has one."""
    made = tensors(case, given.arrays, f, make)
    outputs = as_tuple(case.run(striate.ops, made))
    backpropagate(outputs, given.grads, f, make)
    gradients = {}
    for k in case.differentiable():
        grad = made[k].grad
        assert grad is not None, f"{case!r}: input {k} got no gradient"
        gradients[k] = to_numpy(grad)
        assert gradients[k].shape == tuple(made[k].shape), f"{case!r}: gradient {k} has shape {gradients[k].shape}"
        assert str(grad.dtype) == str(made[k].dtype), f"{case!r}: gradient {k} has dtype {grad.dtype}"
    return tuple(to_numpy(y) for y in outputs), gradients


def assert_within(
    case: Case, got: Iterable[Array], expected: tuple[Array, ...], limits: Iterable[Array], f: Format
) -> None:
    """Assert shape, dtype, the places of NaN and Inf, and |got − expected| ≤ limit everywhere."""
    got = tuple(got)
    assert len(got) == len(expected), f"{case!r}: expected {len(expected)} results, got {len(got)}"
    for y, e, limit in zip(got, expected, limits, strict=True):
        assert y.shape == e.shape, f"{case!r}: expected shape {e.shape}, got {y.shape}"
        wanted = f.name if e.dtype.kind == "f" else str(e.dtype)
        assert str(y.dtype) == wanted, f"{case!r}: expected dtype {wanted}, got {y.dtype}"
        if e.dtype.kind != "f":
            assert np.array_equal(y, e), f"{case!r}: {_first_difference(y, e)}"
            continue
        with np.errstate(all="ignore"):
            y64 = y.astype(np.float64)
            odd = ~np.isfinite(e) | ~np.isfinite(y64)
            same_odd = (np.isnan(e) & np.isnan(y64)) | (e == y64)
            bad = np.where(odd, ~same_odd, ~(np.abs(y64 - e) <= limit))
        if bad.any():
            raise AssertionError(f"{case!r} [{case.id}] in {f.name}: {_worst(y64, e, limit, bad)}")


def _first_difference(y: Array, e: Array) -> str:
    at = tuple(int(i) for i in np.argwhere(y != e)[0])
    return f"y{list(at)} is {y[at]}, expected {e[at]}"


def _worst(y: Array, e: Array, limit: Array, bad: Array) -> str:
    with np.errstate(all="ignore"):
        error = np.where(bad, np.abs(y - e) / np.maximum(np.broadcast_to(limit, e.shape), 1e-300), -1)
        error = np.where(bad & ~np.isfinite(error), np.inf, error)
    at = tuple(int(i) for i in np.unravel_index(int(np.argmax(error)), e.shape))
    return (
        f"{int(bad.sum())} of {bad.size} elements are off; worst y{list(at)} = {y[at]!r}, expected {e[at]!r}, "
        f"error {abs(y[at] - e[at]):.3g}, bound {np.broadcast_to(limit, e.shape)[at]:.3g}"
    )


def check_oracle(case: Case, given: Problem, f: Format, make: Maker = striate.tensor) -> None:
    """Assert that striate's result lies within the case's bound of the oracle's."""
    got = run(case, given.arrays, f, make)
    assert_within(case, got, given.expected, case.bounds(f, given.expected, given.arrays), f)


def check_gradients_agree(case: Case, given: Problem, got: dict[int, Array], reference: dict[int, Array]) -> None:
    """Assert float32 gradients within a bound of the float64 ones."""
    for k, g in got.items():
        limit = gradient_limit(case, given, k, reference[k])
        assert_within(case, (g,), (reference[k],), (limit,), FLOAT32)


def exact_gradients(case: Case, given: Problem) -> dict[int, Array]:
    """Return float64 gradients, which the gradient law holds to central differences."""
    return run_with_gradients(case, given, FLOAT64)[1]


@functools.cache
def _remembered_gradients(number: int, kind: str) -> dict[int, Array]:
    return exact_gradients(CASES[number], _remembered(number, kind))


def reference_gradients(case: Case, kind: str = "real") -> dict[int, Array]:
    """Return the float64 gradients of a listed case, computed once a session."""
    return _remembered_gradients(CASES.index(case), kind)


@functools.cache
def _spread(number: int) -> dict[int, Array]:
    case, given = CASES[number], _remembered(number, "real")
    rng = rng_of(case, "signs")
    total: dict[int, Array] = {}
    for _ in range(_N_SIGNS):
        grads = [None if g is None else g * rng.choice([-1.0, 1.0], g.shape) for g in given.grads]
        for k, g in exact_gradients(case, Problem(given.arrays, given.expected, grads)).items():
            total[k] = total.get(k, 0.0) + g * g / _N_SIGNS
    return total


_N_SIGNS = 4


def gradient_limit(case: Case, given: Problem, k: int, reference: Array) -> Array:
    """Bound a float32 gradient's distance from the float64 one.

    Each element is Σ_i J_ij·g_i over the m outputs that meet in it: m + 64 roundings (64 for an element of J)
    of Σ|J_ij·g_i|. With random signs s, E(Σ J_ij·g_i·s_i)² = Σ(J_ij·g_i)², and Σ|J_ij·g_i| ≤ √m·√Σ(J_ij·g_i)².
    The largest element stands for all, as Jacobians of normalisations are differences of larger terms.
    """
    n_outputs = sum(int(y.size) for y in given.expected if y.dtype.kind == "f")
    meet = max(case.meet, -(-n_outputs // max(reference.size, 1)))
    top = float(np.sqrt(_spread(CASES.index(case))[k].max(initial=0.0)))
    return np.full(reference.shape, bound.gamma(FLOAT32, 64 + meet) * np.sqrt(meet) * top + 64 * FLOAT32.tiny)
