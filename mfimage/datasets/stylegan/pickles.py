"""Read pickles as PyTorch and NVIDIA's `torch_utils.persistence` write them, executing nothing."""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor

from mfimage.datasets.stylegan.machine import Budget, Machine, Name, Refused, Stub, instance, keys
from mfimage.errors import ModelError

_MOST = 1_000_000  # instructions; a network with discriminator and moving average has about 60,000
_MAGIC = 0x1950A86A20F9469CFC6C  # of torch.save before its zip files, which storages still use
_PROTOCOL = 1001
_TYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_SCALARS = {"f8": "<d", "f4": "<f", "f2": "<e", "i8": "<q", "i4": "<i", "u1": "<B", "b1": "<?"}
_DTYPE = "numpy.dtype "
_BROKEN = (ValueError, LookupError, TypeError, ArithmeticError, EOFError, MemoryError, OSError, struct.error)


@dataclass(frozen=True, eq=False)
class Storage:
    """The numbers that tensors share."""

    dtype: torch.dtype
    data: memoryview


@dataclass(frozen=True, eq=False)
class Stored:
    """A tensor as a part of a storage; it costs nothing until `tensor` is called."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def tensor(self) -> Tensor:
        """Copy the numbers into a new, contiguous tensor."""
        if 0 in self.size:
            return torch.zeros(self.size, dtype=self.storage.dtype)
        step = self.storage.dtype.itemsize
        start, stop = self.offset * step, (self.offset + self._reach()) * step
        numbers = torch.frombuffer(bytearray(self.storage.data[start:stop]), dtype=self.storage.dtype)
        return numbers.as_strided(self.size, self.stride).contiguous()

    def check(self) -> Stored:
        """Refuse a tensor that claims more numbers than its storage has, as strides of zero would allow."""
        numbers = (self.offset, *self.size, *self.stride)
        if not all(type(n) is int and n >= 0 for n in numbers) or len(self.size) != len(self.stride):
            raise Refused("a tensor in it has no shape")
        held = len(self.storage.data) // self.storage.dtype.itemsize
        if len(self.size) > 8 or math.prod(self.size) > held:
            raise Refused("a tensor in it claims more numbers than there are")
        if 0 not in self.size and self.offset + self._reach() > held:
            raise Refused("a tensor in it reaches beyond its numbers")
        return self

    def _reach(self) -> int:
        return 1 + sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True))


def read_pickle(path: str | Path) -> Any:
    """Read a pickle as numbers, strings, bytes, containers, `Stored` tensors and `Stub` objects.

    Args:
        path: The file, of protocol 3 to 5 as soon as it holds tensors.

    Returns:
        What the pickle describes. Lists and dicts may contain themselves.

    Raises:
        ModelError: The file is missing, damaged or no pickle, or asks for a call.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    try:
        with path.open("rb") as stream:
            return read_stream(cast(IO[bytes], _Bounded(stream, path.stat().st_size)))
    except Refused as error:
        raise ModelError(f"{path}: refused, because {error}; nothing in it was executed") from error
    except _BROKEN as error:
        what = f"{type(error).__name__}: {str(error)[:100]}"
        raise ModelError(f"{path}: damaged, or not the pickle of a network ({what})") from error


def read_stream(stream: IO[bytes]) -> Any:
    """Read one pickle of a stream; see `read_pickle`.

    Raises:
        Refused: It asks for what is never done.
        Exception: It is damaged.
    """
    budget = Budget(_MOST)
    return Machine(stream, _CALLS | {_LOAD: lambda data: _storage(data, budget)}, budget).run()


class _Bounded:
    """A file of which no more is asked than it holds, whatever length a pickle claims."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self._stream, self._size = stream, size
        self.readline, self.tell = stream.readline, stream.tell

    def read(self, count: int) -> bytes:
        return self._stream.read(min(count, self._size - self._stream.tell()))


def _storage(data: bytes, budget: Budget) -> Storage:
    """Read what `torch.save` writes for one storage: five small pickles, a count, the numbers."""
    stream = io.BytesIO(data)

    def claim(identity: tuple[Any, ...]) -> tuple[torch.dtype, int]:
        kind, of, _, _, count, view = identity
        if kind != "storage" or view is not None or not isinstance(of, Name) or of.module != "torch":
            raise Refused("a tensor in it refers to something else than its own numbers")
        return _TYPES[of.name], count

    magic, protocol, system = (Machine(stream, {}, budget).run() for _ in range(3))
    if magic != _MAGIC or protocol != _PROTOCOL or system["little_endian"] is not True:
        raise Refused("the numbers of a tensor in it are not as PyTorch writes them")
    dtype, count = Machine(stream, {}, budget, claim).run()
    Machine(stream, {}, budget).run()
    numbers = memoryview(data)[stream.tell() + 8 :]
    written = struct.unpack("<q", data[stream.tell() : stream.tell() + 8])[0]
    if not isinstance(dtype, torch.dtype) or type(count) is not int:
        raise Refused("a tensor in it has no numbers")
    if count != written or len(numbers) != count * dtype.itemsize:
        raise Refused("a tensor in it has not as many numbers as it claims")
    return Storage(dtype, numbers)


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Stored:
    if not (isinstance(storage, Storage) and isinstance(size, tuple) and isinstance(stride, tuple)):
        raise Refused("a tensor in it is not made of numbers and a shape")
    return Stored(storage, offset, size, stride).check()


def _parameter(data: Any, *_: Any) -> Stored:
    if not isinstance(data, Stored):
        raise Refused("a parameter in it is no tensor")
    return data


def _scalar(dtype: Any, data: Any) -> float:
    """Read a NumPy number: gains are of this kind."""
    known = isinstance(dtype, Stub) and dtype.of.startswith(_DTYPE) and isinstance(dtype.state, tuple)
    if not known or dtype.state[1] not in ("<", "|", "="):
        raise Refused("a NumPy number in it is of no known type")
    return struct.unpack(_SCALARS[dtype.of.removeprefix(_DTYPE)], data)[0]


def _dtype(code: str, *_: Any) -> Stub:
    return Stub(_DTYPE + code)


def _network(meta: Any) -> Stub:
    """Take class name and attributes; the source code that lies beside them is not read."""
    if not (isinstance(meta["class_name"], str) and isinstance(meta["state"], dict)):
        raise Refused("a network in it has no attributes")
    return Stub(meta["class_name"], meta["state"])


def _object(of: Any, *_: Any) -> Any:
    if not isinstance(of, Name):
        raise Refused("it makes an object of what is no class")
    return instance(of)


def _ordered() -> dict[str, Any]:
    return {}


def _set(values: Sequence[Any] = ()) -> set[Any]:
    if not isinstance(values, (list, tuple)):
        raise Refused("it makes a set of what is no list")
    return set(keys(values))


_LOAD = ("torch.storage", "_load_from_bytes")
_CALLS: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _network,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("collections", "OrderedDict"): _ordered,
    ("builtins", "set"): _set,
    ("__builtin__", "set"): _set,
    ("copyreg", "_reconstructor"): _object,
    ("copy_reg", "_reconstructor"): _object,
    ("numpy", "dtype"): _dtype,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy.core.multiarray", "_reconstruct"): _object,
    ("numpy._core.multiarray", "_reconstruct"): _object,
}
