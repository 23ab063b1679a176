"""The tensor: an array of the core, and its entry in the record."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from striate import _core
from striate.autograd import tape
from striate.autograd.op import functions

Shape = tuple[int, ...]
Number = int | float | bool


class Tensor:
    """An n-dimensional array whose operations can be differentiated.

    Logical axes are torch's: `(N, C, H, W)` for images, `(O, I, P, Q)` for weights. Memory is channels-last where an operator
    has a channel axis; that never shows in shapes. Make tensors with `striate.tensor`, `striate.from_numpy`, `striate.zeros` …

    Attributes
    ----------
    shape : tuple of int
    dtype : DType
    requires_grad : bool
        Whether gradients flow to this tensor.
    grad : Tensor or None
        What `backward` accumulated here (leaves, and tensors with `retain_grad`).
    """

    __slots__ = ("__weakref__", "_array", "_hooks", "_index", "_node", "grad", "requires_grad")

    _array: Any
    grad: Tensor | None
    requires_grad: bool
    _node: tape.Node | None
    _index: int
    _hooks: list[Callable[[Tensor], Tensor | None]] | None

    def __init__(self, data: Any, dtype: _core.DType | None = None, requires_grad: bool = False) -> None:
        made = functions["tensor"](data, dtype=dtype)
        self._array = made._array
        self.requires_grad = False
        self.grad = None
        self._node = None
        self._index = 0
        self._hooks = None
        if requires_grad:
            self.requires_grad_()

    @classmethod
    def _wrap(cls, array: Any, requires_grad: bool = False, node: tape.Node | None = None, index: int = 0) -> Tensor:
        return tape._tensor(array, requires_grad, node, index)

    # What it is.

    @property
    def shape(self) -> Shape:
        """Sizes of the logical axes; while recording they remember which input's axis they came from."""
        if tape.recorders:
            recorder = tape.recorder()
            if recorder is not None:
                return recorder.shape(self._array)
        return self._array.shape  # type: ignore[no-any-return]

    @property
    def dtype(self) -> _core.DType:
        """Element type."""
        return self._array.dtype  # type: ignore[no-any-return]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self._array.ndim  # type: ignore[no-any-return]

    @property
    def size(self) -> int:
        """Number of elements."""
        if tape.recorders:
            n = 1
            for size in self.shape:
                n = n * size
            return n
        return self._array.size  # type: ignore[no-any-return]

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded operator made this tensor."""
        return self._node is None

    @property
    def data_version(self) -> int:
        """Number of times the storage was changed in place."""
        return self._array.version  # type: ignore[no-any-return]

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("len: expected a tensor with an axis, got a single number; use .size")
        return int(self.shape[0])

    def __repr__(self) -> str:
        if tape.recorder() is not None:
            return f"tensor(recorded, shape={self.shape}, dtype={self.dtype!r})"
        with tape.no_grad():
            value = self.detach()
            if str(value.dtype) == "bfloat16":
                value = functions["to"](value, _core.DType.float32)
            body = np.array2string(
                np.asarray(value.numpy()), separator=", ", prefix="tensor(", threshold=200, precision=4
            )
        name = "" if str(self.dtype) in ("float32", "int64", "bool") else f", dtype={self.dtype!r}"
        tail = ", requires_grad=True" if self.requires_grad and self._node is None else ""
        if self._node is not None:
            tail = f", op={self._node.op.name!r}"
        return f"tensor({body}{name}{tail})"

    # Values out.

    def _reads(self, what: str) -> None:
        """Refuse `what`, which brings values to Python, while the operators are recorded for replay."""
        if tape.recorders:
            recorder = tape.recorder()
            if recorder is not None:
                recorder.refuse(self._array, what)

    def numpy(self) -> NDArray[Any]:
        """Return an ndarray on the same memory, in logical axis order.

        Raises
        ------
        RuntimeError
            The tensor requires grad: use `detach().numpy()`.
        DTypeError
            bfloat16, which NumPy does not have.
        """
        self._reads("numpy")
        if self.requires_grad:
            raise RuntimeError(
                "numpy: expected a tensor that does not require grad, got one that does; use .detach().numpy()"
            )
        return self._array.numpy()  # type: ignore[no-any-return]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        value = self.numpy()
        if dtype is not None and value.dtype != dtype:
            if copy is False:
                raise ValueError(
                    f"numpy: expected dtype {value.dtype} for an array without a copy, got {dtype}; allow the copy"
                )
            return value.astype(dtype)
        return value.copy() if copy else value

    def item(self) -> Any:
        """Return the value of a tensor of one element as a Python number."""
        self._reads("item")
        if self.size != 1:
            raise ValueError(
                f"item: expected a tensor of one element, got shape {self.shape}; index or reduce it first"
            )
        return self.detach().numpy().item() if str(self.dtype) != "bfloat16" else self.to(_core.DType.float32).item()

    def tolist(self) -> Any:
        """Return nested lists of Python numbers."""
        self._reads("tolist")
        return self.detach().numpy().tolist()

    def __float__(self) -> float:
        self._reads("float")
        return float(self.item())

    def __int__(self) -> int:
        self._reads("int")
        return int(self.item())

    def __index__(self) -> int:
        self._reads("index")
        if self.dtype.is_floating_point:
            raise TypeError(f"index: expected an integer tensor, got {self.dtype}; convert it with int(...)")
        return int(self.item())

    def __bool__(self) -> bool:
        self._reads("bool")
        if self.size != 1:
            raise ValueError(
                f"bool: expected a tensor of one element, got shape {self.shape}; reduce it with .sum() or .max()"
            )
        return bool(self.item())

    # The record.

    def detach(self) -> Tensor:
        """Return the same memory without its record."""
        return Tensor._wrap(self._array)

    def clone(self) -> Tensor:
        """Return a copy with the same layout; gradients pass through."""
        return functions["clone"](self)  # type: ignore[no-any-return]

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Set `requires_grad` of a leaf and return it."""
        if requires_grad and not self.dtype.is_floating_point:
            raise _core.DTypeError(
                f"requires_grad: expected a floating-point tensor, got {self.dtype}; convert with .to(float32)"
            )
        if self._node is not None:
            raise RuntimeError("requires_grad_: expected a leaf, got the result of an operator; call detach() first")
        self.requires_grad = requires_grad
        return self

    def retain_grad(self) -> None:
        """Keep the gradient of this intermediate tensor in `.grad` during `backward`."""
        if self._node is None:
            return
        kept = weakref.ref(self)

        def keep(g: Tensor) -> None:
            me = kept()
            if me is not None:
                me.grad = g if me.grad is None else functions["add"](me.grad, g)

        self.register_hook(keep)

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> Callable[[], None]:
        """Call `hook(grad)` when this tensor's gradient is known; a result replaces the gradient. Returns a remover.

        Raises
        ------
        RuntimeError
            The tensor does not require grad.
        """
        if not self.requires_grad:
            raise RuntimeError(
                "register_hook: expected a tensor that requires grad, got one that does not; set requires_grad"
            )
        if self._node is None:
            if self._hooks is None:
                self._hooks = []
            hooks = self._hooks
        else:
            if self._node.hooks is None:
                self._node.hooks = {}
            hooks = self._node.hooks.setdefault(self._index, [])
        hooks.append(hook)

        def remove() -> None:
            if hook in hooks:
                hooks.remove(hook)

        return remove

    def backward(
        self, gradient: Tensor | None = None, *, retain_graph: bool | None = None, create_graph: bool = False
    ) -> None:
        """Accumulate the gradient of this tensor in its leaves; see `striate.autograd.backward`."""
        tape.backward([self], [gradient], retain_graph=retain_graph, create_graph=create_graph)

    # Copies: pickling is for multiprocessing; the file format is safetensors.

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if self._node is not None:
            raise RuntimeError("deepcopy: expected a leaf, got the result of a recorded operator; call detach() first")
        with tape.no_grad():
            copied = functions["clone"](self.detach())
        result = copied.requires_grad_(self.requires_grad)
        memo[id(self)] = result
        if self.grad is not None:
            result.grad = self.grad.__deepcopy__(memo)
        return result  # type: ignore[no-any-return]

    def __reduce__(self) -> Any:
        if self._node is not None:
            raise RuntimeError("pickle: expected a leaf, got the result of a recorded operator; call detach() first")
        if str(self.dtype) == "bfloat16":
            raise _core.DTypeError("pickle: expected a dtype that NumPy has, got bfloat16; convert with .to(float32)")
        order = tuple(sorted(range(self.ndim), key=lambda axis: -self._array.strides[axis]))
        return _unpickle, (np.ascontiguousarray(self.detach().numpy().transpose(order)), order, self.requires_grad)

    # Operators: rows are found by name, so that this file needs no import of `ops`.

    def __add__(self, other: Tensor | Number) -> Tensor:
        return functions["add"](self, other)  # type: ignore[no-any-return]

    def __radd__(self, other: Number) -> Tensor:
        return functions["add"](other, self)  # type: ignore[no-any-return]

    def __sub__(self, other: Tensor | Number) -> Tensor:
        return functions["sub"](self, other)  # type: ignore[no-any-return]

    def __rsub__(self, other: Number) -> Tensor:
        return functions["sub"](other, self)  # type: ignore[no-any-return]

    def __mul__(self, other: Tensor | Number) -> Tensor:
        return functions["mul"](self, other)  # type: ignore[no-any-return]

    def __rmul__(self, other: Number) -> Tensor:
        return functions["mul"](other, self)  # type: ignore[no-any-return]

    def __truediv__(self, other: Tensor | Number) -> Tensor:
        return functions["div"](self, other)  # type: ignore[no-any-return]

    def __rtruediv__(self, other: Number) -> Tensor:
        return functions["div"](other, self)  # type: ignore[no-any-return]

    def __pow__(self, other: Tensor | Number) -> Tensor:
        return functions["pow"](self, other)  # type: ignore[no-any-return]

    def __rpow__(self, other: Number) -> Tensor:
        return functions["pow"](other, self)  # type: ignore[no-any-return]

    def __neg__(self) -> Tensor:
        return functions["neg"](self)  # type: ignore[no-any-return]

    def __abs__(self) -> Tensor:
        return functions["abs"](self)  # type: ignore[no-any-return]

    def __matmul__(self, other: Tensor) -> Tensor:
        return functions["matmul"](self, other)  # type: ignore[no-any-return]

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        return functions["eq"](self, other)  # type: ignore[no-any-return]

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        return functions["ne"](self, other)  # type: ignore[no-any-return]

    def __lt__(self, other: Tensor | Number) -> Tensor:
        return functions["lt"](self, other)  # type: ignore[no-any-return]

    def __le__(self, other: Tensor | Number) -> Tensor:
        return functions["le"](self, other)  # type: ignore[no-any-return]

    def __gt__(self, other: Tensor | Number) -> Tensor:
        return functions["gt"](self, other)  # type: ignore[no-any-return]

    def __ge__(self, other: Tensor | Number) -> Tensor:
        return functions["ge"](self, other)  # type: ignore[no-any-return]

    def __getitem__(self, key: Any) -> Tensor:
        return functions["index"](self, key)  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[Tensor]:
        self._reads("iteration")
        if self.ndim == 0:
            raise TypeError("iteration: expected a tensor with an axis, got a single number; use .item()")
        return iter([self[i] for i in range(len(self))])

    __hash__ = object.__hash__

    # Methods: the operators that read best behind a dot.

    def to(self, dtype: _core.DType) -> Tensor:
        """Convert to another dtype; gradients pass through between floats."""
        return functions["to"](self, dtype)  # type: ignore[no-any-return]

    def reshape(self, *shape: int | Sequence[int]) -> Tensor:
        """See `striate.ops.reshape`; sizes as a tuple or one by one."""
        return functions["reshape"](self, _flat(shape))  # type: ignore[no-any-return]

    def permute(self, *dims: int | Sequence[int]) -> Tensor:
        """See `striate.ops.permute`; axes as a tuple or one by one."""
        return functions["permute"](self, _flat(dims))  # type: ignore[no-any-return]

    def transpose(self, dim0: int, dim1: int) -> Tensor:
        """Swap two axes."""
        return functions["transpose"](self, dim0, dim1)  # type: ignore[no-any-return]

    @property
    def T(self) -> Tensor:  # torch's and NumPy's name
        """The transpose of a matrix."""
        return functions["transpose"](self, 0, 1)  # type: ignore[no-any-return]

    def squeeze(self, dim: int | Sequence[int] | None = None) -> Tensor:
        """Drop axes of size 1 (all of them by default)."""
        return functions["squeeze"](self, dim)  # type: ignore[no-any-return]

    def unsqueeze(self, dim: int) -> Tensor:
        """Insert an axis of size 1."""
        return functions["unsqueeze"](self, dim)  # type: ignore[no-any-return]

    def expand(self, *shape: int | Sequence[int]) -> Tensor:
        """See `striate.ops.expand`; sizes as a tuple or one by one."""
        return functions["expand"](self, _flat(shape))  # type: ignore[no-any-return]

    def repeat(self, *repeats: int | Sequence[int]) -> Tensor:
        """See `striate.ops.repeat`; counts as a tuple or one by one."""
        return functions["repeat"](self, _flat(repeats))  # type: ignore[no-any-return]

    def split(self, split_size: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
        """Cut along an axis into views."""
        return functions["split"](self, split_size, dim)  # type: ignore[no-any-return]

    def chunk(self, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
        """Cut along an axis into at most `chunks` views."""
        return functions["chunk"](self, chunks, dim)  # type: ignore[no-any-return]

    def narrow(self, dim: int, start: int, length: int) -> Tensor:
        """Keep `length` positions from `start` of one axis."""
        return functions["narrow"](self, dim, start, length)  # type: ignore[no-any-return]

    def flip(self, *dims: int | Sequence[int]) -> Tensor:
        """Reverse the order along axes."""
        return functions["flip"](self, _flat(dims))  # type: ignore[no-any-return]

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        """Merge the axes from start_dim to end_dim."""
        return functions["flatten"](self, start_dim, end_dim)  # type: ignore[no-any-return]

    def sum(self, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
        """Sum over `dim` (all axes by default)."""
        return functions["sum"](self, dim=dim, keepdim=keepdim)  # type: ignore[no-any-return]

    def mean(self, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
        """Mean over `dim` (all axes by default)."""
        return functions["mean"](self, dim=dim, keepdim=keepdim)  # type: ignore[no-any-return]

    def max(self, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
        """Maximum over `dim` (all axes by default)."""
        return functions["max"](self, dim=dim, keepdim=keepdim)  # type: ignore[no-any-return]

    def min(self, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
        """Minimum over `dim` (all axes by default)."""
        return functions["min"](self, dim=dim, keepdim=keepdim)  # type: ignore[no-any-return]

    def argmax(self, dim: int | None = None, keepdim: bool = False) -> Tensor:
        """Index of the first maximum over `dim` (of the flattened tensor by default)."""
        return functions["argmax"](self, dim=dim, keepdim=keepdim)  # type: ignore[no-any-return]

    def var(self, dim: int | Sequence[int] | None = None, correction: int = 1, keepdim: bool = False) -> Tensor:
        """Variance over `dim` (all axes by default)."""
        return functions["var"](self, dim=dim, correction=correction, keepdim=keepdim)  # type: ignore[no-any-return]

    def softmax(self, dim: int) -> Tensor:
        """Softmax over one axis."""
        return functions["softmax"](self, dim=dim)  # type: ignore[no-any-return]

    def log_softmax(self, dim: int) -> Tensor:
        """Logarithm of the softmax over one axis."""
        return functions["log_softmax"](self, dim=dim)  # type: ignore[no-any-return]

    def relu(self) -> Tensor:
        """Return max(x, 0)."""
        return functions["relu"](self)  # type: ignore[no-any-return]

    def sigmoid(self) -> Tensor:
        """Return 1 / (1 + exp(−x))."""
        return functions["sigmoid"](self)  # type: ignore[no-any-return]

    def tanh(self) -> Tensor:
        """Hyperbolic tangent."""
        return functions["tanh"](self)  # type: ignore[no-any-return]

    def exp(self) -> Tensor:
        """Exponential."""
        return functions["exp"](self)  # type: ignore[no-any-return]

    def log(self) -> Tensor:
        """Natural logarithm."""
        return functions["log"](self)  # type: ignore[no-any-return]

    def square(self) -> Tensor:
        """Return x²."""
        return functions["square"](self)  # type: ignore[no-any-return]

    def sqrt(self) -> Tensor:
        """Square root."""
        return functions["sqrt"](self)  # type: ignore[no-any-return]

    def abs(self) -> Tensor:
        """Absolute value."""
        return functions["abs"](self)  # type: ignore[no-any-return]


def _flat(sizes: tuple[int | Sequence[int], ...]) -> tuple[int, ...]:
    if len(sizes) == 1 and not isinstance(sizes[0], int):
        return tuple(sizes[0])
    return tuple(sizes)  # type: ignore[arg-type]


def _unpickle(data: NDArray[Any], order: tuple[int, ...], requires_grad: bool) -> Tensor:
    inverse = [order.index(axis) for axis in range(len(order))]
    made = functions["from_numpy"](data)
    with tape.no_grad():
        result = functions["clone"](functions["permute"](made, inverse)) if order else functions["clone"](made)
    return result.requires_grad_(requires_grad)  # type: ignore[no-any-return]


tape.tensor_class = Tensor
