"""The image files of folders, as a list; a long one is kept in the user's cache.

Listing and sorting a million files takes half a minute. So the list of a folder with 10,000 images or more
is kept in `$XDG_CACHE_HOME/mfimage/index` (by default `~/.cache`), and used as long as every folder in it has
its time of change, which every file that comes, goes or is renamed moves, and every file its size and time,
which one that is overwritten in place changes.
"""

from __future__ import annotations

import glob
import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from mfimage.datasets.listing import is_image, natural, require_some, scan_folder, unread
from mfimage.errors import DataError, ResourceError, Skipped, boundary
from mfimage.files import cache_folder, open_npz, user_path, whole
from mfimage.outputs import sweep

KEPT_FROM = 10_000  # images; fewer are listed sooner than they are looked up
SETTLED = 2_000_000_000  # ns; a folder that changed later could change again within its clock's tick
_FORMAT = "2"


def iter_files(inputs: Iterable[str | Path]) -> list[Path]:
    """Expand files, folders and glob patterns to image files, in the order given.

    A file is taken whatever its name; a folder gives the images in it and below it, a pattern (`*`, `?`,
    `[…]`, `**`) those that it matches, both in natural order. Among others that are there, one that is not
    is given as it is, and will count as a file that cannot be read; DataError if none is there.
    """
    return list_inputs(inputs)[0]


def list_inputs(inputs: Iterable[str | Path]) -> tuple[list[Path], list[Skipped]]:
    """Expand inputs as `iter_files` does; give also what may be taken for an image there and is not read."""
    found: list[Path] = []
    others: list[Skipped] = []
    missing: list[DataError] = []
    for one in inputs:
        try:
            paths, more = _expand(one)
        except DataError as error:
            if user_path(one).exists():
                raise
            missing.append(error)
            paths, more = [user_path(one)], []
        found += paths
        others += more
    if missing and len(missing) == len(found):
        raise missing[0]
    return found, others


def _expand(one: str | Path) -> tuple[list[Path], list[Skipped]]:
    path = user_path(one)
    if path.is_dir():
        index = index_folder(path)
        others = [Skipped(str(path / bad.path), bad.reason) for bad in index.unread]
        return [path / name for name in index.names], others
    if path.exists():
        return [path], []
    found = sorted(matches(path), key=natural)
    images = [Path(match) for match in found if is_image(match) and Path(match).is_file()]
    if not images:
        raise DataError(f"{one}: no such file or folder, and no image matches it as a pattern")
    return images, [bad for match in found if (bad := unread(match)) is not None]


def matches(pattern: Path) -> list[str]:
    """List what a pattern matches: a folder in it that is there is meant as it is written, whatever its name.

    Where nothing matches, brackets are parts of names too.
    """
    folder = next((parent for parent in pattern.parents if parent.is_dir()), Path())
    literal, rest = glob.escape(str(folder)), str(pattern.relative_to(folder))
    tries = [os.path.join(literal, wild) for wild in (rest, rest.replace("[", "[[]"))]
    found = glob.glob(tries[0], recursive=True) or glob.glob(tries[1], recursive=True)
    return [os.path.normpath(match) for match in found]


class Names(Sequence[str]):
    """Many names in one piece of memory: their bytes, and where each ends."""

    def __init__(self, content: NDArray[np.uint8], ends: NDArray[np.int64]) -> None:
        self.bytes, self.ends = content, ends

    @classmethod
    def of(cls, names: Iterable[str]) -> Names:
        """Put names together."""
        parts = [os.fsencode(name) for name in names]
        ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
        return cls(np.frombuffer(b"".join(parts), np.uint8), ends)

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, row: int) -> str: ...

    @overload
    def __getitem__(self, row: slice) -> list[str]: ...

    def __getitem__(self, row: int | slice) -> str | list[str]:
        if isinstance(row, slice):
            return [self[i] for i in range(*row.indices(len(self)))]
        row = range(len(self))[row]
        begin = self.ends[row - 1] if row else 0
        return os.fsdecode(self.bytes[begin : self.ends[row]].tobytes())

    def __iter__(self) -> Iterator[str]:
        content, begin = self.bytes.tobytes(), 0
        for end in self.ends.tolist():
            yield os.fsdecode(content[begin:end])
            begin = end


