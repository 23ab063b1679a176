"""Normalisation of rows, of groups of channels, and across neighbouring channels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from striate import _core
from striate.autograd.op import Op, first_order_only, functions, public, register
from striate.autograd.tape import Node
from striate.autograd.tensor import Tensor
from striate.ops.batch_norm import batch_norm


def _saved_weight(node: Node) -> Tensor | None:
    return node.inputs[1] if node.shapes[1] is not None else None


def _layer_vjp(node: Node, grad_y: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    mean, invstd = node.results[1].detach(), node.results[2].detach()
    n_axes = node.attributes["n_axes"]
    return _layer_grad(grad_y, node.inputs[0], _saved_weight(node), mean, invstd, n_axes=n_axes)  # type: ignore[no-any-return]


_layer = register(Op("layer_norm", _core.layer_norm, _layer_vjp, saves_inputs=(0, 1), saves_results=(1, 2)))
_layer_grad = register(Op("layer_norm_grad", _core.layer_norm_grad, first_order_only("layer_norm_grad")))


def _group_rows(name: str) -> Op:
    def vjp(node: Node, grad_y: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        mean, invstd = node.results[1].detach(), node.results[2].detach()
        num_groups = node.attributes["num_groups"]
        return grad(grad_y, node.inputs[0], _saved_weight(node), mean, invstd, num_groups=num_groups)  # type: ignore[no-any-return]

    grad = register(
        Op(f"{name}_grad", partial(_core.group_norm_grad, f"{name}_grad"), first_order_only(f"{name}_grad"))
    )
    return register(Op(name, partial(_core.group_norm, name), vjp, saves_inputs=(0, 1), saves_results=(1, 2)))


_group = _group_rows("group_norm")
_instance = _group_rows("instance_norm")


@public
def layer_norm(
    x: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise the last axes by their own mean and variance, then scale and shift element by element.

    y = (x − mean) / √(var + eps) · weight + bias, mean and var over the axes of normalized_shape

    Parameters
    ----------
    x : Tensor, shape (*, *normalized_shape)
    normalized_shape : int or sequence of int
        Sizes of the last axes of x.
    weight, bias : Tensor, shape normalized_shape, optional
        1 and 0 when not given.
    eps : float, default 1e-5
        Added to the (biased) variance.

    Returns
    -------
    Tensor, shape of x

    Raises
    ------
    ShapeError
        normalized_shape other than the last sizes of x, or a weight or bias of another shape.
    DTypeError
        x of a dtype other than float32 or float64, or weight and bias of another dtype than x.

    Notes
    -----
    Variances come from merged (mean, M2) pairs. There is no second derivative.

    References
    ----------
    Ba, Kiros and Hinton 2016, arXiv:1607.06450.

    Examples
    --------
    >>> import striate
    >>> striate.layer_norm(striate.tensor([[0.0, 2.0]]), 2, eps=0.0).numpy().tolist()
    [[-1.0, 1.0]]
    """
    sizes = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not sizes or x.shape[-len(sizes) :] != sizes:
        raise _core.ShapeError(
            f"layer_norm: expected normalized_shape to be the last sizes of x, got {sizes} for shape {x.shape}; "
            "pass x.shape[-n:]"
        )
    return _layer(x, weight, bias, n_axes=len(sizes), eps=eps)[0]  # type: ignore[no-any-return]


@public
def group_norm(
    x: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, *, eps: float = 1e-5
) -> Tensor:
    """Normalise each group of channels of each image by its own mean and variance.

    y[n,c,…] = (x[n,c,…] − mean[n,g]) / √(var[n,g] + eps) · weight[c] + bias[c], c in group g

    Parameters
    ----------
    x : Tensor, shape (N, C, *spatial)
    num_groups : int
        Divides C.
    weight, bias : Tensor, shape (C,), optional
        1 and 0 when not given.
    eps : float, default 1e-5
        Added to the (biased) variance.

    Returns
    -------
    Tensor, shape of x

    Raises
    ------
    ShapeError
        A number of groups that does not divide C, or a weight or bias that does not fit C.
    DTypeError
        x of a dtype other than float32 or float64, or weight and bias of another dtype than x.

    Notes
    -----
    Variances come from merged (mean, M2) pairs. There is no second derivative.

    References
    ----------
    Wu and He 2018, arXiv:1803.08494.

    Examples
    --------
    >>> import striate
    >>> striate.group_norm(striate.tensor([[0.0, 2.0]]), 1, eps=0.0).numpy().tolist()
    [[-1.0, 1.0]]
    """
    return _group(x, weight, bias, num_groups=num_groups, eps=eps)[0]  # type: ignore[no-any-return]


