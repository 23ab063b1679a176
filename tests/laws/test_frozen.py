"""Law: a recorded pass run as a program gives the bits of eager calls, from its first call on and from its arena."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

import striate
from cases import CASES, Case
from laws import test_coverage
from laws.harness import (
    FLOAT32,
    FLOAT64,
    FORMATS,
    Array,
    Format,
    Maker,
    as_tuple,
    drawn,
    in_format,
    is_differentiable,
    rng_of,
    tensors,
    to_numpy,
)
from striate import Tensor, _core
from striate.autograd import grad, record
from striate.ops import optim

#: Cases that no program can hold, and why.
NOT_RECORDED = {
    "index-by-mask": "the result's size follows from the values of the mask",
    "index-by-whole-mask": "the result's size follows from the values of the mask",
}
#: Ops that the core does not compute: a graph that holds one is refused.
HOST_OPS: dict[str, str] = {}
#: Divide by a number of pixels that Python reads: their record holds for that number alone.
READS_PIXELS = {"std-pixels", "var-last-keepdim", "var-pixels"}
RECORDED = [case for case in CASES if case.id not in NOT_RECORDED]


@dataclass
class Call:
    """The tensors that one pass of a case takes: its inputs, the output gradients, and what it writes in place."""

    made: list[Any]
    seeds: list[Tensor]
    inputs: list[Tensor]
    states: list[Tensor]


def call_of(
    case: Case, arrays: list[Array | None], grads: Iterable[Array | None], f: Format, make: Maker = striate.tensor
) -> Call:
    """Make fresh tensors of arrays and output gradients."""
    made = tensors(case, arrays, f, make)
    seeds = [striate.tensor(in_format(g, f)).requires_grad_() for g in grads if g is not None]
    held = [x for k, x in enumerate(made) if x is not None and k not in case.writes]
    return Call(made, seeds, [*held, *seeds], [made[k] for k in case.writes if made[k] is not None])


def passed(case: Case, call: Call, how: str) -> list[Tensor]:
    """Run a case forward; then its gradients; then the gradients of these gradients' squares."""
    if how == "forward":
        with striate.no_grad():
            return list(as_tuple(case.run(striate.ops, call.made)))
    outputs = as_tuple(case.run(striate.ops, call.made))
    floating = [y for y in outputs if y.dtype in (striate.float32, striate.float64)]
    inputs = [call.made[k] for k in case.differentiable()]
    first = grad(floating, inputs, call.seeds, create_graph=how == "second")
    if how == "backward":
        return [*outputs, *first]
    total = striate.stack([(g * g).sum() for g in first]).sum()
    if not total.requires_grad:
        return list(first)
    second = grad(total, [*inputs, *call.seeds], allow_unused=True)
    return [*first, *[g for g in second if g is not None]]


def ways(case: Case) -> Iterator[str]:
    """Yield the passes that a case has."""
    yield "forward"
    if is_differentiable(case):
        yield "backward"
        if not case.large:
            yield "second"


@contextlib.contextmanager
def unless_refused() -> Iterator[None]:
    """Let go of a second derivative that an op refuses."""
    try:
        yield
    except RuntimeError as error:
        if "expected first derivatives only" not in str(error):
            raise


def frozen(case: Case, call: Call, how: str) -> tuple[Any, list[Array]]:
    """Record a pass; return the program and what the recorded pass itself gave."""
    with record(inputs=call.inputs, states={f"state{i}": x for i, x in enumerate(call.states)}) as recording:
        results = passed(case, call, how)
        recording.returns(*results)
    return _core.Program(_core.fuse(recording.graph)), [to_numpy(y) for y in results]


def run(program: Any, inputs: Iterable[Tensor], scalars: Iterable[Tensor] = ()) -> list[Array]:
    """Call a program; copy its results out."""
    return [np.array(y.numpy()) for y in program.run([x._array for x in inputs], [x._array for x in scalars])]


