"""Optimizers: hyper-parameters and states; the arithmetic is a row of `striate.ops.optim`, one pass over all parameters.

Names, arguments and results are torch's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from striate import ops
from striate._core import DType
from striate.autograd import Tensor, is_recording, no_grad
from striate.ops import optim as rows

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "RMSprop", "clip_grad_norm_"]

Params = Iterable[Tensor] | Iterable[Mapping[str, Any]]


class Optimizer:
    """What optimizers share: groups of parameters, states, and their export.

    Attributes
    ----------
    param_groups : list of dict
        Each holds "params", "lr", "lr_scale" and the hyper-parameters. `lr_scale` (default 1) multiplies what `set_lr` sets.
    state : dict of Parameter to dict
        "n_steps", and moments by name.
    """

    def __init__(self, params: Params, **defaults: Any) -> None:
        """Sort parameters into groups."""
        given = list(params)
        if not given:
            raise ValueError(
                f"{type(self).__name__}: expected at least one parameter, got none; pass model.parameters()"
            )
        groups = given if isinstance(given[0], Mapping) else [{"params": given}]
        self.defaults = defaults
        self.param_groups: list[dict[str, Any]] = []
        self.state: dict[Tensor, dict[str, Any]] = {}
        seen: set[int] = set()
        for group in groups:
            assert isinstance(group, Mapping)
            unknown = set(group) - set(defaults) - {"params", "lr_scale"}
            if unknown:
                raise ValueError(
                    f"{type(self).__name__}: expected group entries of {sorted(defaults)}, got {sorted(unknown)}; rename them"
                )
            own = group["params"]
            own = [own] if isinstance(own, Tensor) else list(own)
            for p in own:
                if not isinstance(p, Tensor) or not p.is_leaf:
                    raise TypeError(
                        f"{type(self).__name__}: expected parameters that are leaves, got {type(p).__name__}; "
                        "pass model.parameters()"
                    )
                if id(p) in seen:
                    raise ValueError(
                        f"{type(self).__name__}: expected each parameter once, got one twice; check the groups"
                    )
                seen.add(id(p))
            self.param_groups.append({"lr_scale": 1.0, **defaults, **group, "params": own})
        for group in self.param_groups:
            self._check(group)

    def _check(self, group: Mapping[str, Any]) -> None:
        for name, value in group.items():
            if name not in ("params", "betas") and isinstance(value, float | int) and not 0 <= value < math.inf:
                raise ValueError(f"{type(self).__name__}: expected {name} of at least 0, got {value}; check its sign")
        for beta in group.get("betas", ()):
            if not 0 <= beta < 1:
                raise ValueError(
                    f"{type(self).__name__}: expected betas from 0 to below 1, got {group['betas']}; use 0.9, 0.999"
                )

    @property
    def lr(self) -> float:
        """Learning rate of the first group."""
        return float(self.param_groups[0]["lr"])

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of every group to lr · its lr_scale."""
        for group in self.param_groups:
            group["lr"] = lr * group["lr_scale"]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or set them to zero."""
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None if set_to_none or p.grad is None else ops.zeros_like(p.grad)

    def step(self) -> None:
        """Change every parameter that has a gradient; the others, and their states, stay."""
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            self.count(params)
            by_count: dict[int, list[Tensor]] = {}
            for p in params:
                by_count.setdefault(self.state[p]["n_steps"], []).append(p)
            for n_steps, own in by_count.items():
                self.update(group, own, n_steps)

    def count(self, params: Iterable[Tensor]) -> None:
        """Count a step of each of these parameters."""
        for p in params:
            own = self.state.get(p)
            if own is None:
                own = self.state[p] = {"n_steps": 0}
            own["n_steps"] += 1

    def update(self, group: Mapping[str, Any], params: list[Tensor], n_steps: int | Tensor) -> None:
        """Change parameters of one group by their gradients.

        Parameters
        ----------
        group : mapping
            The hyper-parameters; "lr" may be a tensor of no axes, a run-time number of a recording.
        params : list of Tensor
            Each has a gradient, and was counted.
        n_steps : int or Tensor
            Steps of these parameters, this one included.
        """
        with no_grad():
            self._update(group, params, [p.grad for p in params if p.grad is not None], n_steps)

    @property
    def first_step_differs(self) -> bool:
        """Whether the first step of a parameter is computed in another way than the others."""
        return False

    def _update(
        self, group: Mapping[str, Any], params: list[Tensor], grads: list[Tensor], n_steps: int | Tensor
    ) -> None:
        """Change params in place; their step is the n_steps-th, all the same."""
        raise NotImplementedError

    def _states(self, name: str, params: Sequence[Tensor]) -> list[Tensor]:
        """Return the moment `name` of each parameter, zero at first."""
        found = []
        for p in params:
            own = self.state[p]
            if name not in own:
                own[name] = ops.new_state_like(p)
            found.append(own[name])
        return found

    # Export: parameters are known by their position, as in torch.

    def state_dict(self) -> dict[str, Any]:
        """Return {"state": {position: states}, "param_groups": [hyper-parameters, with positions]}, as torch."""
        positions = {p: i for i, p in enumerate(self._all())}
        return {
            "state": {positions[p]: dict(own) for p, own in self.state.items()},
            "param_groups": [
                {**group, "params": [positions[p] for p in group["params"]]} for group in self.param_groups
            ],
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave; tensors are copied.

        Raises
        ------
        ValueError
            Groups of other sizes, or a moment of another shape.
        """
        given = state_dict["param_groups"]
        sizes = [len(group["params"]) for group in self.param_groups]
        if [len(group["params"]) for group in given] != sizes:
            raise ValueError(
                f"{type(self).__name__}: expected groups of {sizes} parameters, got "
                f"{[len(group['params']) for group in given]}; build the optimizer from the same network"
            )
        params = self._all()
        states: dict[Tensor, dict[str, Any]] = {}
        for position, own in state_dict["state"].items():
            p = params[int(position)]
            states[p] = {}
            for name, value in own.items():
                if isinstance(value, Tensor):
                    if value.shape != p.shape:
                        raise ValueError(
                            f"{type(self).__name__}: expected {name} of shape {p.shape} for parameter {position}, got "
                            f"{value.shape}; build the optimizer from the same network"
                        )
                    kept = ops.zeros_like(p.detach())
                    ops.assign(kept, value if value.dtype == p.dtype else value.to(p.dtype))
                    states[p][name] = kept
                else:
                    states[p][name] = value
        self.state = states
        for group, other in zip(self.param_groups, given, strict=True):
            for name, value in other.items():
                if name != "params":
                    group[name] = tuple(value) if isinstance(group.get(name), tuple) else value

    def export_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return `state_dict` as tensors by key, and the rest as JSON."""
        state = self.state_dict()
        tensors: dict[str, Tensor] = {}
        numbers: dict[str, dict[str, Any]] = {}
        for position, own in state["state"].items():
            numbers[str(position)] = {}
            for name, value in own.items():
                if isinstance(value, Tensor):
                    tensors[f"{position}.{name}"] = value
                else:
                    numbers[str(position)][name] = value
        return tensors, {"state": numbers, "param_groups": state["param_groups"]}

    def import_state(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        """Take back what `export_state` gave; raises as `load_state_dict`."""
        state: dict[int, dict[str, Any]] = {int(position): dict(own) for position, own in numbers["state"].items()}
        for key, tensor in tensors.items():
            position, name = key.split(".", 1)
            state[int(position)][name] = tensor
        self.load_state_dict({"state": state, "param_groups": numbers["param_groups"]})

    def _all(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def __repr__(self) -> str:
        """Show the hyper-parameters of each group."""
        groups = [
            f"{len(group['params'])} parameters, " + ", ".join(f"{name}={group[name]}" for name in self.defaults)
            for group in self.param_groups
        ]
        return f"{type(self).__name__}({'; '.join(groups)})"


class SGD(Optimizer):
    """Stochastic gradient descent with momentum; see `striate.ops.optim.sgd` for the formula.

    Parameters
    ----------
    params : iterable of Parameter, or of dict
        A dict makes a group: "params" and the hyper-parameters that differ.
    lr : float, default 1e-3
    momentum : float, default 0
    dampening : float, default 0
    weight_decay : float, default 0
        Factor of the L2 penalty's gradient.
    nesterov : bool, default False
        Needs momentum, and no dampening.

    Raises
    ------
    ValueError
        No parameters, one twice, a negative number, or Nesterov without momentum.

    References
    ----------
    Sutskever et al., "On the importance of initialization and momentum in deep learning", ICML 2013.
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        """Check the hyper-parameters."""
        super().__init__(
            params, lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay, nesterov=nesterov
        )

    def _check(self, group: Mapping[str, Any]) -> None:
        super()._check(group)
        if group["nesterov"] and (group["momentum"] == 0 or group["dampening"] != 0):
            raise ValueError(
                f"SGD: expected momentum and no dampening with nesterov=True, got momentum={group['momentum']} and "
                f"dampening={group['dampening']}; use momentum=0.9"
            )

    def _update(
        self, group: Mapping[str, Any], params: list[Tensor], grads: list[Tensor], n_steps: int | Tensor
    ) -> None:
        has_momentum = group["momentum"] != 0
        rows.sgd(
            params,
            grads,
            self._states("momentum_buffer", params) if has_momentum else (),
            lr=group["lr"],
            momentum=group["momentum"],
            dampening=group["dampening"],
            weight_decay=group["weight_decay"],
            nesterov=group["nesterov"],
            is_first=self.first_step_differs and not isinstance(n_steps, Tensor) and n_steps == 1,
        )

    @property
    def first_step_differs(self) -> bool:
        """Whether moments start as the gradient: without dampening that is what a moment of zero becomes anyway."""
        return any(group["momentum"] != 0 and group["dampening"] != 0 for group in self.param_groups)


