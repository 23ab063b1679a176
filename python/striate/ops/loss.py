"""Losses: a value an element or a target, then a reduction."""

from __future__ import annotations

from typing import Any

from striate import _core
from striate.autograd.op import Op, functions, public, register
from striate.autograd.tensor import Tensor
from striate.ops.elementwise import abs, mul, square, sub
from striate.ops.reduce import mean, sum, sum_to


def _no_second(node: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    raise RuntimeError(
        f"{node.op.name}: expected first derivatives only, got a request for the second; compose the loss of other ops"
    )


def _classes(name: str, forward: Any, grad: Any) -> Op:
    """Register a loss over classes: (x, target, weight) → loss, ln Σ eˣ, Σ weight."""
    grad_row = register(Op(f"{name}_grad", grad, _no_second))

    def vjp(node: Any, g: Tensor, *_: Any) -> tuple[Tensor, None, None]:
        if node.needs[2]:
            raise RuntimeError(
                f"{name}: expected class weights that do not require grad, got ones that do; detach them"
            )
        weight = None if node.shapes[2] is None else node.inputs[2]
        saved = (node.inputs[0], node.inputs[1], weight, node.results[1].detach(), node.results[2].detach())
        return grad_row(g, *saved, **node.attributes), None, None

    return register(Op(name, forward, vjp, saves_inputs=(0, 1, 2), saves_results=(1, 2)))


_cross_entropy = _classes("cross_entropy", _core.cross_entropy, _core.cross_entropy_grad)
_nll_loss = _classes("nll_loss", _core.nll_loss, _core.nll_loss_grad)


@public
def cross_entropy(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross-entropy of class logits, −Σ_c q[c] · weight[c] · log_softmax(x)[c], in one pass.

    q[c] = (1 − label_smoothing) · [c = target] + label_smoothing / C.

    Parameters
    ----------
    x : Tensor, shape (N, C, ...)
        Logits.
    target : Tensor, shape (N, ...)
        Class numbers, any integer dtype.
    weight : Tensor, shape (C,), optional
        One a class; not differentiated.
    ignore_index : int, default -100
        Targets of this value count nothing.
    reduction : {"mean", "sum", "none"}
        The mean divides by Σ weight[target] over the targets that count; NaN when none does.
    label_smoothing : float, default 0

    Returns
    -------
    Tensor, shape () or (N, ...) for "none"

    Raises
    ------
    ShapeError
        A target or weight that does not fit x.
    DTypeError
        Targets that are no integers.
    ValueError
        A target outside 0 … C − 1, or another word for the reduction.

    Notes
    -----
    Sums are kept in float64; ln Σ eˣ is kept for the gradient, (softmax(x) − q) · weight, which needs no other memory.
    """
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(
            f"cross_entropy: expected label_smoothing from 0 to 1, got {label_smoothing}; it is a probability"
        )
    _check_reduction("cross_entropy", reduction)
    attributes = {"label_smoothing": float(label_smoothing), "ignore_index": ignore_index, "reduction": reduction}
    return _by_classes(_cross_entropy, x, target, weight, attributes)


@public
def nll_loss(
    x: Tensor, target: Tensor, weight: Tensor | None = None, *, ignore_index: int = -100, reduction: str = "mean"
) -> Tensor:
    """Negative log-likelihood, −weight[target] · x[target], of log-probabilities; arguments and errors as `cross_entropy`."""
    _check_reduction("nll_loss", reduction)
    attributes = {"label_smoothing": 0.0, "ignore_index": ignore_index, "reduction": reduction}
    return _by_classes(_nll_loss, x, target, weight, attributes)


def _by_classes(row: Op, x: Tensor, target: Tensor, weight: Tensor | None, attributes: dict[str, Any]) -> Tensor:
    """Call a row on images; axes beyond those of a volume are one to it, since only images lie channels-last."""
    places = target.shape
    if x.ndim <= 5 or places != (x.shape[0], *x.shape[2:]):
        return row(x, target, weight, **attributes)[0]  # type: ignore[no-any-return]
    reshape = functions["reshape"]
    loss = row(reshape(x, (x.shape[0], x.shape[1], -1)), reshape(target, (x.shape[0], -1)), weight, **attributes)[0]
    return reshape(loss, places) if attributes["reduction"] == "none" else loss  # type: ignore[no-any-return]


def _check_reduction(name: str, reduction: str) -> None:
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"{name}: expected reduction 'mean', 'sum' or 'none', got {reduction!r}; choose one of them")


def _reduced(name: str, values: Tensor, reduction: str) -> Tensor:
    _check_reduction(name, reduction)
    if reduction == "mean":
        return mean(values)
    if reduction == "sum":
        return sum(values)
    return values


def _same_shape(name: str, x: Tensor, target: Tensor) -> None:
    if x.shape != target.shape:
        raise _core.ShapeError(
            f"{name}: expected a target of the shape of x {x.shape}, got {target.shape}; losses do not broadcast"
        )


def _bce_vjp(node: Any, g: Tensor) -> tuple[Tensor, None, None]:
    if node.needs[1] or node.needs[2]:
        raise RuntimeError(
            "binary_cross_entropy_with_logits: expected a target and pos_weight that do not require grad, got one that "
            "does; detach it"
        )
    grad_x = _bce_grad(g, node.inputs[0], node.inputs[1], node.inputs[2])
    return sum_to(grad_x, node.shapes[0], node.dtypes[0]), None, None


def _same_vjp(_: Any, grad_y: Tensor) -> tuple[Tensor]:
    return (grad_y,)


_require_finite = register(Op("require_finite", _core.require_finite, _same_vjp))


@public
def require_finite(x: Tensor, what: str = "x") -> Tensor:
    """Return x, or raise where an element is not finite: a guard before states change.

    Parameters
    ----------
    x : Tensor, any shape, float32 or float64
    what : str
        The name of x in the message.

    Raises
    ------
    FloatingPointError
        An infinity or NaN.
    """
    return _require_finite(x, what=what)  # type: ignore[no-any-return]


_bce = register(Op("bce_logits", _core.bce_logits, _bce_vjp, saves_inputs=(0, 1, 2)))
_bce_grad = register(Op("bce_logits_grad", _core.bce_logits_grad, _no_second))


@public
def binary_cross_entropy_with_logits(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    *,
    reduction: str = "mean",
) -> Tensor:
    """Binary cross-entropy of logits, −weight · (pos_weight · t · ln σ(x) + (1 − t) · ln(1 − σ(x))), without overflow.

    Parameters
    ----------
    x, target : Tensor, of one shape
        Logits, and probabilities from 0 to 1.
    weight, pos_weight : Tensor, optional
        Broadcast to x; not differentiated.
    reduction : {"mean", "sum", "none"}

    Returns
    -------
    Tensor, shape () or that of x for "none"

    Raises
    ------
    ShapeError
        A target of another shape.
    """
    _same_shape("binary_cross_entropy_with_logits", x, target)
    one = Tensor._wrap(_core.scalar(1.0, x._array.dtype))
    values = _bce(x, target, one if pos_weight is None else pos_weight)
    if weight is not None:
        values = mul(values, weight)
    return _reduced("binary_cross_entropy_with_logits", values, reduction)


@public
def mse_loss(x: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """Squared error, (x − target)², of tensors of one shape, reduced to its mean, sum or nothing ("none")."""
    _same_shape("mse_loss", x, target)
    return _reduced("mse_loss", square(sub(x, target)), reduction)


@public
def l1_loss(x: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """Absolute error, |x − target|, of tensors of one shape, reduced to its mean, sum or nothing ("none")."""
    _same_shape("l1_loss", x, target)
    return _reduced("l1_loss", abs(sub(x, target)), reduction)


def _huber_vjp(node: Any, g: Tensor) -> tuple[Tensor]:
    x, delta = node.inputs[0], node.attributes["delta"]
    return (_huber_grad(g, x, delta=delta),)


def _huber_grad_vjp(node: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None]:
    h, x, delta = node.inputs[0], node.inputs[1], node.attributes["delta"]
    grad_x = None
    if node.needs[1]:
        grad_x = mul(mul(g, h), functions["to"](functions["le"](abs(x), delta), x.dtype))
    return _huber_grad(g, x, delta=delta) if node.needs[0] else None, grad_x


_huber = register(Op("huber", _core.huber, _huber_vjp, saves_inputs=(0,)))
_huber_grad = register(Op("huber_grad", _core.huber_grad, _huber_grad_vjp, saves_inputs=(0, 1)))


@public
def huber_loss(x: Tensor, target: Tensor, *, delta: float = 1.0, reduction: str = "mean") -> Tensor:
    """Huber's loss of d = x − target: ½d² where |d| ≤ delta, else delta · (|d| − ½delta).

    Parameters
    ----------
    x, target : Tensor, of one shape
    delta : float, default 1
        Above 0.
    reduction : {"mean", "sum", "none"}

    Raises
    ------
    ShapeError
        A target of another shape.
    ValueError
        A delta that is not above 0.
    """
    if delta <= 0:
        raise ValueError(f"huber_loss: expected delta above 0, got {delta}; it is where the square ends")
    _same_shape("huber_loss", x, target)
    return _reduced("huber_loss", _huber(sub(x, target), delta=float(delta)), reduction)


@public
def smooth_l1_loss(x: Tensor, target: Tensor, *, beta: float = 1.0, reduction: str = "mean") -> Tensor:
    """Huber's loss divided by beta: ½d²/beta where |d| ≤ beta, else |d| − ½beta; with beta=0 the absolute error."""
    if beta == 0:
        return l1_loss(x, target, reduction=reduction)
    return huber_loss(x, target, delta=beta, reduction=reduction) * (1.0 / beta)
