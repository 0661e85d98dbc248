"""Tensors in pickles, as `torch.save` and `torch.jit.save` write them, read without executing anything."""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mfimage.datasets.pickles import Calls, Name, Stub, Unpickler
from mfimage.limits import NAME, Allowance, Refused

_DEPTH = 8  # of modules in each other; the networks that are read have at most five
_MODULES = 4096
_TYPES = {
    "FloatStorage": torch.float32, "DoubleStorage": torch.float64, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}  # fmt: skip
_MAGIC = 0x1950A86A20F9469CFC6C  # of torch.save before its zip files, which storages still use
_PROTOCOL = 1001
_REBUILD = ("torch._utils", "_rebuild_tensor_v2")


@dataclass(frozen=True, eq=False)
class Storage:
    """The numbers that tensors share."""

    dtype: torch.dtype
    data: memoryview


@dataclass(frozen=True, eq=False)
class TensorPart:
    """A tensor as a part of a storage, not beyond its end; it costs nothing until `tensor` is called."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def __post_init__(self) -> None:
        kinds = ((self.storage, Storage), (self.size, tuple), (self.stride, tuple))
        if not all(isinstance(part, kind) for part, kind in kinds):
            raise Refused("a tensor in it is not made of numbers and a shape")
        numbers = (self.offset, *self.size, *self.stride)
        if not all(type(n) is int and n >= 0 for n in numbers) or len(self.size) != len(self.stride):
            raise Refused("a tensor in it has no shape")
        held = len(self.storage.data) // self.storage.dtype.itemsize
        if len(self.size) > 8 or math.prod(self.size) > held:
            raise Refused("a tensor in it claims more numbers than there are")
        if 0 not in self.size and self.offset + self._reach() > held:
            raise Refused("a tensor in it reaches beyond its numbers")

    @property
    def cost(self) -> int:
        """Bytes that `tensor` copies."""
        return 0 if 0 in self.size else self._reach() * self.storage.dtype.itemsize

    def tensor(self) -> Tensor:
        """Copy the numbers into a new, contiguous tensor."""
        if 0 in self.size:
            return torch.zeros(self.size, dtype=self.storage.dtype)
        step = self.storage.dtype.itemsize
        start, stop = self.offset * step, (self.offset + self._reach()) * step
        numbers = torch.frombuffer(bytearray(self.storage.data[start:stop]), dtype=self.storage.dtype)
        return numbers.as_strided(self.size, self.stride).contiguous()

    def _reach(self) -> int:
        return 1 + sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True))


def storage_type(of: object) -> torch.dtype:
    """Give the type of the numbers in a storage, by the name of its class."""
    if not isinstance(of, Name) or of.module != "torch" or of.name not in _TYPES:
        raise Refused("a tensor in it is of no known type of numbers")
    return _TYPES[of.name]


def modules(
    network: Any, parts: Callable[[dict[str, Any]], Mapping[str, Any]]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give the attributes of a network and all modules in it, by dotted name; `parts` finds those in one."""
    waiting: list[tuple[str, Any, int]] = [("", network, 0)]
    count = 0
    while waiting:
        name, module, depth = waiting.pop()
        count += 1
        if depth > _DEPTH or count > _MODULES or len(name) > NAME or not isinstance(module, Stub):
            raise Refused("its parts are not nested as those of a network")
        yield name, module.state
        for part, inner in parts(module.state).items():
            waiting.append((f"{name}.{part}" if name else str(part), inner, depth + 1))


def named_parts(groups: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, TensorPart]:
    """Find the tensors among what modules hold, by dotted name; groups may be one and the same object."""
    allowance, parts = Allowance(), dict[str, TensorPart]()
    for module, held in groups:
        allowance.make(len(held))
        for name, value in held.items():
            if isinstance(value, TensorPart):
                if len(str(name)) > NAME:
                    raise Refused("the name of a tensor in it is endless")
                parts[f"{module}.{name}" if module else str(name)] = value
    return parts


def make_tensors(parts: Mapping[str, TensorPart], size: int) -> dict[str, Tensor]:
    """Make the tensors of a file of so many bytes; refuse those that have more numbers between them."""
    if sum(part.cost for part in parts.values()) > size:
        raise Refused("its tensors share their numbers")
    return {name: part.tensor() for name, part in parts.items()}


