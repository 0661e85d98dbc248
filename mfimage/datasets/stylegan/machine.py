"""A stack machine for pickles that neither imports nor calls: numbers, strings, containers and stubs.

A pickle is a program. Here a name stays a pair of strings, an object stays its class's name and its
attributes, source code is a string like any other, and the few calls that a file with tensors cannot do
without are handed in by the reader, by name. Every instruction costs one of a bounded number, no value is
longer than the file, and nothing is hashed but strings and small numbers.
"""

from __future__ import annotations

import pickletools
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import IO, Any

_PUSHED = {
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
    "SHORT_BINBYTES", "BINBYTES", "BINBYTES8",
}  # fmt: skip
_MADE: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_STORED = {"BINPUT", "LONG_BINPUT"}
_FETCHED = {"BINGET", "LONG_BINGET"}
_DICTIONARIES = {("dnnlib.util", "EasyDict"), ("collections", "OrderedDict")}


class Refused(Exception):
    """A pickle asks for what is never done."""


@dataclass(frozen=True)
class Name:
    """A function or class that a pickle names; never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module[:60]}.{self.name[:60]}"


@dataclass(eq=False)
class Stub:
    """An object of a pickle without its class: the class's name, and the state that the pickle gives it."""

    of: str
    state: Any = None


class Budget:
    """How many instructions may still be done."""

    def __init__(self, left: int) -> None:
        self.left = left

    def spend(self) -> None:
        """Take one; Refused if there is none."""
        self.left -= 1
        if self.left < 0:
            raise Refused("it has more instructions than any network needs")


def keys(values: Iterable[Any]) -> list[Any]:
    """Check what is to be hashed: a nest of tuples would take exponential time, chosen numbers quadratic."""
    out = list(values)
    for value in out:
        if not (isinstance(value, str) or value is None or (isinstance(value, int) and abs(value) < 2**31)):
            raise Refused(f"a key of it is a {type(value).__name__}, not a string or a small number")
    return out


class Machine:
    """Runs one pickle.

    Args:
        stream: Where to read; left after the pickle's end.
        calls: What is done in place of the calls of a name, given the arguments.
        budget: How many instructions may be done.
        persistent: What a persistent id stands for; None refuses them.
    """

    def __init__(
        self,
        stream: IO[bytes],
        calls: Mapping[tuple[str, str], Callable[..., Any]],
        budget: Budget,
        persistent: Callable[[Any], Any] | None = None,
    ) -> None:
        self._stream, self._calls, self._budget, self._persistent = stream, calls, budget, persistent
        self._stack: list[Any] = []
        self._outer: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Run the pickle to its end and give what it describes.

        Raises:
            Refused: It asks for a call, or for an instruction that files with networks do not have.
            Exception: It is damaged: whatever Python finds wrong with it.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the standard library's reader, about damaged strings
            for instruction, argument, _ in pickletools.genops(self._stream):
                self._budget.spend()
                if instruction.name == "STOP":
                    return self._stack.pop()
                self._do(instruction.name, argument)
        raise EOFError("it ends before its end")

    def _do(self, name: str, argument: Any) -> None:
        if name in _PUSHED:
            self._stack.append(argument)
        elif name in _MADE:
            self._stack.append(_MADE[name]())
        elif name in _TUPLES:
            self._stack.append(tuple(reversed([self._stack.pop() for _ in range(_TUPLES[name])])))
        elif name in _FETCHED:
            self._stack.append(self._memo[argument])
        elif name in _STORED or name == "MEMOIZE":
            self._memo[len(self._memo) if name == "MEMOIZE" else argument] = self._stack[-1]
        elif name in _RARE:
            _RARE[name](self, argument)
        elif name not in ("PROTO", "FRAME"):
            raise Refused(f"files with networks do not have its instruction {name}")

    def _mark(self, _: Any) -> None:
        self._outer.append(self._stack)
        self._stack = []

    def _marked(self) -> list[Any]:
        """Take everything since the last mark."""
        values, self._stack = self._stack, self._outer.pop()
        return values

    def _tuple(self, _: Any) -> None:
        values = self._marked()
        self._stack.append(tuple(values))

    def _append(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, list):
            raise Refused(f"it appends to a {type(target).__name__}")
        target.extend(values)

    def _set(self, pairs: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict):
            raise Refused(f"it sets items of a {type(target).__name__}")
        target.update(zip(keys(pairs[::2]), pairs[1::2], strict=True))

    def _add(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, set):
            raise Refused(f"it adds to a {type(target).__name__}")
        target.update(keys(values))

    def _name(self, module: Any, name: Any) -> None:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise Refused("a name in it is no string")
        self._stack.append(Name(module, name))

    def _call(self, _: Any) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise Refused("it calls what is not the name of a function")
        replacement = self._calls.get((function.module, function.name))
        if replacement is None:
            raise Refused(f"it asks for a call of {function}")
        self._stack.append(replacement(*arguments))

    def _new(self, _: Any) -> None:
        arguments, of = self._stack.pop(), self._stack.pop()
        if not isinstance(of, Name) or arguments != ():
            raise Refused(f"it asks for a call of {of if isinstance(of, Name) else 'what is no class'}")
        self._stack.append(instance(of))

    def _build(self, _: Any) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if isinstance(target, Stub):
            target.state = state
        elif not isinstance(target, dict):  # a dictionary's attributes are of no use
            raise Refused(f"it sets the state of a {type(target).__name__}")

    def _resolve(self, _: Any) -> None:
        if self._persistent is None:
            raise Refused("it refers to what lies outside it (a persistent id)")
        self._stack.append(self._persistent(self._stack.pop()))


def instance(of: Name) -> Any:
    """Make what stands for a new object: a dict for the known kinds of dict, else a stub."""
    return {} if (of.module, of.name) in _DICTIONARIES else Stub(str(of))


_RARE: dict[str, Callable[[Machine, Any], None]] = {
    "MARK": Machine._mark,
    "TUPLE": Machine._tuple,
    "APPEND": lambda m, _: m._append([m._stack.pop()]),
    "APPENDS": lambda m, _: m._append(m._marked()),
    "SETITEM": lambda m, _: m._set([m._stack.pop(-2), m._stack.pop()]),
    "SETITEMS": lambda m, _: m._set(m._marked()),
    "ADDITEMS": lambda m, _: m._add(m._marked()),
    "GLOBAL": lambda m, names: m._name(*names.split(" ", 1)),
    "STACK_GLOBAL": lambda m, _: m._name(m._stack.pop(-2), m._stack.pop()),
    "REDUCE": Machine._call,
    "NEWOBJ": Machine._new,
    "BUILD": Machine._build,
    "BINPERSID": Machine._resolve,
}