def assert_same(case: Any, got: list[Array], expected: list[Array], when: str) -> None:
    """Assert shapes, dtypes and bits."""
    assert len(got) == len(expected)
    for i, (y, e) in enumerate(zip(got, expected, strict=True)):
        assert (y.shape, y.dtype) == (e.shape, e.dtype), f"{case!r}: result {i} of the program, {when}"
        assert y.tobytes() == e.tobytes(), f"{case!r}: result {i} of the program has other bits, {when}"


@pytest.mark.parametrize("case", RECORDED, ids=[case.id for case in RECORDED])
def test_frozen_equals_eager_for_any_threads(case: Case) -> None:
    given = drawn(case)
    for f in FORMATS[: 1 if case.large else 2]:
        for how in ways(case):
            with unless_refused():
                call = call_of(case, given.arrays, given.grads if how != "forward" else (), f)
                program, expected = frozen(case, call, how)
                for n_threads in (1, 1, 1, 2, 3):  # traced, then from the arena; traced again for each number
                    with striate.threads(n_threads):
                        got = run(program, call.inputs)
                    assert_same(case, got, expected, f"{how} in {f.name} on {n_threads} threads")


@pytest.mark.parametrize("case", RECORDED, ids=[case.id for case in RECORDED])
def test_frozen_takes_other_strides_and_instruction_sets(case: Case) -> None:
    given = drawn(case)
    how = "backward" if is_differentiable(case) else "forward"
    grads = given.grads if how == "backward" else ()
    program, _ = frozen(case, call_of(case, given.arrays, grads, FLOAT32), how)
    for name in striate.machine.available_isas():
        with striate.isa(name):
            for make in (striate.tensor, _with_gaps):
                call = call_of(case, given.arrays, grads, FLOAT32, make)
                expected = [to_numpy(y) for y in passed(case, call, how)]
                for _ in range(2):
                    assert_same(case, run(program, call.inputs), expected, f"{how} on {name}")


def _with_gaps(array: Array) -> Tensor:
    """Make a tensor with a gap between any two values."""
    wide = np.zeros([2 * n + 1 for n in array.shape], array.dtype)
    view = wide[(..., *[slice(1, None, 2)] * array.ndim)]
    view[...] = array
    return striate.from_numpy(view)


def resized(case: Case, change: Callable[[tuple[int, ...]], tuple[int, ...]]) -> Case:
    """Change the shapes of the inputs that have a batch."""
    inputs = [
        replace(i, shape=change(i.shape)) if i is not None and k in case.batch else i for k, i in enumerate(case.inputs)
    ]
    return replace(case, inputs=tuple(inputs))


def _batched(case: Case) -> bool:
    return bool(case.batch) and all(case.inputs[k].shape[0] > 1 for k in case.batch)  # type: ignore[union-attr]


def _imaged(case: Case) -> bool:
    return _batched(case) and all(len(case.inputs[k].shape) > 2 for k in case.batch)  # type: ignore[union-attr]


def check_other_size(case: Case, other: Case) -> bool:
    """Compare a program of a case with eager calls on other sizes; say whether its record holds for them."""
    given = drawn(case)
    rng = rng_of(other)
    arrays = other.draw(rng)
    shapes = [y.shape for y in as_tuple(other.run(striate.ops, tensors(other, arrays, FLOAT32)))]
    grads = [None if g is None else rng.standard_normal(s) for g, s in zip(given.grads, shapes, strict=True)]
    for how in ("forward", "backward")[: 1 + is_differentiable(case)]:
        seeded = how == "backward"
        program, _ = frozen(case, call_of(case, given.arrays, given.grads if seeded else (), FLOAT32), how)
        call = call_of(other, arrays, grads if seeded else (), FLOAT32)
        try:
            got = [run(program, call.inputs) for _ in range(2)]
        except _core.GuardError:
            return False
        expected = [to_numpy(y) for y in passed(other, call, how)]
        for results in got:
            assert_same(case, results, expected, f"{how} on {other!r}")
    return True


@pytest.mark.parametrize("n_more", [1, 6])
@pytest.mark.parametrize("case", [case for case in RECORDED if _batched(case)], ids=lambda case: case.id)
def test_frozen_takes_other_batches(case: Case, n_more: int) -> None:
    assert check_other_size(case, resized(case, lambda shape: (shape[0] + n_more, *shape[1:])))


