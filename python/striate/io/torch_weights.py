"""Read what `torch.save` wrote, without torch and without running what a pickle says.

Two formats: a zip archive with a pickle and one member for each storage (torch 1.6 and later), and a stream of pickles followed
by the storages (before). The pickle is interpreted by `striate.io.unpickle`, which builds only numbers, texts, containers and the
descriptions of tensors made here. Memory for a tensor is taken when its sizes are known to fit its storage, its storage to fit the
file, and all tensors together the file's budget.

References
----------
PyTorch, "Serialization semantics", and `torch/serialization.py`: `_save`, `_legacy_save`.
"""

from __future__ import annotations

import os
from typing import Any, Literal, NoReturn

import numpy as np

from striate.autograd import Tensor
from striate.io.archive import MAGIC, Archive
from striate.io.arrays import NAMES, SUPPORTED, Budget, byte_dtype, checked_bytes, mapped, owned
from striate.io.errors import Source, quoted
from striate.io.torch_names import DTYPES, FUNCTIONS, STORAGES, NumpyType, Refused, Storage, TensorPlace, with_state
from striate.io.unpickle import Name, Pickle, Unfit

__all__ = ["load", "load_state_dict"]

Path = str | os.PathLike[str]

_MAX_PICKLE_BYTES = 64 << 20
_MAX_DEPTH = 64
_MAX_VALUES = 1_000_000
_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL_VERSION = 1001
_SAVE_WEIGHTS = "save model.state_dict() where the model's code is, and read that file"
_CUT = "the file is damaged or cut off; fetch it again"


def load(path: Path) -> Any:
    """Read a file of `torch.save`, whatever it holds, as long as that is data.

    Parameters
    ----------
    path : str or path
        A `.pt` or `.pth` file, of the zip format or the one before torch 1.6.

    Returns
    -------
    object
        What was saved: a dict for a `state_dict` or a checkpoint (an OrderedDict, too), lists, tuples, numbers, texts, None, and
        Tensors in memory of their own, stored channels-last where they have 3 to 5 axes. Parameters come as Tensors, NumPy
        scalars as numbers, devices and dtypes as texts. A tensor that stands in two places is one Tensor.

    Raises
    ------
    FileError
        A file that breaks the format; a pickled model or other object, which would need its code to run; tensors of a dtype
        that striate does not have, sparse or quantised ones; tensors that lie outside their storage, or ask for much more memory
        than the file has. The text names file and key, or the byte of the pickle.
    OSError
        A file that cannot be opened.

    Notes
    -----
    Nothing in the file is run, imported or called, so files of strangers may be read. `striate.io.unpickle` says why it is no
    subclass of `pickle.Unpickler`. Do not write to the file while it is read.
    """
    checkpoint = _Checkpoint(path)
    return checkpoint.converted(checkpoint.value, ())


def load_state_dict(path: Path, entry: str | None = None) -> dict[str, Tensor]:
    """Read the tensors of one `state_dict`, also where it is a part of a checkpoint.

    Parameters
    ----------
    path : str or path
    entry : str, optional
        Key of the `state_dict` in the checkpoint; dots lead further down (`"ema.model"`). By default the file itself, or the
        only one of its entries that holds named tensors and nothing else; only that one is read.

    Returns
    -------
    dict of str to Tensor
        In the order of the file.

    Raises
    ------
    FileError
        As `load`; and a file without an entry of that name, without a `state_dict`, or with several.
    OSError
        A file that cannot be opened.
    """
    checkpoint = _Checkpoint(path)
    found: dict[str, Tensor] = checkpoint.converted(checkpoint.state_dict(entry), ())
    return found


