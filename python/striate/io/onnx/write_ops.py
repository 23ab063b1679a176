"""What each operator is in ONNX: element-wise operators, reductions, products, losses. Others join the table from their files."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from striate import _core
from striate.io.onnx.write_graph import Call, Row, UnwritableError, Value, Writer

#: Every operator that can be written, by its name in a record.
ROWS: dict[str, Row] = {}


def row(*ops: str) -> Callable[[Row], Row]:
    """Enter a function in the table under these names."""

    def enter(function: Row) -> Row:
        for op in ops:
            ROWS[op] = function
        return function

    return enter


def run(w: Writer, op: str, x: str, call: Call, **attributes: Any) -> str:
    """Write an operator of one input on a tensor of the call's result type, and return its result."""
    value = Value(x, call.shape, call.dtype)
    made = ROWS[op](w, Call(op, attributes, [value], [call.results[0]]))
    return made if isinstance(made, str) else str(made[0])


# Element by element.


def _as_result(w: Writer, call: Call) -> list[str]:
    """Return the inputs in the dtype of the result."""
    return [w.cast(x, call.dtype) for x in call.inputs if x is not None]


def _plain(op_type: str) -> Row:
    return lambda w, call: w.node(op_type, *_as_result(w, call))


for _op, _type in {
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "div": "Div",
    "pow": "Pow",
    "maximum": "Max",
    "minimum": "Min",
    "neg": "Neg",
    "abs": "Abs",
    "sign": "Sign",
    "relu": "Relu",
    "reciprocal": "Reciprocal",
    "sqrt": "Sqrt",
    "exp": "Exp",
    "log": "Log",
    "sin": "Sin",
    "cos": "Cos",
    "erf": "Erf",
    "tanh": "Tanh",
    "sigmoid": "Sigmoid",
    "hardswish": "HardSwish",
    "selu": "Selu",
}.items():
    ROWS[_op] = _plain(_type)


def _whole(op_type: str) -> Row:
    """Round floats; integers are whole already."""
    return lambda w, call: w.node(op_type, call.x.name) if call.dtype.startswith("float") else call.x.name


for _op, _type in {"floor": "Floor", "ceil": "Ceil", "round": "Round"}.items():
    ROWS[_op] = _whole(_type)


@row("square")
def _square(w: Writer, call: Call) -> str:
    (x,) = _as_result(w, call)
    return w.node("Mul", x, x)


@row("rsqrt")
def _rsqrt(w: Writer, call: Call) -> str:
    return w.node("Reciprocal", w.node("Sqrt", *_as_result(w, call)))


@row("expm1")
def _expm1(w: Writer, call: Call) -> str:
    """eˣ − 1 = tanh(x/2)·(eˣ + 1), which does not cancel near 0."""
    (x,) = _as_result(w, call)
    half = w.node("Tanh", w.node("Mul", x, w.scalar(0.5, call.dtype)))
    return w.node("Mul", half, w.node("Add", w.node("Exp", x), w.scalar(1, call.dtype)))


@row("log1p")
def _log1p(w: Writer, call: Call) -> str:
    """ln(1 + x) = ln(u)·x/(u − 1), u = 1 + x rounded, whose error the quotient takes back; x itself where u is 1."""
    (x,) = _as_result(w, call)
    one = w.scalar(1, call.dtype)
    u = w.node("Add", x, one)
    gap = w.node("Sub", u, one)
    is_tiny = w.node("Equal", gap, w.scalar(0, call.dtype))
    quotient = w.node("Div", x, w.node("Where", is_tiny, one, gap))
    quotient = w.node("Where", w.node("Greater", x, one), one, quotient)  # and no Inf / Inf
    return w.node("Where", is_tiny, x, w.node("Mul", w.node("Log", u), quotient))


@row("relu6")
def _relu6(w: Writer, call: Call) -> str:
    (x,) = _as_result(w, call)
    return clamp(w, x, 0.0, 6.0, call.dtype)


@row("clip")
def _clip(w: Writer, call: Call) -> str:
    (x,) = _as_result(w, call)
    return clamp(w, x, call.attributes["lo"], call.attributes["hi"], call.dtype)


