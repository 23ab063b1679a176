"""What every layer and network is: named parameters, buffers and parts, and one function of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

from striate import ops
from striate.autograd import Tensor, no_grad

if TYPE_CHECKING:
    from collections.abc import Sequence

    from striate.nn.summary import Summary
    from striate.ops.create import DType

Self = TypeVar("Self", bound="Module")
Kind = Literal["parameter", "buffer", "transient", "module"]
PreHook = Callable[[Any, tuple[Any, ...]], Any]
Hook = Callable[[Any, tuple[Any, ...], Any], Any]


class Parameter(Tensor):
    """A tensor that a module learns.

    Parameters
    ----------
    data : Tensor
        Initial value; its memory is shared, so make it with `striate.ops.new_state` (or `clone()`), not `from_numpy`.
    requires_grad : bool, default True
    """

    __slots__ = ()

    def __init__(self, data: Tensor, requires_grad: bool = True) -> None:
        """Share the memory of `data`."""
        if not isinstance(data, Tensor):
            raise TypeError(
                f"Parameter: expected a Tensor, got {type(data).__name__}; make one with striate.tensor(...)"
            )
        self._become(data)
        self.requires_grad = False
        self._node = None
        self._index = 0
        self._hooks = None
        self.requires_grad_(requires_grad)

    def _become(self, value: Tensor) -> None:
        """Take the memory of `value`; the object, which optimizers know, stays the same."""
        self._array = value._array
        self.grad = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        """Copy value and gradient into memory of their own."""
        copied = super().__deepcopy__(memo)
        result = Parameter(copied, self.requires_grad)
        result.grad = copied.grad
        memo[id(self)] = result
        return result

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle for multiprocessing; the file format is safetensors."""
        rebuild, (data, order, requires_grad) = super().__reduce__()
        return _unpickle_parameter, (rebuild, data, order, requires_grad)


