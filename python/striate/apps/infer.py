"""`striate run`: pictures or arrays through a model in a file, and what it says of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import striate
from striate import data
from striate.apps.model_file import Array, ImageAxes, ModelFile, Sizes, image_axes
from striate.io import npz, weights
from striate.io.port import Port

#: What the channels of ImageNet's pictures have, as networks trained on them want it.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

#: A batch has no more samples and bytes than this.
MOST_SAMPLES = 16
MOST_BYTES = 64 << 20

ARRAY_ENDINGS = (".npy", ".npz")


@dataclass(frozen=True, slots=True)
class Preparation:
    """How pixels become what a model takes: (pixel · scale − mean) / std, for each channel.

    Models that take bytes get the pixels as they are.

    Parameters
    ----------
    scale : float, default 1/255
        Of pixels from 0 to 255.
    mean, std : tuple of float
        One number, or one for each channel.

    Raises
    ------
    ValueError
        Numbers that are not finite, or a std of 0.
    """

    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        """Refuse numbers that make no numbers."""
        if not np.isfinite([self.scale, *self.mean, *self.std]).all() or 0 in self.std:
            raise ValueError(
                f"run: expected finite numbers, and none of std 0, got scale={self.scale}, mean={self.mean}, "
                f"std={self.std}; leave them out, or pass --imagenet"
            )

    @classmethod
    def parsed(
        cls, scale: float | None = None, mean: str | None = None, std: str | None = None, *, is_imagenet: bool = False
    ) -> Preparation:
        """Read what stands on the command line: numbers with commas between.

        Raises
        ------
        ValueError
            Something else, or numbers beside those of ImageNet.
        """
        if is_imagenet and not (mean is None and std is None and scale is None):
            raise ValueError("--imagenet: expected it without --scale, --mean and --std, got both; leave one out")
        if is_imagenet:
            return cls(mean=IMAGENET_MEAN, std=IMAGENET_STD)
        return cls(
            1 / 255 if scale is None else scale,
            (0.0,) if mean is None else _numbers("--mean", mean),
            (1.0,) if std is None else _numbers("--std", std),
        )

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return pixels, shape (H, W, C), as numbers.

        Raises
        ------
        ValueError
            Another number of channels.
        """
        channels = pixels.shape[-1]
        for name, numbers in (("--mean", self.mean), ("--std", self.std)):
            if len(numbers) not in (1, channels):
                raise ValueError(
                    f"{name}: expected one number or {channels}, one for each channel, got {len(numbers)}; "
                    "write them with commas between"
                )
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        return ((pixels * np.float32(self.scale) - mean) / std).astype(np.float32)


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError(
            f"{option}: expected numbers with commas between, got {text!r}; write 0.5 or 0.485,0.456,0.406"
        ) from error


