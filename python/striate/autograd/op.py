"""Rows: what an operator is, and the registry of all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from striate.autograd import tape

if TYPE_CHECKING:
    from striate.autograd.tensor import Tensor

_note = tape.note
Vjp = Callable[..., "tuple[Tensor | None, ...]"]
F = TypeVar("F", bound=Callable[..., Any])

#: Every operator by name. `autograd` owns it, `striate.ops` fills it.
registry: dict[str, Op] = {}
#: Public functions by name, for the methods and operators of Tensor.
functions: dict[str, Callable[..., Any]] = {}


class Op:
    """One operator: its kernel, its gradient, and what the gradient needs kept.

    Parameters
    ----------
    name : str
        Name in the registry, in records and in messages.
    forward : callable
        `forward(*arrays, **attributes)` → Array or tuple of Arrays; stateless.
    vjp : callable or None
        `vjp(node, *grad_outputs)` → one Tensor or None per tensor input, built from rows again; `node.needs[i]` says which are
        wanted. None marks an operator without gradient (comparisons, argmax).
    saves_inputs : tuple of int
        Inputs that `vjp` reads as `node.inputs[i]`.
    saves_output : bool
        Whether `vjp` reads `node.output` (the first result).
    saves_results : tuple of int
        Further results that `vjp` reads as `node.results[i]`. Results that are not floats get None for a gradient.
    """

    __slots__ = ("forward", "name", "saves_inputs", "saves_output", "saves_results", "vjp")

    def __init__(
        self,
        name: str,
        forward: Callable[..., Any],
        vjp: Vjp | None = None,
        *,
        saves_inputs: tuple[int, ...] = (),
        saves_output: bool = False,
        saves_results: tuple[int, ...] = (),
    ) -> None:
        self.name = name
        self.forward = forward
        self.vjp = vjp
        self.saves_inputs = saves_inputs
        self.saves_output = saves_output
        self.saves_results = saves_results

    def __call__(self, *inputs: Tensor | None, **attributes: Any) -> Any:
        """Run on tensors and append to the record: one Tensor, or a tuple when the operator has several results."""
        if len(inputs) == 1 and inputs[0] is not None:  # the most frequent case, without the frame of a comprehension
            arrays = [inputs[0]._array]
        else:
            arrays = [None if x is None else x._array for x in inputs]
        return _note(self, inputs, arrays, attributes, self.forward(*arrays, **attributes))

    def __repr__(self) -> str:
        return f"Op({self.name!r})"


def first_order_only(name: str) -> Vjp:
    """Make the vjp of a gradient row that has no gradient of its own: it refuses instead of giving a silent zero."""

    def refuse(*_: Any) -> tuple[Tensor | None, ...]:
        raise RuntimeError(
            f"{name}: expected first derivatives only, got a second one; striate has no second derivative of this operator"
        )

    return refuse


def register(op: Op) -> Op:
    """Add a row to the registry; a name is taken once."""
    if op.name in registry:
        raise ValueError(f"register: expected a new operator name, got {op.name!r} again; choose another name")
    registry[op.name] = op
    return op


def public(function: F) -> F:
    """Make a function reachable for the methods and operators of Tensor under its own name."""
    functions[function.__name__] = function
    return function
