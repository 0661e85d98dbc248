"""Parquet files of encoded images, as `mfimage pack` and the Hugging Face Hub have them, read at random.

A row group is the least that can be read. `mfimage pack` writes groups of 16 images or 128 KB, of which any
is there in a fifth of a millisecond; the Hub's have 100 images, which for photographs of 100 KB is 10 MB. So
rows are read in any order, and nothing is streamed. Groups of more than 64 MB are refused.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfimage.datasets.listing import natural, scan_folder
from mfimage.datasets.parquet import Shard
from mfimage.datasets.recorded import recorded_hashes, require_recorded
from mfimage.datasets.splits import SPLIT_FOLDERS, divide_rows, group_rows, named_split
from mfimage.datasets.stores import Store
from mfimage.errors import DataError, Skipped

_OPEN = 32  # files a thread keeps open
_PLACES = ("", "data", *SPLIT_FOLDERS)


def shard_files(folder: Path) -> list[Path]:
    """The Parquet files at the top of a folder, or in `data`, `train`, … in it, in natural order, if any."""
    found = [path for place in _PLACES for path in (folder / place).glob("*.parquet")]
    return sorted(found, key=lambda path: natural(str(path)))


class Shards(Store):
    """Parquet files as one store.

    Files named or in folders named like splits are the splits; else a tenth of the rows is held out as
    "test" by index. DataError if a file is damaged, there are no images, or the pack is unfinished.
    """

    unread: tuple[Skipped, ...] = ()

    def __init__(self, files: Sequence[Path], name: str, verify: bool = False) -> None:
        _check_recorded(files, verify)
        self.unread = _beside(Path(name)) if Path(name).is_dir() else ()
        self.name, self.shards = name, [Shard(path) for path in files]
        self.class_names = self.shards[0].class_names or ()
        _check_finished(self.shards, name)
        groups = [shard.groups for shard in self.shards]
        places = [(file, i) for file, rows in enumerate(groups) for i in range(len(rows))]
        self._places = np.array(places, np.int64).reshape(-1, 2)  # file and number of each group
        self._firsts = np.cumsum([0, *map(sum, groups)], dtype=np.int64)  # where files begin, and the end
        self._starts = np.cumsum([0, *chain(*groups)], dtype=np.int64)  # the same of groups
        self._local, self._refused = threading.local(), dict[int, str]()  # why a group cannot be read
        if not len(self):
            raise DataError(f"{name}: holds no images")
        marks = [named_split(f"{shard.path.parent.name}/{shard.path.name}") for shard in self.shards]
        named = group_rows(chain.from_iterable(map(repeat, marks, map(sum, groups))))
        self.divided = {**named, "all": range(len(self))} if named else divide_rows(len(self))

    def __len__(self) -> int:
        return int(self._starts[-1])

    def path(self, row: int) -> str:
        file = int(np.searchsorted(self._firsts, row, side="right")) - 1
        return f"{self.shards[file].path}[{row - self._firsts[file]}]"

    def content(self, row: int, max_bytes: int) -> bytes:
        group = self._group(row)
        if getattr(self._local, "group", None) != group:  # in order, each group is read once
            self._local.images, self._local.group = self._images(group), group
        value = self._local.images[row - int(self._starts[group])].as_py()
        if isinstance(value, dict):
            value = value["bytes"]
        if value is None or len(value) > max_bytes:
            what = "holds no bytes of an image" if value is None else f"is larger than {max_bytes:,} bytes"
            raise DataError(f"{self.path(row)}: {what}")
        return value

    def stored_bytes(self, row: int) -> int:
        """The mean of its group."""
        file, group = map(int, self._places[self._group(row)])
        return self.shards[file].group_bytes(group) // self.shards[file].groups[group]

    def labels(self, rows: NDArray[np.int64]) -> NDArray[np.int64] | None:
        if not all(shard.label for shard in self.shards):
            return None
        groups = np.searchsorted(self._starts, rows, side="right") - 1
        found = np.empty(len(rows), np.int64)
        for group in np.unique(groups).tolist():
            values = self._read(group, "label")
            if values.null_count:
                return None
            found[groups == group] = values.to_numpy()[rows[groups == group] - self._starts[group]]
        return found

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for shard in self.shards:
            with shard.readable(), open(shard.path, "rb") as file:
                file.seek(-8, os.SEEK_END)
                footer = int.from_bytes(file.read(4), "little")
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - 8 - footer))
                digest.update(f"{shard.path.name}\0{size}\0".encode() + file.read())
        return digest.hexdigest()

    def written(self) -> str:
        times = [os.stat(shard.path).st_mtime_ns for shard in self.shards]
        return hashlib.sha256(repr(times).encode()).hexdigest()

    def _images(self, group: int) -> Any:
        """The images of a row group; one that cannot be read is not tried again for each of them."""
        if group not in self._refused:
            try:
                return self._read(group, "column")
            except DataError as error:
                self._refused[group] = str(error)
        raise DataError(self._refused[group])

    def _group(self, row: int) -> int:
        return int(np.searchsorted(self._starts, row, side="right")) - 1

    def _read(self, group: int, column: str) -> Any:
        """The images ("column") or labels ("label") of a row group, as one array."""
        file, number = map(int, self._places[group])
        shard = self.shards[file]
        if not hasattr(self._local, "open"):  # of each thread, as pyarrow's readers are not to be shared
            self._local.open = lru_cache(_OPEN)(Shard.open)
        with shard.readable():
            return shard.read(self._local.open(shard), number, getattr(shard, column))


def _beside(folder: Path) -> tuple[Skipped, ...]:
    """The first of the images that lie in a folder of shards, which are not read."""
    if not (images := scan_folder(folder).files):
        return ()
    more = f", as do {len(images) - 1:,} more" if images[1:] else ""
    reason = f"lies beside Parquet files{more}: they are read, and not the images"
    return (Skipped(str(folder / images[0].path), reason),)


def _check_recorded(files: Sequence[Path], verify: bool) -> None:
    """Raise DataError where a shard is not the one that its manifest knows."""
    for folder in dict.fromkeys(path.parent for path in files):
        names = {path.name for path in files if path.parent == folder}
        recorded = {name: digest for name, digest in recorded_hashes(folder).items() if name in names}
        require_recorded(folder, recorded, "remove it, and run `mfimage pack` again", verify)


def _check_finished(shards: Sequence[Shard], name: str) -> None:
    """Raise DataError where files are missing of what `mfimage pack` meant to write."""
    packs = {(shard.pack.get("plan"), shard.pack.get("shards")) for shard in shards if shard.pack}
    if len(packs) > 1:
        raise DataError(f"{name}: holds shards of several packs; keep each in a folder of its own")
    if packs and (count := packs.pop()[1]) != len(shards):
        there = f"{len(shards)} of {count} shards are there"
        raise DataError(f"{name}: {there}; run `mfimage pack` again to finish")
