"""What a test of an op needs to know: how to draw its inputs, what is right, how exact, and which laws apply."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from oracle import bound as bounds

Array = np.ndarray


@dataclass(frozen=True, kw_only=True)
class Input:
    """How to draw one tensor argument."""

    shape: tuple[int, ...]
    dtype: str = "float"
    """"float" is the format under test, anything else a fixed dtype."""
    uniform: tuple[float, float] | None = None
    """Draw uniformly from this interval instead of a normal law; for a fixed integer dtype, [low, high)."""
    integers: tuple[int, int] = (-4, 4)
    """Smallest and largest value where a law asks for small integers."""
    scale: float = 1.0
    distinct: bool = False
    """No two elements closer than 1/size: maxima stay where they are under a small step."""
    kinks: tuple[float, ...] = ()
    """Values where the op has no derivative: tried on purpose by the oracle law, avoided by the gradient law."""
    special: int | None = None
    """A value to put in every third place (an ignored target)."""
    differentiable: bool = True

    def draw(self, rng: np.random.Generator, kind: str = "real") -> Array:
        """Draw values that float32 holds exactly: `real`, `smooth` (away from kinks) or `integer`."""
        if self.dtype == "bool":
            return rng.random(self.shape) < 0.6
        if self.dtype != "float":
            low, high = self.uniform or self.integers
            values = rng.integers(int(low), int(high), self.shape).astype(self.dtype)
            if self.special is not None:
                values.reshape(-1)[::3] = self.special
            return values
        if kind == "integer":
            return self._integer(rng)
        size = int(np.prod(self.shape))
        if self.distinct:
            values = (rng.permutation(size).reshape(self.shape) - size / 2) * (4.0 / max(size, 1)) + 0.25 / max(size, 1)
        elif self.uniform is not None:
            values = rng.uniform(*self.uniform, self.shape)
        else:
            values = rng.standard_normal(self.shape)
        values = np.asarray(values * self.scale)
        if kind == "smooth":
            for kink in self.kinks:
                near = np.abs(values - kink) < 0.05
                values = np.where(
                    near, kink + np.where(values < kink, -0.05, 0.05) * (1 + rng.random(self.shape)), values
                )
        elif self.kinks and size > 2 * len(self.kinks):
            values.reshape(-1)[: len(self.kinks)] = self.kinks
        return values.astype(np.float32).astype(np.float64)

    def _integer(self, rng: np.random.Generator) -> Array:
        size = int(np.prod(self.shape))
        if self.distinct:
            return (rng.permutation(size).reshape(self.shape) - size // 2).astype(np.float64)
        low, high = self.integers
        return rng.integers(low, high + 1, self.shape).astype(np.float64)


def real(*shape: int, **fields: Any) -> Input:
    """Draw a differentiable tensor in the format under test."""
    return Input(shape=shape, **fields)


def index(*shape: int, high: int, low: int = 0, special: int | None = None) -> Input:
    """Draw indices low … high − 1."""
    return Input(shape=shape, dtype="int64", uniform=(low, high), special=special, differentiable=False)


def boolean(*shape: int) -> Input:
    """Draw truth values."""
    return Input(shape=shape, dtype="bool", differentiable=False)


def integer(*shape: int, dtype: str = "int64", integers: tuple[int, int] = (-9, 9)) -> Input:
    """Draw integers of a fixed dtype."""
    return Input(shape=shape, dtype=dtype, integers=integers, differentiable=False)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One configuration of one op, and everything a law may ask about it."""

    op: str
    label: str
    inputs: tuple[Input | None, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    oracle: Callable[..., Any]
    """Called as the op is, on float64 (or integer, or bool) arrays."""
    bound: Callable[..., Array] | None = None
    """(format, oracle's y, *as the op is called) → largest absolute error; None: the op never rounds."""
    names: tuple[str, ...] = ()
    """Names of the last inputs, where the op takes them by keyword."""
    call: Callable[..., Any] | None = None
    """(namespace of ops, *inputs, **attributes), where the op is not simply called by its name."""
    linear: tuple[int, ...] = ()
    """Inputs in which the op is linear (or affine) while the others are held: they obey the adjoint law."""
    excused: str = ""
    """Why integers do not give a result without rounding; empty: they do."""
    gradient_excused: str = ""
    """Why integers do not give gradients without rounding; empty: as `excused`."""
    writes: tuple[int, ...] = ()
    """Inputs the op changes in place (running statistics)."""
    batch: tuple[int, ...] = ()
    """Inputs whose first axis is the batch, which may be empty."""
    nonfinite: tuple[float, ...] = ()
    """Values the op must carry through as the formula does."""
    constant: str = ""
    """Why the result may be constant or mostly zero; empty: it may not."""
    meet: int = 1
    """How many results one element of an input takes part in, where that is more than broadcasting says."""
    flat: bool = False
    """The derivative is zero wherever it exists (floor, sign)."""
    large: bool = False
    """Big enough to be cut into many tiles; slow laws skip it."""
    ulps: float | None = None
    """For an element-wise op, the bound that must hold over all exponents."""

    @property
    def id(self) -> str:
        """Name the case in test ids."""
        return f"{self.op}-{self.label}" if self.label else self.op

    def __repr__(self) -> str:
        shapes = ", ".join("None" if i is None else repr(i.shape) for i in self.inputs)
        attributes = "".join(f", {k}={v!r}" for k, v in self.attributes.items())
        return f"{self.op}({shapes}{attributes})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Let Hypothesis print one line."""
        printer.text(repr(self))

    def draw(self, rng: np.random.Generator, kind: str = "real") -> list[Array | None]:
        """Draw all inputs."""
        return [None if i is None else i.draw(rng, kind) for i in self.inputs]

    def differentiable(self) -> list[int]:
        """Positions of the inputs that have a gradient."""
        return [k for k, i in enumerate(self.inputs) if i is not None and i.dtype == "float" and i.differentiable]

    def arguments(self, tensors: list[Any]) -> tuple[list[Any], dict[str, Any]]:
        """Split tensors into positional and keyword arguments, and add the attributes."""
        n_positional = len(tensors) - len(self.names)
        named = dict(zip(self.names, tensors[n_positional:], strict=True))
        return tensors[:n_positional], {**named, **self.attributes}

    def expected(self, arrays: list[Any]) -> tuple[Array, ...]:
        """Evaluate the oracle; always a tuple."""
        args, keywords = self.arguments(arrays)
        with np.errstate(all="ignore"):
            y = self.oracle(*args, **keywords)
        return tuple(np.asarray(v) for v in y) if isinstance(y, tuple) else (np.asarray(y),)

    def bounds(self, f: bounds.Format, expected: tuple[Array, ...], arrays: list[Any]) -> tuple[Array, ...]:
        """Evaluate the bound of every result."""
        if self.bound is None:
            return tuple(bounds.exact(f, y) for y in expected)
        args, keywords = self.arguments(arrays)
        (y,) = expected
        with np.errstate(all="ignore"):
            return (np.broadcast_to(self.bound(f, y, *args, **keywords), y.shape),)

    def run(self, namespace: Any, tensors: list[Any]) -> Any:
        """Call the op in a namespace of ops."""
        args, keywords = self.arguments(tensors)
        if self.call is not None:
            return self.call(namespace, *args, **keywords)
        return getattr(namespace, self.op)(*args, **keywords)

    def with_empty_batch(self) -> Case:
        """Return the same case with nothing in the batch."""
        inputs = tuple(
            replace(i, shape=(0, *i.shape[1:])) if i is not None and k in self.batch else i
            for k, i in enumerate(self.inputs)
        )
        return replace(self, inputs=inputs)


def in_sequence(op: str) -> Callable[..., Any]:
    """Call an op that takes its tensors as one sequence."""
    return lambda namespace, *tensors, **attributes: getattr(namespace, op)(list(tensors), **attributes)
