"""What images lie in a folder, as a compact list that is kept in the user's cache where it is long.

Listing and sorting a million files takes half a minute, looking whether their folders changed takes as long
as there are folders. So the list of a folder with 10,000 images or more is kept in
`$XDG_CACHE_HOME/mfimage/index` (by default `~/.cache`). It is used as long as every folder in it has its
time of change, which every file that comes, goes or is renamed moves; else it is made anew. A file that is
overwritten in place moves no folder's time: whoever reads it compares its size and time with the list, see
`stores.FolderStore`.
"""

from __future__ import annotations

import hashlib
import os
import time
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from mfimage.datasets.listing import scan_folder, some

KEPT_FROM = 10_000  # images; fewer are listed sooner than they are looked up
_SETTLED = 2_000_000_000  # ns; a folder that changed later could change again within its clock's tick
_FORMAT = "1"
_DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


class Names(Sequence[str]):
    """Many names in one piece of memory: their bytes, and where each ends."""

    def __init__(self, names: Iterable[str]) -> None:
        parts = [os.fsencode(name) for name in names]
        self.bytes = np.frombuffer(b"".join(parts), np.uint8)
        self.ends = np.cumsum([len(part) for part in parts], dtype=np.int64)

    @classmethod
    def of(cls, content: NDArray[np.uint8], ends: NDArray[np.int64]) -> Names:
        """Put together what `bytes` and `ends` of another held."""
        names = cls(())
        names.bytes, names.ends = content, ends
        return names

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
        return (self[row] for row in range(len(self)))


@dataclass(frozen=True, eq=False)
class Index:
    """The images of a folder, in natural order.

    Attributes:
        names: Relative paths, "/" between folders.
        sizes: (N,) bytes, −1 for a broken link.
        times: (N,) of their last change, ns.
        kept: Where this list is kept; the file may be absent.
    """

    names: Names
    sizes: NDArray[np.int64]
    times: NDArray[np.int64]
    kept: Path

    def fingerprint(self) -> str:
        """SHA-256 of names and sizes, not of times: a copy of the folder has the same."""
        digest = hashlib.sha256(self.names.bytes.tobytes())
        digest.update(self.names.ends.tobytes())
        digest.update(self.sizes.tobytes())
        return digest.hexdigest()

    def forget(self) -> None:
        """Remove the kept list, so that the next to ask makes it anew."""
        with suppress(OSError):
            self.kept.unlink(missing_ok=True)


def index_folder(folder: Path) -> Index:
    """List the images of a folder, from the cache where that is still right.

    Args:
        folder: An existing folder; see `sources.scan_folder` for what counts.

    Raises:
        DataError: There is no image in it, or a folder in it cannot be read.
    """
    kept = _cache() / f"{hashlib.sha256(os.fsencode(os.path.realpath(folder))).hexdigest()[:32]}.npz"
    if (index := _read(kept, folder)) is not None:
        return index
    began = time.time_ns()
    found, folders = scan_folder(folder)
    some([one.path for one in found[:1]], f"folder {folder}")
    index = Index(
        Names(one.path for one in found),
        np.array([one.size for one in found], np.int64),
        np.array([one.time for one in found], np.int64),
        kept,
    )
    if len(found) >= KEPT_FROM and max(folders.values()) < began - _SETTLED:
        with suppress(OSError):  # without a cache it is only slower
            _keep(index, folders)
    return index


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mfimage" / "index"


def _keep(index: Index, folders: dict[str, int]) -> None:
    index.kept.parent.mkdir(parents=True, exist_ok=True)
    temporary = index.kept.with_name(f"{index.kept.name}.{os.getpid()}.tmp")
    tops = Names(folders)
    try:
        with open(temporary, "wb") as file:
            np.savez(
                file, format=np.array(_FORMAT),
                names=index.names.bytes, ends=index.names.ends, sizes=index.sizes, times=index.times,
                folders=tops.bytes, folder_ends=tops.ends, folder_times=np.array([*folders.values()]),
            )  # fmt: skip
        os.replace(temporary, index.kept)
    finally:
        temporary.unlink(missing_ok=True)


def _read(kept: Path, folder: Path) -> Index | None:
    """The kept list if it is there, whole, and right."""
    try:
        with open(kept, "rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            if arrays["format"].item() != _FORMAT:
                return None
            tops = Names.of(arrays["folders"], arrays["folder_ends"])
            for top, changed in zip(tops, arrays["folder_times"].tolist(), strict=True):
                if os.stat(folder / top).st_mtime_ns != changed:
                    return None
            names = Names.of(arrays["names"], arrays["ends"])
            index = Index(names, arrays["sizes"], arrays["times"], kept)
    except _DAMAGED:
        return None
    whole = len(names) == len(index.sizes) == len(index.times) and names.ends[-1:] == len(names.bytes)
    return index if whole else None
