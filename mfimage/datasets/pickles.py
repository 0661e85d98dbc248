"""Pickles read without executing them: numbers, strings, containers, descriptions of tensors and of objects.

A pickle is a program. Here a name stays a pair of strings, an object stays its class's name and its
attributes, source code is a string like any other, and the few calls that a file of arrays cannot do without
are replaced by those of a table, which the caller gives. Instructions and elements cost of an `Allowance`, no
value is longer than the file, no tuple is long to walk through, and nothing is hashed but strings and small
numbers.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import IO, Any

from mfimage.limits import DEPTH, WALK, Allowance, Refused

_SMALL = 64  # values in a tuple, inner ones included, that are not worth a note
_DICTIONARIES = {("dnnlib.util", "EasyDict"), ("collections", "OrderedDict")}

Calls = Mapping[tuple[str, str], Callable[..., object]]


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


class Unpickler:
    """Reads one pickle of a stream, which is left after the pickle's end.

    `calls` are done in place of the calls of a name, given the arguments; `persistent` gives what a
    persistent id stands for, None refuses them. Pickles inside each other share a allowance.
    """

    def __init__(
        self,
        stream: IO[bytes],
        calls: Calls,
        allowance: Allowance | None = None,
        persistent: Callable[[Any], object] | None = None,
    ) -> None:
        self._stream, self._calls, self._persistent = stream, calls, persistent
        self._allowance = allowance or Allowance()
        self._large: dict[int, tuple[int, int, tuple[Any, ...]]] = {}  # tuples by id: values in them, depth
        self._stack: list[Any] = []
        self._outer: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def load(self) -> Any:
        """Read the pickle to its end and give what it describes. Lists and dicts may contain themselves."""
        while code := self._stream.read(1):
            self._allowance.step()
            instruction = _CODES.get(code)
            if instruction is None:
                raise ValueError(f"it has no instruction {code!r}")
            if instruction.name == "STOP":
                return self._stack.pop()
            if instruction.name not in _DO:
                raise Refused(f"files of arrays do not have its instruction {instruction.name}")
            argument = instruction.arg.reader(self._stream) if instruction.arg else None
            _DO[instruction.name](self, argument)
        raise EOFError("it is cut off")

    def _push(self, value: object) -> None:
        self._stack.append(value)

    def _take(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise IndexError("it takes more values than there are")
        values = self._stack[-count:]
        del self._stack[-count:]
        return values

    def _mark(self, _: None) -> None:
        self._outer.append(self._stack)
        self._stack = []

    def _marked(self) -> list[Any]:
        """Take everything since the last mark."""
        values, self._stack = self._stack, self._outer.pop()
        return values

    def _tuple(self, values: list[Any]) -> None:
        """Make a tuple, unless walking through it takes long, as of tuples that share their parts."""
        walk, depth = 1, 0
        for value in values:
            inner = _SMALL if type(value) is tuple else 1
            below, deep, _ = self._large.get(id(value), (inner, inner, ()))
            walk, depth = walk + below, max(depth, deep)
        if walk > WALK or depth > DEPTH:
            raise Refused("it nests tuples in a way that no network does")
        made = tuple(values)
        if walk > _SMALL:
            self._large[id(made)] = (walk, depth + 1, made)  # it stays, so that its id is its own
        self._push(made)

    def _fill(self, kind: type, values: list[Any]) -> None:
        """Add values, of a dict keys and values by turns, to the container on top of the stack."""
        self._allowance.make(len(values))
        target = self._stack[-1]
        if not isinstance(target, kind):
            raise Refused(f"it adds to a {type(target).__name__} as to a {kind.__name__}")
        if isinstance(target, list):
            target.extend(values)
        elif isinstance(target, set):
            target.update(keys(values))
        elif isinstance(target, dict):
            target.update(zip(keys(values[::2]), values[1::2], strict=True))

    def _name(self, module: object, name: object) -> None:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise Refused("a name in it is no string")
        self._push(Name(module, name))

    def _call(self, function: object, arguments: object) -> None:
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise Refused("it calls what is not the name of a function")
        replacement = self._calls.get((function.module, function.name))
        if replacement is None:
            raise Refused(f"it asks for a call of {function}")
        self._allowance.make(sum(len(one) for one in arguments if isinstance(one, list | tuple | set | dict)))
        self._push(replacement(*arguments))

    def _new(self, of: object, arguments: object) -> None:
        if arguments != ():
            raise Refused(f"it asks for a call of {of if isinstance(of, Name) else 'what is no class'}")
        self._push(instance(of))

    def _build(self, state: object) -> None:
        target = self._stack[-1]
        if isinstance(target, Stub):
            target.state = state
        elif not isinstance(target, dict):  # a dictionary's attributes are of no use
            raise Refused(f"it sets the state of a {type(target).__name__}")

    def _resolve(self, identity: object) -> None:
        if self._persistent is None:
            raise Refused("it refers to what lies outside it (a persistent id)")
        self._push(self._persistent(identity))


def keys(values: Iterable[object]) -> list[object]:
    """Check what is to be hashed: a nest of tuples would take exponential time, chosen numbers quadratic."""
    out = list(values)
    for value in out:
        small = isinstance(value, int) and abs(value) < 2**31
        if not (small or value is None or isinstance(value, str | bytes)):
            raise Refused(f"a key of it is a {type(value).__name__}, not a string or a small number")
    return out


def instance(of: object, *_: object) -> Stub | dict[str, object]:
    """Make what stands for a new object of a class: a dict for the known kinds of dict, else a stub."""
    if not isinstance(of, Name):
        raise Refused("it makes an object of what is no class")
    return {} if (of.module, of.name) in _DICTIONARIES else Stub(str(of))


#: Calls that make NumPy's arrays: a `Stub` each, of state (version, shape, dtype, by columns?, bytes).
ARRAYS: Calls = {
    ("numpy", "dtype"): lambda code, *_: Stub(f"numpy.dtype {code}"),
    ("numpy.core.multiarray", "_reconstruct"): instance,
    ("numpy._core.multiarray", "_reconstruct"): instance,
}

_VALUES = {
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
    "SHORT_BINBYTES", "BINBYTES", "BINBYTES8",
}  # fmt: skip
_DO: dict[str, Callable[[Unpickler, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME"), lambda u, _: None),
    **dict.fromkeys(_VALUES, Unpickler._push),
    **dict.fromkeys(("BINSTRING", "SHORT_BINSTRING"), lambda u, text: u._push(text.encode("latin-1"))),
    "NONE": lambda u, _: u._push(None),
    "NEWTRUE": lambda u, _: u._push(True),
    "NEWFALSE": lambda u, _: u._push(False),
    "EMPTY_TUPLE": lambda u, _: u._push(()),
    "EMPTY_LIST": lambda u, _: u._push([]),
    "EMPTY_DICT": lambda u, _: u._push({}),
    "EMPTY_SET": lambda u, _: u._push(set()),
    "MARK": Unpickler._mark,
    "TUPLE": lambda u, _: u._tuple(u._marked()),
    "TUPLE1": lambda u, _: u._tuple(u._take(1)),
    "TUPLE2": lambda u, _: u._tuple(u._take(2)),
    "TUPLE3": lambda u, _: u._tuple(u._take(3)),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), lambda u, place: u._memo.update({place: u._stack[-1]})),
    "MEMOIZE": lambda u, _: u._memo.update({len(u._memo): u._stack[-1]}),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda u, place: u._push(u._memo[place])),
    "APPEND": lambda u, _: u._fill(list, u._take(1)),
    "APPENDS": lambda u, _: u._fill(list, u._marked()),
    "SETITEM": lambda u, _: u._fill(dict, u._take(2)),
    "SETITEMS": lambda u, _: u._fill(dict, u._marked()),
    "ADDITEMS": lambda u, _: u._fill(set, u._marked()),
    "GLOBAL": lambda u, names: u._name(*names.split(" ", 1)),
    "STACK_GLOBAL": lambda u, _: u._name(*u._take(2)),
    "REDUCE": lambda u, _: u._call(*u._take(2)),
    "NEWOBJ": lambda u, _: u._new(*u._take(2)),
    "BUILD": lambda u, _: u._build(*u._take(1)),
    "BINPERSID": lambda u, _: u._resolve(*u._take(1)),
}
_CODES = {instruction.code.encode("latin-1"): instruction for instruction in pickletools.opcodes}
