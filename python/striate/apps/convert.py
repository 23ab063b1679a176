"""`striate convert`: from one file format to another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from striate.apps.model_file import Array, ModelFile, Shape, Sizes, import_onnx, kind_of
from striate.autograd import RecordError, Tensor
from striate.io import weights
from striate.io.port import Port

#: What an ending asks for.
TARGETS = {".onnx": "onnx", ".striate": "program", ".safetensors": "weights", ".npz": "weights"}
#: What can be made of what.
PAIRS = {
    "onnx": ("program", "onnx", "weights"),
    "program": ("onnx",),
    "weights": ("weights",),
}
_NAMES = {"onnx": "an ONNX model", "program": "a program file", "weights": "weights"}
#: Which open sizes of a model stay so.
OPEN = ("all", "batch", "none")
#: Which options say something, by what is read and written.
_OPTIONS = {
    ("onnx", "program"): ("--shape",),
    ("onnx", "onnx"): ("--shape", "--fold", "--opset", "--open"),
    ("onnx", "weights"): (),
    ("program", "onnx"): ("--shape", "--opset", "--open"),
    ("weights", "weights"): ("--entry",),
}


def convert(
    source: Path,
    target: Path,
    sizes: Sizes | None = None,
    *,
    fold: bool = False,
    opset: int | None = None,
    open_axes: str | None = None,
    entry: str | None = None,
) -> str:
    """Write what one file holds in another format.

    Parameters
    ----------
    source : path
        Its content says what it is: an ONNX model, a program or weights.
    target : path
        Its ending says what becomes of it: `.onnx`, `.striate` for a program, `.safetensors` or `.npz` for weights. A file
        already there is replaced, at once or not at all.
    sizes : Sizes, optional
        Of the inputs that a model is recorded with, where its own are open.
    fold : bool, default False
        Compile an ONNX model before it is written as one again: batch-norm is folded into weights.
    opset : int, optional
        Of the ONNX operators written. Default: that of an ONNX model where it can be written, else the oldest that can.
    open_axes : {"all", "batch", "none"}, optional
        Which of the sizes that a model leaves open stay so in an ONNX model; the others are fixed to those recorded.
        Default: all.
    entry : str, optional
        For weights of torch, which part of a checkpoint.

    Returns
    -------
    str
        What was written, in a few words.

    Raises
    ------
    ValueError
        Formats between which there is no way, options that say nothing for them, two names for one file, and what readers
        and writers refuse.
    OSError
        A file that cannot be read or written.
    ModuleNotFoundError
        The onnx package is missing.
    """
    kind = kind_of(source)
    wanted = TARGETS.get(target.suffix.lower())
    if wanted not in PAIRS[kind]:
        possible = ", ".join(ending for ending, made in TARGETS.items() if made in PAIRS[kind])
        raise ValueError(
            f"convert: expected a target that {_NAMES[kind]} can become ({possible}), got {target.name}; a file's ending "
            "says what it shall be"
        )
    if target.exists() and source.samefile(target):
        raise ValueError(f"convert: expected two files, got {source} twice; choose another name for the result")
    sizes = sizes or Sizes()
    given = {"--shape": sizes != Sizes(), "--fold": fold, "--opset": opset, "--open": open_axes, "--entry": entry}
    useless = [name for name, value in given.items() if value and name not in _OPTIONS[kind, wanted]]
    if useless:
        raise ValueError(
            f"convert: expected options that matter from {_NAMES[kind]} to {_NAMES[wanted]}, got {', '.join(useless)}; "
            "leave them out"
        )
    if kind == "weights":
        return _save_weights(weights.load(source, entry=entry), target)
    model = ModelFile(source)
    if wanted == "weights":
        assert model.module is not None
        return _save_weights(model.module.state_dict(), target)
    # Of two samples: a record of one may hold for one only, since sizes of 1 are repeated where others are not.
    example = model.draw(model.settle(sizes, batch=1 if open_axes == "none" else 2))
    if wanted == "program":
        program = model.program(example)
        program.save(target)
        return f"a program of {len(program.graph.nodes)} nodes"
    return _save_onnx(model, example, target, fold=fold, opset=opset, open_axes=open_axes or "all")


def _save_weights(tensors: Mapping[str, Tensor], target: Path) -> str:
    weights.save(tensors, target)
    return f"{len(tensors)} tensors"


def _save_onnx(
    model: ModelFile, example: list[Array], target: Path, *, fold: bool, opset: int | None, open_axes: str
) -> str:
    onnx = import_onnx()
    from striate.io.onnx.write import OLDEST_OPSET

    module = model.module
    made = model.program(example) if fold or module is None else module
    axes = _open_axes(model, [x.shape for x in example], open_axes)
    if opset is None:
        opset = OLDEST_OPSET if module is None else max(module.opset, OLDEST_OPSET)
    try:
        onnx.save(
            made,
            target,
            tuple(example),
            input_names=[port.name for port in model.inputs],
            output_names=list(module.outputs) if module is not None else None,
            dynamic_axes=axes,
            opset_version=opset,
        )
    except RecordError as error:
        raise ValueError(f"{model.path}: expected a model that can be recorded, got: {error}") from error
    except ValueError as error:
        if "dynamic_axes" not in str(error):
            raise
        told = str(error) if len(str(error)) < 300 else f"{str(error)[:300]} …"
        raise ValueError(
            f"convert: expected open sizes that the model does not fix, got: {told}; pass --open batch or --open none"
        ) from error
    return f"an ONNX model of opset {opset}"


def _open_axes(model: ModelFile, shapes: Sequence[Shape], which: str) -> dict[str, dict[int, str]]:
    """Return the axes that stay open, by the names that they have in the file."""
    if which not in OPEN:
        raise ValueError(f"--open: expected {', '.join(OPEN)}, got {which!r}; choose one of these")
    sizes = model.named_sizes(shapes)

    def name_of(port: Port, axis: int) -> str:
        assert port.shape is not None
        name = port.shape[axis]
        if isinstance(name, str) and name in sizes:
            return name
        return "batch" if axis == 0 else f"{port.name}_axis{axis}"

    return {
        port.name: {
            axis: name_of(port, axis)
            for axis, n in enumerate(port.shape or ())
            if not isinstance(n, int) and (which == "all" or (which == "batch" and axis == 0))
        }
        for port in model.inputs
    }
