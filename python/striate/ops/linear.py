"""Matrix products."""

from __future__ import annotations

from striate import _core
from striate.autograd.op import Op, public, register
from striate.autograd.tape import Node
from striate.autograd.tensor import Tensor

Vjp = tuple[Tensor | None, ...]


def _linear_vjp(node: Node, grad_y: Tensor) -> Vjp:
    grad_x = grad_weight = grad_bias = None
    if node.needs[0]:
        grad_x = matmul(grad_y, node.inputs[1])
    if node.needs[1]:
        rows = grad_y.reshape(-1, node.shapes[1][0])
        grad_weight = matmul(rows.T, node.inputs[0].reshape(-1, node.shapes[1][1]))
    if len(node.needs) > 2 and node.needs[2]:
        grad_bias = grad_y.sum(dim=tuple(range(grad_y.ndim - 1))) if grad_y.ndim > 1 else grad_y
    return grad_x, grad_weight, grad_bias


def _sum_leading(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Undo the broadcasting of leading axes."""
    extra = x.ndim - len(shape)
    if extra > 0:
        x = x.sum(dim=tuple(range(extra)))
    stretched = tuple(i for i, n in enumerate(shape) if n == 1 and x.shape[i] != 1)
    return x.sum(dim=stretched, keepdim=True) if stretched else x


def _matmul_vjp(node: Node, grad_y: Tensor) -> Vjp:
    a, b = node.inputs[0], node.inputs[1]
    left = a.reshape(1, a.shape[0]) if a.ndim == 1 else a
    right = b.reshape(b.shape[0], 1) if b.ndim == 1 else b
    batch = grad_y.shape[: grad_y.ndim - (a.ndim > 1) - (b.ndim > 1)]
    g = grad_y.reshape(*batch, left.shape[-2], right.shape[-1])
    grad_a = grad_b = None
    if node.needs[0]:
        grad_a = _sum_leading(matmul(g, right.transpose(-1, -2)), left.shape).reshape(a.shape)
    if node.needs[1]:
        grad_b = _sum_leading(matmul(left.transpose(-1, -2), g), right.shape).reshape(b.shape)
    return grad_a, grad_b


_linear = register(Op("linear", _core.linear, _linear_vjp, saves_inputs=(0, 1)))
_matmul = register(Op("matmul", _core.matmul, _matmul_vjp, saves_inputs=(0, 1)))


@public
def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply by a transposed matrix and add a bias.

    y[…, n] = bias[n] + Σ_k x[…, k] · weight[n, k]

    Parameters
    ----------
    x : Tensor, shape (…, K)
    weight : Tensor, shape (N, K)
    bias : Tensor, shape (N,), optional

    Returns
    -------
    Tensor, shape (…, N)
        Row-major.

    Raises
    ------
    ShapeError
        Sizes that do not match.
    DTypeError
        Tensors of different dtypes, or neither float32 nor float64.
    """
    return _linear(x, weight, bias)  # type: ignore[no-any-return]


@public
def matmul(a: Tensor, b: Tensor) -> Tensor:
    """Multiply matrices, or stacks of them.

    y[…, m, n] = Σ_k a[…, m, k] · b[…, k, n]

    Parameters
    ----------
    a : Tensor, shape (…, M, K) or (K,)
    b : Tensor, shape (…, K, N) or (K,)
        Leading axes broadcast; a vector is a row on the left and a column on the right.

    Returns
    -------
    Tensor, shape (…, M, N)
        Without the axis that a vector was given. Row-major.

    Raises
    ------
    ShapeError
        Sizes that do not match.
    DTypeError
        Tensors of different dtypes, or neither float32 nor float64.
    """
    return _matmul(a, b)  # type: ignore[no-any-return]
