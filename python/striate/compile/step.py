"""Programs for training: forward, loss, backward, clipping and the optimizer's step as one call into the core."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from striate import _core, ops
from striate.autograd import RecordError, Tensor, enable_grad, grad
from striate.autograd.record import record
from striate.compile.explain import Explanation, explain_graph
from striate.compile.host import constants_of
from striate.compile.program import MOST_VARIANTS
from striate.nn import Module

__all__ = ["Optimizer", "TrainingStep", "VerifyError", "compile_step"]

Loss = Callable[[Tensor, Tensor], Tensor]
Clip = Callable[[Iterable[Tensor], float], Any]


class VerifyError(RuntimeError):
    """A compiled step that does not do what the eager one does."""


class Optimizer(Protocol):
    """What a compiled step needs of an optimizer; those of `striate.train` have it."""

    param_groups: list[dict[str, Any]]
    state: dict[Tensor, dict[str, Any]]

    @property
    def first_step_differs(self) -> bool:
        """Whether a parameter's first step is computed in another way than the others."""

    def count(self, params: Iterable[Tensor]) -> None:
        """Count a step of each of these parameters."""

    def update(self, group: Mapping[str, Any], params: list[Tensor], n_steps: int | Tensor) -> None:
        """Change parameters by their gradients."""


@dataclass(frozen=True, slots=True)
class _Stream:
    """Random draws of a recorded step: whose, the state that stands for it, and how many a step takes."""

    generator: Any
    state: Tensor
    n_draws: int


@dataclass(frozen=True, slots=True)
class _Variant:
    """One record of the step."""

    core: _core.Program
    trained: list[list[Tensor]]  # the parameters that change, by group
    streams: list[_Stream]
    moments: list[Tensor]  # of the optimizer, as the record knows them


def _number(value: float) -> Tensor:
    return Tensor._wrap(_core.scalar(float(value), _core.DType.float64))