def check_preparation(model: ModelFile, preparation: Preparation) -> None:
    """Refuse numbers for pixels that a model takes as bytes; raises ValueError."""
    if preparation != Preparation() and all(port.dtype == "uint8" for port in model.inputs):
        raise ValueError(
            f"{model.path}: expected no --scale, --mean, --std or --imagenet for a model that takes bytes, got some; "
            "leave them out"
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model says of one file, or why there is no answer.

    Attributes
    ----------
    path : Path
    outputs : list of (str, array or list)
        Name and value; axis 0 is that of the batch.
    error : Exception or None
    """

    path: Path
    outputs: list[tuple[str, Any]]
    error: Exception | None = None


def answer(
    model: ModelFile, paths: Sequence[Path], preparation: Preparation | None = None, size: tuple[int, int] | None = None
) -> Iterator[Answer]:
    """Run a model on pictures, or on arrays in `.npy` and `.npz` files, in their order.

    Several run as one batch where the model leaves its size open and they have one shape.

    Parameters
    ----------
    model : ModelFile
    paths : sequence of path
        Arrays of `.npz` have the names of inputs. An axis of the batch may be missing in arrays.
    preparation : Preparation, optional
        Of pixels.
    size : (int, int), optional
        Height and width to which pictures are scaled and cut where the model leaves them open. Default: for an ONNX model
        those of the picture, for a program those that it was compiled for.

    Yields
    ------
    Answer
        One for each file; those of files that cannot be read, or that the model refuses, hold the error.
    """
    preparation = preparation or Preparation()
    # What does not fit inside of the model is often an open size that only seems to be open.
    advice = "; pass --size if the model needs certain sizes" if size is None and _has_open_sizes(model) else ""
    waiting: list[tuple[Path, list[Array]]] = []
    for path in paths:
        try:
            inputs = _read(model, path, preparation, size)
        except (ValueError, OSError, TypeError) as error:
            yield from _flush(model, waiting, advice)
            waiting = []
            yield Answer(path, [], error)
            continue
        if waiting and not _joins(model, waiting, inputs):
            yield from _flush(model, waiting, advice)
            waiting = []
        waiting.append((path, inputs))
    yield from _flush(model, waiting, advice)


def _has_open_sizes(model: ModelFile) -> bool:
    return any(
        image_axes(port) and not all(isinstance(n, int) for n in port.shape[1:]) for port in model.inputs if port.shape
    )


def _joins(model: ModelFile, waiting: list[tuple[Path, list[Array]]], inputs: list[Array]) -> bool:
    """Say whether a sample fits into the batch of those that wait."""
    first = waiting[0][1]
    ports = (*model.inputs, *model.outputs)
    is_open = all(port.shape and not isinstance(port.shape[0], int) for port in ports)
    n = len(waiting) + 1
    return (
        is_open
        and [x.shape for x in inputs] == [x.shape for x in first]
        and all(x.shape[0] == 1 for x in inputs)
        and n <= MOST_SAMPLES
        and n * sum(x.nbytes for x in inputs) <= MOST_BYTES
    )


def _flush(model: ModelFile, waiting: list[tuple[Path, list[Array]]], advice: str) -> Iterator[Answer]:
    """Answer for samples as one batch, or for each alone where the model does not treat them as one."""
    n = len(waiting)
    if n > 1:
        try:
            outputs = model([np.concatenate(parts) for parts in zip(*[inputs for _, inputs in waiting], strict=True)])
        except (ValueError, TypeError):
            outputs = []  # a size of 1 that the file does not tell of; alone they may do
        if outputs and all(isinstance(y, np.ndarray) and y.ndim and len(y) == n for _, y in outputs):
            for i, (path, _) in enumerate(waiting):
                yield Answer(path, [(name, y[i : i + 1]) for name, y in outputs])
            return
    for path, inputs in waiting:
        try:
            yield Answer(path, model(inputs))
        except (ValueError, TypeError) as error:
            yield Answer(path, [], ValueError(f"{path}: {error}{advice}"))


def _read(model: ModelFile, path: Path, preparation: Preparation, size: tuple[int, int] | None) -> list[Array]:
    """Return one array for each input of the model."""
    if path.suffix.lower() in ARRAY_ENDINGS:
        return _read_arrays(model, path)
    axes = image_axes(model.inputs[0]) if len(model.inputs) == 1 else None
    if axes is None:
        described = ", ".join(map(str, model.inputs))
        raise ValueError(
            f"{model.path}: expected a model with one input, of images of 1 or 3 channels, for {path}, got inputs {described}; "
            "pass arrays in a .npz file, named as the inputs"
        )
    return [_read_image(model, axes, path, preparation, size)]


def _read_image(
    model: ModelFile, axes: ImageAxes, path: Path, preparation: Preparation, size: tuple[int, int] | None
) -> Array:
    port = model.inputs[0]
    assert port.shape is not None
    given = [port.shape[axis] for axis in (axes.height, axes.width)]
    is_open = not all(isinstance(n, int) for n in given)
    if size is None and is_open and model.recorded is None:
        own = data.read_image(path).shape
        height, width = (n if isinstance(n, int) else m for n, m in zip(given, own, strict=False))
        size = height, width
    (shape,) = model.settle(Sizes(size=size, batch=1))
    pixels = data.read_image(path, size=(shape[axes.height], shape[axes.width]), channels=shape[axes.channel])
    x: Array = pixels if port.dtype == "uint8" else preparation(pixels).astype(model.dtype_of(port))
    return np.ascontiguousarray(x.transpose(2, 0, 1) if axes.channel == 1 else x)[None]


def _read_arrays(model: ModelFile, path: Path) -> list[Array]:
    names = [port.name for port in model.inputs]
    if path.suffix.lower() == ".npz":
        given = {name: tensor.numpy() for name, tensor in npz.load(path).items()}
        if len(given) == len(names) == 1:
            given = dict(zip(names, given.values(), strict=True))
    else:
        try:
            given = {names[0] if len(names) == 1 else "": np.load(path, allow_pickle=False)}
        except (ValueError, EOFError) as error:
            raise ValueError(f"{path}: expected an array of numpy.save, got: {error}; save it again") from error
    if sorted(given) != sorted(names):
        raise ValueError(
            f"{path}: expected an array for each input, {', '.join(names)}, got {', '.join(given) or 'none'}; name "
            "them in a .npz file"
        )
    return [_fitted(model, path, port, given[port.name]) for port in model.inputs]


def _fitted(model: ModelFile, path: Path, port: Port, x: Array) -> Array:
    """Return an array as an input takes it: with an axis for the batch, and in its dtype where nothing is lost but precision."""
    dtype = model.dtype_of(port)
    if not np.can_cast(x.dtype, dtype, "same_kind"):
        raise ValueError(f"{path}: expected numbers that are {dtype} for {port}, got {x.dtype}; convert them")
    if port.shape is not None and x.ndim == len(port.shape) - 1:
        x = x[None]
    model.check(port, x.shape)
    return np.ascontiguousarray(x, dtype)


def read_labels(path: Path) -> list[str]:
    """Read names of classes, one a line.

    Raises
    ------
    ValueError
        A file that is no text, or has no line.
    """
    try:
        labels = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"--labels: expected a text file, got {path} ({error}); write one name a line") from error
    while labels and not labels[-1]:
        labels.pop()
    if not labels:
        raise ValueError(f"--labels: expected one name a line in {path}, got none; write one for each class")
    return labels


def probabilities(y: Any) -> NDArray[np.float64] | None:
    """Return an output as probabilities, shape (N, K), if it looks like a classifier's: (N, K) or (N, K, 1, 1) floats, K ≥ 2.

    Numbers that are not probabilities go through softmax.
    """
    is_vector = isinstance(y, np.ndarray) and y.dtype.kind == "f" and y.ndim >= 2 and max(y.shape[2:], default=1) == 1
    if not is_vector or y.shape[1] < 2 or not y.size:
        return None
    scores: NDArray[np.float64] = y.reshape(y.shape[:2]).astype(np.float64)
    if scores.min() >= 0 and np.allclose(scores.sum(axis=1), 1, atol=1e-3):
        return scores
    powers: NDArray[np.float64] = np.exp(scores - scores.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


def lines(found: Answer, labels: Sequence[str] | None = None, n_best: int = 5) -> list[str]:
    """Return what a model says of one file, a line for each sample and output.

    Parameters
    ----------
    found : Answer
        Without an error.
    labels : sequence of str, optional
        Names of classes.
    n_best : int, default 5
        Classes named.

    Raises
    ------
    ValueError
        Not as many labels as classes.
    """
    written = []
    for name, y in found.outputs:
        start = f"{found.path}: {name}: " if len(found.outputs) > 1 else f"{found.path}: "
        shares = probabilities(y)
        if shares is None:
            written.append(f"{found.path}: {name}: {_summary(y)}")
            continue
        if labels is not None and len(labels) != shares.shape[1]:
            raise ValueError(
                f"--labels: expected {shares.shape[1]} names, one for each class of output {name!r}, got {len(labels)}; "
                "write one a line"
            )
        for i, row in enumerate(shares):
            best = np.argsort(-row, kind="stable")[:n_best]
            told = [f"{labels[k] if labels is not None else f'class {k}'} {row[k]:.1%}" for k in best]
            sample = f"[{i}] " if len(shares) > 1 else ""
            written.append(f"{start}{sample}{told[0]}  ({', '.join(told[1:])})")
    return written


def _summary(y: Any) -> str:
    if not isinstance(y, np.ndarray):
        return f"{len(y)} values"
    shape = "×".join(map(str, y.shape)) or "number"
    text = f"{shape} {y.dtype}"
    if y.size and y.dtype.kind in "fiub":
        y = y.astype(np.float64)
        text += f", min {y.min():.6g}, mean {y.mean():.6g}, max {y.max():.6g}"
    return text


def save(answers: Sequence[Answer], path: Path) -> None:
    """Write the outputs of all files to a `.npz` or `.safetensors` file, which appears whole or not at all.

    Each output is one tensor, of all samples in their order; where their shapes differ it is one for each file, NAME.0,
    NAME.1 and so on.

    Raises
    ------
    ValueError
        Outputs that are no tensors, or another ending.
    """
    arrays: dict[str, Any] = {}
    for position, (name, _) in enumerate(answers[0].outputs):
        values = [found.outputs[position][1] for found in answers]
        if all(np.ndim(y) and np.shape(y)[1:] == np.shape(values[0])[1:] for y in values):
            arrays[name] = np.concatenate(values)
        else:
            arrays |= {f"{name}.{i}": y for i, y in enumerate(values)}
    try:
        tensors = {name: striate.from_numpy(np.array(y)) for name, y in arrays.items()}
    except (TypeError, ValueError) as error:  # texts, or lists of arrays that differ in shape
        raise ValueError(
            f"--output: expected outputs that are tensors of numbers, got: {error}; leave it out"
        ) from error
    weights.save(tensors, path)


def check_output(path: Path) -> None:
    """Refuse an ending that `save` does not know, before any work is done."""
    if path.suffix not in (".npz", ".safetensors"):
        raise ValueError(
            f"--output: expected a name that ends with .npz or .safetensors, got {path}; choose one of the two"
        )