def clamp(w: Writer, x: str, lo: float, hi: float, dtype: str) -> str:
    """Write min(max(x, lo), hi)."""
    if lo == 0 and hi == math.inf:
        return w.node("Relu", x)
    low = None if lo == -math.inf else w.scalar(lo, dtype)
    high = None if hi == math.inf else w.scalar(hi, dtype)
    return w.node("Clip", x, low, high) if low or high else x


@row("leaky_relu")
def _leaky_relu(w: Writer, call: Call) -> str:
    return w.node("LeakyRelu", *_as_result(w, call), alpha=call.attributes["negative_slope"])


@row("elu")
def _elu(w: Writer, call: Call) -> str:
    return w.node("Elu", *_as_result(w, call), alpha=call.attributes["alpha"])


@row("prelu")
def _prelu(w: Writer, call: Call) -> str:
    return w.node("PRelu", *_as_result(w, call))


@row("hardsigmoid")
def _hardsigmoid(w: Writer, call: Call) -> str:
    return w.node("HardSigmoid", *_as_result(w, call), alpha=1 / 6, beta=0.5)


@row("silu")
def _silu(w: Writer, call: Call) -> str:
    (x,) = _as_result(w, call)
    return w.node("Mul", x, w.node("Sigmoid", x))


@row("mish")
def _mish(w: Writer, call: Call) -> str:
    (x,) = _as_result(w, call)
    return w.node("Mul", x, w.node("Tanh", w.node("Softplus", x)))


@row("softplus")
def _softplus(w: Writer, call: Call) -> str:
    """ln(1 + e^{βx})/β; from βx = 20 on it is x to the last bit, so that a threshold there or later changes nothing."""
    (x,) = _as_result(w, call)
    beta, threshold = call.attributes["beta"], call.attributes["threshold"]
    scaled = x if beta == 1 else w.node("Mul", x, w.scalar(beta, call.dtype))
    y = w.node("Softplus", scaled)
    y = y if beta == 1 else w.node("Div", y, w.scalar(beta, call.dtype))
    if threshold >= 20 and call.dtype == "float32":
        return y
    return w.node("Where", w.node("Greater", scaled, w.scalar(threshold, call.dtype)), x, y)


@row("gelu")
def _gelu(w: Writer, call: Call) -> str:
    (x,) = _as_result(w, call)
    erf = w.node("Erf", w.node("Div", x, w.scalar(math.sqrt(2), call.dtype)))
    half = w.node("Mul", x, w.scalar(0.5, call.dtype))
    return w.node("Mul", half, w.node("Add", erf, w.scalar(1, call.dtype)))


@row("gelu_tanh")
def _gelu_tanh(w: Writer, call: Call) -> str:
    (x,) = _as_result(w, call)
    cube = w.node("Mul", w.node("Mul", x, x), x)
    inner = w.node("Add", x, w.node("Mul", cube, w.scalar(0.044715, call.dtype)))
    tanh = w.node("Tanh", w.node("Mul", inner, w.scalar(math.sqrt(2 / math.pi), call.dtype)))
    half = w.node("Mul", x, w.scalar(0.5, call.dtype))
    return w.node("Mul", half, w.node("Add", tanh, w.scalar(1, call.dtype)))


@row("huber")
def _huber(w: Writer, call: Call) -> str:
    """½d² where |d| ≤ delta, else delta·(|d| − ½delta)."""
    (x,) = _as_result(w, call)
    delta = call.attributes["delta"]
    size = w.node("Abs", x)
    square = w.node("Mul", w.node("Mul", x, x), w.scalar(0.5, call.dtype))
    line = w.node("Mul", w.node("Sub", size, w.scalar(delta / 2, call.dtype)), w.scalar(delta, call.dtype))
    return w.node("Where", w.node("LessOrEqual", size, w.scalar(delta, call.dtype)), square, line)