@pytest.mark.parametrize("case", [case for case in RECORDED if _imaged(case)], ids=lambda case: case.id)
def test_frozen_takes_other_images(case: Case) -> None:
    other = resized(case, lambda shape: (*shape[:2], *[n + 2 for n in shape[2:]]))
    try:
        holds = check_other_size(case, other)
    except striate.ShapeError:  # eager: another input fixes the sizes
        program, _ = frozen(case, call_of(case, drawn(case).arrays, (), FLOAT32), "forward")
        call = call_of(other, other.draw(rng_of(other)), (), FLOAT32)
        with pytest.raises((striate.ShapeError, _core.GuardError)):
            run(program, call.inputs)
    else:
        assert holds == (case.id not in READS_PIXELS)


def _takes_clamp(case: Case) -> bool:
    return case.op.startswith("conv") or case.op == "linear"


@pytest.mark.parametrize("case", [case for case in RECORDED if _takes_clamp(case)], ids=lambda case: case.id)
def test_frozen_clamps_in_the_op_before(case: Case) -> None:
    call = call_of(case, drawn(case).arrays, (), FLOAT32)
    for clamp in (striate.relu, striate.relu6, lambda y: striate.clip(y, -0.25, 0.5)):
        with striate.no_grad(), record(inputs=call.inputs) as recording:
            y = clamp(case.run(striate.ops, call.made))
            recording.returns(y)
        program = _core.Program(_core.fuse(recording.graph))
        assert len(program.graph.nodes) == 1
        for _ in range(2):
            assert_same(case, run(program, call.inputs), [to_numpy(y)], "with a clamp")


Effect = Callable[[dict[str, Tensor]], list[Tensor]]


def _step(step: Callable[..., None], *kinds: str, **options: Any) -> Effect:
    """One step of an optimizer for the parameters p and q; `n` counts the steps."""

    def effect(t: dict[str, Tensor]) -> list[Tensor]:
        numbers: dict[str, Any] = dict(options, lr=t["lr"])
        if "n_steps" in options:
            striate.assign(t["n"], t["n"] + 1.0)
            numbers["n_steps"] = t["n"]
        states = [[t[f"{kind}_{name}"] for name in "pq"] if kind else [] for kind in kinds]
        step([t["p"], t["q"]], [t["x"] * 2.0, t["x"].sum(0)], *states, **numbers)
        return [t["p"] * 1.0, t["q"] * 1.0]

    return effect


def _normalise(t: dict[str, Tensor]) -> list[Tensor]:
    y = striate.batch_norm(t["x"], t["mean"], t["var"], t["q"], None, training=True, momentum=0.3)
    return [y, t["mean"] * 1.0, t["var"] + 0.0]


def _draw(t: dict[str, Tensor]) -> list[Tensor]:
    image = t["x"].reshape(t["x"].shape[0], 5, 1, 1)
    kept = striate.dropout(t["p"], 0.3)
    return [
        striate.rand(4, 3),
        striate.randn(7, dtype=striate.float64),
        striate.randint(-3, 50, (11,)),
        striate.randperm(17),
        kept,
        striate.dropout2d(image, 0.4),
        *grad(kept, [t["p"]], [t["x"]]),
    ]


EFFECTS: dict[str, Effect] = {
    "sgd": _step(optim.sgd, "a", momentum=0.9, nesterov=True, weight_decay=0.1),
    "sgd-plain": _step(optim.sgd, "", maximize=True),
    "sgd-first": _step(optim.sgd, "a", momentum=0.9, dampening=0.5, is_first=True),
    "adam": _step(optim.adam, "a", "b", "", n_steps=0, betas=(0.8, 0.9)),
    "adam-amsgrad": _step(optim.adam, "a", "b", "c", n_steps=0, weight_decay=0.1),
    "adamw": _step(optim.adamw, "a", "b", "", n_steps=0, weight_decay=0.1),
    "rmsprop": _step(optim.rmsprop, "a", "", "", alpha=0.9),
    "rmsprop-centered": _step(optim.rmsprop, "a", "b", "c", momentum=0.5, eps=1e-4),
    "rmsprop-moment": _step(optim.rmsprop, "a", "", "c", momentum=0.5, weight_decay=0.1, maximize=True),
    "batch_norm": _normalise,
    "random": _draw,
}


