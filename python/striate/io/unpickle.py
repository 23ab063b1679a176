"""Pickles read as data: an interpreter of the few opcodes that build numbers, texts and containers.

`pickle` is a language whose programs call functions. A subclass of its Unpickler with a list of allowed names is not enough:
the opcodes that are left still fill memory without end (long chains of copies, tables of a billion entries, integers of a
megabyte), set attributes of whatever is allowed, hash what overflows the C stack, and what each of them does differs between the
C and the Python version. The pickles that hold weights use 40 opcodes and a few dozen names. So those are interpreted here, on
values that are our own, with a limit on each: nothing is imported, no function named by a file is called, and an opcode or name
outside the list is refused with its place.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from striate.io.errors import Source, quoted

Construct = Callable[..., Any]

# A tensor of a checkpoint takes about 25 opcodes. Two million run for a second or two, and their objects stay below 500 MB.
_MAX_OPCODES = 2_000_000
_MAX_INT_BYTES = 16
_MAX_NAME = 200
_MAX_ARGUMENTS = 16
_SAVE_WEIGHTS = "save model.state_dict() where the model's code is, and read that file"
_CUT = "the file is damaged or cut off; fetch it again"


class Unfit(Exception):
    """Raised by a constructor whose arguments are not those that its function takes."""


@dataclass(frozen=True, slots=True)
class Name:
    """A function or class that a pickle names; only its name is known here."""

    text: str


class _Mark:
    """Where a group of values begins on the stack."""


_MARK = _Mark()


class Pickle:
    """A stream of pickles in a file's bytes.

    Parameters
    ----------
    source : Source
        For the texts of errors.
    data : memoryview
    names : mapping of str to callable or None
        What stands for each allowed `module.name`: a function of the arguments, or None where it is only mentioned.
    persistent : callable
        What makes a value of a persistent id.
    build : callable
        What makes a value of a value and the state that a pickle would set on it.
    position : int, default 0
        First byte of the first pickle; after `read`, first byte behind the last one read.
    """

    def __init__(
        self,
        source: Source,
        data: memoryview,
        names: Mapping[str, Construct | None],
        persistent: Construct,
        build: Construct,
        position: int = 0,
    ) -> None:
        self._source = source
        self._data = data
        self._names = names
        self._persistent = persistent
        self._build = build
        self.position = position
        self._at = position  # of the opcode
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._n_opcodes = 0

    def read(self) -> Any:
        """Interpret one pickle and return its value.

        Returns
        -------
        object
            None, bool, int, float, str, bytes, tuple, list, dict, Name, and what the constructors make. Containers may hold
            each other any number of times, themselves too: walk them with a limit.

        Raises
        ------
        FileError
            An opcode or a name outside the lists, a limit passed, or bytes that are no pickle.
        """
        self._stack = []
        self._memo = {}
        opcodes = _OPCODES
        while True:
            self._n_opcodes += 1
            if self._n_opcodes > _MAX_OPCODES:
                self._refuse(f"at most {_MAX_OPCODES} opcodes", "more", _SAVE_WEIGHTS)
            self._at = self.position
            code = self._take(1)[0]
            if code == 0x2E:  # STOP
                break
            step = opcodes.get(code)
            if step is None:
                self._refuse("an opcode of a pickle of tensors", f"0x{code:02x}", _SAVE_WEIGHTS)
            step(self)
        if len(self._stack) != 1 or self._stack[0] is _MARK:
            self._refuse("one value at the end of a pickle", f"{len(self._stack)}", _CUT)
        return self._stack.pop()

    def _refuse(self, expected: str, got: str, advice: str, cause: BaseException | None = None) -> NoReturn:
        self._source.refuse(f"{expected} at byte {self._at} of the pickle", got, advice, cause)

    # Bytes and the stack.

    def _take(self, n: int) -> memoryview:
        start = self.position
        if n < 0 or n > len(self._data) - start:
            self._refuse(f"{n} more bytes", f"{len(self._data) - start}", _CUT)
        self.position = start + n
        return self._data[start : start + n]

    def _number(self, form: struct.Struct) -> Any:
        return form.unpack(self._take(form.size))[0]

    def _text(self, n: int) -> str:
        try:
            return str(self._take(n), "utf-8")
        except UnicodeDecodeError as error:
            self._refuse("a text in UTF-8", str(error.reason), _CUT, error)

    def _line(self) -> str:
        start = self.position
        raw = bytes(self._data[start : start + _MAX_NAME])
        n = raw.find(b"\n")
        if n < 0:
            self._refuse(f"a name of at most {_MAX_NAME} bytes and a line's end", quoted(raw, 40), _CUT)
        line = self._text(n)
        self._take(1)
        return line

    def _pop(self) -> Any:
        if not self._stack or self._stack[-1] is _MARK:
            self._refuse("a value on the stack", "none", _CUT)
        return self._stack.pop()

    def _pop_to_mark(self) -> list[Any]:
        stack = self._stack
        i = len(stack) - 1
        while i >= 0 and stack[i] is not _MARK:
            i -= 1
        if i < 0:
            self._refuse("a mark on the stack", "none", _CUT)
        values = stack[i + 1 :]
        del stack[i:]
        return values

    def _top(self, kind: type) -> Any:
        if not self._stack or type(self._stack[-1]) is not kind:
            found = type(self._stack[-1]).__name__ if self._stack else "an empty stack"
            self._refuse(f"a {kind.__name__} on the stack", found, _CUT)
        return self._stack[-1]

    # Opcodes.

    def _proto(self) -> None:
        version = self._take(1)[0]
        if not 2 <= version <= 5:
            self._refuse("pickle protocol 2 to 5", f"{version}", _SAVE_WEIGHTS)

    def _frame(self) -> None:
        self._take(8)

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _long(self) -> None:
        n = self._take(1)[0]
        if n > _MAX_INT_BYTES:
            self._refuse(f"an integer of at most {_MAX_INT_BYTES} bytes", f"one of {n}", _SAVE_WEIGHTS)
        self._push(int.from_bytes(self._take(n), "little", signed=True))

    def _tuple(self, n: int) -> None:
        values = [self._pop() for _ in range(n)]
        self._push(tuple(reversed(values)))

    def _set_items(self, values: list[Any]) -> None:
        target = self._top(dict)
        if len(values) % 2:
            self._refuse("keys with a value each", f"{len(values)} keys and values", _CUT)
        for key, value in zip(values[::2], values[1::2], strict=True):
            target[self.checked_key(key)] = value

    def checked_key(self, key: Any) -> Any:
        """Return a key of a dict; only texts and whole numbers are hashed, since deep tuples overflow the stack.

        Raises
        ------
        FileError
            A key of another type.
        """
        if type(key) not in (str, int):
            self._refuse("texts and whole numbers as keys", f"a {type(key).__name__}", _SAVE_WEIGHTS)
        return key

    def _set_item(self) -> None:
        value = self._pop()
        self._set_items([self._pop(), value])

    def _append(self) -> None:
        value = self._pop()
        self._top(list).append(value)

    def _extend(self) -> None:
        values = self._pop_to_mark()
        self._top(list).extend(values)

    def _remember(self, i: int) -> None:
        if not self._stack or self._stack[-1] is _MARK:
            self._refuse("a value on the stack", "none", _CUT)
        self._memo[i] = self._stack[-1]

    def _recall(self, i: int) -> None:
        if i not in self._memo:
            self._refuse("a value that was remembered", f"number {i}", _CUT)
        self._push(self._memo[i])

    def _name(self, module: str, name: str) -> None:
        text = f"{module}.{name}"
        if text not in self._names:
            self._refuse(
                "tensors, numbers, texts and containers only",
                f"the function or class {quoted(text)}, which was not called",
                _SAVE_WEIGHTS,
            )
        self._push(Name(text))

    def _stack_name(self) -> None:
        name, module = self._pop(), self._pop()
        if type(name) is not str or type(module) is not str:
            self._refuse("texts as module and name", f"a {type(module).__name__} and a {type(name).__name__}", _CUT)
        self._name(module, name)

    def _reduce(self) -> None:
        arguments, function = self._pop(), self._pop()
        construct = self._names[function.text] if type(function) is Name else None
        # Few arguments: one long tuple, named again and again, would be copied again and again.
        if construct is None or type(arguments) is not tuple or len(arguments) > _MAX_ARGUMENTS:
            what = quoted(function.text) if type(function) is Name else f"a {type(function).__name__}"
            self._refuse("a call of a known function", f"{what} with a {type(arguments).__name__}", _SAVE_WEIGHTS)
        try:
            self._push(construct(*arguments))
        except (Unfit, TypeError) as error:  # TypeError: another number of arguments
            kinds = ", ".join(type(argument).__name__ for argument in arguments[:10])
            self._refuse(f"arguments that {function.text} takes", f"({kinds})", _CUT, error)

    def _set_state(self) -> None:
        state, value = self._pop(), self._pop()
        try:
            self._push(self._build(value, state))
        except Unfit as error:
            found = f"{type(state).__name__} for a {type(value).__name__}"
            self._refuse("a state of an OrderedDict", f"a {found}", _SAVE_WEIGHTS, error)

    def _persistent_id(self) -> None:
        try:
            self._push(self._persistent(self._pop()))
        except Unfit as error:
            self._refuse("a storage as persistent id", "something else", _SAVE_WEIGHTS, error)


_U1, _U2, _U4, _I4 = struct.Struct("<B"), struct.Struct("<H"), struct.Struct("<I"), struct.Struct("<i")
_F8 = struct.Struct(">d")

_OPCODES: dict[int, Callable[[Pickle], None]] = {
    0x80: Pickle._proto,
    0x95: Pickle._frame,
    ord("("): lambda p: p._push(_MARK),
    ord("N"): lambda p: p._push(None),
    0x88: lambda p: p._push(True),
    0x89: lambda p: p._push(False),
    ord("K"): lambda p: p._push(p._number(_U1)),
    ord("M"): lambda p: p._push(p._number(_U2)),
    ord("J"): lambda p: p._push(p._number(_I4)),
    0x8A: Pickle._long,
    ord("G"): lambda p: p._push(p._number(_F8)),
    ord("X"): lambda p: p._push(p._text(p._number(_U4))),
    0x8C: lambda p: p._push(p._text(p._number(_U1))),
    ord("T"): lambda p: p._push(p._text(p._number(_I4))),  # a `str` of Python 2
    ord("U"): lambda p: p._push(p._text(p._number(_U1))),
    ord("B"): lambda p: p._push(bytes(p._take(p._number(_U4)))),
    ord("C"): lambda p: p._push(bytes(p._take(p._number(_U1)))),
    ord(")"): lambda p: p._push(()),
    0x85: lambda p: p._tuple(1),
    0x86: lambda p: p._tuple(2),
    0x87: lambda p: p._tuple(3),
    ord("t"): lambda p: p._push(tuple(p._pop_to_mark())),
    ord("]"): lambda p: p._push([]),
    ord("a"): Pickle._append,
    ord("e"): Pickle._extend,
    ord("}"): lambda p: p._push({}),
    ord("s"): Pickle._set_item,
    ord("u"): lambda p: p._set_items(p._pop_to_mark()),
    ord("q"): lambda p: p._remember(p._number(_U1)),
    ord("r"): lambda p: p._remember(p._number(_U4)),
    0x94: lambda p: p._remember(len(p._memo)),
    ord("h"): lambda p: p._recall(p._number(_U1)),
    ord("j"): lambda p: p._recall(p._number(_U4)),
    ord("c"): lambda p: p._name(p._line(), p._line()),
    0x93: Pickle._stack_name,
    ord("R"): Pickle._reduce,
    ord("b"): Pickle._set_state,
    ord("Q"): Pickle._persistent_id,
}
