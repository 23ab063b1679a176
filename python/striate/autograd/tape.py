"""The recorder: every operator call passes through `note`, and gradients read the record backwards."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from striate import _core

if TYPE_CHECKING:
    from striate.autograd.op import Op
    from striate.autograd.tensor import Tensor

_sequence = itertools.count()


class _Mode(threading.local):
    is_grad_enabled = True


_mode = _Mode()
_new = object.__new__
#: The class Tensor: `tensor` puts it here, as it needs this module first.
tensor_class: Any = None


class Recorder(Protocol):
    """What follows the operators of one thread besides the tape; `record` has the one there is."""

    takes_host_calls: bool

    def append(self, op: str, arrays: Sequence[Any], attributes: dict[str, Any], results: tuple[Any, ...]) -> None:
        """Append one operator call."""

    def assign(self, state: Any, value: Any) -> None:
        """Append the change of a state, which is about to happen."""

    def declare(self, state: Tensor) -> None:
        """Take in a state that no operator has met yet."""

    def draw(self, generator: Any) -> tuple[Tensor, dict[str, int]]:
        """Return the state that random draws count from, and the attributes of the next draw."""

    def call_host(self, name: str, function: Callable[..., Any], operands: Sequence[Tensor | int]) -> list[Tensor]:
        """Append a call into Python, and make it."""

    def mark(self) -> Any:
        """Note how far the recording is."""

    def rewind(self, mark: Any) -> None:
        """Forget what was recorded since a mark."""

    def shape(self, array: Any) -> tuple[int, ...]:
        """Return the shape of an array with the origin of its sizes."""

    def refuse(self, array: Any, what: str) -> None:
        """Raise when values of this array must not be read."""


#: Recordings under way, by thread.
recorders: dict[int, Recorder] = {}


def recorder() -> Recorder | None:
    """Return the recording under way on this thread."""
    return recorders.get(threading.get_ident()) if recorders else None


def is_recording() -> bool:
    """Say whether the operators of this thread are recorded for replay."""
    return recorder() is not None


class Node:
    """One recorded operator call, as its gradient sees it.

    Attributes
    ----------
    op : Op
    attributes : dict
    needs : list of bool
        Which inputs want a gradient.
    shapes, dtypes : tuple
        Shape and dtype of every input (None for an input that was not given).
    inputs : indexable
        The inputs listed in `op.saves_inputs`, as Tensors.
    output : Tensor
        The first result, when `op.saves_output`.
    results : indexable
        The results listed in `op.saves_results`, as Tensors.
    """

    __slots__ = (
        "__weakref__",
        "_saved",
        "attributes",
        "dtypes",
        "edges",
        "hooks",
        "is_freed",
        "n_outputs",
        "needs",
        "op",
        "outputs",
        "sequence",
        "shapes",
    )

    def __init__(
        self,
        op: Op,
        inputs: Sequence[Tensor | None],
        arrays: Sequence[Any],
        attributes: dict[str, Any],
        results: tuple[Any, ...],
    ) -> None:
        # Every operator call of a training step comes here: one loop, one call into the core, nothing that can wait.
        self.op = op
        self.attributes = attributes
        self.sequence = next(_sequence)
        needs = []
        edges: list[Any] = []
        for x in inputs:
            if x is None or not x.requires_grad:
                needs.append(False)
                edges.append(None)
            else:
                needs.append(True)
                edges.append(x if x._node is None else (x._node, x._index))
        self.needs = needs
        self.edges = edges
        self.shapes: tuple[Any, ...]
        self.dtypes: tuple[Any, ...]
        self.shapes, self.dtypes = _core.signature(arrays)
        self.n_outputs = len(results)
        self.outputs = _core.signature(results) if self.n_outputs > 1 else None
        saved: dict[int, tuple[Any, int]] = {}
        for i in op.saves_inputs:
            if i >= len(arrays):  # an operator of any number of inputs names all that there may be
                break
            array = arrays[i]
            if array is not None:
                saved[i] = (array, array.version)
        if op.saves_output:
            saved[-1] = (results[0], results[0].version)
        for i in op.saves_results:
            saved[-1 - i] = (results[i], results[i].version)
        self._saved: dict[int, tuple[Any, int]] | None = saved
        self.hooks: dict[int, list[Callable[[Tensor], Tensor | None]]] | None = None
        self.is_freed = False

    def _load(self, i: int) -> Any:
        if self._saved is None:
            raise RuntimeError(_freed(self.op.name))
        array, version = self._saved[i]
        if array.version != version:
            what = "output" if i == -1 else f"result {-1 - i}" if i < 0 else f"input {i}"
            raise RuntimeError(
                f"{self.op.name}: expected {what} as it was in the forward pass (version {version}), got version "
                f"{array.version}; do not change in place what a gradient needs, or clone it first"
            )
        return array

    @property
    def inputs(self) -> _SavedInputs:
        """The saved inputs, by position."""
        return _SavedInputs(self)

    @property
    def output(self) -> Tensor:
        """The saved first result."""
        return _tensor(self._load(-1), True, self, 0)

    @property
    def results(self) -> _SavedResults:
        """The saved results, by position."""
        return _SavedResults(self)

    def free(self) -> None:
        """Let go of saved tensors and of the graph behind this node."""
        self._saved = None
        self.edges = []
        self.is_freed = True


class _SavedInputs:
    __slots__ = ("_node",)

    def __init__(self, node: Node) -> None:
        self._node = node

    def __getitem__(self, i: int) -> Tensor:
        node = self._node
        if not 0 <= i < len(node.needs):
            raise IndexError(f"{node.op.name}: expected one of {len(node.needs)} inputs, got number {i}")
        array = node._load(i)
        edge = node.edges[i]
        if edge is None:
            return _tensor(array, False, None, 0)
        if isinstance(edge, tuple):
            return _tensor(array, True, edge[0], edge[1])
        return edge  # type: ignore[no-any-return]  # a leaf Tensor


class _SavedResults:
    __slots__ = ("_node",)

    def __init__(self, node: Node) -> None:
        self._node = node

    def __getitem__(self, i: int) -> Tensor:
        array = self._node._load(-1 - i)
        if array.dtype.is_floating_point:
            return _tensor(array, True, self._node, i)
        return _tensor(array, False, None, 0)


def _freed(name: str) -> str:
    return (
        f"backward: expected a graph that still holds its saved tensors, got one that was already used (at {name}); "
        "pass retain_graph=True to the first backward"
    )


def _tensor(array: Any, requires_grad: bool, node: Node | None, index: int) -> Tensor:
    tensor: Tensor = _new(tensor_class)
    tensor._array = array
    tensor.requires_grad = requires_grad
    tensor.grad = None
    tensor._node = node
    tensor._index = index
    tensor._hooks = None
    return tensor


def note(
    op: Op, inputs: Sequence[Tensor | None], arrays: Sequence[Any], attributes: dict[str, Any], result: Any
) -> Any:
    """Wrap what an operator returned and append the call to the records that want it.

    Parameters
    ----------
    op : Op
    inputs : sequence of Tensor or None
    arrays : sequence of Array or None
        Those of `inputs`.
    attributes : dict
    result : Array or tuple of Array

    Returns
    -------
    Tensor or tuple of Tensor
    """
    recorder = None
    if recorders:  # empty unless some thread records for replay
        recorder = recorders.get(threading.get_ident())
        if recorder is not None:
            recorder.append(op.name, arrays, attributes, result if type(result) is tuple else (result,))
    node = None
    if op.vjp is not None:
        for x in inputs:
            if x is not None and x.requires_grad:
                if not _mode.is_grad_enabled:
                    break
                node = Node(op, inputs, arrays, attributes, result if type(result) is tuple else (result,))
                if recorder is not None:
                    node.shapes = tuple([None if array is None else recorder.shape(array) for array in arrays])
                break
    if type(result) is tuple:
        return tuple(
            [
                _tensor(array, True, node, i)
                if node is not None and array.dtype.is_floating_point
                else _tensor(array, False, None, 0)
                for i, array in enumerate(result)
            ]
        )
    return _tensor(result, node is not None, node, 0)


class _GradMode:
    """Sets whether calls are recorded for gradients: a context manager and a decorator."""

    def __init__(self, enabled: bool) -> None:
        self._enabled = enabled
        self._before: list[bool] = []

    def __enter__(self) -> None:
        self._before.append(_mode.is_grad_enabled)
        _mode.is_grad_enabled = self._enabled

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _mode.is_grad_enabled = self._before.pop()

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        import functools

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with _GradMode(self._enabled):
                return function(*args, **kwargs)

        return wrapped


def no_grad() -> _GradMode:
    """Compute without recording for gradients, in a `with` block or as a decorator."""
    return _GradMode(False)


def enable_grad() -> _GradMode:
    """Record for gradients again inside a `no_grad` block."""
    return _GradMode(True)


def is_grad_enabled() -> bool:
    """Say whether calls on this thread are recorded for gradients."""
    return _mode.is_grad_enabled


def _seed(y: Tensor, gradient: Tensor | None) -> Tensor:
    if not y.requires_grad:
        raise RuntimeError(
            "backward: expected a tensor that depends on one with requires_grad=True, got one that does not; "
            "set requires_grad on the inputs or leave no_grad()"
        )
    if gradient is None:
        if y.size != 1:
            raise RuntimeError(
                f"backward: expected a gradient for a tensor of shape {y.shape}, got none; only a single number has an "
                "implicit gradient of 1, so reduce it (sum, mean) or pass gradient="
            )
        from striate.autograd.op import functions

        return functions["ones_like"](y)  # type: ignore[no-any-return]
    if gradient.shape != y.shape:
        raise _core.ShapeError(
            f"backward: expected a gradient of shape {y.shape}, got {gradient.shape}; it must match the tensor"
        )
    if gradient.dtype != y.dtype:
        raise _core.DTypeError(
            f"backward: expected a gradient of dtype {y.dtype}, got {gradient.dtype}; convert it with .to({y.dtype})"
        )
    return gradient


def _add(a: Tensor | None, b: Tensor) -> Tensor:
    if a is None:
        return b
    from striate.autograd.op import functions

    return functions["add"](a, b)  # type: ignore[no-any-return]


def _run(
    outputs: Sequence[Tensor],
    gradients: Sequence[Tensor | None],
    targets: dict[Any, int] | None,
    retain_graph: bool,
    create_graph: bool,
) -> list[Tensor | None]:
    """Propagate gradients from `outputs`. Without targets they accumulate in the leaves; else they are returned by target.

    Nodes are taken in falling order of their sequence number: every consumer of a node was recorded after it.
    """
    found: list[Tensor | None] = [None] * (len(targets) if targets is not None else 0)
    pending: dict[Node, list[Tensor | None]] = {}
    heap: list[tuple[int, Node]] = []
    leaves: dict[int, tuple[Tensor, Tensor]] = {}
    given = {id(g._array) for g in gradients if g is not None}  # arrays that somebody else holds

    def send(edge: Any, g: Tensor) -> None:
        if isinstance(edge, tuple):
            node, index = edge
            slot = pending.get(node)
            if slot is None:
                if node.is_freed:
                    raise RuntimeError(_freed(node.op.name))
                slot = pending[node] = [None] * node.n_outputs
                heapq.heappush(heap, (-node.sequence, node))
            slot[index] = _add(slot[index], g)
        elif targets is None or id(edge) in targets:
            held = leaves.get(id(edge))
            leaves[id(edge)] = (edge, g if held is None else _add(held[1], g))

    with _GradMode(create_graph):
        for y, gradient in zip(outputs, gradients, strict=True):
            seed = _seed(y, gradient)
            send(y if y._node is None else (y._node, y._index), seed)
        while heap:
            _, node = heapq.heappop(heap)
            grads = pending.pop(node)
            if node.hooks is not None:
                for index, hooks in node.hooks.items():
                    for hook in hooks:
                        g = grads[index]
                        if g is not None:
                            changed = hook(g)
                            grads[index] = g if changed is None else changed
            if targets is not None:
                for index, g in enumerate(grads):
                    if g is not None and (node, index) in targets:
                        found[targets[node, index]] = g
            if node.is_freed:
                raise RuntimeError(_freed(node.op.name))
            assert node.op.vjp is not None
            if node.n_outputs > 1 and any(g is None for g in grads):
                from striate.autograd.op import functions

                assert node.outputs is not None
                grads = [
                    functions["zeros"](shape, dtype=dtype) if g is None and dtype.is_floating_point else g
                    for g, shape, dtype in zip(grads, *node.outputs, strict=True)
                ]
            edges = node.edges
            results = node.op.vjp(node, *grads)
            if not retain_graph:
                node.free()
            for edge, g in zip(edges, results, strict=True):
                if edge is not None and g is not None:
                    send(edge, g)
        for leaf, g in leaves.values():
            for leaf_hook in leaf._hooks or ():
                changed = leaf_hook(g)
                g = g if changed is None else changed
            if targets is None:
                leaf.grad = _own(g, given) if leaf.grad is None else _add(leaf.grad, g)
            else:
                found[targets[id(leaf)]] = g
    return found


def _own(g: Tensor, given: set[int]) -> Tensor:
    """Return a gradient whose memory is nobody else's: another leaf, the caller or a broadcast may hold the same."""
    array = g._array
    if id(array) in given or array.is_shared or not (array.is_row_major or array.is_channels_last):
        from striate.autograd.op import functions

        return functions["clone"](g)  # type: ignore[no-any-return]
    given.add(id(array))
    return g


