"""A network in a file, an ONNX model or a compiled program, ready to be called with arrays."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import striate
from striate.autograd import RecordError, Tensor, no_grad
from striate.compile import Program, load_program
from striate.io import safetensors
from striate.io.port import Port

if TYPE_CHECKING:
    from striate.io.onnx import OnnxModule

Array = NDArray[Any]
Shape = tuple[int, ...]

#: The metadata entry that a program file has.
_PROGRAM = "striate_program"
_HALVES = ("float16", "bfloat16")


def import_onnx() -> ModuleType:
    """Return `striate.onnx`.

    Raises
    ------
    ModuleNotFoundError
        The onnx package is missing; the text says how to get it.
    """
    try:
        import striate.onnx
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"onnx: expected the packages of the extra 'onnx', got no {error.name}; run pip install 'striate[app,onnx]'",
            name=error.name,
        ) from error
    return striate.onnx


def kind_of(path: Path) -> str:
    """Say what a file is: "onnx", "program" or "weights", by its content.

    Raises
    ------
    FileNotFoundError
        No such file.
    FileError
        A damaged file of safetensors.
    """
    if not path.is_file():
        kind = "is no file" if path.exists() else "does not exist"
        raise FileNotFoundError(f"model: expected a file, got {path}, which {kind}; check the name")
    if path.suffix.lower() == ".onnx":
        return "onnx"
    with path.open("rb") as file:
        start = file.read(262)
    if start[8:9] == b"{":
        return "program" if _PROGRAM in safetensors.metadata(path) else "weights"
    # An archive, a pickle and a tar file: what torch and NumPy write.
    is_weights = start[:4] == b"PK\x03\x04" or start[:1] == b"\x80" or start[257:262] == b"ustar"
    return "weights" if is_weights else "onnx"


@dataclass(frozen=True, slots=True)
class Sizes:
    """Which sizes of inputs are asked for.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        Whole shapes by input; the name may be "" where a model has one input.
    size : (int, int), optional
        Height and width of images.
    batch : int, optional
        First size of every input.
    """

    shapes: Mapping[str, Shape] = field(default_factory=dict)
    size: tuple[int, int] | None = None
    batch: int | None = None

    @classmethod
    def parsed(cls, shapes: Sequence[str] = (), size: str | None = None, batch: int | None = None) -> Sizes:
        """Read what stands on the command line: NAME=1x3x224x224 or 1x3x224x224, and 224 or 224x320.

        Raises
        ------
        ValueError
            Something else.
        """
        named = {}
        for text in shapes:
            name, _, numbers = text.rpartition("=")
            named[name] = _numbers("--shape", "NAME=1x3x224x224", numbers)
        pair = _numbers("--size", "224 or 224x320, height first", size) if size is not None else None
        if pair is not None and len(pair) > 2:
            raise ValueError(f"--size: expected one or two numbers, got {size!r}; pass height and width, as 224x320")
        if batch is not None and batch < 1:
            raise ValueError(f"--batch: expected a number of at least 1, got {batch}; pass how many samples a call has")
        return cls(named, None if pair is None else (pair[0], pair[-1]), batch)


def _numbers(option: str, example: str, text: str) -> Shape:
    if not re.fullmatch(r"\d+([x×]\d+)*", text) or min(found := [int(n) for n in re.split("[x×]", text)]) < 1:
        raise ValueError(f"{option}: expected sizes of at least 1 with x between them, got {text!r}; write {example}")
    return tuple(found)


@dataclass(frozen=True, slots=True)
class ImageAxes:
    """Where an input of images has its axes; axis 0 is that of the batch."""

    channel: int
    height: int
    width: int


def image_axes(port: Port) -> ImageAxes | None:
    """Return the axes of an input that takes images of 1 or 3 channels, (N, C, H, W) or (N, H, W, C); else None."""
    if port.shape is None or len(port.shape) != 4 or port.dtype not in ("float32", "float64", "uint8", *_HALVES):
        return None
    if port.shape[1] in (1, 3):
        return ImageAxes(1, 2, 3)
    if port.shape[3] in (1, 3):
        return ImageAxes(3, 1, 2)
    return ImageAxes(1, 2, 3) if not isinstance(port.shape[1], int) else None


class ModelFile:
    """An ONNX model or a compiled program, read from a file.

    Call it with one array for each input; it answers with (name, value) for each output, as arrays, or lists of them. The
    first call compiles an ONNX model; one that reads values, so that no program can be made of it, runs operator by operator.

    Parameters
    ----------
    path : path
        Its content says what it is.

    Attributes
    ----------
    kind : str
        "onnx" or "program".
    inputs, outputs : tuple of Port
        A program's sizes are open as far as its record holds for others.
    recorded : tuple of tuple of int, or None
        Shapes that a program was compiled for.
    reason : str or None
        Why the model runs operator by operator.

    Raises
    ------
    ValueError
        A file of weights alone, one that is damaged, or operators that striate does not support.
    OSError
        A file that cannot be opened.
    ModuleNotFoundError
        The onnx package is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kind = kind_of(path)
        self.reason: str | None = None
        self.recorded: tuple[Shape, ...] | None = None
        self._program: Program | None = None
        self._module: OnnxModule | None = None
        if self.kind == "weights":
            raise ValueError(
                f"{path}: expected an ONNX model or a program file, got weights alone; load them into a model with "
                "striate.io.weights.load_into"
            )
        if self.kind == "program":
            self._program = load_program(path)
            self._read_graph(self._program.graph)
        else:
            module: OnnxModule = import_onnx().load(path)
            self._module = module
            self.inputs, self.outputs = module.input_ports, module.output_ports

    def _read_graph(self, graph: Any) -> None:
        values = [graph.value(i) for i in graph.inputs]
        self.recorded = tuple(tuple(int(n) for n in value.shape) for value in values)
        self.inputs = tuple(
            Port(
                value.name,
                str(value.dtype),
                tuple(None if self._is_open(graph, i, axis) else n for axis, n in enumerate(self.recorded[i])),
            )
            for i, value in enumerate(values)
        )
        results = [graph.value(i) for i in graph.results]
        self.outputs = tuple(
            Port(f"output{i}", str(value.dtype), tuple(n if type(n) is int else None for n in value.shape))
            for i, value in enumerate(results)
        )

    def _is_open(self, graph: Any, i: int, axis: int) -> bool:
        """Say whether the record holds for other sizes of one axis."""
        assert self.recorded is not None
        n = self.recorded[i][axis]
        shapes = [list(shape) for shape in self.recorded]
        for other in {1, n + 1, 2 * n, n + 32} - {n}:
            shapes[i][axis] = other
            if graph.guards_hold(shapes):
                return True
        return False

    @property
    def module(self) -> OnnxModule | None:
        """The model of an ONNX file; None for a program."""
        return self._module

    def settle(self, sizes: Sizes, *, batch: int = 1) -> list[Shape]:
        """Return a shape for each input, with the sizes asked for where those of the file are open.

        An open batch is `batch`, open channels of images are 3; a program's open sizes are those that it was compiled for.

        Raises
        ------
        ValueError
            Sizes that are not open, or open ones that nothing says.
        """
        names = [port.name for port in self.inputs]
        unknown = [name for name in sizes.shapes if name not in names and not (name == "" and len(names) == 1)]
        if unknown:
            raise ValueError(
                f"--shape: expected a name of {', '.join(map(repr, names))} before the =, got {unknown[0]!r}; pass "
                f"{names[0] if names else 'NAME'}=1x3x224x224"
            )
        return [self._settled(i, port, sizes, batch) for i, port in enumerate(self.inputs)]

    def _settled(self, i: int, port: Port, sizes: Sizes, batch: int) -> Shape:
        asked = sizes.shapes.get(port.name) or (sizes.shapes.get("") if len(self.inputs) == 1 else None)
        if asked is not None:
            self.check(port, asked)
            return asked
        if port.shape is None:
            raise ValueError(
                f"{self.path}: expected a shape for {port}, got none; pass --shape {port.name}=1x3x224x224, say"
            )
        axes = image_axes(port)
        found: dict[int, int] = {}
        if sizes.batch is not None:
            found[0] = sizes.batch
        if axes is not None and sizes.size is not None:
            found |= {axes.height: sizes.size[0], axes.width: sizes.size[1]}
        settled: list[int] = []
        for axis, n in enumerate(port.shape):
            if axis in found:
                settled.append(found[axis])
            elif isinstance(n, int):
                settled.append(n)
            elif self.recorded is not None:
                settled.append(self.recorded[i][axis])
            elif axis == 0:
                settled.append(batch)
            elif axes is not None and axis == axes.channel:
                settled.append(3)
            else:
                size = " --size 224 or" if axes is not None else ""
                raise ValueError(
                    f"{self.path}: expected a size for each open axis of {port}, got none for axis {axis}; pass{size} "
                    f"--shape {port.name}={'x'.join(['1', *['32'] * (len(port.shape) - 1)])}, say"
                )
        self.check(port, tuple(settled))
        return tuple(settled)

    def check(self, port: Port, shape: Shape) -> None:
        """Refuse a shape that differs from the fixed sizes of an input; raises ValueError."""
        if port.shape is None:
            return
        fits = len(shape) == len(port.shape) and all(
            not isinstance(n, int) or n == given for n, given in zip(port.shape, shape, strict=True)
        )
        if not fits:
            raise ValueError(
                f"{self.path}: expected sizes that fit {port}, got {'×'.join(map(str, shape))}; the others are fixed in the file"
            )

    def named_sizes(self, shapes: Sequence[Shape]) -> dict[str, int]:
        """Return the sizes of open axes by the names that the file gives them; a name that would get several is left out."""
        sizes: dict[str, set[int]] = {}
        for port, shape in zip(self.inputs, shapes, strict=True):
            for name, n in zip(port.shape or (), shape, strict=False):
                if isinstance(name, str):
                    sizes.setdefault(name, set()).add(n)
        return {name: found.pop() for name, found in sizes.items() if len(found) == 1}

    def draw(self, shapes: Sequence[Shape], seed: int = 0) -> list[Array]:
        """Return random inputs of these shapes: floats are normal, integers small, bytes those of an image.

        Raises
        ------
        ValueError
            Inputs that are no tensors.
        """
        rng = np.random.default_rng(seed)
        return [self._drawn(rng, port, shape) for port, shape in zip(self.inputs, shapes, strict=True)]

    def _drawn(self, rng: np.random.Generator, port: Port, shape: Shape) -> Array:
        dtype = self.dtype_of(port)
        if dtype.kind == "f":
            return rng.standard_normal(shape).astype(dtype)
        return rng.integers(0, {"uint8": 256, "int8": 128}.get(port.dtype, 2), shape).astype(dtype)

    def dtype_of(self, port: Port) -> np.dtype[Any]:
        """Return what arrays for an input have to be; float32 for half floats."""
        if port.dtype in _HALVES:
            return np.dtype(np.float32)
        if port.dtype not in ("float32", "float64", "int8", "uint8", "int32", "int64", "bool"):
            raise ValueError(
                f"{self.path}: expected inputs that are tensors of numbers, got {port}; call the model from Python, "
                "with striate.onnx.load"
            )
        return np.dtype(port.dtype)

    def program(self, arrays: Sequence[Array]) -> Program:
        """Return the model as a program, compiled for inputs like these.

        Raises
        ------
        ValueError
            A model of which no program can be made; the text says why.
        """
        try:
            return self._compiled([striate.from_numpy(array) for array in arrays])
        except (RecordError, TypeError) as error:
            raise ValueError(f"{self.path}: expected a model that compiles, got: {error}") from error

    def _compiled(self, tensors: Sequence[Tensor]) -> Program:
        if self._program is None:
            assert self._module is not None
            self._program = striate.compile(self._module, *tensors)
        return self._program

    def bound(self, arrays: Sequence[Array]) -> Callable[[], Any]:
        """Return a call of the model on these arrays; it answers as the model does, in Tensors."""
        tensors = [striate.from_numpy(array) for array in arrays]
        return lambda: self._run(tensors)

    def _run(self, tensors: Sequence[Tensor]) -> Any:
        if self.reason is None:
            try:
                return self._compiled(tensors)(*tensors)
            except (RecordError, TypeError) as error:
                if self._module is None:
                    raise
                self.reason = str(error)
        assert self._module is not None
        with no_grad():
            return self._module(*tensors)

    def __call__(self, arrays: Sequence[Array]) -> list[tuple[str, Any]]:
        """Run on one array for each input; raises what the model raises."""
        result = self.bound(arrays)()
        if self._module is not None:
            results = result if isinstance(result, tuple) else (result,)
            return [(port.name, _on_host(value)) for port, value in zip(self.outputs, results, strict=True)]
        found = list(_named(result, ""))
        return [(name or f"output{i}", _on_host(value)) for i, (name, value) in enumerate(found)]


def _named(result: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the tensors of a result with their keys."""
    if isinstance(result, dict):
        for key, value in result.items():
            yield from _named(value, f"{name}.{key}" if name else str(key))
    elif isinstance(result, tuple | list):
        for i, value in enumerate(result):
            yield from _named(value, f"{name}.{i}" if name else "")
    else:
        yield name, result


def _on_host(value: Any) -> Any:
    if isinstance(value, list):
        return [_on_host(v) for v in value]
    if isinstance(value, Tensor):
        if str(value.dtype) == "bfloat16":
            value = value.to(striate.float32)
        return value.detach().numpy()
    return np.asarray(value)
