"""Sizes of an exported model: which axes may change, what they are called, and what follows from them.

A graph spells a size as an expression of input axes ("2*i0.2 + 1", i0.2 being axis 2 of input 0). Here the axes that stay
fixed are replaced by their numbers, and the rest is read again as names or as ONNX nodes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

from striate import _core

#: A number, or a _core.Dim where it follows from axes that may change.
Size = Any
T = TypeVar("T")

_TOKEN = re.compile(r"\s*(i\d+\.\d+|\d+|//|min|max|[-+*(),])")
#: Guards compare with 0.
_GUARD = re.compile(r"(.*) (==|!=|<=|<) 0")
_EQUAL_AXES = re.compile(r"-?i(\d+)\.(\d+) [-+] i(\d+)\.(\d+) == 0")
Axis = tuple[int, int]


class Algebra(Protocol[T]):
    """What the parts of an expression are turned into."""

    def number(self, n: int) -> T:
        """Return a constant."""

    def axis(self, axis: Axis) -> T:
        """Return the size of an axis (input, axis)."""

    def combine(self, operation: str, a: T, b: T) -> T:
        """Return a + b, a * b, a // b (rounded down), min or max of both."""


class _Reader(Generic[T]):
    """Reads one expression, in the grammar of the core's Dim."""

    def __init__(self, text: str, algebra: Algebra[T]) -> None:
        self._tokens = _TOKEN.findall(text)
        self._at = 0
        self._algebra = algebra

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _take(self) -> str:
        token = self._peek()
        self._at += 1
        return token

    def sum(self) -> T:
        make = self._algebra
        total: T | None = None
        while total is None or self._peek() in ("+", "-"):
            is_negative = self._peek() == "-"
            if self._peek() in ("+", "-"):
                self._take()
            part = self._product()
            if is_negative:
                part = make.combine("*", make.number(-1), part)
            total = part if total is None else make.combine("+", total, part)
        return total

    def _product(self) -> T:
        value = self._atom()
        while self._peek() == "*":
            self._take()
            value = self._algebra.combine("*", value, self._atom())
        return value

    def _atom(self) -> T:
        token = self._take()
        if token.isdigit():
            return self._algebra.number(int(token))
        if token.startswith("i"):
            of, axis = token[1:].split(".")
            return self._algebra.axis((int(of), int(axis)))
        if token in ("min", "max"):
            self._take()
        value = self.sum()
        separator = self._take()  # ")" where parentheses hold a sum only
        if separator in ("//", ","):
            value = self._algebra.combine("//" if separator == "//" else token, value, self.sum())
            self._take()
        return value


def read(text: str, algebra: Algebra[T]) -> T:
    """Turn the text of a size into what an algebra makes of it."""
    return _Reader(text, algebra).sum()


_ON_DIMS: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda a, b: a.add(b),
    "*": lambda a, b: a.multiply(b),
    "//": lambda a, b: a.floor_divide(b),
    "min": _core.minimum_dim,
    "max": _core.maximum_dim,
}


class _Settle:
    """Numbers for axes that stay fixed, Dims for the others."""

    def __init__(self, axes: Mapping[Axis, Any]) -> None:
        self._axes = axes

    def number(self, n: int) -> Any:
        return _core.Dim(n)

    def axis(self, axis: Axis) -> Any:
        return self._axes[axis]

    def combine(self, operation: str, a: Any, b: Any) -> Any:
        return _ON_DIMS[operation](a, b)


class _Describe:
    """Text with names for axes."""

    def __init__(self, names: Mapping[Axis, str]) -> None:
        self._names = names

    def number(self, n: int) -> tuple[str, int]:
        return str(n), 4

    def axis(self, axis: Axis) -> tuple[str, int]:
        return self._names[axis], 4

    def combine(self, operation: str, a: tuple[str, int], b: tuple[str, int]) -> tuple[str, int]:
        """Return text and how strongly it holds together: 1 a sum, 2 a quotient, 3 a product, 4 anything else."""
        if operation in ("min", "max"):
            return f"{operation}({a[0]}, {b[0]})", 4

        def within(x: tuple[str, int], least: int) -> str:
            return x[0] if x[1] >= least else f"({x[0]})"

        if operation == "//":
            return f"{within(a, 2)} // {within(b, 4)}", 2
        if operation == "*":
            return (f"-{within(b, 3)}" if a[0] == "-1" else f"{within(a, 3)} * {within(b, 3)}"), 3
        return f"{a[0]} - {b[0][1:]}" if b[0].startswith("-") else f"{a[0]} + {b[0]}", 1


def _sides(text: str) -> tuple[list[str], list[str]]:
    """Part the terms of a sum into those that are added and those that are taken off."""
    sides: tuple[list[str], list[str]] = ([], [])
    depth, start, side = 0, 0, 0
    padded = f"{text} +"
    for at, letter in enumerate(padded):
        depth += (letter == "(") - (letter == ")")
        if depth == 0 and letter in "+-":
            term = padded[start:at].strip()
            if term:
                sides[side].append(term)
            start, side = at + 1, int(letter == "-")
    return sides


