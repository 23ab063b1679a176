"""`striate bench`: a compiled ONNX model against ONNX Runtime and OpenVINO, in turns, where these are installed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import striate
from striate import machine
from striate.apps.model_file import Array, ModelFile, Shape, Sizes

#: Outputs may be this far from a peer's, as a share of its largest element.
TOLERANCE = 2e-3
#: What counts as the largest element at the least: a peer's sigmoid of 10⁻⁵ has no more digits than one of 1 has.
LEAST = 1e-3
#: Turns of each library that count, and untimed calls at the beginning of one.
ROUNDS = 9
WAKING = 2
#: Pause before a turn: threads of ONNX Runtime spin for up to 40 ms after their last call.
PAUSE_SECONDS = 0.1

Call = Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Peer:
    """A library that has read the model.

    Parameters
    ----------
    name : str
        With its version.
    call : callable
        Runs once, on inputs that it holds already.
    outputs : list of array
        Of the first run.
    """

    name: str
    call: Call
    outputs: list[Array]


@dataclass(slots=True)
class Timing:
    """Calls of one library.

    Attributes
    ----------
    name : str
    seconds : list of float
        Of each call.
    error : float
        Distance from striate's outputs, as a share of the largest element.
    """

    name: str
    seconds: list[float] = field(default_factory=list)
    error: float = 0.0

    @property
    def median(self) -> float:
        """Median of the calls, in seconds."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Distance of the quartiles over the median."""
        low, middle, high = statistics.quantiles(self.seconds, n=4)
        return (high - low) / middle


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was measured.

    Attributes
    ----------
    timings : list of Timing
        striate's first.
    shapes : list of tuple of int
        Of the inputs.
    n_threads : int
        Of every library.
    notes : list of str
        Which peers are left out, and why; why the model did not compile.
    """

    timings: list[Timing]
    shapes: list[Shape]
    n_threads: int
    notes: list[str]


def compare(
    path: Path, sizes: Sizes | None = None, *, n_threads: int | None = None, seconds: float = 3.0
) -> Comparison:
    """Time a model by every library that is there; their turns alternate, and figures are of all calls.

    Outputs are compared before anything is timed. ONNX Runtime and OpenVINO get as many threads, float32 arithmetic,
    inputs and outputs that are bound once, and shapes that are fixed.

    Parameters
    ----------
    path : path
        An ONNX model.
    sizes : Sizes, optional
        Where the model leaves sizes open.
    n_threads : int, optional
        By default as many as striate uses now.
    seconds : float, default 3.0
        About how long the calls of each library take.

    Returns
    -------
    Comparison

    Raises
    ------
    ValueError
        Something else than an ONNX model; outputs that differ by more than 2·10⁻³ of the largest element.
    """
    if not seconds > 0:
        raise ValueError(f"--seconds: expected a time above 0, got {seconds:g}; pass about how long it may take")
    model = ModelFile(path)
    if model.kind != "onnx":
        raise ValueError(
            f"bench: expected an ONNX model, which other libraries read too, got a program in {path}; use striate profile"
        )
    shapes = model.settle(sizes or Sizes())
    inputs = model.draw(shapes)
    n = machine.thread_count() if n_threads is None else n_threads
    with striate.threads(n):
        ours = [np.asarray(y) for _, y in model(inputs)]
        calls: dict[str, Call] = {f"striate {striate.__version__}": model.bound(inputs)}
        timings = [Timing(name) for name in calls]
        notes = []
        if model.reason is not None:
            notes.append(f"striate runs it operator by operator: {model.reason}")
        for library, read in (("onnxruntime", _onnx_runtime), ("openvino", _openvino)):
            try:
                peer = read(model, shapes, inputs, n)
            except ModuleNotFoundError:
                continue
            except Exception as error:  # peers raise what they like for what they cannot do
                notes.append(f"{library} is left out: {' '.join(str(error).split())[:200]}")
                continue
            timings.append(Timing(peer.name, error=_checked(model, peer, ours)))
            calls[peer.name] = peer.call
        if len(calls) == 1 and not notes:
            notes.append("no peer is installed to compare with; run pip install onnxruntime openvino")
        _measure(timings, list(calls.values()), seconds)
    return Comparison(timings, shapes, n, notes)


def _checked(model: ModelFile, peer: Peer, ours: Sequence[Array]) -> float:
    """Return how far outputs are from those of a peer; refuse what is too far."""
    worst = 0.0
    for port, mine, theirs in zip(model.outputs, ours, peer.outputs, strict=True):
        error = _distance(mine, theirs)
        if not error <= TOLERANCE:
            raise ValueError(
                f"{model.path}: expected outputs of striate and {peer.name} that differ by at most {TOLERANCE:g} of the "
                f"largest element, got {error:.1e} for {port.name!r}; nothing was timed, please report this model"
            )
        worst = max(worst, error)
    return worst


def _distance(mine: Array, theirs: Array) -> float:
    """Return the largest difference over the largest element, or LEAST; infinite where shapes or NaNs differ."""
    if mine.shape != theirs.shape:
        return np.inf
    if not mine.size:
        return 0.0
    a, b = mine.astype(np.float64), theirs.astype(np.float64)
    is_same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        difference = np.where(is_same, 0.0, np.abs(a - b)).max()
    share = float(difference / np.abs(b[np.isfinite(b)]).max(initial=LEAST))
    return share if np.isfinite(share) else np.inf


def _measure(timings: Sequence[Timing], calls: Sequence[Call], seconds: float) -> None:
    """Take turns: each library wakes up, then its calls are timed."""
    counts = []
    for call in calls:
        call()
        least = min(_timed(call) for _ in range(3))
        counts.append(max(1, round(seconds / ROUNDS / max(least, 1e-6))))
    for _ in range(ROUNDS):
        for timing, call, count in zip(timings, calls, counts, strict=True):
            time.sleep(PAUSE_SECONDS if len(calls) > 1 else 0)
            for _ in range(WAKING):
                call()
            for _ in range(count):
                timing.seconds.append(_timed(call))


def _timed(call: Call) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def _onnx_runtime(model: ModelFile, shapes: Sequence[Shape], inputs: Sequence[Array], n_threads: int) -> Peer:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    options.log_severity_level = 3
    for name, n in model.named_sizes(shapes).items():
        options.add_free_dimension_override_by_name(name, n)
    session = onnxruntime.InferenceSession(str(model.path), options, providers=["CPUExecutionProvider"])
    given = {port.name: _stored(port.dtype, x) for port, x in zip(model.inputs, inputs, strict=True)}
    outputs = session.run(None, given)
    binding = session.io_binding()
    for name, x in given.items():
        binding.bind_cpu_input(name, x)
    for port, y in zip(model.outputs, outputs, strict=True):
        binding.bind_output(port.name, "cpu", 0, y.dtype, y.shape, y.ctypes.data)
    return Peer(f"onnxruntime {onnxruntime.__version__}", lambda: session.run_with_iobinding(binding), outputs)


def _openvino(model: ModelFile, shapes: Sequence[Shape], inputs: Sequence[Array], n_threads: int) -> Peer:
    import openvino

    read = openvino.Core().read_model(str(model.path))
    with suppress(RuntimeError):  # a model that cannot be fixed keeps its open sizes
        read.reshape({i: list(shape) for i, shape in enumerate(shapes)})
    settings = {
        "INFERENCE_NUM_THREADS": n_threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = openvino.Core().compile_model(read, "CPU", settings).create_infer_request()
    given = [_stored(port.dtype, x) for port, x in zip(model.inputs, inputs, strict=True)]
    for i, x in enumerate(given):
        request.set_input_tensor(i, openvino.Tensor(x, shared_memory=True))
    request.infer()
    outputs = [np.array(y.data) for y in request.output_tensors]
    version = openvino.__version__.partition("-")[0]

    def call(_kept: Any = given) -> None:  # the request only borrows its inputs
        request.infer()

    return Peer(f"openvino {version}", call, outputs)


def _stored(dtype: str, x: Array) -> Array:
    """Return an input as the file declares it: striate takes float32 for half floats."""
    return x.astype(np.float16) if dtype == "float16" else x