class Adam(Optimizer):
    """Adam; weight decay joins the gradient. See `striate.ops.optim.adam` for the formula.

    Parameters
    ----------
    params : iterable of Parameter, or of dict
        A dict makes a group: "params" and the hyper-parameters that differ.
    lr : float, default 1e-3
    betas : (float, float), default (0.9, 0.999)
    eps : float, default 1e-8
    weight_decay : float, default 0

    Raises
    ------
    ValueError
        No parameters, one twice, or a number out of range.

    References
    ----------
    Kingma and Ba, "Adam", 2014, arXiv:1412.6980, algorithm 1.
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        """Check the hyper-parameters."""
        super().__init__(params, lr=lr, betas=tuple(betas), eps=eps, weight_decay=weight_decay)

    _row = staticmethod(rows.adam)

    def _update(
        self, group: Mapping[str, Any], params: list[Tensor], grads: list[Tensor], n_steps: int | Tensor
    ) -> None:
        self._row(
            params,
            grads,
            self._states("exp_avg", params),
            self._states("exp_avg_sq", params),
            n_steps=n_steps,
            lr=group["lr"],
            betas=group["betas"],
            eps=group["eps"],
            weight_decay=group["weight_decay"],
        )


class AdamW(Adam):
    """Adam whose weight decay shrinks the parameters themselves; see `striate.ops.optim.adamw`.

    Parameters
    ----------
    params, lr, betas, eps
        As `Adam`.
    weight_decay : float, default 0.01

    References
    ----------
    Loshchilov and Hutter, "Decoupled weight decay regularization", 2017, arXiv:1711.05101, algorithm 2.
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        """Check the hyper-parameters."""
        super().__init__(params, lr, betas, eps, weight_decay)

    _row = staticmethod(rows.adamw)