def backward(
    outputs: Sequence[Tensor],
    gradients: Sequence[Tensor | None] | None = None,
    *,
    retain_graph: bool | None = None,
    create_graph: bool = False,
) -> None:
    """Accumulate d(Σ outputs · gradients)/d(leaf) in the `.grad` of every leaf that requires it.

    Parameters
    ----------
    outputs : sequence of Tensor
    gradients : sequence of Tensor or None
        One per output, of its shape; None means 1 for an output of one element.
    retain_graph : bool, default create_graph
        Keep saved tensors for another backward.
    create_graph : bool
        Record the gradients themselves, for second derivatives.

    Raises
    ------
    RuntimeError
        No output requires a gradient, an implicit gradient of a non-scalar, a graph used twice, or a saved tensor that was
        changed in place.
    """
    retain = create_graph if retain_graph is None else retain_graph
    _run(outputs, gradients or [None] * len(outputs), None, retain, create_graph)


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    *,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> tuple[Tensor | None, ...]:
    """Return d(Σ outputs · grad_outputs)/d(input) for each input, leaving every `.grad` alone.

    Parameters
    ----------
    outputs, inputs : Tensor or sequence of Tensor
    grad_outputs : Tensor, sequence, or None
        As `gradients` of `backward`.
    retain_graph : bool, default create_graph
    create_graph : bool
    allow_unused : bool
        Return None for an input that the outputs do not depend on, instead of raising.

    Raises
    ------
    RuntimeError
        As `backward`; or an unused input.
    """
    from striate.autograd.tensor import Tensor

    ys = (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
    xs = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    gs = [grad_outputs] if isinstance(grad_outputs, Tensor) else list(grad_outputs or [None] * len(ys))
    targets: dict[Any, int] = {(id(x) if x._node is None else (x._node, x._index)): i for i, x in enumerate(xs)}
    positions = [targets[id(x) if x._node is None else (x._node, x._index)] for x in xs]
    retain = create_graph if retain_graph is None else retain_graph
    found = _run(ys, gs, {key: i for i, key in enumerate(targets)}, retain, create_graph)
    order = {i: n for n, i in enumerate(targets.values())}
    result = tuple(found[order[position]] for position in positions)
    for i, g in enumerate(result):
        if g is None and not allow_unused:
            raise RuntimeError(
                f"grad: expected outputs that depend on every input, got none that depends on input {i}; "
                "pass allow_unused=True to get None for it"
            )
    return result