@dataclass(frozen=True, eq=False)
class Index:
    """The images of a folder, in natural order."""

    names: Names  # relative paths, "/" between folders
    sizes: NDArray[np.int64]  # (N,) bytes, −1 for a broken link
    times: NDArray[np.int64]  # (N,) of their last change, ns
    kept: Path | None  # where this list is kept, if there is a place; the file may be absent
    unread: tuple[Skipped, ...] = ()  # what may be taken for images and is not read, by relative path

    def fingerprint(self) -> str:
        """SHA-256 of names and sizes, not of times: a copy of the folder has the same."""
        content = (self.names.bytes, self.names.ends, self.sizes)
        return hashlib.sha256(b"".join(part.tobytes() for part in content)).hexdigest()

    def forget(self) -> None:
        """Remove the kept list, so that the next to ask makes it anew."""
        if self.kept is not None:
            with suppress(OSError):
                self.kept.unlink(missing_ok=True)


def kept_file(folder: Path, kind: str, suffix: str) -> Path | None:
    """Name the file in the user's cache for what is known of a folder; None where there is no cache."""
    code = hashlib.sha256(os.fsencode(os.path.realpath(folder))).hexdigest()[:32]
    return None if (cache := cache_folder(kind)) is None else cache / f"{code}{suffix}"


def index_folder(folder: Path) -> Index:
    """List the images of a folder, see `scan_folder`, or read the kept list; DataError if there are none."""
    kept = kept_file(folder, "index", ".npz")
    if kept is not None and (index := _read(kept, folder)) is not None:
        return index
    began = time.time_ns()
    files, folders, others = scan_folder(folder)
    require_some(files, f"folder {folder}", others)
    sizes, times = (np.array([one[i] for one in files], np.int64) for i in (1, 2))
    index = Index(Names.of(one.path for one in files), sizes, times, kept, tuple(others))
    if kept is not None and len(files) >= KEPT_FROM and max(folders.values()) < began - SETTLED:
        with suppress(OSError, ResourceError):  # without a cache it is only slower
            _keep(index, folders, kept)
    return index


def _keep(index: Index, folders: dict[str, int], kept: Path) -> None:
    tops = Names.of(folders)
    sweep(kept.parent, age=3600)
    others = Names.of(f"{one.path}\0{one.reason}" for one in index.unread)
    with whole(kept) as temporary, open(temporary, "wb") as file:
        np.savez(
            file, format=np.array(_FORMAT),
            names=index.names.bytes, ends=index.names.ends, sizes=index.sizes, times=index.times,
            folders=tops.bytes, folder_ends=tops.ends, folder_times=np.array([*folders.values()]),
            unread=others.bytes, unread_ends=others.ends,
        )  # fmt: skip


def _read(kept: Path, folder: Path) -> Index | None:
    """The kept list if it is there, whole, and right."""
    with suppress(DataError), boundary(DataError, str(kept)), open_npz(kept) as arrays:
        if arrays["format"].item() != _FORMAT:
            return None
        tops = Names(arrays["folders"], arrays["folder_ends"])
        for top, changed in zip(tops, arrays["folder_times"].tolist(), strict=True):
            if os.stat(folder / top).st_mtime_ns != changed:
                return None
        names = Names(arrays["names"], arrays["ends"])
        others = [Skipped(*one.split("\0")) for one in Names(arrays["unread"], arrays["unread_ends"])]
        index = Index(names, arrays["sizes"], arrays["times"], kept, tuple(others))
        complete = len(names) == len(index.sizes) == len(index.times) and names.ends[-1:] == len(names.bytes)
        return index if complete and _unchanged(index, folder) else None
    return None


def _unchanged(index: Index, folder: Path) -> bool:
    """Whether every file has the size and time of the list."""
    for name, size, changed in zip(index.names, index.sizes.tolist(), index.times.tolist(), strict=True):
        try:
            known = os.stat(f"{folder}/{name}")
        except (OSError, ValueError):
            if size < 0:  # a broken link, as it was
                continue
            return False
        if (known.st_size, known.st_mtime_ns) != (size, changed):
            return False
    return True