class RMSprop(Optimizer):
    """RMSprop; see `striate.ops.optim.rmsprop` for the formula.

    Parameters
    ----------
    params : iterable of Parameter, or of dict
        A dict makes a group: "params" and the hyper-parameters that differ.
    lr : float, default 0.01
    alpha : float, default 0.99
        Share of the past in the mean square.
    eps : float, default 1e-8
    weight_decay : float, default 0
    momentum : float, default 0
    centered : bool, default False
        Whether to divide by the deviation instead of the root of the mean square.

    Raises
    ------
    ValueError
        No parameters, one twice, or a negative number.

    References
    ----------
    Hinton, "Neural networks for machine learning", lecture 6e, 2012; Graves, 2013, arXiv:1308.0850 (centered).
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
    ) -> None:
        """Check the hyper-parameters."""
        super().__init__(
            params, lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum, centered=centered
        )

    def _update(
        self, group: Mapping[str, Any], params: list[Tensor], grads: list[Tensor], n_steps: int | Tensor
    ) -> None:
        rows.rmsprop(
            params,
            grads,
            self._states("square_avg", params),
            self._states("grad_avg", params) if group["centered"] else (),
            self._states("momentum_buffer", params) if group["momentum"] != 0 else (),
            lr=group["lr"],
            alpha=group["alpha"],
            eps=group["eps"],
            weight_decay=group["weight_decay"],
            momentum=group["momentum"],
        )


def clip_grad_norm_(parameters: Iterable[Tensor], max_norm: float) -> float | Tensor:
    """Scale all gradients down together when their norm exceeds a limit.

    Parameters
    ----------
    parameters : iterable of Parameter
        Those without a gradient are skipped.
    max_norm : float
        Positive.

    Returns
    -------
    float, or Tensor of no axes while recording
        The norm √(Σ g²) before scaling; the sums of the tensors are added up in float64, in order.

    Raises
    ------
    ValueError
        A max_norm that is not positive.
    """
    if not max_norm > 0:
        raise ValueError(f"clip_grad_norm_: expected a positive max_norm, got {max_norm}; use None for no limit")
    with no_grad():
        own = [p for p in parameters if p.grad is not None]
        total = ops.zeros((), dtype=DType.float64)
        for p in own:
            if p.grad is not None:
                total = total + (p.grad * p.grad).sum().to(DType.float64)
        norm = total.sqrt()
        scale = max_norm / (norm + 1e-6)
        if is_recording():
            scale = ops.where(norm > max_norm, scale, ops.ones_like(scale))  # times 1 leaves a gradient as it is
        elif not norm.item() > max_norm:
            return float(norm.item())
        for p in own:
            if p.grad is not None:
                p.grad = p.grad * scale.to(p.dtype)
    return norm if is_recording() else float(norm.item())