def load_storage(data: bytes, allowance: Allowance) -> Storage:
    """Read what `torch.save` wrote for one storage before its zip files."""
    storage, end = _load_old(data, {}, allowance)
    if not isinstance(storage, Storage) or end != len(data):
        raise Refused("a tensor in it has not as many numbers as it claims")
    return storage


def is_torchscript(path: Path) -> bool:
    """Say whether a file is a TorchScript archive: a zip that holds code beside its tensors."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file that `torch.jit.save` wrote, by their dotted path in the tree of modules.

    `torch.jit.load` would compile the code in it; here the code is not read.
    """
    network = _read_zip(path)
    parts = named_parts(modules(network, lambda s: {n: v for n, v in s.items() if isinstance(v, Stub)}))
    return make_tensors(parts, path.stat().st_size)


def read_state(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a dictionary that `torch.save` wrote, as a zip file or as before those."""
    zipped = zipfile.is_zipfile(path)
    state = _read_zip(path) if zipped else _load_old(path.read_bytes(), TENSORS, Allowance())[0]
    if not isinstance(state, dict):
        raise Refused("it holds no dictionary of tensors")
    return make_tensors(named_parts([("", state)]), path.stat().st_size)


def _read_zip(path: Path) -> Any:
    """The pickle in a zip file of PyTorch, with the tensors that it refers to."""
    storages: dict[str, Storage] = {}
    allowance = Allowance()
    with zipfile.ZipFile(path) as archive:
        root = next(name.split("/")[0] for name in archive.namelist() if name.endswith("/data.pkl"))

        def storage(identity: Any) -> Storage:
            key, dtype, count = _claimed(identity)
            if key not in storages:
                entry = archive.getinfo(f"{root}/data/{key}")
                if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != count * dtype.itemsize:
                    raise Refused(f"{entry.filename} does not hold {count} numbers as PyTorch writes them")
                allowance.allocate(entry.file_size)
                storages[key] = Storage(dtype, memoryview(archive.read(entry)))
            return storages[key]

        allowance.allocate(archive.getinfo(f"{root}/data.pkl").file_size)
        pickled = io.BytesIO(archive.read(f"{root}/data.pkl"))
        return Unpickler(pickled, TENSORS, allowance, storage).load()


def _load_old(content: bytes, calls: Calls, allowance: Allowance) -> tuple[Any, int]:
    """What `torch.save` wrote before its zip files, five pickles and the numbers of each storage; its end."""
    stream, claims, storages = io.BytesIO(content), dict[str, tuple[torch.dtype, int]](), dict[str, Storage]()

    def claim(identity: Any) -> None:
        key, dtype, count = _claimed(identity)
        claims[key] = dtype, count

    magic, protocol, system = (Unpickler(stream, {}, allowance).load() for _ in range(3))
    if magic != _MAGIC or protocol != _PROTOCOL or system["little_endian"] is not True:
        raise Refused("the numbers of a tensor in it are not as PyTorch writes them")
    begin = stream.tell()
    Unpickler(stream, {**calls, _REBUILD: lambda *_: None}, allowance, claim).load()
    for key in Unpickler(stream, {}, allowance).load():
        dtype, count = claims[key]
        start = stream.tell() + 8
        numbers = memoryview(content)[start : start + max(0, count) * dtype.itemsize]
        if struct.unpack("<q", content[start - 8 : start]) != (len(numbers) // dtype.itemsize,):
            raise Refused("a tensor in it has not as many numbers as it claims")
        storages[key] = Storage(dtype, numbers)
        stream.seek(start + len(numbers))
    end = stream.tell()
    stream.seek(begin)
    return Unpickler(stream, calls, allowance, lambda identity: storages[identity[2]]).load(), end


def _claimed(identity: Any) -> tuple[str, torch.dtype, int]:
    """The key of a storage that a pickle refers to, and the type and count of its numbers."""
    kind, of, key, _, count, *view = identity
    if kind != "storage" or view not in ([], [None]) or not isinstance(key, str) or type(count) is not int:
        raise Refused("a tensor in it refers to something else than its own numbers")
    return key, storage_type(of), count


#: Calls that make tensors of storages.
TENSORS: Calls = {
    _REBUILD: lambda *arguments: TensorPart(*arguments[:4]),
    ("torch.jit._pickle", "build_intlist"): list,
    ("collections", "OrderedDict"): lambda: {},
}