class Sizes:
    """The sizes of one export.

    Parameters
    ----------
    graph : _core.Graph
    shapes : sequence of tuple of int
        Of the inputs of the example.
    dynamic : mapping of (input, axis) to str
        The axes that may change, and their names.

    Raises
    ------
    ValueError
        An axis that can't change, since the record holds for its size only; the text says why.
    """

    def __init__(self, graph: Any, shapes: Sequence[tuple[int, ...]], dynamic: Mapping[Axis, str]) -> None:
        self._graph = graph
        self._shapes = [list(shape) for shape in shapes]
        self._leader = self._equal_axes(dynamic)
        self.names = {axis: dynamic[leader] for axis, leader in self._leader.items()}
        axes = {(i, a): _core.Dim(n) for i, shape in enumerate(shapes) for a, n in enumerate(shape)}
        inputs = [graph.value(i).shape for i in graph.inputs]
        for axis, (i, a) in self._leader.items():
            axes[axis] = inputs[i][a]
        self._settle = _Settle(axes)
        self._known: dict[str, Size] = {}
        self._check()

    def _equal_axes(self, dynamic: Mapping[Axis, str]) -> dict[Axis, Axis]:
        """Return for each axis the first of those equal to it: of the same name, or compared in the record."""
        leader: dict[Axis, Axis] = {}
        for axis, name in dynamic.items():
            leader[axis] = next(other for other in dynamic if dynamic[other] == name)
            (i, a), (j, b) = axis, leader[axis]
            if self._shapes[i][a] != self._shapes[j][b]:
                raise ValueError(
                    f"onnx.save: expected axes of one name in dynamic_axes to be of one size, got {self._shapes[j][b]} and "
                    f"{self._shapes[i][a]} for {name!r}; give them different names"
                )
        for guard in self._graph.guards:
            found = _EQUAL_AXES.fullmatch(guard)
            pair = [] if found is None else [(int(found[k]), int(found[k + 1])) for k in (1, 3)]
            if pair and all(axis in leader for axis in pair):
                first, other = sorted(leader[axis] for axis in pair)
                leader = {axis: first if of == other else of for axis, of in leader.items()}
        return leader

    def settle(self, size: Any) -> Size:
        """Return a size as a number where no axis that it follows from may change, else as a Dim."""
        if not isinstance(size, _core.Dim):
            return size
        text = str(size)
        if text not in self._known:
            found = read(text, self._settle)
            self._known[text] = int(found) if found.is_constant else found
        return self._known[text]

    def describe(self, size: Any) -> str:
        """Return a size as text with the names of axes."""
        return read(str(size), _Describe(self.names))[0]

    def conditions(self) -> list[str]:
        """Return what must stay true of the sizes that change, for the model to be the one that was recorded."""
        found = []
        for guard in self._graph.guards:
            parts = _GUARD.fullmatch(guard)
            assert parts is not None, guard
            difference, relation = read(parts[1], self._settle), parts[2]
            if not difference.is_constant:
                sides = [self.describe(" + ".join(side)) if side else "0" for side in _sides(str(difference))]
                found.append(f"{sides[0]} {relation} {sides[1]}")
        return list(dict.fromkeys(found))

    def _check(self) -> None:
        """Look for a larger size of each axis for which the record holds, alone or together with the others.

        A little larger is not enough: what a record does with ⌊size / 8⌋ is often true of some sizes near the example's.
        """
        leaders = sorted(set(self._leader.values()))
        for leader in leaders:
            if not any(self._holds(moved, move) for moved in ([leader], leaders) for move in _MOVES):
                name = self.names[leader]
                reasons = [text for text in self.conditions() if name in text and "==" in text] or self.conditions()
                raise ValueError(
                    f"onnx.save: expected axes in dynamic_axes that the record does not fix, got axis {leader[1]} of input "
                    f"{leader[0]} ({name!r}) in a record that holds for {'; '.join(reasons)} only; leave this axis out, "
                    "or give an example of another size"
                )

    def _holds(self, leaders: Sequence[Axis], move: Callable[[int], int]) -> bool:
        shapes = [list(shape) for shape in self._shapes]
        for (i, a), leader in self._leader.items():
            if leader in leaders:
                shapes[i][a] = move(shapes[i][a])
        return bool(self._graph.guards_hold(shapes))


def _add(k: int) -> Callable[[int], int]:
    return lambda n: n + k


def _times(k: int) -> Callable[[int], int]:
    return lambda n: n * k


#: Larger sizes to try, which keep what is a multiple of a power of two one.
_MOVES = [_times(k) for k in (2, 3, 4, 8)] + [_add(k) for k in (64, 256)]
