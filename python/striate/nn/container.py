"""Modules made of modules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import overload

from striate.autograd import Tensor
from striate.nn.module import Module

__all__ = ["Identity", "ModuleDict", "ModuleList", "Sequential"]


class Identity(Module):
    """Return the input; stands where a layer may be absent. Arguments are ignored, as torch's."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        """Ignore the arguments."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x."""
        return x


class _List(Module):
    """Parts by position, named "0", "1", …"""

    def _parts(self) -> list[Module]:
        own = self.__dict__
        return [own[name] for name, kind in self._registered.items() if kind == "module" and own.get(name) is not None]

    def __len__(self) -> int:
        """Count the parts."""
        return len(self._parts())

    def __iter__(self) -> Iterator[Module]:
        """Iterate over the parts."""
        return iter(self._parts())

    def _name(self, index: int) -> str:
        names = [name for name, _ in self._own("module")]
        if not -len(names) <= index < len(names):
            raise IndexError(
                f"{type(self).__name__}: expected an index below {len(names)}, got {index}; count its parts"
            )
        return names[index]

    @overload
    def __getitem__(self, index: int) -> Module: ...

    @overload
    def __getitem__(self, index: slice) -> _List: ...

    def __getitem__(self, index: int | slice) -> Module:
        """Return a part, or the same container of a slice of them."""
        if isinstance(index, slice):
            return type(self)._of(self._parts()[index])
        return getattr(self, self._name(index))  # type: ignore[no-any-return]

    @classmethod
    def _of(cls, modules: Iterable[Module]) -> _List:
        raise NotImplementedError

    def __setitem__(self, index: int, module: Module) -> None:
        """Replace a part."""
        setattr(self, self._name(index), module)

    def append(self, module: Module) -> _List:
        """Add a part at the end; return the container."""
        self.add_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> _List:
        """Add parts at the end; return the container."""
        for module in modules:
            self.append(module)
        return self


class Sequential(_List):
    """Apply modules one after another.

    Parameters
    ----------
    *modules : Module, or one mapping of str to Module
        In order; a mapping names them.
    """

    def __init__(self, *modules: Module | Mapping[str, Module]) -> None:
        """Register the modules."""
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            for name, part in modules[0].items():
                self.add_module(name, part)
            return
        for i, module in enumerate(modules):
            if not isinstance(module, Module):
                raise TypeError(
                    f"Sequential: expected modules, got {type(module).__name__} at {i}; pass objects, not classes"
                )
            self.add_module(str(i), module)

    @classmethod
    def _of(cls, modules: Iterable[Module]) -> Sequential:
        return cls(*modules)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the last module."""
        for module in self._parts():
            x = module(x)
        return x


class ModuleList(_List):
    """A list whose modules are parts.

    Parameters
    ----------
    modules : iterable of Module, optional
    """

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        """Register the modules."""
        self.extend(modules)

    @classmethod
    def _of(cls, modules: Iterable[Module]) -> ModuleList:
        return cls(modules)


class ModuleDict(Module):
    """A dictionary whose modules are parts.

    Parameters
    ----------
    modules : mapping of str to Module, optional
    """

    def __init__(self, modules: Mapping[str, Module] | None = None) -> None:
        """Register the modules."""
        for name, module in (modules or {}).items():
            self.add_module(name, module)

    def __len__(self) -> int:
        """Count the parts."""
        return len(self.keys())

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self.keys())

    def __contains__(self, name: object) -> bool:
        """Say whether there is a part of this name."""
        return name in self.keys()

    def __getitem__(self, name: str) -> Module:
        """Return the part of this name."""
        return dict(self.items())[name]

    def __setitem__(self, name: str, module: Module) -> None:
        """Add or replace a part."""
        self.add_module(name, module)

    def __delitem__(self, name: str) -> None:
        """Remove a part."""
        delattr(self, name)

    def keys(self) -> list[str]:
        """Return the names, in order."""
        return [name for name, _ in self._own("module")]

    def values(self) -> list[Module]:
        """Return the parts, in order."""
        return [module for _, module in self._own("module")]

    def items(self) -> list[tuple[str, Module]]:
        """Return (name, part), in order."""
        return list(self._own("module"))
