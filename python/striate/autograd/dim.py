"""Sizes that remember where they came from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from striate import _core

Guard = Callable[[Any, str, Any], None]


class Dim(int):
    """A size met while recording: an int, and the expression of input axes that it came from.

    Sums, differences, products and floor quotients of Dims and ints are Dims again, so that operators are recorded with
    sizes that follow their inputs. Whatever turns a Dim into something that cannot follow (a comparison, a float, `int()`)
    is noted as a guard: the record holds for inputs of which the same is true.

    Notes
    -----
    Python reads the plain number without asking in `range(n)`, in indices of lists and in `0.5 * n`: a loop over a Dim is
    recorded with the number of rounds it had.

    Attributes
    ----------
    expression : _core.Dim
    """

    expression: Any
    _guard: Guard

    @staticmethod
    def of(expression: Any, guard: Guard) -> int:
        """Return a Dim, or a plain int where the expression is a constant."""
        if expression.is_constant:
            return int(expression.value)
        dim = int.__new__(Dim, expression.value)
        dim.expression = expression
        dim._guard = guard
        return dim

    def _combine(self, other: Any, operation: str, *, is_swapped: bool = False) -> Any:
        if isinstance(other, float):
            self._plain()  # and then float's own arithmetic
        if not isinstance(other, int):
            return NotImplemented
        theirs = other.expression if isinstance(other, Dim) else _core.Dim(int(other))
        left, right = (theirs, self.expression) if is_swapped else (self.expression, theirs)
        return Dim.of(getattr(left, operation)(right), self._guard)

    def __add__(self, other: Any) -> Any:
        return self._combine(other, "add")

    def __radd__(self, other: Any) -> Any:
        return self._combine(other, "add", is_swapped=True)

    def __sub__(self, other: Any) -> Any:
        return self._combine(other, "subtract")

    def __rsub__(self, other: Any) -> Any:
        return self._combine(other, "subtract", is_swapped=True)

    def __mul__(self, other: Any) -> Any:
        if isinstance(other, list | tuple | str):
            return other * self._plain()
        return self._combine(other, "multiply")

    def __rmul__(self, other: Any) -> Any:
        if isinstance(other, list | tuple | str):
            return other * self._plain()
        return self._combine(other, "multiply", is_swapped=True)

    def __floordiv__(self, other: Any) -> Any:
        if isinstance(other, int) and int.__eq__(other, 0):
            raise ZeroDivisionError("integer division by zero")
        return self._combine(other, "floor_divide")

    def __rfloordiv__(self, other: Any) -> Any:
        if int.__eq__(self, 0):
            raise ZeroDivisionError("integer division by zero")
        return self._combine(other, "floor_divide", is_swapped=True)

    def __mod__(self, other: Any) -> Any:
        return self - self // other * other if isinstance(other, int) else NotImplemented

    def __rmod__(self, other: Any) -> Any:
        return other - other // self * self if isinstance(other, int) else NotImplemented

    def __divmod__(self, other: Any) -> Any:
        return self // other, self % other

    def __neg__(self) -> Any:
        return 0 - self

    def __pos__(self) -> Any:
        return self

    # From here on the number leaves the expression, and a guard says what must stay true.

    def _relate(self, other: Any, sign: str, holds: bool) -> bool:
        """Note that `self sign other` is `holds`, both spelled with ==, !=, < and <=."""
        theirs = other.expression if isinstance(other, Dim) else _core.Dim(int.__int__(other))
        mine = self.expression
        if sign in ("==", "!="):
            self._guard(mine, "==" if (sign == "==") == holds else "!=", theirs)
        else:
            smaller, larger = (mine, theirs) if sign in ("<", "<=") else (theirs, mine)
            is_strict = sign in ("<", ">")
            if holds:
                self._guard(smaller, "<" if is_strict else "<=", larger)
            else:
                self._guard(larger, "<=" if is_strict else "<", smaller)
        return holds

    def _plain(self) -> int:
        """Return the number, which must stay as it is."""
        number = int.__add__(self, 0)
        self._guard(self.expression, "==", _core.Dim(number))
        return number

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, int):
            return NotImplemented if not isinstance(other, float) else self._plain() == other
        return self is other or self._relate(other, "==", int.__eq__(self, other))

    def __ne__(self, other: object) -> bool:
        if not isinstance(other, int):
            return NotImplemented if not isinstance(other, float) else self._plain() != other
        return self is not other and self._relate(other, "!=", int.__ne__(self, other))

    def __lt__(self, other: Any) -> bool:
        if not isinstance(other, int):
            return self._plain() < other  # type: ignore[no-any-return]
        return self._relate(other, "<", int.__lt__(self, other))

    def __le__(self, other: Any) -> bool:
        if not isinstance(other, int):
            return self._plain() <= other  # type: ignore[no-any-return]
        return self._relate(other, "<=", int.__le__(self, other))

    def __gt__(self, other: Any) -> bool:
        if not isinstance(other, int):
            return self._plain() > other  # type: ignore[no-any-return]
        return self._relate(other, ">", int.__gt__(self, other))

    def __ge__(self, other: Any) -> bool:
        if not isinstance(other, int):
            return self._plain() >= other  # type: ignore[no-any-return]
        return self._relate(other, ">=", int.__ge__(self, other))

    __hash__ = int.__hash__

    def __bool__(self) -> bool:
        return self != 0

    def __int__(self) -> int:
        return self._plain()

    def __float__(self) -> float:
        return float(self._plain())

    def __truediv__(self, other: Any) -> Any:
        return self._plain() / other

    def __rtruediv__(self, other: Any) -> Any:
        return other / self._plain()

    def __pow__(self, other: Any, modulus: Any = None) -> Any:
        if modulus is None and isinstance(other, int) and 0 <= int.__add__(other, 0) <= 8:
            power: Any = 1
            for _ in range(int.__add__(other, 0)):
                power = self * power
            return power
        return pow(self._plain(), other, modulus)

    def __rpow__(self, other: Any, modulus: Any = None) -> Any:
        return pow(other, self._plain(), modulus)

    def __repr__(self) -> str:
        return int.__repr__(self)

    def __reduce__(self) -> Any:
        return int, (self._plain(),)


def minimum(a: int, b: int) -> int:
    """Return the smaller of two sizes, keeping both origins."""
    return _extremum(a, b, _core.minimum_dim, min)


def maximum(a: int, b: int) -> int:
    """Return the larger of two sizes, keeping both origins."""
    return _extremum(a, b, _core.maximum_dim, max)


def _extremum(a: int, b: int, symbolic: Callable[[Any, Any], Any], plain: Callable[[int, int], int]) -> int:
    if not isinstance(a, Dim) and not isinstance(b, Dim):
        return plain(a, b)
    guard = a._guard if isinstance(a, Dim) else b._guard  # type: ignore[attr-defined]
    left = a.expression if isinstance(a, Dim) else _core.Dim(a)
    right = b.expression if isinstance(b, Dim) else _core.Dim(b)
    return Dim.of(symbolic(left, right), guard)