def _world() -> dict[str, Tensor]:
    """Make everything that an effect may change or read."""
    rng = np.random.default_rng(0)
    shapes = {"x": (6, 5), "p": (6, 5), "q": (5,), "mean": (5,), "var": (5,)}
    world = {name: striate.tensor(rng.uniform(0.5, 1.5, s).astype(np.float32)) for name, s in shapes.items()}
    for kind in "abc":
        world.update({f"{kind}_{name}": striate.zeros_like(world[name]) for name in "pq"})
    world["n"] = striate.zeros(())
    world["lr"] = striate.full((), 0.125)
    world["p"].requires_grad_()
    return world


@pytest.mark.parametrize("name", EFFECTS)
@pytest.mark.parametrize("n_threads", [1, 3])
def test_frozen_effects_equal_eager(name: str, n_threads: int) -> None:
    effect = EFFECTS[name]
    with striate.threads(n_threads):
        eager = _world()
        striate.manual_seed(7)
        expected = [[to_numpy(y) for y in effect(eager)] for _ in range(4)]
        world = _world()
        striate.manual_seed(7)
        states = {k: v for k, v in world.items() if k not in ("x", "lr")}
        with record(inputs={"x": world["x"]}, states=states, scalars={"lr": world["lr"]}) as recording:
            results = effect(world)
            recording.returns(*results)
        assert_same(name, [to_numpy(y) for y in results], expected[0], "recorded")
        program = _core.Program(_core.fuse(recording.graph))
        for i in range(1, 4):  # the recorded pass was the first
            assert_same(name, run(program, [world["x"]], [world["lr"]]), expected[i], f"call {i}")
    for key, tensor in eager.items():
        assert np.array_equal(to_numpy(world[key]), to_numpy(tensor)), f"{name}: {key} differs after 4 passes"


def test_frozen_coverage_of_registry() -> None:
    missing = sorted(op for op in test_coverage.REGISTERED if not _core.has_call(op) and op not in HOST_OPS)
    assert not missing, f"no program can hold {missing}; add a row to cpp/program/call.cpp, or a reason to HOST_OPS"
    stale = sorted(op for op in HOST_OPS if _core.has_call(op) or op not in test_coverage.REGISTERED)
    assert not stale, f"HOST_OPS is out of date: {stale}"
    assert not _core.has_call("no such op")


def test_frozen_coverage_of_calls() -> None:
    reached: set[str] = set()
    for case in RECORDED:
        given = drawn(case)
        for how in ways(case):
            if case.large:
                continue
            with unless_refused():
                call = call_of(case, given.arrays, given.grads if how != "forward" else (), FLOAT64)
                states = {f"state{i}": x for i, x in enumerate(call.states)}
                with record(inputs=call.inputs, states=states) as recording:
                    recording.returns(*passed(case, call, how))
                reached.update(node.op for node in recording.graph.nodes)
    for effect in EFFECTS.values():
        world = _world()
        states = {k: v for k, v in world.items() if k not in ("x", "lr")}
        with record(inputs={"x": world["x"]}, states=states, scalars={"lr": world["lr"]}) as recording:
            effect(world)
        reached.update(node.op for node in recording.graph.nodes)
    missing = sorted(test_coverage.REGISTERED - reached - set(HOST_OPS))
    assert not missing, f"no program of a case holds {missing}; add a Case or an effect"


def test_frozen_refuses_what_reads_values() -> None:
    assert set(NOT_RECORDED) <= {case.id for case in CASES}
    for case in CASES:
        if case.id in NOT_RECORDED:
            with pytest.raises(striate.RecordError, match="read of values"):
                frozen(case, call_of(case, drawn(case).arrays, (), FLOAT32), "forward")