@public
def instance_norm(
    x: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise each channel of each image by its own mean and variance, or by running ones.

    y[n,c,…] = (x[n,c,…] − mean[n,c]) / √(var[n,c] + eps) · weight[c] + bias[c]

    Parameters
    ----------
    x : Tensor, shape (N, C, *spatial)
    running_mean, running_var : Tensor, shape (C,), optional
        Changed in place to (1 − momentum)·running + momentum·(mean over the batch of the statistics used, the variance
        unbiased), or read when use_input_stats is False.
    weight, bias : Tensor, shape (C,), optional
        1 and 0 when not given.
    use_input_stats : bool, default True
    momentum : float, default 0.1
    eps : float, default 1e-5
        Added to the (biased) variance.

    Returns
    -------
    Tensor, shape of x

    Raises
    ------
    ShapeError
        A weight, bias or statistics that do not fit C, or a single pixel a channel.
    DTypeError
        x of a dtype other than float32 or float64, or the others of another dtype than x.

    References
    ----------
    Ulyanov, Vedaldi and Lempitsky 2016, arXiv:1607.08022.

    Examples
    --------
    >>> import striate
    >>> striate.instance_norm(striate.tensor([[[0.0, 2.0]]]), eps=0.0).numpy().tolist()
    [[[-1.0, 1.0]]]
    """
    if not use_input_stats:
        return batch_norm(x, running_mean, running_var, weight, bias, training=False, eps=eps)
    n_pixels = 1
    for size in x.shape[2:]:
        n_pixels *= size
    if n_pixels == 1:
        raise _core.ShapeError(
            f"instance_norm: expected more than one pixel per channel, got x of shape {x.shape}; use larger images"
        )
    y, mean, invstd = _instance(x, weight, bias, num_groups=x.shape[1], eps=eps)
    if running_mean is not None and running_var is not None and x.shape[0] > 0:
        means, deviations = mean.detach().numpy(), invstd.detach().numpy()
        batch_mean = functions["tensor"](means.mean(axis=0))
        batch_var = functions["tensor"]((1.0 / deviations**2 - eps).mean(axis=0))
        _core.batch_norm_update(
            running_mean._array, running_var._array, batch_mean._array, batch_var._array, n_pixels, momentum
        )
    return y  # type: ignore[no-any-return]


@public
def local_response_norm(x: Tensor, size: int, *, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """Divide each channel by a power of the squares of its neighbours.

    y[n,c] = x[n,c] / (k + alpha/size · Σ_{c′} x[n,c′]²)^beta, c′ from c − ⌊size/2⌋ to c + ⌊(size − 1)/2⌋

    Parameters
    ----------
    x : Tensor, shape (N, C, *spatial)
    size : int
        Number of channels summed; those outside 0 … C − 1 count as 0.
    alpha, beta, k : float, default 1e-4, 0.75 and 1

    Returns
    -------
    Tensor, shape of x

    Raises
    ------
    ShapeError
        x without a channel axis, or a size below 1.
    DTypeError
        x of a dtype other than float32 or float64.

    References
    ----------
    Krizhevsky, Sutskever and Hinton 2012, section 3.3.

    Examples
    --------
    >>> import striate
    >>> striate.local_response_norm(striate.tensor([[[2.0]]]), 1, alpha=1.0, beta=0.5, k=0.0).item()
    1.0
    """
    if x.ndim < 3 or size < 1:
        raise _core.ShapeError(
            f"local_response_norm: expected x of shape (N, C, *spatial) and a size of at least 1, got shape {x.shape} "
            f"and size={size}; add axes with reshape"
        )
    if str(x.dtype) not in ("float32", "float64"):
        raise _core.DTypeError(
            f"local_response_norm: expected float32 or float64, got {x.dtype}; convert with .to(float32)"
        )
    channels = x.shape[1]
    squares = x * x
    before, after = size // 2, (size - 1) // 2
    padded = functions["pad"](squares, (0, 0) * (x.ndim - 2) + (before, after))
    total = padded[:, 0:channels]
    for shift in range(1, size):
        total = total + padded[:, shift : shift + channels]
    base: Tensor = total * (alpha / size) + k
    return x / base**beta
