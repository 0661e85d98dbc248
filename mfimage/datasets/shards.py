"""Parquet files of encoded images, as `mfimage pack` and the Hugging Face Hub have them, read at random.

A file is divided into row groups, and a group is the least that can be read: its encoded images, then, are
read for one of them. `mfimage pack` writes groups of 16 images or 128 KB, of which any is there in a fifth of
a millisecond; the Hub's have 100 images, which for photographs of 100 KB is 10 MB. So rows can be read in any
order, and shuffling, resuming and sharing between processes are those of a set in memory; nothing is
streamed. Groups of more than 64 MB are refused.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfimage.datasets.listing import natural
from mfimage.datasets.parquet import Shard, import_parquet
from mfimage.datasets.pixels import Crop
from mfimage.datasets.splits import Divided, divide_rows, named_split
from mfimage.errors import DataError, UsageError

MAX_GROUP = 64_000_000  # bytes
_OPEN = 32  # files a thread keeps open
_PLACES = ("", "data", "train", "valid", "val", "validation", "test")


def shard_files(folder: Path) -> list[Path]:
    """The Parquet files at the top of a folder, or in `data`, `train`, … in it, in natural order, if any."""
    found = []
    for place in _PLACES:
        if (folder / place).is_dir():
            found += [entry.path for entry in os.scandir(folder / place) if entry.name.endswith(".parquet")]
    return [Path(path) for path in sorted(found, key=natural)]


class Shards:
    """Parquet files as one store; see `stores.Store`.

    Files named or in folders named like splits are the splits; else a tenth of the rows is held out as
    "test" by index.

    Args:
        files: At least one, in the order of their rows.
        name: What to call them in messages.

    Raises:
        DataError: A file is damaged, holds no images or groups that are too large, or the pack is unfinished.
        UsageError: pyarrow is not installed.
    """

    crop: Crop | None = None

    def __init__(self, files: Sequence[Path], name: str) -> None:
        self.name, self.shards = name, [Shard(path) for path in files]
        _check_finished(self.shards, name)
        places = [
            (file, group) for file, shard in enumerate(self.shards) for group in range(len(shard.groups))
        ]
        self._places = np.array(places, np.int64).reshape(-1, 2)
        self._starts = _starts([rows for shard in self.shards for rows in shard.groups])  # of groups
        self._firsts = _starts([sum(shard.groups) for shard in self.shards])  # of files
        self._local = threading.local()
        if not len(self):
            raise DataError(f"{name}: holds no images")

    def __len__(self) -> int:
        return int(self._starts[-1])

    @cached_property
    def divided(self) -> Divided:
        """The rows of each split."""
        marks = [named_split(f"{shard.path.parent.name}/{shard.path.name}") for shard in self.shards]
        if not any(marks):
            return divide_rows(len(self))
        rows: dict[str, list[NDArray[np.int64]]] = {}
        for mark, first, end in zip(marks, self._firsts, self._firsts[1:], strict=False):
            if mark:
                rows.setdefault(mark, []).append(np.arange(first, end))
        named: Any = {mark: np.concatenate(parts) for mark, parts in rows.items()}
        return {**named, "all": range(len(self))}

    @property
    def class_names(self) -> Sequence[str] | None:
        """What the labels mean, None where the files do not tell."""
        return self.shards[0].class_names

    def path(self, row: int) -> str:
        """The file and the row in it."""
        file = int(np.searchsorted(self._firsts, row, side="right")) - 1
        return f"{self.shards[file].path}[{row - self._firsts[file]}]"

    def file(self, row: int) -> str:
        """The same, without the folder."""
        return Path(self.path(row)).name

    def content(self, row: int, max_bytes: int) -> bytes:
        """Bytes of one image; DataError if they are absent, cannot be read or are more than allowed."""
        group = self._group(row)
        if getattr(self._local, "group", None) != group:  # in order, each group is read once
            self._local.images, self._local.group = self._read(group, lambda shard: shard.column), group
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
        """The integers of the column of labels, if every file has one and no row lacks it."""
        if not all(shard.label for shard in self.shards):
            return None
        groups = np.searchsorted(self._starts, rows, side="right") - 1
        found = np.empty(len(rows), np.int64)
        for group in np.unique(groups).tolist():
            values = self._read(group, lambda shard: shard.label)
            if values.null_count:
                return None
            found[groups == group] = values.to_numpy()[rows[groups == group] - self._starts[group]]
        return found

    def fingerprint(self) -> str:
        """Hash of the names, sizes and footers of all files."""
        digest = hashlib.sha256()
        for shard in self.shards:
            with shard.told(), open(shard.path, "rb") as file:
                file.seek(-8, os.SEEK_END)
                footer = int.from_bytes(file.read(4), "little")
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - 8 - footer))
                digest.update(f"{shard.path.name}\0{size}\0".encode() + file.read())
        return digest.hexdigest()

    def _group(self, row: int) -> int:
        return int(np.searchsorted(self._starts, row, side="right")) - 1

    def _read(self, group: int, column: Callable[[Shard], str | None]) -> Any:
        """A column of a row group, as one array."""
        file, number = map(int, self._places[group])
        shard = self.shards[file]
        if (size := shard.group_bytes(number)) > MAX_GROUP:
            raise UsageError(
                f"{shard.path}: row groups of {size // 1_000_000} MB are too large to be read at random; "
                "write it anew with smaller ones (row_group_size)"
            )
        with shard.told():
            table = self._opened(file).read_row_group(number, columns=[column(shard)], use_threads=False)
            return table.column(0).combine_chunks()

    def _opened(self, file: int) -> Any:
        """A file opened by this thread: pyarrow's readers are not to be shared."""
        handles: OrderedDict[int, Any] = self._local.__dict__.setdefault("handles", OrderedDict())
        if file not in handles:
            if len(handles) >= _OPEN:
                handles.popitem(last=False)[1].close()
            shard = self.shards[file]
            handles[file] = import_parquet().ParquetFile(shard.path, metadata=shard.metadata)
        handles.move_to_end(file)
        return handles[file]


def _starts(rows: list[int]) -> NDArray[np.int64]:
    """Where each of some stretches of rows begins, and where the last ends."""
    return np.concatenate([[0], np.cumsum(rows, dtype=np.int64)]).astype(np.int64)


def _check_finished(shards: Sequence[Shard], name: str) -> None:
    """Raise DataError where files are missing of what `mfimage pack` meant to write."""
    wanted = {(shard.pack.get("plan"), shard.pack.get("shards")) for shard in shards if shard.pack}
    if not wanted:
        return
    if len(wanted) > 1:
        raise DataError(f"{name}: holds shards of several packs; keep each in a folder of its own")
    ((_, count),) = wanted
    if count != len(shards):
        raise DataError(
            f"{name}: {len(shards)} of {count} shards are there; run `mfimage pack` again to finish"
        )