class _Checkpoint:
    """A file that is mapped, its pickle read, and its tensors still in place."""

    def __init__(self, path: Path) -> None:
        self._source = Source("torch file", os.fspath(path))
        self._storages: dict[str, memoryview] = {}
        self._types: dict[str, Storage] = {}  # first mention of each storage
        self._tensors: dict[TensorPlace, Tensor] = {}
        self._order: Literal["<", ">"] = "<"
        self._n_values = 0
        self._data = mapped(self._source)
        self._n_bytes = len(self._data)
        self._budget = Budget(self._source, self._n_bytes)
        self._archive: Archive | None = None
        self._folder = ""
        self.value = self._archived() if bytes(self._data[:4]) in MAGIC else self._streamed()

    # The two formats.

    def _archived(self) -> Any:
        archive = Archive(self._source, self._data)
        members = archive.members
        tops = [
            name.removesuffix("data.pkl") for name in members if name.count("/") == 1 and name.endswith("/data.pkl")
        ]
        if len(tops) != 1:
            self._source.refuse(
                "one data.pkl in a folder", f"{len(tops)} of them", "this archive was not written by torch.save"
            )
        top = tops[0]
        if f"{top}constants.pkl" in members or any(name.startswith(f"{top}code/") for name in members):
            self._source.refuse(
                "the archive of torch.save", "one of torch.jit.save, which holds a program", _SAVE_WEIGHTS
            )
        if any(member.is_deflated for member in members.values()):
            self._source.refuse("members that are stored", "compressed ones", "save the file again with torch.save")
        if f"{top}byteorder" in members:
            order = bytes(archive.read(f"{top}byteorder", 16))
            if order not in (b"little", b"big"):
                self._source.refuse("byteorder little or big", quoted(order), _CUT)
            self._order = "<" if order == b"little" else ">"
        reader = self._pickle(archive.read(f"{top}data.pkl", _MAX_PICKLE_BYTES), is_archive=True)
        self._archive, self._folder = archive, f"{top}data/"
        return reader.read()

    def _streamed(self) -> Any:
        if bytes(self._data[257:262]) == b"ustar":
            self._source.refuse(
                "a file of torch 0.1.10 or later",
                "the tar format of versions before",
                "save it again with a newer torch",
            )
        reader = self._pickle(self._data[:_MAX_PICKLE_BYTES], is_archive=False)
        if self._data[0] != 0x80 or reader.read() != _MAGIC_NUMBER:
            self._source.refuse(
                "a zip archive or torch's magic number",
                f"{quoted(bytes(self._data[:16]))}",
                "this is no file of torch.save",
            )
        version = reader.read()
        if type(version) is not int or version != _PROTOCOL_VERSION:
            self._source.refuse(f"protocol {_PROTOCOL_VERSION}", "another one", "save it again with a newer torch")
        reader.read()  # about the machine; storages are little-endian whatever it was
        value = reader.read()
        keys = reader.read()
        if type(keys) is not list or any(type(key) is not str or key not in self._types for key in keys):
            self._source.refuse("the list of storages behind the tensors", "something else", _CUT)
        self._lay_out(keys, reader.position)
        return value

    def _lay_out(self, keys: list[str], position: int) -> None:
        """Find the storages of a stream: 8 bytes of number of elements, then these."""
        for key in keys:
            if key in self._storages:
                self._source.refuse("every storage once", f"{quoted(key)} twice", _CUT)
            n_elements = int.from_bytes(self._data[position : position + 8], "little", signed=True)
            n_bytes = n_elements * self._types[key].itemsize
            if position + 8 > self._n_bytes or not 0 <= n_bytes <= self._n_bytes - position - 8:
                left = max(0, self._n_bytes - position - 8)
                self._source.refuse(f"{n_elements} elements of storage {quoted(key)}", f"{left} bytes", _CUT)
            self._storages[key] = self._data[position + 8 : position + 8 + n_bytes]
            position += 8 + n_bytes

    def _pickle(self, data: memoryview, is_archive: bool) -> Pickle:
        def storage(found: Any) -> Storage:
            n = 5 if is_archive else 6
            if type(found) is not tuple or len(found) != n or found[0] != "storage" or type(found[1]) is not Name:
                raise Unfit
            _, kind, key, location, n_elements = found[:5]
            view = found[5] if n == 6 else None
            name = kind.text.rpartition(".")[2]
            if name not in STORAGES or type(key) is not str or type(location) is not str or type(n_elements) is not int:
                raise Unfit
            whole = Storage(key, *STORAGES[name], n_elements)
            self._types.setdefault(key, whole)
            if view is None:
                return whole
            if type(view) is not tuple or len(view) != 3 or type(view[1]) is not int or type(view[2]) is not int:
                raise Unfit
            if min(view[1:]) < 0 or view[1] + view[2] > n_elements:
                raise Unfit
            return Storage(key, whole.type_name, whole.itemsize, view[2], view[1])

        return Pickle(self._source, data, FUNCTIONS, storage, with_state)

    # What is in it.

    def state_dict(self, entry: str | None) -> dict[str, Any]:
        """Return the part of the file that is a `state_dict`, as `load_state_dict` says."""
        value = self.value
        if entry is not None:
            value = self._found(entry)
        elif not _names_tensors(value) and type(value) is dict:
            parts = [key for key, part in value.items() if _names_tensors(part) and part]
            if len(parts) > 1:
                listed = ", ".join(quoted(key) for key in parts[:10])
                self._source.refuse("one state_dict", f"{len(parts)}: {listed}", "choose one with entry=...")
            value = value[parts[0]] if parts else value
        if not _names_tensors(value):
            self._source.refuse(
                "a state_dict, texts as keys and tensors as values",
                _described(value),
                "choose a part with entry=..., or read everything with striate.io.torch_weights.load",
            )
        return value  # type: ignore[no-any-return]

    def _found(self, entry: str) -> Any:
        node, rest = self.value, entry
        while type(node) is dict:
            if rest in node:
                return node[rest]
            first, _, rest = rest.partition(".")
            if first not in node:
                break
            node = node[first]
        return self._source.refuse(f"an entry {quoted(entry)}", _described(node), "choose one of the keys")

    def converted(self, value: Any, path: tuple[Any, ...]) -> Any:
        """Return the value with tensors where their descriptions were.

        Containers are copied wherever they stand. So a walk, with a limit, ends for those that hold themselves, and for chains of
        lists that hold the next one twice.
        """
        self._n_values += 1
        if self._n_values > _MAX_VALUES or len(path) > _MAX_DEPTH:
            self._source.refuse(
                f"at most {_MAX_VALUES} values, at most {_MAX_DEPTH} deep", "more", "no checkpoint needs so many"
            )
        match value:
            case None | bool() | int() | float() | str() | bytes():
                return value
            case dict():
                return {key: self.converted(part, (*path, key)) for key, part in value.items()}
            case list():
                return [self.converted(part, (*path, i)) for i, part in enumerate(value)]
            case tuple():
                return tuple(self.converted(part, (*path, i)) for i, part in enumerate(value))
            case TensorPlace():
                if value not in self._tensors:
                    self._tensors[value] = self._tensor(value, _label(path))
                return self._tensors[value]
            case Name() if value.text.removeprefix("torch.") in DTYPES:
                return value.text
            case NumpyType():
                return np.dtype(value.text).name
        return self._refuse_kind(_label(path), value.what if type(value) is Refused else _kind(value))

    def _refuse_kind(self, key: str, what: str) -> NoReturn:
        self._source.refuse(f"{SUPPORTED} for {key}", what, "convert it with torch, or leave it out, and save again")

    def _tensor(self, place: TensorPlace, key: str) -> Tensor:
        if place.type_name not in NAMES:
            self._refuse_kind(key, place.type_name)
        source, storage, shape, strides = self._source, place.storage, place.shape, place.strides
        dtype = byte_dtype(place.type_name, self._order)
        if len(shape) != len(strides) or min((*shape, *strides, place.offset)) < 0:
            found = quoted((shape, strides, place.offset))
            source.refuse(f"sizes, strides and offset of at least 0 for {key}", found, _CUT)
        last = place.offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        if 0 not in shape and last >= storage.n_elements:
            source.refuse(f"{key} inside its storage of {storage.n_elements} elements", f"an end at {last + 1}", _CUT)
        self._budget.take(key, checked_bytes(source, key, shape, dtype.itemsize))
        content = self._content(storage, key)
        if 0 in shape:
            return owned(np.empty(shape, dtype), place.type_name)
        elements = np.frombuffer(
            content, dtype, last + 1 - place.offset, (storage.first + place.offset) * dtype.itemsize
        )
        steps = [step * dtype.itemsize if n > 1 else 0 for n, step in zip(shape, strides, strict=True)]
        if place.type_name == "bool" and elements.view(np.uint8).max() > 1:
            source.refuse(f"0 or 1 as each bool of {key}", "another byte", _CUT)
        return owned(np.lib.stride_tricks.as_strided(elements, shape, steps, writeable=False), place.type_name)

    def _content(self, storage: Storage, key: str) -> memoryview:
        """Return the bytes of a storage, checked to be as many as its elements need."""
        n_bytes = (storage.first + storage.n_elements) * storage.itemsize
        content = self._storages.get(storage.key)
        if content is None:
            if self._archive is None:
                self._source.refuse(f"a storage {quoted(storage.key)} for {key}", "none of that name", _CUT)
            content = self._archive.read(self._folder + storage.key, self._n_bytes)
            self._storages[storage.key] = content
        if len(content) < n_bytes:
            self._source.refuse(f"{n_bytes} bytes in storage {quoted(storage.key)} of {key}", f"{len(content)}", _CUT)
        return content


def _names_tensors(value: Any) -> bool:
    return type(value) is dict and all(
        type(key) is str and type(part) in (TensorPlace, Refused) for key, part in value.items()
    )


def _kind(value: Any) -> str:
    names = {TensorPlace: "tensor", Refused: "tensor", Storage: "storage", Name: "class or function"}
    return f"a {names.get(type(value), type(value).__name__)}"


def _described(value: Any) -> str:
    if type(value) is not dict or not value:
        return f"an empty {_kind(value)[2:]}" if value in ({}, [], ()) else _kind(value)
    keys = ", ".join(f"{quoted(key, 40)} ({_kind(part)})" for key, part in list(value.items())[:10])
    return f"a dict of {len(value)}: {keys}"


def _label(path: tuple[Any, ...]) -> str:
    return f"key {quoted('.'.join(str(key)[:200] for key in path))}" if path else "the value"
