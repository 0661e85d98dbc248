"""Which image files lie in a folder, in natural order; a long list is kept in the user's cache.

Listing and sorting a million files takes half a minute. So the list of a folder with 10,000 images or more
is kept in `$XDG_CACHE_HOME/mfimage/index` (by default `~/.cache`), and used as long as every folder in it has
its time of change, which every file that comes, goes or is renamed moves. A file that is overwritten in place
moves no folder's time: whoever reads it compares its size and time with the list, see `stores.FolderStore`.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from mfimage.datasets.decode import IMAGE_SUFFIXES
from mfimage.errors import DataError, ResourceError
from mfimage.files import NPZ_ERRORS, cache_folder, open_npz, whole

KEPT_FROM = 10_000  # images; fewer are listed sooner than they are looked up
_SETTLED = 2_000_000_000  # ns; a folder that changed later could change again within its clock's tick
_FORMAT = "1"


def natural(path: str) -> tuple[str, str]:
    """Sort key that puts `img2` before `img10`; equal ones are ordered by their plain text."""

    def number(match: re.Match[str]) -> str:
        # NUL, which is in no path, puts a number before any letter; its length puts 9 before 10.
        digits = match[0].lstrip("0")
        return f"\0{chr(len(digits))}{digits}"

    return re.sub(r"[0-9]+", number, path.lower()), path


def image_paths(paths: Iterable[str]) -> list[str]:
    """Those that end like an image and lie in no hidden place, in natural order."""
    chosen = [path for path in paths if _is_image(path) and not any(map(_hidden, path.split("/")))]
    return sorted(chosen, key=natural)


def _is_image(path: str) -> bool:
    return PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES


def _hidden(part: str) -> bool:
    return (part.startswith(".") and part not in (".", "..")) or part == "__MACOSX"


def require_some(images: Sequence[object], where: str) -> None:
    """Raise DataError if there are no images."""
    if not images:
        raise DataError(f"{where}: holds no images ({', '.join(IMAGE_SUFFIXES)})")


def iter_files(inputs: Iterable[str | Path]) -> list[Path]:
    """Expand files, folders and glob patterns to image files, in the order given.

    A file is taken whatever its name; a folder gives the images in it and below it, a pattern (`*`, `?`,
    `[…]`, `**`) those that it matches, both in natural order; DataError if an input matches nothing.
    """
    return [path for one in inputs for path in _expand(one)]


def _expand(one: str | Path) -> list[Path]:
    path = Path(one).expanduser()
    if path.is_dir():
        return [path / name for name in index_folder(path).names]
    if path.exists():
        return [path]
    matches = [Path(match) for match in glob.glob(str(path), recursive=True)]
    images = [match for match in matches if _is_image(match.name) and match.is_file()]
    if not images:
        raise DataError(f"{one}: no such file or folder, and no image matches it as a pattern")
    return sorted(images, key=lambda match: natural(str(match)))


class ListedFile(NamedTuple):
    """A file in a folder."""

    path: str  # relative, "/" between folders
    size: int  # bytes
    time: int  # of change, ns


def scan_folder(folder: Path) -> tuple[list[ListedFile], dict[str, int]]:
    """The images in a folder and below it, in natural order, and the time of change of every folder seen.

    Hidden files and folders are left out; links to files are followed (a broken one has size −1), links to
    folders are not; what is neither (a pipe) is left out. Among the times (ns) the folder itself is "".
    DataError if a folder in it cannot be read.
    """
    found: list[ListedFile] = []
    times: dict[str, int] = {}
    left = [""]
    while left:
        here = left.pop()
        try:
            # Before it is listed: what changes meanwhile then makes the time too old, not too new.
            times[here] = os.stat(folder / here).st_mtime_ns
            with os.scandir(folder / here) as entries:
                seen = [entry for entry in entries if not _hidden(entry.name)]
        except OSError as error:
            raise DataError(f"{error.filename}: cannot be read: {error.strerror}") from error
        found += _files(seen, here)
        left += [f"{here}{entry.name}/" for entry in seen if entry.is_dir(follow_symlinks=False)]
    return sorted(found, key=lambda one: natural(one.path)), times


def _files(entries: list[os.DirEntry[str]], here: str) -> Iterator[ListedFile]:
    for entry in entries:
        if not _is_image(entry.name):
            continue
        try:
            known = entry.stat()
        except OSError:
            yield ListedFile(here + entry.name, -1, -1)
            continue
        if stat.S_ISREG(known.st_mode):
            yield ListedFile(here + entry.name, known.st_size, known.st_mtime_ns)


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


@dataclass(frozen=True, eq=False)
class Index:
    """The images of a folder, in natural order."""

    names: Names  # relative paths, "/" between folders
    sizes: NDArray[np.int64]  # (N,) bytes, −1 for a broken link
    times: NDArray[np.int64]  # (N,) of their last change, ns
    kept: Path | None  # where this list is kept, if there is a place; the file may be absent

    def fingerprint(self) -> str:
        """SHA-256 of names and sizes, not of times: a copy of the folder has the same."""
        content = (self.names.bytes, self.names.ends, self.sizes)
        return hashlib.sha256(b"".join(part.tobytes() for part in content)).hexdigest()

    def forget(self) -> None:
        """Remove the kept list, so that the next to ask makes it anew."""
        if self.kept is not None:
            with suppress(OSError):
                self.kept.unlink(missing_ok=True)


def index_folder(folder: Path) -> Index:
    """List the images of a folder, see `scan_folder`, or read the kept list; DataError if there are none."""
    code = hashlib.sha256(os.fsencode(os.path.realpath(folder))).hexdigest()[:32]
    kept = None if (cache := cache_folder("index")) is None else cache / f"{code}.npz"
    if kept is not None and (index := _read(kept, folder)) is not None:
        return index
    began = time.time_ns()
    found, folders = scan_folder(folder)
    require_some(found, f"folder {folder}")
    sizes, times = (np.array([one[i] for one in found], np.int64) for i in (1, 2))
    index = Index(Names.of(one.path for one in found), sizes, times, kept)
    if kept is not None and len(found) >= KEPT_FROM and max(folders.values()) < began - _SETTLED:
        with suppress(OSError, ResourceError):  # without a cache it is only slower
            _keep(index, folders, kept)
    return index


def _keep(index: Index, folders: dict[str, int], kept: Path) -> None:
    tops = Names.of(folders)
    with whole(kept) as temporary, open(temporary, "wb") as file:
        np.savez(
            file, format=np.array(_FORMAT),
            names=index.names.bytes, ends=index.names.ends, sizes=index.sizes, times=index.times,
            folders=tops.bytes, folder_ends=tops.ends, folder_times=np.array([*folders.values()]),
        )  # fmt: skip


def _read(kept: Path, folder: Path) -> Index | None:
    """The kept list if it is there, whole, and right."""
    try:
        with open_npz(kept) as arrays:
            if arrays["format"].item() != _FORMAT:
                return None
            tops = Names(arrays["folders"], arrays["folder_ends"])
            for top, changed in zip(tops, arrays["folder_times"].tolist(), strict=True):
                if os.stat(folder / top).st_mtime_ns != changed:
                    return None
            names = Names(arrays["names"], arrays["ends"])
            index = Index(names, arrays["sizes"], arrays["times"], kept)
    except NPZ_ERRORS:
        return None
    complete = len(names) == len(index.sizes) == len(index.times) and names.ends[-1:] == len(names.bytes)
    return index if complete else None
