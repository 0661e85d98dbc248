"""Parquet files of encoded images, as `mfimage pack` and the Hugging Face Hub have them, read at random.

The images are a column of structs {bytes, path}, or of bytes; it is the one that the file's Hugging Face
features call an Image, else the one named `image` or `img`. Labels are an integer column `label` or `labels`.

A row group is the least that can be read. `mfimage pack` writes groups of 16 images or 128 KB, of which any
is there in a fifth of a millisecond; the Hub's have 100 images, which for photographs of 100 KB is 10 MB. So
rows are read in any order, and nothing is streamed. Groups of more than 64 MB are refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfimage.datasets.listing import natural
from mfimage.datasets.splits import divide_rows, group_rows, named_split
from mfimage.datasets.stores import Store
from mfimage.errors import DataError, UsageError

PACK_KEY, FEATURES_KEY = b"mfimage", b"huggingface"  # of the Arrow schema
MAX_GROUP = 64_000_000  # bytes
_OPEN = 32  # files a thread keeps open
_PLACES = ("", "data", "train", "valid", "val", "validation", "test")


def import_parquet() -> Any:
    """Import pyarrow.parquet; UsageError tells how to install it."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        advice = "pip install 'mfimage[large]', or pip install pyarrow"
        raise UsageError(f"Parquet files need pyarrow ({error}): {advice}") from error
    return pyarrow.parquet


class Shard:
    """A Parquet file, of which only the footer is read; DataError if it has no column of images."""

    def __init__(self, path: Path) -> None:
        self.path, parquet = path, import_parquet()
        with self.readable(), parquet.ParquetFile(path) as file:
            self.metadata, self.schema = file.metadata, file.schema_arrow
            numbers = range(file.metadata.num_row_groups)
            self.groups = [file.metadata.row_group(number).num_rows for number in numbers]
        self.pack = self._json(PACK_KEY)  # what `mfimage pack` noted, empty in other files
        info = self._json(FEATURES_KEY).get("info")
        features = info.get("features") if isinstance(info, dict) else None
        stated = features.items() if isinstance(features, dict) else ()
        self._features = {name: one for name, one in stated if isinstance(one, dict)}
        names = self.schema.names
        kinds = {one.name: one.type for one in self.schema if names.count(one.name) == 1}
        self.column = self._image_column(kinds)
        labels = [name for name in ("label", "labels") if str(kinds.get(name)).lstrip("u").startswith("int")]
        self.label = labels[0] if labels else None
        classes = self._features.get(self.label or "", {}).get("names")
        self.class_names = classes if isinstance(classes, list) else None

    @contextmanager
    def readable(self) -> Iterator[None]:
        """Turn what pyarrow raises on a damaged file into a DataError that names it."""
        import pyarrow

        try:
            yield
        except (OSError, ValueError, pyarrow.ArrowException) as error:
            if isinstance(error, MemoryError):
                raise
            raise DataError(f"{self.path}: is not a readable Parquet file: {error}") from error

    def open(self) -> Any:
        """Open the file as pyarrow's ParquetFile."""
        return import_parquet().ParquetFile(self.path, metadata=self.metadata)

    def group_bytes(self, number: int) -> int:
        """Bytes of the images in a row group, before compression."""
        group = self.metadata.row_group(number)
        columns = (group.column(i) for i in range(group.num_columns))
        return sum(c.total_uncompressed_size for c in columns if c.path_in_schema == self.column)

    def _json(self, key: bytes) -> dict[str, Any]:
        try:
            values = json.loads((self.schema.metadata or {}).get(key, b"{}"))
        except ValueError:
            return {}
        return values if isinstance(values, dict) else {}

    def _image_column(self, kinds: dict[str, Any]) -> str:
        import pyarrow.types as types

        named = [name for name, one in self._features.items() if one.get("_type") == "Image"]
        for name in (*named, "image", "img"):
            if (kind := kinds.get(name)) is None:
                continue
            if types.is_binary(kind) or types.is_large_binary(kind):
                return name
            if types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
                return f"{name}.bytes"
        raise DataError(
            f"{self.path}: has no column `image` of encoded images; there are {', '.join(self.schema.names)}"
        )


def shard_files(folder: Path) -> list[Path]:
    """The Parquet files at the top of a folder, or in `data`, `train`, … in it, in natural order, if any."""
    found = [path for place in _PLACES for path in (folder / place).glob("*.parquet")]
    return sorted(found, key=lambda path: natural(str(path)))


class Shards(Store):
    """Parquet files as one store.

    Files named or in folders named like splits are the splits; else a tenth of the rows is held out as
    "test" by index. DataError if a file is damaged, there are no images, or the pack is unfinished.
    """

    def __init__(self, files: Sequence[Path], name: str) -> None:
        self.name, self.shards = name, [Shard(path) for path in files]
        self.class_names = self.shards[0].class_names  # what the labels mean, None if unknown
        _check_finished(self.shards, name)
        groups = [shard.groups for shard in self.shards]
        places = [(file, i) for file, rows in enumerate(groups) for i in range(len(rows))]
        self._places = np.array(places, np.int64).reshape(-1, 2)  # file and number of each group
        self._firsts = np.cumsum([0, *map(sum, groups)], dtype=np.int64)  # where files begin, and the end
        self._starts = np.cumsum([0, *chain(*groups)], dtype=np.int64)  # the same of groups
        self._local = threading.local()
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
            self._local.images, self._local.group = self._read(group, "column"), group
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

    def _group(self, row: int) -> int:
        return int(np.searchsorted(self._starts, row, side="right")) - 1

    def _read(self, group: int, column: str) -> Any:
        """The images ("column") or labels ("label") of a row group, as one array."""
        file, number = map(int, self._places[group])
        shard = self.shards[file]
        if (size := shard.group_bytes(number)) > MAX_GROUP:
            raise UsageError(
                f"{shard.path}: row groups of {size // 1_000_000} MB are too large to be read at random; "
                "write it anew with smaller ones (row_group_size)"
            )
        if not hasattr(self._local, "open"):  # of each thread, as pyarrow's readers are not to be shared
            self._local.open = lru_cache(_OPEN)(Shard.open)
        with shard.readable():
            opened = self._local.open(shard)
            table = opened.read_row_group(number, [getattr(shard, column)], use_threads=False)
            return table.column(0).combine_chunks()


def _check_finished(shards: Sequence[Shard], name: str) -> None:
    """Raise DataError where files are missing of what `mfimage pack` meant to write."""
    packs = {(shard.pack.get("plan"), shard.pack.get("shards")) for shard in shards if shard.pack}
    if len(packs) > 1:
        raise DataError(f"{name}: holds shards of several packs; keep each in a folder of its own")
    if packs and (count := packs.pop()[1]) != len(shards):
        there = f"{len(shards)} of {count} shards are there"
        raise DataError(f"{name}: {there}; run `mfimage pack` again to finish")
