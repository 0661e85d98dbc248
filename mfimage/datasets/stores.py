"""Where images lie that are read one at a time: folders, files and zips; others in `shards` and `objects`.

They are read ahead by threads, because Pillow and numpy free the interpreter while they decode, scale and
copy, at least half of the time; threads share the files' lists, start at once, and end with an error like any
call.
"""

from __future__ import annotations

import errno
import hashlib
import os
import zipfile
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from mfimage.datasets.changes import Changes
from mfimage.datasets.decode import Preparation, data_errors
from mfimage.datasets.index import Index, index_folder
from mfimage.datasets.listing import require_some, sort_members
from mfimage.datasets.pixels import Crop, Pixels
from mfimage.datasets.splits import Divided, class_folders, divide_paths
from mfimage.errors import DataError, Skipped

Key = TypeVar("Key")
Value = TypeVar("Value")

CHUNK = 16  # images a thread takes at once


def workers() -> int:
    """How many threads decode: one a core that this process may use, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, cores)


def ahead(read: Callable[[Key], Value], keys: Iterable[Key]) -> Generator[Value, None, None]:
    """Read values in threads, in the order of their keys, at most two a thread before they are wanted.

    Keys are drawn in the caller's thread, as the values are taken. An error in `read` is raised where its
    value would have come. Closing the generator waits for what is being read and drops what is not yet begun.
    """
    threads, left = workers(), iter(keys)
    waiting: deque[Future[Value]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="mfimage-read")
    try:
        waiting.extend(pool.submit(read, key) for key in islice(left, 2 * threads))
        while waiting:
            value = waiting.popleft().result()
            waiting.extend(pool.submit(read, key) for key in islice(left, 1))
            yield value
    finally:
        pool.shutdown(cancel_futures=True)


def read_chunks(
    read: Callable[[Key], Value], keys: Sequence[Key]
) -> Generator[list[tuple[Key, Value | DataError]], None, None]:
    """Read ahead, in chunks: each key comes with its value, or with the DataError that it gave."""

    def attempt(key: Key) -> tuple[Key, Value | DataError]:
        try:
            return key, read(key)
        except DataError as error:
            return key, type(error)(str(error))  # without the frames that hold what was read

    chunks = [keys[begin : begin + CHUNK] for begin in range(0, len(keys), CHUNK)]
    return ahead(lambda chunk: list(map(attempt, chunk)), chunks)


class Store(ABC):
    """Images in an order of their own; threads may read at the same time."""

    name: str  # in messages
    divided: Divided  # the rows of each split
    crop: Crop | None = None  # a box that is cut out of every image
    class_names: Sequence[str] = ()  # what labels mean, empty if unknown

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def path(self, row: int) -> str:
        """What to call an image."""

    @abstractmethod
    def content(self, row: int, max_bytes: int) -> bytes | Pixels:
        """An image: its file's content, or pixels; DataError if it is gone, changed or too large."""

    @abstractmethod
    def fingerprint(self) -> str:
        """A hash that tells whether it still holds the same."""

    def written(self) -> str:
        """A hash of when files were written; empty where the fingerprint is of what they hold."""
        return ""

    @property
    def unread(self) -> tuple[Skipped, ...]:
        """What lies there, may be taken for an image, and is not read."""
        return ()

    def labels(self, rows: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """Class indices of rows, None if unknown."""
        return None

    def image(self, row: int, prepare: Preparation, changes: Changes | None = None) -> Pixels:
        """Read and prepare an image; DataError, whatever goes wrong with it."""
        path = self.path(row)
        with data_errors(path):
            return prepare(self.content(row, prepare.max_bytes), path, changes)


class Kinds(NamedTuple):
    """The class of each row of a store."""

    numbers: NDArray[np.int64] | None  # (N,) class indices, −1 where there is none; None if there are none
    names: Sequence[str]  # what they mean


def kinds_by_folder(paths: Sequence[str]) -> Kinds:
    """Take the folder of each path for its class; no classes where one lies in none."""
    known, numbers = np.unique(class_folders(paths), return_inverse=True)
    return Kinds(None, ()) if "" in known else Kinds(numbers.astype(np.int64), known.tolist())


def _labels(kinds: Kinds, rows: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Class indices of rows, None unless all have one."""
    found = None if kinds.numbers is None else kinds.numbers[rows]
    return None if found is None or (found < 0).any() else found


@dataclass(frozen=True, eq=False)
class FolderStore(Store):
    """The images of a folder, to any depth."""

    folder: Path
    index: Index
    divided: Divided
    name: str
    crop: Crop | None = None
    kinds: Kinds | None = None  # by its folders if None

    @classmethod
    def open(cls, folder: Path) -> FolderStore:
        """Take any folder with images; its top-level folders may be splits."""
        index = index_folder(folder)
        return cls(folder, index, divide_paths(index.names), str(folder))

    def __len__(self) -> int:
        return len(self.index.names)

    def path(self, row: int) -> str:
        return f"{self.folder}/{self.index.names[row]}"

    @property
    def unread(self) -> tuple[Skipped, ...]:
        return tuple(Skipped(f"{self.folder}/{one.path}", one.reason) for one in self.index.unread)

    def stored_bytes(self, row: int) -> int:
        """Size of the file when it was listed."""
        return max(0, int(self.index.sizes[row]))

    def content(self, row: int, max_bytes: int) -> bytes:
        path = self.path(row)
        try:
            with open(path, "rb", buffering=0) as file:
                known = os.fstat(file.fileno())
                if (known.st_size, known.st_mtime_ns) != (self.index.sizes[row], self.index.times[row]):
                    self.index.forget()
                    raise DataError(f"{path}: has changed since the folder was listed")
                if known.st_size > max_bytes:
                    raise DataError(f"{path}: is larger than {max_bytes:,} bytes")
                return file.read()
        except OSError as error:
            if error.errno == errno.ENOENT and self.index.sizes[row] >= 0:  # there when it was listed
                self.index.forget()
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error

    @cached_property
    def _kinds(self) -> Kinds:
        return self.kinds or kinds_by_folder(self.index.names)

    def labels(self, rows: NDArray[np.int64]) -> NDArray[np.int64] | None:
        return _labels(self._kinds, rows)

    @property
    def class_names(self) -> Sequence[str]:  # type: ignore[override]
        return self._kinds.names

    def fingerprint(self) -> str:
        return self.index.fingerprint()

    def written(self) -> str:
        return hashlib.sha256(self.index.times.tobytes()).hexdigest()


class ZipStore(Store):
    """The images in a zip file, read in place; DataError if it is none or holds none.

    A name may come several times, as where a file was added again: each is an image, and the second is called
    NAME (2). Back slashes, which Windows writes, are between folders.
    """

    unread: tuple[Skipped, ...] = ()

    def __init__(self, path: Path) -> None:
        self.name, self._process = str(path), -1
        members = self._archive().infolist()
        names = [member.filename.replace("\\", "/") for member in members]
        rows, others = sort_members(names)
        self.unread = tuple(Skipped(f"{self.name}/{one.path}", one.reason) for one in others)
        require_some(rows, f"zip file {path}", others)
        self._members, chosen = [members[row] for row in rows], [names[row] for row in rows]
        self._names = _numbered(chosen)
        self.divided, self._kinds = divide_paths(chosen), kinds_by_folder(chosen)
        self.class_names = self._kinds.names

    def _archive(self) -> zipfile.ZipFile:
        if self._process != os.getpid():  # a forked process would share the place in the file
            with data_errors(self.name, "is not a readable zip file"):
                self._opened, self._process = zipfile.ZipFile(self.name), os.getpid()
        return self._opened

    def __len__(self) -> int:
        return len(self._names)

    def path(self, row: int) -> str:
        return f"{self.name}/{self._names[row]}"

    def content(self, row: int, max_bytes: int) -> bytes:
        archive, member = self._archive(), self._members[row]
        if member.file_size > max_bytes:
            raise DataError(f"{self.path(row)}: unpacks to more than {max_bytes:,} bytes")
        with data_errors(self.path(row), "cannot be unpacked"):
            return archive.read(member)

    def labels(self, rows: NDArray[np.int64]) -> NDArray[np.int64] | None:
        return _labels(self._kinds, rows)

    def fingerprint(self) -> str:
        content = repr([(one.filename, one.file_size, one.CRC) for one in self._members])
        return hashlib.sha256(content.encode("utf-8", "surrogateescape")).hexdigest()


def _numbered(names: Sequence[str]) -> list[str]:
    """Tell equal names apart: the second a.png is a.png (2)."""
    counts, taken, out = Counter[str](), set(names), list[str]()
    for name in names:
        counts[name] += 1
        unique = name
        while counts[name] > 1 and unique in taken:
            unique = f"{name} ({counts[name]})"
            counts[name] += unique in taken
        taken.add(unique)
        out.append(unique)
    return out
