"""Recurrent layers, step by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from striate import ops
from striate.autograd import Tensor
from striate.io.onnx.node import Node, operator
from striate.io.onnx.value import OnnxError, as_tensor, ints

Function = Callable[[Tensor], Tensor]

_ACTIVATIONS: dict[str, Function] = {
    "relu": ops.relu,
    "tanh": ops.tanh,
    "sigmoid": ops.sigmoid,
    "softsign": lambda x: x / (ops.abs(x) + 1.0),
    "softplus": ops.softplus,
}


def _activation(name: str, alpha: float | None, beta: float | None) -> Function:
    key = name.lower()
    if key in _ACTIVATIONS:
        return _ACTIVATIONS[key]
    if key == "affine":
        return lambda x: x * (1.0 if alpha is None else alpha) + (0.0 if beta is None else beta)
    if key == "leakyrelu":
        return lambda x: ops.leaky_relu(x, 0.01 if alpha is None else alpha)
    if key == "elu":
        return lambda x: ops.elu(x, 1.0 if alpha is None else alpha)
    if key == "hardsigmoid":
        a, b = 0.2 if alpha is None else alpha, 0.5 if beta is None else beta
        return lambda x: ops.clip(x * a + b, 0.0, 1.0)
    if key == "scaledtanh":
        a, b = 1.0 if alpha is None else alpha, 1.0 if beta is None else beta
        return lambda x: ops.tanh(x * b) * a
    if key == "thresholdedrelu":
        a = 1.0 if alpha is None else alpha
        return lambda x: ops.where(x > a, x, ops.zeros_like(x))
    raise OnnxError(f"expected an activation of ONNX's recurrent layers, got {name!r}; the file is damaged")


class _Layer:
    """What a recurrent node says, and its weights by direction."""

    def __init__(self, node: Node, n_gates: int, defaults: Sequence[str], x: Any, w: Any, r: Any, b: Any) -> None:
        a = node.attributes
        self.node = node
        self.is_batch_first = bool(a.get("layout", 0))
        self.x = as_tensor(x)
        if self.is_batch_first:
            self.x = ops.transpose(self.x, 0, 1)
        self.w, self.r = as_tensor(w), as_tensor(r)
        self.b = None if b is None else as_tensor(b)
        self.hidden = int(self.r.shape[2])
        self.n_gates = n_gates
        direction = a["direction"]
        if direction not in ("forward", "reverse", "bidirectional"):
            raise OnnxError(
                f"expected direction forward, reverse or bidirectional, got {direction!r}; the file is damaged"
            )
        self.is_reversed = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[direction]
        names = a.get("activations") or list(defaults) * len(self.is_reversed)
        alphas, betas = list(a.get("activation_alpha") or []), list(a.get("activation_beta") or [])
        self.functions: list[list[Function]] = []
        chosen = []
        for name in names:
            has_alpha = name.lower() in ("affine", "leakyrelu", "elu", "hardsigmoid", "scaledtanh", "thresholdedrelu")
            has_beta = name.lower() in ("affine", "hardsigmoid", "scaledtanh")
            alpha = alphas.pop(0) if alphas and has_alpha else None
            beta = betas.pop(0) if betas and has_beta else None
            chosen.append(_activation(name, alpha, beta))
        n = len(defaults)
        self.functions = [chosen[i * n : (i + 1) * n] for i in range(len(self.is_reversed))]
        clip = a.get("clip")
        self.clip: Function = (lambda v: v) if not clip else (lambda v: ops.clip(v, -clip, clip))

    def start(self, initial: Any, direction: int) -> Tensor:
        """Return the first state of a direction."""
        if initial is None:
            return ops.zeros(self.x.shape[1], self.hidden, dtype=self.x.dtype)
        state = as_tensor(initial)
        if self.is_batch_first:
            state = ops.transpose(state, 0, 1)
        return ops.index(state, direction)

    def gates(self, direction: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return what the inputs add to the gates of all steps, and the recurrent weights and bias."""
        bias = None if self.b is None else ops.index(self.b, direction)
        n = self.n_gates * self.hidden
        here = None if bias is None else ops.index(bias, slice(0, n))
        return (
            ops.linear(self.x, ops.index(self.w, direction), here),
            ops.index(self.r, direction),
            None if bias is None else ops.index(bias, slice(n, 2 * n)),
        )

    def run(
        self, lengths: Any, direction: int, states: list[Tensor], step: Callable[[int, list[Tensor]], list[Tensor]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return (output of every step, last states); beyond a sequence's length outputs are 0 and states stay."""
        n_steps = int(self.x.shape[0])
        limits = None if lengths is None else np.array(ints(lengths))
        order = range(n_steps - 1, -1, -1) if self.is_reversed[direction] else range(n_steps)
        outputs: list[Any] = [None] * n_steps
        for t in order:
            made = step(t, states)
            if limits is not None and (limits <= t).any():
                alive = as_tensor((limits > t)[:, None].copy())
                outputs[t] = ops.where(alive, made[0], ops.zeros_like(made[0]))
                states = [ops.where(alive, new, old) for new, old in zip(made, states, strict=True)]
            else:
                outputs[t] = made[0]
                states = made
        return outputs, states

    def results(self, outputs: list[list[Tensor]], states: list[list[Tensor]]) -> Any:
        """Put directions together as ONNX lays them out."""
        y = ops.stack([ops.stack(steps, 0) for steps in outputs], 1)
        last = [ops.stack(list(column), 0) for column in zip(*states, strict=True)]
        if self.is_batch_first:
            y = ops.permute(y, (2, 0, 1, 3))
            last = [ops.transpose(value, 0, 1) for value in last]
        return (y, *last)


def _parts(x: Tensor, n: int) -> tuple[Tensor, ...]:
    return ops.chunk(x, n, x.ndim - 1)


def _all_directions(layer: _Layer, lengths: Any, initials: Sequence[Any], make_step: Any) -> Any:
    outputs, states = [], []
    for d in range(len(layer.is_reversed)):
        made, last = layer.run(lengths, d, [layer.start(i, d) for i in initials], make_step(d))
        outputs.append(made)
        states.append(last)
    return layer.results(outputs, states)


@operator("RNN")
def rnn(node: Node, x: Any, w: Any, r: Any, b: Any = None, lengths: Any = None, initial: Any = None) -> Any:
    """Run h = f(W x + R h + b)."""
    layer = _Layer(node, 1, ["Tanh"], x, w, r, b)

    def make_step(d: int) -> Any:
        inputs, recurrent, bias = layer.gates(d)
        (f,) = layer.functions[d]

        def step(t: int, states: list[Tensor]) -> list[Tensor]:
            return [f(layer.clip(ops.index(inputs, t) + ops.linear(states[0], recurrent, bias)))]

        return step

    return _all_directions(layer, lengths, [initial], make_step)


@operator("GRU")
def gru(node: Node, x: Any, w: Any, r: Any, b: Any = None, lengths: Any = None, initial: Any = None) -> Any:
    """Run gated recurrent units; the reset gate acts before or after the product (`linear_before_reset`)."""
    layer = _Layer(node, 3, ["Sigmoid", "Tanh"], x, w, r, b)
    resets_after = bool(node.attributes.get("linear_before_reset", 0))
    n = layer.hidden

    def make_step(d: int) -> Any:
        inputs, recurrent, bias = layer.gates(d)
        f, g = layer.functions[d]
        r_gates, r_new = ops.index(recurrent, slice(0, 2 * n)), ops.index(recurrent, slice(2 * n, 3 * n))
        b_gates = None if bias is None else ops.index(bias, slice(0, 2 * n))
        b_new = None if bias is None else ops.index(bias, slice(2 * n, 3 * n))

        def step(t: int, states: list[Tensor]) -> list[Tensor]:
            (h,) = states
            x_z, x_r, x_h = _parts(ops.index(inputs, t), 3)
            h_z, h_r = _parts(ops.linear(h, r_gates, b_gates), 2)
            z, reset = f(layer.clip(x_z + h_z)), f(layer.clip(x_r + h_r))
            inner = reset * ops.linear(h, r_new, b_new) if resets_after else ops.linear(reset * h, r_new, b_new)
            new = g(layer.clip(x_h + inner))
            return [(1.0 - z) * new + z * h]

        return step

    return _all_directions(layer, lengths, [initial], make_step)


@operator("LSTM")
def lstm(
    node: Node,
    x: Any,
    w: Any,
    r: Any,
    b: Any = None,
    lengths: Any = None,
    initial_h: Any = None,
    initial_c: Any = None,
    peepholes: Any = None,
) -> Any:
    """Run long short-term memories, gates in the order i, o, f, c."""
    layer = _Layer(node, 4, ["Sigmoid", "Tanh", "Tanh"], x, w, r, b)
    couples = bool(node.attributes.get("input_forget", 0))
    p = None if peepholes is None else as_tensor(peepholes)

    def make_step(d: int) -> Any:
        inputs, recurrent, bias = layer.gates(d)
        f, g, h_function = layer.functions[d]
        p_i, p_o, p_f = (None, None, None) if p is None else _parts(ops.index(p, d), 3)

        def gate(value: Tensor, peephole: Tensor | None, c: Tensor) -> Tensor:
            return f(layer.clip(value if peephole is None else value + peephole * c))

        def step(t: int, states: list[Tensor]) -> list[Tensor]:
            h, c = states
            v_i, v_o, v_f, v_c = _parts(ops.index(inputs, t) + ops.linear(h, recurrent, bias), 4)
            i = gate(v_i, p_i, c)
            forget = 1.0 - i if couples else gate(v_f, p_f, c)
            c = forget * c + i * g(layer.clip(v_c))
            o = gate(v_o, p_o, c)
            return [o * h_function(c), c]

        return step

    return _all_directions(layer, lengths, [initial_h, initial_c], make_step)