@row("bce_logits")
def _bce_logits(w: Writer, call: Call) -> str:
    """−p·t·ln σ(x) − (1 − t)·ln(1 − σ(x)) = (1 − t)·x + (1 + (p − 1)·t)·ln(1 + e⁻ˣ)."""
    x, target, positive = _as_result(w, call)
    one = w.scalar(1, call.dtype)
    negative = w.node("Mul", w.node("Sub", one, target), x)
    scale = w.node("Add", w.node("Mul", w.node("Sub", positive, one), target), one)
    return w.node("Add", negative, w.node("Mul", scale, w.node("Softplus", w.node("Neg", x))))


# Comparisons and choices.


def _common(w: Writer, call: Call) -> list[str]:
    """Return the two inputs in the dtype in which they are compared."""
    x, y = call.required(0), call.required(1)
    if x.dtype == y.dtype:
        return [x.name, y.name]

    def example(v: Value) -> Any:
        return _core.empty([1] * min(len(v.shape), 1), getattr(_core.DType, v.dtype))

    chosen = str(_core.where(_core.scalar(True, _core.DType.bool), example(x), example(y)).dtype)
    return [w.cast(x, chosen), w.cast(y, chosen)]


def _compares(op_type: str, is_negated: bool = False) -> Row:
    def write(w: Writer, call: Call) -> str:
        y = w.node(op_type, *_common(w, call))
        return w.node("Not", y) if is_negated else y

    return write


ROWS.update(
    eq=_compares("Equal"),
    ne=_compares("Equal", is_negated=True),
    lt=_compares("Less"),
    le=_compares("LessOrEqual"),
    gt=_compares("Greater"),
    ge=_compares("GreaterOrEqual"),
)


def _logical(op_type: str) -> Row:
    return lambda w, call: w.node(op_type, *[w.cast(x, "bool") for x in call.inputs if x is not None])


ROWS.update(
    logical_and=_logical("And"), logical_or=_logical("Or"), logical_xor=_logical("Xor"), logical_not=_logical("Not")
)


def _floating(w: Writer, x: Value) -> str:
    return x.name if x.dtype.startswith("float") else w.cast(x, "float32")


@row("isnan")
def _isnan(w: Writer, call: Call) -> str:
    return w.node("IsNaN", _floating(w, call.x))


@row("isinf")
def _isinf(w: Writer, call: Call) -> str:
    return w.node("IsInf", _floating(w, call.x))


@row("isfinite")
def _isfinite(w: Writer, call: Call) -> str:
    x = _floating(w, call.x)
    return w.node("Not", w.node("Or", w.node("IsNaN", x), w.node("IsInf", x)))


@row("where")
def _where(w: Writer, call: Call) -> str:
    chosen = [w.cast(call.required(i), call.dtype) for i in (1, 2)]
    return w.node("Where", w.cast(call.x, "bool"), *chosen)


# Reductions.


def _reduces(op_type: str) -> Row:
    def write(w: Writer, call: Call) -> str:
        x, dim = call.x, call.attributes["dim"]
        name = w.cast(x, "uint8") if x.dtype == "bool" and call.dtype == "bool" else w.cast(x, call.dtype)
        axes = w.constant(list(dim), "int64") if dim else None
        y = w.node(op_type, name, axes, keepdims=int(call.attributes["keepdim"]))
        return w.cast_name(y, "bool") if call.dtype == "bool" else y

    return write


ROWS.update(
    sum=_reduces("ReduceSum"),
    mean=_reduces("ReduceMean"),
    prod=_reduces("ReduceProd"),
    max=_reduces("ReduceMax"),
    min=_reduces("ReduceMin"),
)


@row("argmax", "argmin")
def _argument(w: Writer, call: Call) -> str:
    op_type = "ArgMax" if call.op == "argmax" else "ArgMin"
    dim = call.attributes["dim"]
    x = w.cast(call.x, "int32") if call.x.dtype == "bool" else call.x.name
    if dim is not None:
        return w.node(op_type, x, axis=dim, keepdims=int(call.attributes["keepdim"]))
    flat = w.node("Reshape", x, w.constant([-1], "int64"))
    return w.reshape(w.node(op_type, flat, axis=0, keepdims=0), (), call.shape)


