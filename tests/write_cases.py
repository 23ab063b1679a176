"""Write the cases of the laws to a file that the C++ program `law_replay` runs without Python.

    python tests/write_cases.py FILE [NAME...]

A case is the list of rows that its forward and backward pass run, recorded in float32, with the oracle's results, the
float64 gradients and the bounds of both. The file is safetensors: tensors are named `case/number`, and the metadata holds
for every case the lines

    row NAME n_inputs (tensor or -1)... n_outputs tensor... n_attributes (NAME n_values value...)...
    check TENSOR EXPECTED BOUND

in which a tensor is its number; inputs, expected values and bounds are in the file, all others are made by a row.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

import striate
from cases import CASES, Case
from laws import harness, test_winograd
from striate.autograd import tape
from striate.io import safetensors

Array = np.ndarray


@dataclass
class Program:
    """The rows that ran, and the tensors they need."""

    lines: list[str] = field(default_factory=list)
    given: dict[int, Array] = field(default_factory=dict)
    numbers: dict[int, int] = field(default_factory=dict)
    kept: list[Any] = field(default_factory=list)

    def new(self, array: Any = None) -> int:
        """Number a tensor; an array stays alive, so that its identity stays its own."""
        number = len(self.kept)
        self.kept.append(array)
        self.numbers[id(array)] = number
        return number

    def give(self, values: Array) -> int:
        """Number a tensor of the file."""
        number = self.new()
        self.given[number] = np.ascontiguousarray(values).reshape(values.shape)
        return number

    def read(self, array: Any) -> int:
        """Return the number of a row's input; one that no row made is copied into the file."""
        if array is None:
            return -1
        if id(array) not in self.numbers:
            self.given[self.new(array)] = np.array(array.fill_view())
        return self.numbers[id(array)]

    def append(self, name: str, arrays: Sequence[Any], attributes: dict[str, Any], results: tuple[Any, ...]) -> None:
        """Append a row; the tape calls this for every operator."""
        inputs = [self.read(a) for a in arrays]
        outputs = [self.new(a) for a in results]
        words = ["row", name, len(inputs), *inputs, len(outputs), *outputs, len(attributes)]
        for key, value in attributes.items():
            values = flat(value)
            words += [key, len(values), *values]
        self.lines.append(" ".join(map(str, words)))

    def assign(self, state: Any, value: Any) -> None:
        """Let rows that follow read the value a state is given."""
        self.kept.append(state)
        self.numbers[id(state)] = self.read(value)

    def shape(self, array: Any) -> tuple[int, ...]:
        """Return sizes as numbers, as a case has one size."""
        return tuple(array.shape)

    def refuse(self, array: Any, what: str) -> None:
        """Let values be read, as a case has one set of them."""

    def check(self, tensor: Any, expected: Array, limit: Array) -> None:
        """Ask for a result within its bound; one that no row made (the gradient of a sum is the given one) proves nothing."""
        number = self.numbers.get(id(tensor._array), -1)
        if number < 0 or number in self.given:
            return
        limit = np.broadcast_to(np.asarray(limit, np.float64), expected.shape)
        self.lines.append(f"check {number} {self.give(expected)} {self.give(limit)}")


def flat(value: Any) -> list[Any]:
    """Spell an attribute as words."""
    if value is None:
        return []
    if isinstance(value, tuple | list):
        return [word for v in value for word in flat(v)]
    if hasattr(value, "__members__"):  # an enum of the core
        return [value.name]
    return [int(value) if isinstance(value, bool) else value]


@contextlib.contextmanager
def recorded() -> Iterator[Program]:
    """Record the rows that run inside."""
    program = Program()
    recorders: dict[int, Any] = tape.recorders  # `program` follows no new states and draws, which no case has
    thread = threading.get_ident()
    recorders[thread] = program
    try:
        yield program
    finally:
        del recorders[thread]


def of_case(case: Case, *, has_backward: bool = True) -> Program:
    """Record a case's forward and backward pass, or a forward pass that keeps nothing for a backward one."""
    given = harness.drawn(case)
    references = harness.reference_gradients(case) if has_backward and harness.is_differentiable(case) else {}
    limits = {k: harness.gradient_limit(case, given, k, g) for k, g in references.items()}
    made = harness.tensors(case, given.arrays, harness.FLOAT32)
    with recorded() as program, contextlib.nullcontext() if has_backward else striate.no_grad():
        outputs = harness.as_tuple(case.run(striate.ops, made))
        if references:
            harness.backpropagate(outputs, given.grads, harness.FLOAT32)
    for y, expected, limit in zip(
        outputs, given.expected, case.bounds(harness.FLOAT32, given.expected, given.arrays), strict=True
    ):
        program.check(y, expected, limit)
    for k, reference in references.items():
        program.check(made[k].grad, reference, limits[k])
    return program


def of_winograd(layer: test_winograd.Layer, m: int) -> Program:
    """Record the three passes of a layer under one size of Winograd's algorithm."""
    arrays = layer.draw(0)
    x, weight, bias, grad_y = (striate.tensor(a.astype(np.float32)) for a in arrays)
    with recorded() as program:
        y = striate.ops.conv2d(
            x.requires_grad_(),
            weight.requires_grad_(),
            bias,
            stride=layer.stride,
            padding=layer.padding,
            groups=layer.groups,
        )
        y.backward(grad_y)
    results = (y, x.grad, weight.grad)
    exact, limits = test_winograd.exact(layer, arrays), test_winograd.bounds(layer, arrays, m)
    for tensor, expected, limit in zip(results, exact, limits, strict=True):
        program.check(tensor, expected, limit)
    program.lines.insert(0, f"algorithm {m}")
    return program


def programs() -> dict[str, Callable[[], Program]]:
    """Return the recorders of all cases by name; those that are large take an emulator too long."""
    made = {case.id: partial(of_case, case) for case in CASES if not case.large}
    for case in CASES:
        if "max_pool" in case.op and not case.large:  # where no gradient is wanted, another row runs
            made[f"{case.id}-alone"] = partial(of_case, case, has_backward=False)
    for layer in (*test_winograd.SMALL, *test_winograd.LARGE[1:3]):
        for m in test_winograd.SIZES:
            made[f"winograd{m}-{layer.channels}-{layer.filters}"] = partial(of_winograd, layer, m)
        for m, kernel, stride in test_winograd.FORMS[len(test_winograd.SIZES) :]:
            other = replace(layer, kernel=kernel, stride=stride)
            made[f"winograd{m}-{kernel}x{kernel}-{stride}-{layer.channels}-{layer.filters}"] = partial(
                of_winograd, other, m
            )
    return made


def main(path: str, *names: str) -> None:
    """Write the cases of these names, or all."""
    tensors: dict[str, Array] = {}
    metadata: dict[str, str] = {}
    recorders = programs()
    for name in names or recorders:
        program = recorders[name]()
        metadata[name] = "\n".join(program.lines)
        tensors.update({f"{name}/{number}": values for number, values in program.given.items()})
    safetensors.save({k: striate.tensor(v) for k, v in tensors.items()}, path, metadata)


if __name__ == "__main__":
    main(*sys.argv[1:])