class TrainingStep:
    """A training step as one call into the core, made by `compile_step`.

    Call it with a batch (x, y): it changes the model's parameters and buffers and the optimizer's state, as
    `loss(model(x), y).backward(); optimizer.step()` does, and returns (loss, scores). Gradients are not kept: `.grad` of the
    parameters is None afterwards. Learning rates are read from the optimizer at each call. With `is_eager` it takes the same
    step operator by operator.

    Attributes
    ----------
    reason : str or None
        Why steps run eagerly, when the step cannot be recorded.
    """

    def __init__(
        self,
        model: Module,
        loss: Loss,
        optimizer: Optimizer,
        *,
        max_grad_norm: float | None = None,
        clip: Clip | None = None,
        n_verified: int = 0,
        is_eager: bool = False,
        recomputes: bool = False,
    ) -> None:
        if max_grad_norm is not None and clip is None:
            raise ValueError(
                "compile_step: expected clip with max_grad_norm, got None; pass striate.train.clip_grad_norm_"
            )
        self._model = model
        self._loss = loss
        self._optimizer = optimizer
        self._max_grad_norm = max_grad_norm
        self._clip = clip
        self._n_verified = n_verified
        self._n_records = 0
        self._recomputes = recomputes
        self._lock = threading.Lock()
        self._variants: dict[Any, list[_Variant]] = {}
        self.reason: str | None = "asked to" if is_eager else None

    @property
    def graph(self) -> _core.Graph | None:
        """The graph that ran last, after fusion; None before the first record."""
        found = [variants[0] for variants in self._variants.values() if variants]
        return found[-1].core.graph if found else None

    def memory(self) -> dict[str, int]:
        """Return arena_bytes, least_bytes, n_plans and n_arenas of the record that ran last; see `Program.memory`."""
        found = [variants[0] for variants in self._variants.values() if variants]
        return found[-1].core.memory() if found else {"arena_bytes": 0, "least_bytes": 0, "n_plans": 0, "n_arenas": 0}

    def explain(self, x: Tensor, y: Tensor, *, measure: bool = False) -> Explanation:
        """Tell node by node what a step does; see `Program.explain`.

        Model and optimizer are as before afterwards, also when passes are measured.

        Raises
        ------
        RuntimeError
            Steps run eagerly; the text gives the reason.
        """
        before = _Snapshot(self._model, self._optimizer)
        try:
            self._run(x, y)
            if self.reason is not None:
                raise RuntimeError(f"explain: expected a recorded step, got one that runs eagerly: {self.reason}")
            variant = self._variants[self._key(x, y)][0]
            return explain_graph(
                variant.core, [x._array, y._array], self._scalars(variant.trained), n_passes=5 if measure else 0
            )
        finally:
            before.restore()

    def __call__(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Train on one batch; returns (loss, model(x)).

        Raises
        ------
        FloatingPointError
            A loss that is not finite; parameters and optimizer are as before.
        VerifyError
            A compiled step that differs from the eager one, in the calls that are verified.
        """
        with self._lock:
            if self.reason is not None:
                return self._eager(x, y)
            if self._n_verified > 0:
                self._n_verified -= 1
                return self._verified(x, y)
            return self._run(x, y)

    def _key(self, x: Tensor, y: Tensor) -> Any:
        """Everything besides sizes that a record takes for granted."""
        optimizer = self._optimizer
        groups = optimizer.param_groups
        modes, tensors = [], []
        for module in self._model.modules():
            modes.append(module.training)
            for _, tensor in module._own("parameter", "buffer", "transient"):
                tensors.append((id(tensor._array), tensor.requires_grad))
        numbers = tuple(
            [tuple([item for item in group.items() if item[0] not in ("params", "lr", "lr_scale")]) for group in groups]
        )
        first: tuple[bool, ...] = ()
        if optimizer.first_step_differs:
            first = tuple([optimizer.state.get(p, {}).get("n_steps", 0) == 0 for g in groups for p in g["params"]])
        return tuple(modes), tuple(tensors), numbers, first, x.dtype, x.ndim, y.dtype, y.ndim

    def _run(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        key = self._key(x, y)
        variants = self._variants.setdefault(key, [])
        moments = _moments(self._optimizer)
        variants[:] = [v for v in variants if _are_same(v.moments, moments)]
        for variant in list(variants):
            try:
                result = self._replay(variant, x, y)
            except _core.GuardError:
                if variant.core.is_stale:
                    variants.remove(variant)
                continue
            variants.remove(variant)
            variants.insert(0, variant)  # the one that ran last is tried first
            return result
        if sum(map(len, self._variants.values())) >= MOST_VARIANTS:
            self._give_up(f"more than {MOST_VARIANTS} kinds of batches, modes or hyper-parameters; each needs a record")
            return self._eager(x, y)
        return self._record(key, x, y)

    def _scalars(self, trained: Sequence[Sequence[Tensor]]) -> list[Any]:
        """Learning rate and number of this step, for each group."""
        numbers = []
        for group, params in zip(self._optimizer.param_groups, trained, strict=True):
            numbers.append(_core.scalar(float(group["lr"]), _core.DType.float64))
            n_steps = self._optimizer.state[params[0]]["n_steps"] if params else 0
            numbers.append(_core.scalar(float(n_steps), _core.DType.float64))
        return numbers

    def _replay(self, variant: _Variant, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        for stream in variant.streams:
            seed, n_drawn = stream.generator.get_state()
            signed = seed - 2**64 if seed >= 2**63 else seed
            ops.assign(stream.state, ops.tensor([signed, n_drawn]))
        for params in variant.trained:
            self._optimizer.count(params)
        try:
            loss, scores = variant.core.run([x._array, y._array], self._scalars(variant.trained))
        except BaseException:
            for params in variant.trained:
                for p in params:
                    self._optimizer.state[p]["n_steps"] -= 1
            raise
        for stream in variant.streams:
            seed, n_drawn = stream.generator.get_state()
            stream.generator.set_state((seed, n_drawn + stream.n_draws))
        return Tensor._wrap(loss), Tensor._wrap(scores)

    def _record(self, key: Any, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Take this step eagerly and record it; or only take it, where it cannot be recorded."""
        optimizer, model = self._optimizer, self._model
        before = _Snapshot(model, optimizer)
        states: dict[int, Tensor] = {}
        for tensor in (*model.parameters(), *model.buffers(), *_moments(optimizer)):
            states.setdefault(id(tensor._array), tensor)
        scalars: dict[str, Tensor] = {}
        for i, group in enumerate(optimizer.param_groups):
            scalars[f"lr{i}"] = _number(group["lr"])
            scalars[f"n_steps{i}"] = _number(0.0)
        trained: list[list[Tensor]] = []
        try:
            with record(inputs={"x": x, "y": y}, states=list(states.values()), scalars=scalars) as recording:
                loss, scores = self._forward(x, y)
                for i, (group, params) in enumerate(self._backward(loss)):
                    optimizer.count(params)
                    counts = {optimizer.state[p]["n_steps"] for p in params}
                    if len(counts) > 1:
                        raise RecordError(
                            f"compile_step: expected parameters that took as many steps, got {sorted(counts)}"
                        )
                    if counts:
                        number = scalars[f"n_steps{i}"]
                        number._array.fill_view()[...] = n_steps = counts.pop()
                        group = {**group, "lr": scalars[f"lr{i}"]}
                        optimizer.update(group, params, n_steps if optimizer.first_step_differs else number)
                    trained.append(params)
                recording.returns(loss, scores)
            streams = [_Stream(*stream) for stream in recording.streams()]
        except RecordError as error:
            self._give_up(str(error))
            before.restore()
            self._forget_gradients()
            return self._eager(x, y)
        self._forget_gradients()
        graph = _core.fuse(recording.graph)
        if self._recomputes:
            graph = _core.recompute(graph)
        core = _core.Program(graph, constants_of(recording.graph))
        self._n_records += 1
        self._variants.setdefault(key, []).insert(0, _Variant(core, trained, streams, _moments(optimizer)))
        return loss.detach(), scores.detach()

    def _forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        with enable_grad():
            scores = self._model(x)
            loss = ops.require_finite(self._loss(scores, y), "the loss")
        return loss, scores

    def _backward(self, loss: Tensor) -> list[tuple[dict[str, Any], list[Tensor]]]:
        """Leave gradients in the parameters; return those of each group that have one."""
        groups = self._optimizer.param_groups
        params = [p for group in groups for p in group["params"] if p.requires_grad]
        for p, g in zip(params, grad([loss], params, allow_unused=True), strict=True):
            p.grad = g
        if self._max_grad_norm is not None and self._clip is not None:
            self._clip([p for p in self._model.parameters() if p.requires_grad], self._max_grad_norm)
        return [(group, [p for p in group["params"] if p.grad is not None]) for group in groups]

    def _give_up(self, reason: str) -> None:
        self.reason = reason
        self._variants.clear()
        import logging  # here, to keep `import striate` light

        logging.getLogger("striate.compile").warning("training steps run eagerly: %s", reason)

    def _forget_gradients(self) -> None:
        for group in self._optimizer.param_groups:
            for p in group["params"]:
                p.grad = None

    def _eager(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        loss, scores = self._forward(x, y)
        for group, params in self._backward(loss):
            self._optimizer.count(params)
            by_count: dict[int, list[Tensor]] = {}
            for p in params:
                by_count.setdefault(self._optimizer.state[p]["n_steps"], []).append(p)
            for n_steps, own in by_count.items():
                self._optimizer.update(group, own, n_steps)
        self._forget_gradients()
        return loss.detach(), scores.detach()

    def _verified(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        _core.begin_single_pass()  # what the eager step and the copies of all state take does not serve again
        try:
            return self._compared(x, y)
        finally:
            _core.end_single_pass()

    def _compared(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Take the step both ways from the same state, and compare all state."""
        before = _Snapshot(self._model, self._optimizer)
        expected_loss, _ = self._eager(x, y)  # first, while no arena lies beside it
        expected = _Snapshot(self._model, self._optimizer)
        before.restore()
        n_records = self._n_records
        loss, scores = self._run(x, y)
        if self.reason is not None:
            return loss, scores
        if self._n_records > n_records:  # that was an eager step
            before.restore()
            loss, scores = self._run(x, y)
        _require_close("the loss", *_difference(expected_loss, loss))
        differences = expected.differences()
        if not all(_is_close(error, size) for _, error, size in differences):
            slack = self._effect_of_rounding(before, expected, x, y)
            for (name, error, size), effect in zip(differences, slack, strict=True):
                _require_close(name, error, size, 4 * effect)
        return loss, scores

    def _effect_of_rounding(self, before: _Snapshot, expected: _Snapshot, x: Tensor, y: Tensor) -> list[float]:
        """Return how far the eager step's results move, by name, when its parameters do by at most 2⁻¹⁶ of themselves.

        A gradient jumps where a ReLU or a maximum changes sides. One rounding of a statistic, which a program takes in another
        order, is enough for that; 2⁻¹⁶ is at least ten times as much as those roundings, and meets as many more jumps.
        """
        found = _Snapshot(self._model, self._optimizer)
        before.restore()
        generator = ops.Generator(0)
        try:
            for p in self._model.parameters():
                change = ops.rand(p.shape, generator=generator, dtype=p.dtype) * 2.0**-15 - 2.0**-16
                ops.assign(p, p.detach() * (1 + change))
            self._eager(x, y)
            return [error for _, error, _ in expected.differences()]
        finally:
            found.restore()


class _Snapshot:
    """A copy of everything that a step changes."""

    def __init__(self, model: Module, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._named = [*model.named_parameters(), *model.named_buffers()]
        self._values = [x.detach().clone() for _, x in self._named]
        self._moments = {
            p: {name: v.clone() if isinstance(v, Tensor) else v for name, v in own.items()}
            for p, own in optimizer.state.items()
        }
        self._generator = ops.default_generator().get_state()

    def restore(self) -> None:
        """Put everything back; moments that were made since become zero again."""
        for (_, x), value in zip(self._named, self._values, strict=True):
            ops.assign(x, value)
        for p, own in self._optimizer.state.items():
            saved = self._moments.get(p, {"n_steps": 0})
            for name, value in own.items():
                if isinstance(value, Tensor):
                    ops.assign(value, saved[name] if name in saved else ops.zeros_like(value))
                else:
                    own[name] = saved.get(name, 0)
        ops.default_generator().set_state(self._generator)

    def differences(self) -> list[tuple[str, float, float]]:
        """Return name, largest difference from what it is now, and largest absolute value of each part of this state."""
        pairs = [(name, value, x) for (name, x), value in zip(self._named, self._values, strict=True)]
        for i, (p, own) in enumerate(self._optimizer.state.items()):
            pairs += [
                (f"{n} of parameter {i}", self._moments[p][n], v) for n, v in own.items() if isinstance(v, Tensor)
            ]
        return [(name, *_difference(value, x)) for name, value, x in pairs if value.size]


def _difference(expected: Tensor, found: Tensor) -> tuple[float, float]:
    a, b = expected.detach().to(_core.DType.float64), found.detach().to(_core.DType.float64)
    return (a - b).abs().max().item(), a.abs().max().item()


def _is_close(error: float, size: float, slack: float = 0.0) -> bool:
    return error <= 1e-4 * size + 1e-7 + slack


def _require_close(name: str, error: float, size: float, slack: float = 0.0) -> None:
    if not _is_close(error, size, slack):
        raise VerifyError(
            f"compile_step: expected {name} as after an eager step, got a difference of {error:.3g} where the largest "
            f"value is {size:.3g}; train with compile=False and report the model"
        )


def _moments(optimizer: Optimizer) -> list[Tensor]:
    return [v for own in optimizer.state.values() for v in own.values() if isinstance(v, Tensor)]


def _are_same(known: Sequence[Tensor], moments: Sequence[Tensor]) -> bool:
    """Say whether the moments of a record are still the optimizer's own, and not those of a state that was loaded since."""
    return {id(x) for x in known} <= {id(x) for x in moments}


def compile_step(
    model: Module,
    loss: Loss,
    optimizer: Optimizer,
    example: tuple[Tensor, Tensor] | None = None,
    *,
    max_grad_norm: float | None = None,
    clip: Clip | None = None,
    verify: bool = False,
    recompute: bool = False,
) -> TrainingStep:
    """Return a training step of a model as one call into the core.

    The first batch of a kind (with an `example`, that one) is recorded: forward, loss, backward, clipping, the optimizer's step
    and changes of batch-norm statistics. Later batches run the record as a program. Results equal those of eager steps, but
    for the rounding of batch-norm statistics, which a program sums where a convolution makes the pixels.

    Parameters
    ----------
    model : Module
        In the modes it is to be trained in.
    loss : callable
        loss(model(x), y) → a tensor of one element.
    optimizer : Optimizer
        From `striate.train`.
    example : (x, y), optional
        Recorded now; the model is as before afterwards.
    max_grad_norm : float, optional
        Largest norm of all gradients together, by `clip`.
    clip : callable, optional
        `striate.train.clip_grad_norm_`.
    verify : bool, default False
        Take the first two steps eagerly as well, from a copy of all state, and compare: up to 1e-4 of the largest value of a
        tensor, and up to what rounding explains where a gradient jumps (a ReLU at zero, a maximum of equals).
    recompute : bool, default False
        Make results of batch-norm, activations, sums and products again in the backward pass rather than keep them, where
        their operands are kept anyway: steps need less memory and more time, and give the same bits. The first step,
        which is recorded, keeps them.

    Returns
    -------
    TrainingStep

    Raises
    ------
    VerifyError
        By the step: it differs from the eager one.
    """
    step = TrainingStep(
        model,
        loss,
        optimizer,
        max_grad_norm=max_grad_norm,
        clip=clip,
        n_verified=2 if verify else 0,
        recomputes=recompute,
    )
    if example is not None:
        before = _Snapshot(model, optimizer)
        step._run(*example)
        before.restore()
    return step