def _unpickle_parameter(
    rebuild: Callable[..., Tensor], data: Any, order: tuple[int, ...], requires_grad: bool
) -> Parameter:
    return Parameter(rebuild(data, order, False), requires_grad)


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict(strict=False)` skipped."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Handle:
    """Takes a hook away again, by `remove()` or at the end of a `with` block."""

    def __init__(self, hooks: dict[int, Any], key: int) -> None:
        """Remember where the hook is."""
        self._hooks = hooks
        self._key = key

    def remove(self) -> None:
        """Take the hook away; a second call does nothing."""
        self._hooks.pop(self._key, None)

    def __enter__(self) -> Handle:
        """Return the handle itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Take the hook away."""
        self.remove()


class Module:
    """A function with parameters.

    Subclasses assign `Parameter`s, buffers (`register_buffer`) and other modules to attributes, and define `forward`. Names,
    and so the keys of `state_dict`, are torch's.

    Attributes
    ----------
    training : bool
        Whether layers that behave otherwise in training (batch norm, dropout) do so; set by `train` and `eval`.

    Examples
    --------
    >>> import striate
    >>> from striate import nn
    >>> class Net(nn.Module):
    ...     def __init__(self):
    ...         self.conv = nn.Conv2d(1, 4, 3, padding=1)
    ...     def forward(self, x):
    ...         return self.conv(x).relu()
    >>> list(Net().state_dict())
    ['conv.weight', 'conv.bias']
    """

    training: bool
    forward: Callable[..., Any]
    _registered: dict[str, Kind]
    _pre_hooks: dict[int, PreHook]
    _hooks: dict[int, Hook]

    # Made here, not in __init__: a subclass that forgets super().__init__() works.
    def __new__(cls: type[Self], *args: object, **kwargs: object) -> Self:
        """Set up empty registers."""
        self = super().__new__(cls)
        object.__setattr__(self, "training", True)
        object.__setattr__(self, "_registered", {})
        object.__setattr__(self, "_pre_hooks", {})
        object.__setattr__(self, "_hooks", {})
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return `forward(*args)`, with hooks around it."""
        if not self._hooks and not self._pre_hooks:
            return self.forward(*args, **kwargs)
        for pre_hook in list(self._pre_hooks.values()):
            changed = pre_hook(self, args)
            if changed is not None:
                args = changed if isinstance(changed, tuple) else (changed,)
        result = self.forward(*args, **kwargs)
        for hook in list(self._hooks.values()):
            changed = hook(self, args, result)
            if changed is not None:
                result = changed
        return result

    # Attributes. Values live in __dict__ like any other's, so that reading one costs nothing; `_registered` says what they are.

    def __setattr__(self, name: str, value: object) -> None:
        """Register parameters and modules under the name they are assigned to."""
        kind = self._registered.get(name)
        if isinstance(value, Parameter):
            self._registered[name] = "parameter"
        elif isinstance(value, Module):
            self._registered[name] = "module"
        elif (
            kind is not None
            and value is not None
            and not (isinstance(value, Tensor) and kind in ("buffer", "transient"))
        ):
            wanted = {"parameter": "a Parameter", "module": "a Module"}.get(kind, "a Tensor")
            raise TypeError(
                f"{type(self).__name__}: expected {wanted} or None for {name!r}, got {type(value).__name__}; "
                f"delete the attribute first to use its name for something else"
            )
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        """Forget the attribute and what it was."""
        object.__delattr__(self, name)
        self._registered.pop(name, None)

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Give the module a parameter, or a name for one that is absent (None)."""
        self._registered[name] = "parameter"
        setattr(self, name, param)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Give the module a tensor that it keeps but does not learn.

        Parameters
        ----------
        name : str
        tensor : Tensor or None
        persistent : bool, default True
            Whether it is part of `state_dict`.
        """
        self._registered[name] = "buffer" if persistent else "transient"
        setattr(self, name, tensor)

    def add_module(self, name: str, module: Module | None) -> None:
        """Give the module a part under a name that need not be an identifier."""
        if "." in name or not name:
            raise ValueError(f"add_module: expected a name without dots, got {name!r}; dots separate levels in keys")
        self._registered[name] = "module"
        setattr(self, name, module)

    # Traversal, in torch's order: own before parts', each in order of registration, nothing twice.

    def _own(self, *kinds: Kind) -> Iterator[tuple[str, Any]]:
        for name, kind in self._registered.items():
            if kind in kinds:
                value = self.__dict__.get(name)
                if value is not None:
                    yield name, value

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Yield (name, module) for each direct part."""
        seen: set[int] = set()
        for name, module in self._own("module"):
            if id(module) not in seen:
                seen.add(id(module))
                yield name, module

    def children(self) -> Iterator[Module]:
        """Yield each direct part."""
        for _, module in self.named_children():
            yield module

    def _walk(self, prefix: str, seen: set[int] | None) -> Iterator[tuple[str, Module]]:
        if seen is not None:
            if id(self) in seen:
                return
            seen.add(id(self))
        yield prefix, self
        for name, module in self._own("module"):
            yield from module._walk(f"{prefix}.{name}" if prefix else name, seen)

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """Yield (path, module) for this module (with path `prefix`) and everything inside, depth first."""
        yield from self._walk(prefix, set())

    def modules(self) -> Iterator[Module]:
        """Yield this module and everything inside, depth first."""
        for _, module in self.named_modules():
            yield module

    def _named_tensors(self, prefix: str, recurse: bool, *kinds: Kind) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        for path, module in self.named_modules(prefix) if recurse else [(prefix, self)]:
            for name, value in module._own(*kinds):
                if id(value) not in seen:
                    seen.add(id(value))
                    yield f"{path}.{name}" if path else name, value

    def named_parameters(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Parameter]]:
        """Yield (key, parameter), a shared one once."""
        return self._named_tensors(prefix, recurse, "parameter")

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Yield each parameter once."""
        for _, parameter in self.named_parameters(recurse=recurse):
            yield parameter

    def named_buffers(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Tensor]]:
        """Yield (key, buffer), a shared one once."""
        return self._named_tensors(prefix, recurse, "buffer", "transient")

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """Yield each buffer once."""
        for _, buffer in self.named_buffers(recurse=recurse):
            yield buffer

    def get_submodule(self, path: str) -> Module:
        """Return the part at a dotted path; the module itself for "".

        Raises
        ------
        AttributeError
            A path that leads nowhere; the text lists the names there are.
        """
        module = self
        for name in path.split(".") if path else []:
            parts = dict(module._own("module"))
            if name not in parts:
                raise AttributeError(
                    f"get_submodule: expected a path in {type(self).__name__}, got {path!r}; "
                    f"{type(module).__name__} has {list(parts)}"
                )
            module = parts[name]
        return module

    # State.

    def state_dict(self, prefix: str = "") -> dict[str, Tensor]:
        """Return parameters and persistent buffers by key, without copying: later training shows in the result."""
        state = {}
        for path, module in self._walk(prefix.removesuffix("."), None):
            for kind in ("parameter", "buffer"):
                for name, value in module._own(kind):
                    state[f"{path}.{name}" if path else name] = value.detach()
        return state

    def load_state_dict(self, state_dict: Mapping[str, Tensor], strict: bool = True) -> IncompatibleKeys:
        """Copy values into parameters and buffers; nothing changes unless everything fits.

        Parameters
        ----------
        state_dict : mapping of str to Tensor
            Another floating-point dtype is converted.
        strict : bool, default True
            Whether missing and unexpected keys are errors; a mis-shaped key always is.

        Returns
        -------
        IncompatibleKeys
            `missing_keys` and `unexpected_keys`, both empty if `strict`.

        Raises
        ------
        ValueError
            Keys that are missing, unexpected or mis-shaped; the text lists them all.
        """
        own = self.state_dict()
        missing = [key for key in own if key not in state_dict]
        unexpected = [key for key in state_dict if key not in own]
        misshaped = [
            f"{key} of shape {state_dict[key].shape} instead of {value.shape}"
            for key, value in own.items()
            if key in state_dict and tuple(state_dict[key].shape) != value.shape
        ]
        if misshaped or (strict and (missing or unexpected)):
            lists = {"missing": missing, "unexpected": unexpected, "mis-shaped": misshaped}
            found = "; ".join(f"{what} keys: {', '.join(keys)}" for what, keys in lists.items() if keys)
            raise ValueError(
                f"load_state_dict: expected the keys and shapes of {type(self).__name__}, got {found}; "
                f"{'load the weights of the same architecture' if misshaped else 'pass strict=False to skip these keys'}"
            )
        with no_grad():
            for key, value in own.items():
                if key in state_dict:
                    given = state_dict[key].detach()
                    ops.assign(value, given if given.dtype == value.dtype else given.to(value.dtype))
        return IncompatibleKeys(missing, unexpected)

    # Switches.

    def train(self: Self, mode: bool = True) -> Self:
        """Set `training` here and in all parts; return the module."""
        for module in self.modules():
            object.__setattr__(module, "training", mode)
        return self

    def eval(self: Self) -> Self:
        """Leave training mode; return the module."""
        return self.train(False)

    def requires_grad_(self: Self, requires_grad: bool = True) -> Self:
        """Set whether the parameters learn; return the module."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or set them to zero."""
        for parameter in self.parameters():
            if set_to_none or parameter.grad is None:
                parameter.grad = None
            else:
                parameter.grad = ops.zeros_like(parameter.grad)

    def apply(self: Self, fn: Callable[[Module], object]) -> Self:
        """Call `fn` on every part, then on the module; return the module."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    def to(self: Self, dtype: DType) -> Self:
        """Convert floating-point parameters and buffers to another floating-point dtype; return the module.

        Parameters stay the same objects; their gradients are forgotten.

        Raises
        ------
        TypeError
            A dtype that is not floating-point.
        """
        if not dtype.is_floating_point:
            raise TypeError(
                f"Module.to: expected a floating-point dtype, got {dtype}; parameters must be able to learn"
            )
        with no_grad():
            for parameter in self.parameters():
                parameter._become(parameter.detach().to(dtype))
            for module in self.modules():
                for name, buffer in list(module._own("buffer", "transient")):
                    if buffer.dtype.is_floating_point:
                        setattr(module, name, buffer.to(dtype))
        return self

    # Hooks.

    def register_forward_pre_hook(self, hook: PreHook) -> Handle:
        """Call `hook(module, args)` before `forward`; a result replaces the arguments."""
        return _add_hook(self._pre_hooks, hook)

    def register_forward_hook(self, hook: Hook) -> Handle:
        """Call `hook(module, args, output)` after `forward`; a result replaces the output."""
        return _add_hook(self._hooks, hook)

    # Looking inside.

    def count_macs(self, x: Tensor, y: Tensor) -> int:
        """Return the multiply-adds of one call from x to y, without those of the parts; 0 where nothing is summed."""
        return 0

    def summary(self, example: Tensor | Sequence[int]) -> Summary:
        """Return a table of layers, output shapes, parameters and multiply-adds; print it, or read its rows.

        Parameters
        ----------
        example : Tensor or tuple of int
            An input, or the shape of one (float32), batch axis included.
        """
        from striate.nn.summary import summarize

        return summarize(self, example)

    def extra_repr(self) -> str:
        """Return what `repr` shows between the brackets."""
        return ""

    def __repr__(self) -> str:
        """Show the module and its parts as a tree."""
        parts = [f"({name}): " + repr(module).replace("\n", "\n  ") for name, module in self._own("module")]
        extra = self.extra_repr()
        if not parts:
            return f"{type(self).__name__}({extra})"
        lines = ([extra] if extra else []) + parts
        return f"{type(self).__name__}(\n  " + "\n  ".join(lines) + "\n)"


def _add_hook(hooks: dict[int, Any], hook: Callable[..., Any]) -> Handle:
    key = max(hooks, default=-1) + 1
    hooks[key] = hook
    return Handle(hooks, key)
