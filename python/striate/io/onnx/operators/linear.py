"""Products of matrices."""

from __future__ import annotations

from typing import Any

from striate import _core, ops
from striate.autograd import Tensor
from striate.io.onnx.node import Node, operator
from striate.io.onnx.value import as_tensor


def _floats(*tensors: Tensor) -> None:
    for x in tensors:
        if not x.dtype.is_floating_point:
            raise _core.DTypeError(f"matmul: expected floats, got {x.dtype}")


@operator("MatMul")
def matmul(node: Node, a: Any, b: Any) -> Tensor:
    """Multiply matrices, or stacks of them."""
    a, b = as_tensor(a), as_tensor(b)
    _floats(a, b)
    if b.ndim == 2 and a.ndim > 1:
        return ops.linear(a, ops.transpose(b, 0, 1))
    return ops.matmul(a, b)


@operator("Gemm")
def gemm(node: Node, a: Any, b: Any, c: Any = None) -> Tensor:
    """Return alpha · A · B + beta · C, each of A and B transposed if asked."""
    a, b = as_tensor(a), as_tensor(b)
    _floats(a, b)
    alpha, beta = node.attributes["alpha"], node.attributes["beta"]
    if node.attributes["transA"]:
        a = ops.transpose(a, 0, 1)
    weight = b if node.attributes["transB"] else ops.transpose(b, 0, 1)
    bias = None if c is None else as_tensor(c)
    if alpha == 1.0 and beta == 1.0 and bias is not None and bias.ndim == 1 and bias.shape[0] == weight.shape[0]:
        return ops.linear(a, weight, bias)
    y = ops.linear(a, weight)
    if alpha != 1.0:
        y = y * alpha
    if bias is not None and beta != 0.0:
        y = y + (bias if beta == 1.0 else bias * beta)
    return y


@operator("Einsum")
def einsum(node: Node, *operands: Any) -> Tensor:
    """Multiply and sum as an equation of axes says, two operands at a time."""
    tensors = [as_tensor(x) for x in operands]
    _floats(*tensors)
    inputs, output = _equation(node.attributes["equation"], tensors)
    x, axes = tensors[0], inputs[0]
    x, axes = _take_diagonals(x, axes)
    for i in range(1, len(tensors)):
        y, others = _take_diagonals(tensors[i], inputs[i])
        later = set("".join(inputs[i + 1 :])) | set(output)
        x, axes = _contract(x, axes, y, others, later)
    summed = [i for i, letter in enumerate(axes) if letter not in output]
    if summed:
        x = ops.sum(x, dim=summed)
        axes = "".join(letter for letter in axes if letter in output)
    return ops.permute(x, [axes.index(letter) for letter in output]) if axes != output else x


def _equation(equation: str, tensors: list[Tensor]) -> tuple[list[str], str]:
    """Return the axes of operands and of the result, one letter each; `...` becomes letters of its own."""
    text = equation.replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    if len(terms) != len(tensors):
        raise ValueError(f"expected an equation of {len(tensors)} operands, got {equation!r}")
    spare = [chr(c) for c in range(0x100, 0x100 + 64)]
    inputs = []
    n_dots = 0
    for term, x in zip(terms, tensors, strict=True):
        if "..." in term:
            n = x.ndim - len(term) + 3
            if not 0 <= n <= len(spare):
                raise ValueError(f"expected axes for {term!r}, got shape {x.shape}")
            n_dots = max(n_dots, n)
            term = term.replace("...", "".join(spare[len(spare) - n :]))
        if len(term) != x.ndim:
            raise ValueError(f"expected {len(term)} axes for {term!r}, got shape {x.shape}")
        inputs.append(term)
    dots = "".join(spare[len(spare) - n_dots :]) if n_dots else ""
    if arrow:
        output = right.replace("...", dots)
    else:
        joined = "".join(inputs)
        output = dots + "".join(sorted(c for c in set(joined) if joined.count(c) == 1 and c not in dots))
    if len(set(output)) != len(output) or not set(output) <= set("".join(inputs)):
        raise ValueError(f"expected every axis of the result once and among the operands', got {equation!r}")
    return inputs, output


def _take_diagonals(x: Tensor, axes: str) -> tuple[Tensor, str]:
    while len(set(axes)) < len(axes):
        letter = next(c for c in axes if axes.count(c) > 1)
        first, second = [i for i, c in enumerate(axes) if c == letter][:2]
        order = [i for i in range(x.ndim) if i not in (first, second)]
        x = ops.permute(x, [first, second, *order])
        at = ops.arange(x.shape[0])
        x = ops.index(x, (at, at))
        axes = letter + "".join(axes[i] for i in order)
    return x, axes


def _contract(x: Tensor, axes: str, y: Tensor, others: str, later: set[str]) -> tuple[Tensor, str]:
    """Multiply two operands and sum what nobody needs later, as one product of stacks of matrices."""
    for mine, theirs, is_x in ((axes, others, True), (others, axes, False)):
        alone = [i for i, c in enumerate(mine) if c not in theirs and c not in later]
        if alone:
            kept = "".join(c for c in mine if c in theirs or c in later)
            if is_x:
                x, axes = ops.sum(x, dim=alone), kept
            else:
                y, others = ops.sum(y, dim=alone), kept
    batch = [c for c in axes if c in others and c in later]
    summed = [c for c in axes if c in others and c not in later]
    left = [c for c in axes if c not in others]
    right = [c for c in others if c not in axes]
    sizes = dict(zip(others, y.shape, strict=True)) | {
        c: n for c, n in zip(axes, x.shape, strict=True) if n != 1 or c not in others
    }
    x = _expanded(x, axes, [*batch, *left, *summed], sizes)
    y = _expanded(y, others, [*batch, *summed, *right], sizes)

    def size(letters: list[str]) -> int:
        n = 1
        for c in letters:
            n = n * sizes[c]
        return n

    product = ops.matmul(
        ops.reshape(x, (size(batch), size(left), size(summed))),
        ops.reshape(y, (size(batch), size(summed), size(right))),
    )
    result = [*batch, *left, *right]
    return ops.reshape(product, [sizes[c] for c in result]), "".join(result)


def _expanded(x: Tensor, axes: str, order: list[str], sizes: dict[str, int]) -> Tensor:
    x = ops.permute(x, [axes.index(c) for c in order])
    return ops.expand(x, [sizes[c] for c in order])
