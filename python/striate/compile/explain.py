"""What a program does, node by node: what was fused, which algorithm runs, how long it takes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from striate import _core, machine
from striate.autograd import HostCall
from striate.compile.host import Chain

__all__ = ["Explanation", "Row", "explain_chain", "explain_graph"]

_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")
_TRANSPOSED = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
_ACTIVATIONS = (
    "relu",
    "relu6",
    "clip",
    "silu",
    "hardswish",
    "hardsigmoid",
    "sigmoid",
    "tanh",
    "leaky_relu",
    "elu",
    "gelu",
)
#: Nodes that move no data.
_VIEWS = ("reshape", "permute", "expand", "spread", "slice", "split", "flatten_memory", "buffer", "joined")


@dataclass(frozen=True, slots=True)
class Row:
    """One node of a program.

    Attributes
    ----------
    op : str
        Of a host node, its name.
    fused : tuple of str
        What runs in the same node, in order: "batch_norm" or "gate" before a convolution, "bias", "add", an activation,
        "pointwise" (the convolution behind a depthwise one), "in place" (writes into a concatenation or a state).
    shape : tuple of int
        Of the first result.
    algorithm : str or None
        Of a convolution; "Python" of a host node.
    macs : int
        Multiply-adds of the direct algorithm.
    n_bytes : int
        Of all operands and results: what memory must move at the least when nothing is in a cache.
    predicted_ms : float or None
        By the cost model of convolutions, on one core.
    measured_ms : float or None
        The median over passes, on all threads.
    share : float or None
        Of the roofline: max(2·macs / peak, n_bytes / bandwidth) over the measured time. Winograd may exceed 1.
    note : str
        Why a node was not fused with the one before it, or the program is cut.
    sources : tuple of int
        Rows whose results it reads.
    """

    op: str
    fused: tuple[str, ...]
    shape: tuple[int, ...]
    algorithm: str | None
    macs: int
    n_bytes: int
    predicted_ms: float | None
    measured_ms: float | None
    share: float | None
    note: str
    sources: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """All nodes of a program; `str` makes a table.

    Attributes
    ----------
    rows : tuple of Row
    isa : str
        The instruction set that runs.
    peak_gflops, bandwidth_gbytes : float or None
        What this machine reaches, where times were measured.
    samples_at_a_time : int or None
        The batch runs in parts of so many samples, so that a layer's images stay in the caches for the next; times are those
        of all parts. None: as a whole. Where host nodes cut the program, of the first piece that runs so.
    """

    rows: tuple[Row, ...]
    isa: str
    peak_gflops: float | None
    bandwidth_gbytes: float | None
    samples_at_a_time: int | None

    @property
    def measured_ms(self) -> float | None:
        """Time of all nodes together."""
        times = [row.measured_ms for row in self.rows if row.measured_ms is not None]
        return sum(times) if times else None

    def plot(self, file: str | Path) -> None:
        """Draw the nodes in the order they run, each with its time as area, and who reads whose results.

        Parameters
        ----------
        file : str or Path
            Where to; the ending says the format: png, svg or pdf.

        Raises
        ------
        ValueError
            No times were measured, or the ending is another one.
        ModuleNotFoundError
            matplotlib is missing; it comes with the extra ``app``.
        """
        from striate.compile.plot import draw

        draw(self, file)

    def __str__(self) -> str:
        total = self.measured_ms
        head = ("node", "fused", "result", "algorithm", "Mmacs", "MB", "pred. ms", "ms", "time", "roofline", "")
        lines = [
            head,
            *[
                (
                    row.op,
                    " ".join(row.fused),
                    "×".join(map(str, row.shape)),
                    row.algorithm or "",
                    f"{row.macs / 1e6:.1f}" if row.macs else "",
                    f"{row.n_bytes / 2**20:.2f}",
                    _number(row.predicted_ms),
                    _number(row.measured_ms),
                    f"{row.measured_ms / total:.1%}" if row.measured_ms is not None and total else "",
                    f"{row.share:.0%}" if row.share is not None else "",
                    row.note,
                )
                for row in self.rows
            ],
        ]
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        left = {0, 1, 2, 3, 10}
        body = "\n".join(
            "  ".join(
                cell.ljust(width) if i in left else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
                if width
            ).rstrip()
            for line in lines
        )
        foot = f"{len(self.rows)} nodes, {sum(row.macs for row in self.rows) / 1e6:,.1f} Mmacs, {self.isa}"
        if self.samples_at_a_time is not None:
            foot += f", {self.samples_at_a_time} samples at a time"
        if total is not None and self.peak_gflops is not None and self.bandwidth_gbytes is not None:
            foot += f"; {total:.2f} ms in nodes; peak {self.peak_gflops:.0f} GFLOP/s, {self.bandwidth_gbytes:.1f} GB/s"
        return f"{body}\n{foot}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def explain_graph(
    core: _core.Program, inputs: Sequence[Any], scalars: Sequence[Any] = (), *, n_passes: int = 0
) -> Explanation:
    """Describe the nodes of a program for inputs (arrays of the core); with n_passes run it as often and time each node.

    A program that changes states changes them in each of these passes.
    """
    speed = _measured_speed() if n_passes > 0 else None
    peak, bandwidth = speed or (None, None)
    rows, part = _graph_rows(core, inputs, scalars, n_passes, speed)
    return Explanation(tuple(rows), _core.active_isa(), peak, bandwidth, part)


def explain_chain(chain: Chain, inputs: Sequence[Any], *, n_passes: int = 0) -> Explanation:
    """Describe the nodes of a program that is cut at host calls, likewise."""
    speed = _measured_speed() if n_passes > 0 else None
    peak, bandwidth = speed or (None, None)
    values = chain.values_of(inputs)
    rows: list[Row] = []
    makers: dict[int, int] = {}  # of values of the record: the row
    parts: list[int] = []
    for stage in chain.stages:
        if stage.core is not None:
            graph, first = stage.core.graph, len(rows)
            arrays = [values[i] for i in stage.inputs]
            own, part = _graph_rows(stage.core, arrays, (), n_passes, speed)
            given = {i: makers[j] for i, j in zip(graph.inputs, stage.inputs, strict=True) if j in makers}
            for row, node in zip(own, graph.nodes, strict=True):
                earlier = {given[i] for i in node.inputs if i in given}
                rows.append(replace(row, sources=tuple(sorted({first + i for i in row.sources} | earlier))))
            made = {i: first + at for at, node in enumerate(graph.nodes) for i in node.outputs}
            made.update(given)
            makers.update((j, made[i]) for i, j in zip(graph.results, stage.results, strict=True) if i in made)
            parts += [] if part is None else [part]
            values.update(zip(stage.results, stage.core.run(arrays, []), strict=True))
        if stage.call is not None:
            makers.update(dict.fromkeys(stage.call.results, len(rows)))
            rows.append(_host_row(chain, stage.call, values, makers, n_passes))
    return Explanation(tuple(rows), _core.active_isa(), peak, bandwidth, parts[0] if parts else None)


def _host_row(chain: Chain, call: HostCall, values: dict[int, Any], makers: dict[int, int], n_passes: int) -> Row:
    """Make a host call on a table of values, as often as passes are measured, and describe it."""
    times = []
    for _ in range(max(n_passes, 1)):
        begin = time.perf_counter()
        chain.call(call, values)
        times.append(1e3 * (time.perf_counter() - begin))
    operands = [i for i in call.operands if type(i) is int]
    arrays = [values[i] for i in (*operands, *call.results)]
    return Row(
        op=call.name,
        fused=(),
        shape=tuple(values[call.results[0]].shape) if call.results else (),
        algorithm="Python",
        macs=0,
        n_bytes=sum(_product(x.shape) * int(x.dtype.itemsize) for x in arrays),
        predicted_ms=None,
        measured_ms=sorted(times)[len(times) // 2] if n_passes > 0 else None,
        share=None,
        note="the core has no such operator, and the program is cut here",
        sources=tuple(sorted({makers[i] for i in operands if i in makers})),
    )


def _measured_speed() -> tuple[float, float]:
    """Return GFLOP/s and GB/s that this machine reaches."""
    return _core.measure_fma(_core.DType.float32, 0.05) / 1e9, _core.measure_stream("triad", 64 << 20, 3) / 1e9


def _graph_rows(
    core: _core.Program, inputs: Sequence[Any], scalars: Sequence[Any], n_passes: int, speed: tuple[float, float] | None
) -> tuple[list[Row], int | None]:
    """Describe the nodes of one graph; return their rows and how many samples run at a time."""
    graph = core.graph
    shapes = [tuple(x.shape) for x in inputs]
    sizes = _sizes(graph, shapes)
    times: list[float] | None = None
    if n_passes > 0:
        core.run(list(inputs), list(scalars))
        passes = [core.profile(list(inputs), list(scalars)) for _ in range(n_passes)]
        times = [1e3 * sorted(node)[len(node) // 2] for node in zip(*passes, strict=True)]
    choices = core.choices(shapes)
    part, n_parts = choices.samples_at_a_time, 1.0
    planned = sizes  # of what runs at a time
    if part > 0:
        n_parts = shapes[0][0] / part
        shapes = [(part, *shape[1:]) for shape in shapes]
        planned = _sizes(graph, shapes)
    algorithms = core.choices(shapes).algorithms
    readers: dict[int, int] = dict.fromkeys(graph.results, 1)
    makers: dict[int, Any] = {}
    places: dict[int, int] = {}
    for at, node in enumerate(graph.nodes):
        for i in node.inputs:
            readers[i] = readers.get(i, 0) + 1
        makers.update(dict.fromkeys(node.outputs, node))
        places.update(dict.fromkeys(node.outputs, at))
    rows = []
    for at, node in enumerate(graph.nodes):
        macs = _macs(node, sizes)
        moved = (
            0
            if node.op in _VIEWS
            else sum(_n_bytes(graph, sizes, i) for i in (*node.inputs[:4], *node.outputs) if i >= 0)
        )
        algorithm, predicted = _choice(node, planned, algorithms[at])
        measured = times[at] if times is not None else None
        share = None
        if measured and speed is not None and (macs or moved):
            peak, bandwidth = speed
            share = max(2e-6 * macs / peak, 1e-6 * moved / bandwidth) / measured
        rows.append(
            Row(
                node.op,
                _fused(node),
                sizes[node.outputs[0]] if node.outputs else (),
                algorithm,
                macs,
                moved,
                predicted * n_parts if predicted is not None else None,
                measured,
                share,
                _why_alone(node, readers, makers),
                tuple(sorted({places[i] for i in node.inputs if i in places})),
            )
        )
    return rows, part or None


def _sizes(graph: _core.Graph, shapes: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """The sizes of all values, for inputs of these shapes."""
    return [
        tuple([n if type(n) is int else n.evaluate(shapes) for n in graph.value(i).shape])
        for i in range(graph.n_values)
    ]


def _n_bytes(graph: _core.Graph, sizes: Sequence[tuple[int, ...]], i: int) -> int:
    n = 1
    for size in sizes[i]:
        n *= size
    return n * int(graph.value(i).dtype.itemsize)


def _product(sizes: Sequence[int]) -> int:
    n = 1
    for size in sizes:
        n *= size
    return n


def _macs(node: Any, sizes: Sequence[tuple[int, ...]]) -> int:
    if node.op in _CONVOLUTIONS:
        return _product(sizes[node.outputs[0]]) * _product(sizes[node.inputs[1]][1:])
    if node.op == "separable_conv2d":
        n, out, *pixels = sizes[node.outputs[0]]
        channels, _, *kernel = sizes[node.inputs[5]]
        return int(n * _product(pixels) * channels * (_product(kernel) + out))
    if node.op in _TRANSPOSED:
        return _product(sizes[node.inputs[0]]) * _product(sizes[node.inputs[1]][1:])
    if node.op.endswith("_grad_input") and "transpose" not in node.op:
        return _product(sizes[node.inputs[0]]) * _product(sizes[node.inputs[1]][1:])
    if node.op.endswith("_grad_weight") and "transpose" not in node.op:
        return _product(sizes[node.inputs[0]]) * _product(sizes[node.outputs[0]][1:])
    if node.op == "linear":
        return _product(sizes[node.outputs[0]]) * int(sizes[node.inputs[1]][-1])
    if node.op == "matmul":
        return _product(sizes[node.outputs[0]]) * int(sizes[node.inputs[0]][-1])
    return 0


def _choice(node: Any, sizes: Sequence[tuple[int, ...]], algorithm: str | None) -> tuple[str | None, float | None]:
    """Return the name and the predicted time of the algorithm that a convolution or one of its gradients takes."""
    op, _, pass_ = node.op.partition("_grad_")
    if op not in _CONVOLUTIONS:
        return None, None
    a = node.attributes
    if tuple(a["pad_begin"]) != tuple(a["pad_end"]) or a["padding"] != "explicit":
        return None, None
    if pass_ == "input":
        x, weight = sizes[node.outputs[0]], sizes[node.inputs[1]]
    elif pass_ == "weight":
        x, weight = sizes[node.inputs[1]], sizes[node.outputs[0]]
    else:
        x, weight = sizes[node.inputs[0]], sizes[node.inputs[1]]
    verdicts = machine.explain(
        op,
        x,
        weight,
        pass_="grad_" + pass_ if pass_ else "forward",
        stride=a["stride"],
        padding=a["pad_begin"],
        dilation=a["dilation"],
        groups=a["groups"],
    ).verdicts
    found = next((v for v in verdicts if v.algorithm == algorithm), verdicts[0])  # the first is direct, of any name
    return found.algorithm, found.predicted_ms


def _activation(a: Any, prefix: str = "") -> tuple[str, ...]:
    """Name what follows the sums of a convolution."""
    if prefix + "map" in a:
        return (a[prefix + "map"],)
    if prefix + "lo" not in a:
        return ()
    lo, hi = a[prefix + "lo"], a[prefix + "hi"]
    return ("relu",) if (lo, hi) == (0.0, float("inf")) else (f"clip({lo:g}, {hi:g})",)


def _fused(node: Any) -> tuple[str, ...]:
    a = node.attributes
    fused = []
    if node.op in (*_CONVOLUTIONS, *_TRANSPOSED, "linear", "separable_conv2d"):
        given = [i >= 0 for i in node.inputs] + [False] * 9
        if node.op in _CONVOLUTIONS and given[6]:
            fused += ["batch_norm", *(("relu6" if "first_hi" in a else "relu",) if a.get("first_relu") else ())]
        if node.op in _CONVOLUTIONS and given[8]:
            fused.append("gate")
        if node.op == "separable_conv2d":
            fused += [*(("bias",) if given[6] else ()), *_activation(a, "first_"), "pointwise"]
        fused += [name for name, is_given in zip(("bias", "add"), given[2:4], strict=True) if is_given]
        fused += _activation(a)
        if given[4]:
            fused.append("in place")
        if a.get("moments"):
            fused.append("moments")
    elif node.op.endswith("_grad_input"):
        given = [i >= 0 for i in node.inputs[2:]] + [False] * 2
        fused = [name for name, is_given in zip(("add", "relu_grad"), given[:2], strict=True) if is_given]
    elif node.op.startswith("batch_norm"):
        if (node.op == "batch_norm_training" and len(node.inputs) > 3) or (
            node.op == "batch_norm_eval" and len(node.inputs) > 5
        ):
            fused.append("add")
        if a.get("relu"):
            fused.append("relu6" if "hi" in a else "relu")
    if a.get("in_place"):
        fused.append("in place")
    return tuple(fused)


def _why_alone(node: Any, readers: dict[int, int], makers: dict[int, Any]) -> str:
    """Say why an operator that often joins another one did not."""
    if node.op not in (*_ACTIVATIONS, "add", "batch_norm_eval", "concat"):
        return ""
    if node.op == "concat":
        return "not of channels, or a part stands in another concatenation"
    made = [makers.get(i) for i in node.inputs[: 2 if node.op == "add" else 1]]
    joins = [
        n is not None and (n.op in (*_CONVOLUTIONS, *_TRANSPOSED, "linear") or n.op.startswith("batch_norm"))
        for n in made
    ]
    if not any(joins):
        return "no convolution, product or batch-norm before it"
    if all(readers[i] > 1 for i, is_joining in zip(node.inputs, joins, strict=False) if is_joining):
        return "what is before it has other readers"
    return "the node before it is full" if node.op != "batch_norm_eval" else "weights that are not constant"
