"""A network as a table."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from striate import ops
from striate.autograd import Tensor, no_grad
from striate.nn.module import Module


@dataclass(frozen=True, slots=True)
class Row:
    """One call of one layer.

    Attributes
    ----------
    name : str
        Path of the layer.
    layer : str
        Its class.
    output_shape : tuple of int
        Empty when the layer does not return one tensor.
    n_parameters : int
        Of the layer itself, without its parts; 0 where it is called again.
    n_macs : int
        Multiply-adds of the call.
    """

    name: str
    layer: str
    output_shape: tuple[int, ...]
    n_parameters: int
    n_macs: int


@dataclass(frozen=True, slots=True)
class Summary:
    """What a network is made of; `str` gives the table.

    Attributes
    ----------
    rows : tuple of Row
        In the order in which the layers end.
    n_parameters, n_trainable, n_macs : int
        Of the whole network, a shared parameter counted once.
    """

    rows: tuple[Row, ...]
    n_parameters: int
    n_trainable: int
    n_macs: int

    def __str__(self) -> str:
        """Return the table as text."""
        table = [("layer", "output shape", "parameters", "MACs")]
        table += [
            (
                f"{row.name} ({row.layer})" if row.name else row.layer,
                str(row.output_shape) if row.output_shape else "",
                f"{row.n_parameters:,}",
                f"{row.n_macs:,}",
            )
            for row in self.rows
        ]
        table.append(("total", "", f"{self.n_parameters:,}", f"{self.n_macs:,}"))
        widths = [max(len(line[column]) for line in table) for column in range(4)]
        text = [
            f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}  {d:>{widths[3]}}".rstrip() for a, b, c, d in table
        ]
        rule = "─" * (sum(widths) + 6)
        return "\n".join([text[0], rule, *text[1:-1], rule, text[-1], f"trainable: {self.n_trainable:,}"])


def summarize(model: Module, example: Tensor | Sequence[int]) -> Summary:
    """Run a model once in eval mode and note every layer; see `Module.summary`."""
    x = example if isinstance(example, Tensor) else ops.zeros(tuple(example))
    rows: list[Row] = []
    seen: set[int] = set()

    def note(name: str, module: Module, args: tuple[Any, ...], output: Any) -> None:
        n_parameters = 0
        for parameter in module.parameters(recurse=False):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                n_parameters += parameter.size
        is_tensor = isinstance(output, Tensor)
        n_macs = module.count_macs(args[0], output) if is_tensor and args else 0
        if next(module.children(), None) is None or n_parameters or n_macs:
            rows.append(Row(name, type(module).__name__, output.shape if is_tensor else (), n_parameters, n_macs))

    modes = {module: module.training for module in model.modules()}
    with contextlib.ExitStack() as stack:
        for name, module in model.named_modules():
            stack.enter_context(
                module.register_forward_hook(lambda m, args, output, name=name: note(name, m, args, output))  # type: ignore[misc]
            )
        stack.enter_context(no_grad())
        try:
            model.eval()(x)
        finally:
            for module, mode in modes.items():
                object.__setattr__(module, "training", mode)
    parameters = list(model.parameters())
    return Summary(
        tuple(rows),
        sum(p.size for p in parameters),
        sum(p.size for p in parameters if p.requires_grad),
        sum(row.n_macs for row in rows),
    )