@row("softmax", "log_softmax")
def _softmax(w: Writer, call: Call) -> str:
    op_type = "Softmax" if call.op == "softmax" else "LogSoftmax"
    return w.node(op_type, *_as_result(w, call), axis=call.attributes["dim"])


# Products.


@row("matmul")
def _matmul(w: Writer, call: Call) -> str:
    return w.node("MatMul", *_as_result(w, call))


def product(w: Writer, x: Value, weight: Value, bias: str | None) -> str:
    """Write x·weightᵀ + bias, the weight (N, K) as it is."""
    if len(x.shape) == 2:
        return w.node("Gemm", x.name, weight.name, bias, transB=1)
    y = w.node("MatMul", x.name, w.node("Transpose", weight.name, perm=[1, 0]))
    return y if bias is None else w.node("Add", y, bias)


# Losses over classes.


@row("cross_entropy", "nll_loss")
def _class_loss(w: Writer, call: Call) -> str:
    """Follow `striate.cross_entropy`: targets that are ignored take class 0 and count nothing."""
    a, x, target, weight = call.attributes, call.x, call.required(1), call.given(2)
    axis = 1 if len(x.shape) > 1 else 0
    log_p = w.node("LogSoftmax", x.name, axis=axis) if call.op == "cross_entropy" else x.name
    classes = w.cast(target, "int64")
    is_ignored = w.node("Equal", classes, w.scalar(a["ignore_index"], "int64"))
    classes = w.node("Where", is_ignored, w.scalar(0, "int64"), classes)
    at = w.constant([axis], "int64")
    picked = w.node("GatherElements", log_p, w.node("Unsqueeze", classes, at), axis=axis)
    loss = w.node("Neg", w.node("Squeeze", picked, at))
    share = w.scalar(1, call.dtype) if weight is None else w.node("Gather", weight.name, classes)
    share = w.node("Where", is_ignored, w.scalar(0, call.dtype), share)
    loss = w.node("Mul", loss, share)
    if a["label_smoothing"] > 0:
        n_classes = x.shape[axis]
        if not isinstance(n_classes, int):
            raise UnwritableError(f"{call.op} (label_smoothing over a number of classes that may change)")
        weighted = log_p
        if weight is not None:
            column = w.reshape(weight.name, weight.shape, (n_classes, *[1] * (len(x.shape) - axis - 1)))
            weighted = w.node("Mul", log_p, column)
        every = w.node("ReduceSum", weighted, at, keepdims=0)
        every = w.node("Where", is_ignored, w.scalar(0, call.dtype), every)
        smooth = w.node("Mul", every, w.scalar(-a["label_smoothing"] / n_classes, call.dtype))
        loss = w.node("Add", w.node("Mul", loss, w.scalar(1 - a["label_smoothing"], call.dtype)), smooth)
    if a["reduction"] == "none":
        return loss
    total = w.node("ReduceSum", loss, keepdims=0)
    return total if a["reduction"] == "sum" else w.node("Div", total, w.node("ReduceSum", share, keepdims=0))


# Copies and constants.


@row("clone", "relayout")
def _same(w: Writer, call: Call) -> str:
    """Memory is no matter of ONNX."""
    return call.x.name


@row("to")
def _to(w: Writer, call: Call) -> str:
    return w.cast(call.x, call.dtype)


@row("full", "full_like")
def _full(w: Writer, call: Call) -> str:
    return w.filled(call.shape, call.attributes["value"], call.dtype)


def ones(w: Writer, shape: Sequence[Any], dtype: str) -> str:
    """Return ones, where an operator of ONNX asks for what is optional here."""
    return w.filled(shape, 1, dtype)


def zeros(w: Writer, shape: Sequence[Any], dtype: str) -> str:
    """Return zeros likewise."""
    return w.filled(shape, 0, dtype)


def column(w: Writer, x: Value, n_axes: int) -> str:
    """View a vector of channels as (C, 1, …), so that it broadcasts over n_axes spatial axes."""
    if n_axes == 0:
        return x.name
    data = np.arange(1, n_axes + 1)
    return w.node("Unsqueeze", x.name, w.constant(data, "int64"))
