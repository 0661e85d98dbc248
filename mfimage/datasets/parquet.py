"""A Parquet file of encoded images: its footer, its column of images, and its row groups.

The images are a column of structs {bytes, path}, or of bytes; it is the one that the file's Hugging Face
features call an Image, else the one named `image` or `img`. Labels are an integer column `label` or `labels`.
"""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from mfimage.datasets.decode import data_errors
from mfimage.errors import DataError, UsageError
from mfimage.limits import ROWS, Budget, Refused

PACK_KEY, FEATURES_KEY = b"mfimage", b"huggingface"  # of the Arrow schema
MAX_GROUP = 64_000_000  # bytes
_ROWS = 32  # of a group that are read at once


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
            if min(self.groups, default=0) < 0 or sum(self.groups) > max(ROWS, path.stat().st_size):
                raise Refused("it claims more rows than such a file can hold")
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

    def readable(self) -> AbstractContextManager[None]:
        """Turn what pyarrow raises on a damaged file into a DataError that names it."""
        return data_errors(str(self.path), "is not a readable Parquet file")

    def open(self) -> Any:
        """Open the file as pyarrow's ParquetFile."""
        return import_parquet().ParquetFile(self.path, metadata=self.metadata)

    def group_bytes(self, number: int) -> int:
        """Bytes of the images in a row group, before compression."""
        group = self.metadata.row_group(number)
        columns = (group.column(i) for i in range(group.num_columns))
        return sum(c.total_uncompressed_size for c in columns if c.path_in_schema == self.column)

    def read(self, opened: Any, number: int, column: str) -> Any:
        """Read a column of a row group as one array; an error if it is much larger than it says.

        A few rows at a time, since of a dictionary each may be as large as the whole group.
        """
        size, rows = self.group_bytes(number), self.groups[number]
        if not 0 <= size <= MAX_GROUP:
            raise UsageError(
                f"{self.path}: row groups of {size // 1_000_000} MB are too large to be read at random; "
                "write it anew with smaller ones (row_group_size)"
            )
        step = max(1, min(_ROWS, MAX_GROUP // max(size, 1)))
        if column != self.column or rows <= step:
            table = opened.read_row_group(number, [column], use_threads=False)
            return table.column(0).combine_chunks()
        from pyarrow import chunked_array

        budget, parts = Budget(2 * MAX_GROUP), []
        for batch in opened.iter_batches(step, [number], [column], use_threads=False):
            budget.allocate(batch.nbytes)
            parts.append(batch.column(0))
        return chunked_array(parts).combine_chunks()

    def _json(self, key: bytes) -> dict[str, Any]:
        try:
            values = json.loads((self.schema.metadata or {}).get(key, b"{}"))
        except (ValueError, RecursionError):
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
