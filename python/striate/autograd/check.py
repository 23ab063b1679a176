"""Gradients against differences: is what `backward` says what a small step does?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from striate.autograd import tape
from striate.autograd.op import functions
from striate.autograd.tensor import Tensor

Values = NDArray[Any]
Function = Callable[..., "Tensor | Sequence[Tensor]"]


class GradientError(AssertionError):
    """A gradient that differs from what a small step shows; the message is the report."""


def _outputs(function: Function, values: Sequence[Values], needs: Sequence[bool]) -> tuple[list[Tensor], list[Tensor]]:
    """Run the function on new leaves; return them and its floating results."""
    leaves = [functions["tensor"](v, requires_grad=need) for v, need in zip(values, needs, strict=True)]
    made = function(*leaves)
    results = [made] if isinstance(made, Tensor) else list(made)
    return leaves, [y for y in results if y.dtype.is_floating_point]


def _projected(function: Function, values: Sequence[Values], directions: Sequence[Values]) -> float:
    """Σ ⟨results, directions⟩ without a record."""
    with tape.no_grad():
        _, results = _outputs(function, values, [False] * len(values))
        return float(sum(np.vdot(d, y.numpy().astype(np.float64)) for d, y in zip(directions, results, strict=True)))


def _check(
    function: Function, values: Sequence[Values], needs: Sequence[bool], rng: np.random.Generator, eps: float,
    rtol: float, atol: float, order: int,
) -> None:  # fmt: skip
    leaves, results = _outputs(function, values, needs)
    is_constant = not any(y.requires_grad for y in results)
    if is_constant and order == 1:  # a linear function has a constant gradient, which is fine
        raise GradientError(
            f"gradcheck: expected a result that depends on the inputs (order {order}), got none that requires grad; "
            "check that the function uses operators with gradients"
        )
    directions = [np.asarray(rng.standard_normal(y.shape)) for y in results]
    used = [(y, functions["tensor"](d)) for y, d in zip(results, directions, strict=True) if y.requires_grad]
    wanted = [x for x, need in zip(leaves, needs, strict=True) if need]
    found: Sequence[Tensor | None] = [None] * len(wanted)
    if not is_constant:
        found = tape.grad([y for y, _ in used], wanted, [d for _, d in used], allow_unused=True)
    grads = iter(found)
    for i, (value, need) in enumerate(zip(values, needs, strict=True)):
        if not need:
            continue
        g = next(grads)
        gradient = np.zeros(value.shape) if g is None else g.detach().numpy()
        if gradient.shape != value.shape:
            raise GradientError(
                f"gradcheck: expected a gradient of shape {value.shape} for input {i} (order {order}), got "
                f"{gradient.shape}; a gradient has the shape of its input"
            )
        step = np.asarray(rng.standard_normal(value.shape))
        step *= eps / max(float(np.sqrt(np.mean(step * step))) if step.size else 1.0, 1e-300)
        stepped = [list(values), list(values)]
        stepped[0][i], stepped[1][i] = value + step, value - step
        ahead, behind = (_projected(function, v, directions) for v in stepped)
        measured = (ahead - behind) / (2 * eps)
        claimed = float(np.vdot(gradient, step)) / eps
        # The difference of two nearly equal sums is all rounding below this.
        noise = 64 * np.finfo(np.float64).eps * (abs(ahead) + abs(behind)) / eps
        allowed = atol + noise + rtol * max(abs(measured), abs(claimed), float(np.abs(gradient * step).sum()) / eps)
        error = abs(measured - claimed)
        if not error <= allowed:
            ratio = measured / claimed if claimed != 0 else float("inf")
            raise GradientError(
                f"gradcheck: expected the gradient of input {i}, shape {value.shape} (order {order}), to say what a step "
                f"of {eps:g} shows, got {claimed:.9g} along a random direction where differences say {measured:.9g} "
                f"(error {error:.3g}, allowed {allowed:.3g}, ratio {ratio:.6g}); the vjp of an operator on its way is wrong, "
                "or the function has a kink there"
            )


def gradcheck(
    function: Function,
    inputs: Sequence[Tensor],
    *,
    order: int = 1,
    eps: float = 1e-5,
    rtol: float = 1e-6,
    atol: float = 1e-8,
    n_directions: int = 3,
    seed: int = 0,
) -> bool:
    """Check gradients against central differences, in float64.

    ⟨Jᵀu, v⟩ = ⟨u, (f(x + εv) − f(x − εv)) / 2ε⟩ + O(ε²)      for random u, v

    Parameters
    ----------
    function : callable
        Of Tensors, returning a Tensor or several; the same values for the same inputs (no fresh randomness).
    inputs : sequence of Tensor
        float64 (others are held constant): one check per input that requires grad, or per float64 input when none does.
    order : {1, 2}, default 1
        2 also checks the gradient of ⟨gradient, w⟩, w random, that is, second derivatives.
    eps : float, default 1e-5
        Root-mean-square size of the step.
    rtol, atol : float
        Allowed difference between the two sides, relative to the larger, besides rounding.
    n_directions : int, default 3
        Random pairs u, v tried per input.
    seed : int, default 0

    Returns
    -------
    bool
        True.

    Raises
    ------
    GradientError
        The two sides differ: the message names the input, both numbers and their ratio.
    ValueError
        No float64 input, or another order.

    References
    ----------
    The idea of one random direction is that of HIPS autograd's `check_vjp` (Maclaurin, Duvenaud, Johnson).

    Examples
    --------
    >>> import striate
    >>> x = striate.tensor([1.0, 2.0], dtype=striate.float64, requires_grad=True)
    >>> striate.autograd.gradcheck(lambda x: x * x, [x])
    True
    """
    if order not in (1, 2):
        raise ValueError(f"gradcheck: expected order 1 or 2, got {order}; higher orders are compositions of these")
    is_double = [str(x.dtype) == "float64" for x in inputs]
    chosen = [x.requires_grad and double for x, double in zip(inputs, is_double, strict=True)]
    needs = chosen if any(chosen) else is_double
    if not any(needs):
        raise ValueError(
            f"gradcheck: expected at least one float64 input, got {[str(x.dtype) for x in inputs]}; differences in float32 "
            "are mostly rounding"
        )
    values: list[Values] = [np.array(x.detach().numpy()) for x in inputs]
    rng = np.random.default_rng(seed)
    with tape.enable_grad():
        for _ in range(n_directions):
            _check(function, values, needs, rng, eps, rtol, atol, 1)
            if order == 2:
                _check(_gradient_of(function, values, needs, rng), values, needs, rng, eps, rtol, atol, 2)
    return True


def _gradient_of(
    function: Function, values: Sequence[Values], needs: Sequence[bool], rng: np.random.Generator
) -> Function:
    """Return x ↦ the gradients of ⟨function(x), u⟩, u fixed: what a second-order check differentiates."""
    _, results = _outputs(function, values, needs)
    directions = [functions["tensor"](np.asarray(rng.standard_normal(y.shape))) for y in results]

    def gradient(*leaves: Tensor) -> list[Tensor]:
        # Without a record (the difference quotient) the inputs are leaves of a record of their own.
        with tape.enable_grad():
            xs = [
                x if x.requires_grad or not need else functions["clone"](x).requires_grad_()
                for x, need in zip(leaves, needs, strict=True)
            ]
            made = function(*xs)
            ys = [made] if isinstance(made, Tensor) else list(made)
            ys = [y for y in ys if y.dtype.is_floating_point]
            used = [(y, d) for y, d in zip(ys, directions, strict=True) if y.requires_grad]
            wanted = [x for x, need in zip(xs, needs, strict=True) if need]
            grads = tape.grad([y for y, _ in used], wanted, [d for _, d in used], create_graph=True, allow_unused=True)
        is_recorded = tape.is_grad_enabled()
        filled = [functions["zeros_like"](x) if g is None else g for x, g in zip(wanted, grads, strict=True)]
        return filled if is_recorded else [g.detach() for g in filled]

    return gradient
