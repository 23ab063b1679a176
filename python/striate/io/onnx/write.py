"""Write a model as an ONNX file: record a pass, or read a compiled program, and put each operator down as ONNX nodes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from striate import _core
from striate.autograd import Tensor
from striate.compile import Program
from striate.io.onnx import write_shapes, write_windows  # noqa: F401  (they fill the table)
from striate.io.onnx.write_graph import SMALL, Call, UnwritableError, Value, Weight, Writer, newest_opset, stored
from striate.io.onnx.write_ops import ROWS
from striate.io.onnx.write_record import Step, take
from striate.io.onnx.write_sizes import Axis, Sizes
from striate.ops import from_numpy

if TYPE_CHECKING:
    import onnx

__all__ = ["OLDEST_OPSET", "save", "to_model"]

Model = Callable[..., Any] | Program
DynamicAxes = Mapping[str | int, Mapping[int, str] | Sequence[int]]

#: Since opset 18 all reductions take their axes as an input and Resize has an antialias.
OLDEST_OPSET = 18

#: What a file of protocol buffers can hold.
MOST_BYTES = 2**31 - 2**20
_ALIGNMENT = 4096


def to_model(
    model: Model,
    example: Any,
    *,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    dynamic_axes: DynamicAxes | None = None,
    opset_version: int = OLDEST_OPSET,
) -> onnx.ModelProto:
    """Return a model as an onnx.ModelProto; arguments and errors as `save`.

    Returns
    -------
    onnx.ModelProto
        Holds all weights, so it can be serialised below 2 GiB only.

    Examples
    --------
    >>> import striate
    >>> from striate.io.onnx.write import to_model
    >>> proto = to_model(lambda x: striate.relu(x * 2.0), striate.zeros(2, 3))
    >>> [node.op_type for node in proto.graph.node]
    ['Mul', 'Relu']
    """
    made = _Export(model, example, input_names, output_names, dynamic_axes, opset_version)
    return made.model([weight.proto() for weight in made.writer.weights.values()])


def save(
    model: Model,
    path: str | os.PathLike[str],
    example: Any,
    *,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    dynamic_axes: DynamicAxes | None = None,
    opset_version: int = OLDEST_OPSET,
    external_data: bool | None = None,
) -> None:
    """Write a model to an ONNX file, for ONNX Runtime and whatever else reads the format.

    A module or function is recorded in eval mode, whatever mode it is in. A compiled program is written as it runs, with
    batch-norm folded into weights, and its fused operators taken apart again. Weights keep the keys of `state_dict`; a
    folded weight has the name of the one it was made from. Nodes are named by the module that they come from.

    Parameters
    ----------
    model : Module, callable or Program
        Takes tensors; returns a tensor, or tuples, lists and dicts of them.
    path : str or path
        A file already there is replaced, at once or not at all.
    example : Tensor, array, or tuple or list of them
        One pass is recorded with these inputs. Their values do not matter, their sizes do.
    input_names : sequence of str, optional
        By default input0, input1, …
    output_names : sequence of str, optional
        By default the keys or fields of the result, else output0, output1, …
    dynamic_axes : mapping, optional
        Axes that may have other sizes than in the example, all others are fixed: of an input, by its name or number, either
        {axis: name} or a list of axes. Axes of one name are of one size. Entries for outputs, {axis: name}, name what
        follows from those.
    opset_version : int, default 18
        Of the ONNX operators, from 18 to the newest that the onnx package knows.
    external_data : bool, optional
        Whether large weights go to a file of their own beside `path`, with ".data" added to its name. By default only when
        the model has more than 2 GiB, which one file can't hold.

    Raises
    ------
    ValueError
        Operators that ONNX does not have (all are named, and nothing is written), an axis in dynamic_axes on whose size
        the record depends, names that do not fit, an opset out of range, or a model above 2 GiB with external_data=False.
    RecordError
        The model reads values, which a record can't know.
    TypeError
        No example, or a model that returns something else than tensors.
    ImportError
        The onnx package is missing.
    OSError
        A folder that is missing or cannot be written, a full disk.

    Notes
    -----
    Each model is checked by ONNX's checker with full shape inference before it is written. Where sizes may change only as
    far as something stays true ("height == 2 * (height // 2)"), the metadata entry "striate_sizes" says so.

    References
    ----------
    ONNX, "Open Neural Network Exchange intermediate representation specification", and "Operator schemas", onnx.ai.

    Examples
    --------
    >>> import striate
    >>> from striate import nn
    >>> from striate.io.onnx.write import save
    >>> x = striate.zeros(1, 3, 8, 8)
    >>> save(nn.Conv2d(3, 4, 3), "conv.onnx", x, input_names=["image"], dynamic_axes={"image": {0: "batch"}})
    """
    made = _Export(model, example, input_names, output_names, dynamic_axes, opset_version)
    weights = list(made.writer.weights.values())
    n_bytes = sum(weight.data.nbytes for weight in weights)
    if external_data is False and n_bytes > MOST_BYTES:
        raise ValueError(
            f"onnx.save: expected at most {MOST_BYTES} bytes of weights with external_data=False, got {n_bytes}; leave "
            "external_data out"
        )
    target = os.fspath(path)
    if external_data or (external_data is None and n_bytes > MOST_BYTES):
        data = f"{target}.data"
        large = [weight for weight in weights if weight.data.size > SMALL]
        places = _layout(large)
        protos = [
            weight.proto_elsewhere(os.path.basename(data), places[weight.name])
            if weight.name in places
            else weight.proto()
            for weight in weights
        ]
        _replace(data, _at_places(large, places))
    else:
        protos = [weight.proto() for weight in weights]
    _replace(target, [made.model(protos).SerializeToString(deterministic=True)])


def _unknown(steps: Sequence[Step]) -> list[str]:
    return sorted({step.op for step in steps if step.op not in ROWS})


def _inputs(example: Any) -> list[Tensor]:
    given = list(example) if isinstance(example, tuple | list) else [example]
    if not given:
        raise TypeError("onnx.save: expected an example of every input, got none; pass one tensor or a tuple of them")
    return [x if isinstance(x, Tensor) else from_numpy(x) for x in given]


class _Export:
    """A model on its way: recorded, translated and checked."""

    def __init__(
        self,
        model: Model,
        example: Any,
        input_names: Sequence[str] | None,
        output_names: Sequence[str] | None,
        dynamic_axes: DynamicAxes | None,
        opset: int,
    ) -> None:
        if not OLDEST_OPSET <= opset <= newest_opset():
            raise ValueError(
                f"onnx.save: expected opset_version from {OLDEST_OPSET} to {newest_opset()}, got {opset}; choose one of "
                "these"
            )
        inputs = _inputs(example)
        taken = take(model, inputs)
        graph = taken.graph
        self._taken = taken
        self.input_names = _names("input_names", input_names, [f"input{i}" for i in range(len(inputs))])
        self.output_names = _names("output_names", output_names, taken.result_names)
        repeated = set(self.input_names) & set(self.output_names)
        if repeated:
            raise ValueError(
                f"onnx.save: expected different names for inputs and outputs, got {sorted(repeated)[0]!r} for both; choose "
                "another"
            )
        shapes = [x.shape for x in inputs]
        axes = _Axes(dynamic_axes or {}, self.input_names, self.output_names, shapes)
        self.sizes = Sizes(graph, shapes, axes.of_inputs)
        reserved = [*self.input_names, *self.output_names, *taken.weight_names.values()]
        self.writer = Writer(self.sizes, self.input_names, reserved, opset)
        results = self._translate()
        self._inputs = [
            self.writer.value_info(name, self._shape(i), str(graph.value(i).dtype))
            for name, i in zip(self.input_names, graph.inputs, strict=True)
        ]
        self._outputs = []
        for name, i in zip(self.output_names, graph.results, strict=True):
            described = axes.describe_output(name, self._shape(i), self.sizes)
            self._outputs.append(self.writer.value_info(name, described, str(graph.value(i).dtype)))
        self.writer.rename(results, self.output_names)
        self.writer.check(self._inputs, self._outputs)

    def model(self, weights: Sequence[onnx.TensorProto]) -> onnx.ModelProto:
        """Return the whole model with these protos of its weights."""
        conditions = self.sizes.conditions()
        metadata = {"striate_sizes": "; ".join(conditions)} if conditions else {}
        return self.writer.model(self._inputs, self._outputs, weights, metadata, _core.__version__)

    def _shape(self, value: int) -> tuple[Any, ...]:
        return tuple(self.sizes.settle(n) for n in self._taken.graph.value(value).shape)

    def _translate(self) -> list[str]:
        """Write all steps and return the names of the results."""
        taken, graph = self._taken, self._taken.graph
        refused = set(_unknown(taken.steps))
        known: dict[int, Value] = {}
        for i, name in zip(graph.inputs, self.input_names, strict=True):
            known[i] = Value(name, self._shape(i), str(graph.value(i).dtype))
        is_read = {i for step in taken.steps for i in step.inputs} | set(graph.results)
        for step in taken.steps:
            call = self._call(step, known, is_read)
            self.writer.path = step.path
            made: Sequence[str | None] = []
            if step.op in ROWS:
                try:
                    written = ROWS[step.op](self.writer, call)
                    made = [written] if isinstance(written, str) else written
                except UnwritableError as error:
                    refused.add(str(error))
            for i, result, (shape, dtype) in zip_longest(step.outputs, made, call.results):
                known[i] = Value(result or "", shape, dtype)
        if refused:
            raise ValueError(
                f"onnx.save: expected operators that ONNX has, got {', '.join(sorted(refused))}; compute these outside of "
                "the model"
            )
        return [self._value(i, known, "").name for i in graph.results]

    def _call(self, step: Step, known: dict[int, Value], is_read: set[int]) -> Call:
        graph = self._taken.graph
        inputs = [
            None if i < 0 else self._value(i, known, step.path or step.op, is_bias=k == 2)
            for k, i in enumerate(step.inputs)
        ]
        results = [(self._shape(i), str(graph.value(i).dtype)) for i in step.outputs]
        attributes = {key: self._settled(value) for key, value in step.attributes.items()}
        return Call(step.op, attributes, inputs, results, [i in is_read for i in step.outputs])

    def _settled(self, attribute: Any) -> Any:
        if isinstance(attribute, tuple):
            return tuple(self._settled(part) for part in attribute)
        return self.sizes.settle(attribute)

    def _value(self, i: int, known: dict[int, Value], owner: str, *, is_bias: bool = False) -> Value:
        """Return a value, storing it when it is a weight met for the first time."""
        if i not in known:
            value, taken = self._taken.graph.value(i), self._taken
            data = taken.contents.get(i)
            data = stored(value.array) if data is None else data
            name, dtype = taken.weight_names.get(i), str(value.dtype)
            if name is not None:
                self._check_weight(name)
                stored_as = self.writer.named_weight(name, data, dtype)
            elif data.size <= SMALL and data.ndim == 0 and dtype != "bfloat16":
                stored_as = self.writer.constant(data)
            else:
                stored_as = self.writer.weight(
                    f"{owner}.{'bias' if is_bias else 'weight'}" if owner else "weight", data, dtype
                )
            known[i] = Value(stored_as, self._shape(i), dtype)
        return known[i]

    def _check_weight(self, name: str) -> None:
        if name in (*self.input_names, *self.output_names):
            raise ValueError(
                f"onnx.save: expected names of inputs and outputs that no weight has, got {name!r}; pass input_names or "
                "output_names"
            )


def _names(what: str, given: Sequence[str] | None, otherwise: list[str]) -> list[str]:
    names = otherwise if given is None else list(given)
    if len(names) != len(otherwise) or len(set(names)) != len(names) or not all(names):
        raise ValueError(
            f"onnx.save: expected {what} as {len(otherwise)} different names, got {names}; name each of {otherwise}"
        )
    return names


class _Axes:
    """What dynamic_axes says."""

    def __init__(
        self, given: DynamicAxes, inputs: list[str], outputs: list[str], shapes: Sequence[tuple[int, ...]]
    ) -> None:
        self.of_inputs: dict[Axis, str] = {}
        self.of_outputs: dict[str, Mapping[int, str]] = {}
        for key, axes in given.items():
            name = inputs[key] if isinstance(key, int) and 0 <= key < len(inputs) else key
            if name in outputs:
                self.of_outputs[str(name)] = axes if isinstance(axes, Mapping) else {}
                continue
            if name not in inputs:
                raise ValueError(
                    f"onnx.save: expected inputs or outputs as keys of dynamic_axes, got {key!r}; choose from "
                    f"{[*inputs, *outputs]}"
                )
            i = inputs.index(str(name))
            for axis in axes:
                at = axis + len(shapes[i]) if axis < 0 else axis
                if not 0 <= at < len(shapes[i]):
                    raise ValueError(
                        f"onnx.save: expected axes of {name!r} of shape {shapes[i]} in dynamic_axes, got {axis}; check "
                        "the number of axes"
                    )
                self.of_inputs[i, at] = axes[axis] if isinstance(axes, Mapping) else f"{name}_axis{at}"

    def describe_output(self, name: str, shape: tuple[Any, ...], sizes: Sizes) -> list[int | str]:
        """Return the sizes of an output, by the names given for them where they may change."""
        named = self.of_outputs.get(name, {})
        return [
            n if isinstance(n, int) else named.get(axis, named.get(axis - len(shape), sizes.describe(n)))
            for axis, n in enumerate(shape)
        ]


# Files.


def _layout(weights: Sequence[Weight]) -> dict[str, int]:
    """Return where each weight begins in a file of data."""
    places, at = {}, 0
    for weight in weights:
        places[weight.name] = at
        at += -(-weight.data.nbytes // _ALIGNMENT) * _ALIGNMENT
    return places


def _at_places(weights: Sequence[Weight], places: Mapping[str, int]) -> list[Any]:
    parts: list[Any] = []
    end = 0
    for weight in weights:
        parts += [bytes(places[weight.name] - end), weight.data.reshape(-1).view("uint8").data]
        end = places[weight.name] + weight.data.nbytes
    return parts


def _replace(path: str, parts: Sequence[Any]) -> None:
    """Write a file beside `path`, flush it and rename it, so that it appears whole or not at all."""
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
    folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
