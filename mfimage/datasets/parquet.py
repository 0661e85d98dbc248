"""A Parquet file of encoded images: its footer, its column of images, and its row groups.

The images are a column of structs {bytes, path}, or of bytes; it is the one that the file's Hugging Face
features call an Image, else the one named `image` or `img`. Labels are an integer column `label` or `labels`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from mfimage.datasets.decode import data_errors
from mfimage.errors import DataError, UsageError
from mfimage.limits import ROWS, Allowance, Refused

PACK_KEY, FEATURES_KEY = b"mfimage", b"huggingface"  # of the Arrow schema
MAX_GROUP = 64_000_000  # bytes
_ROWS = 32  # of a group that are read at once
_HEADER = 2**16  # bytes that the header of a page has at most
_DELTAS, _MOST_DELTAS = (6, 7), 8_000_000  # encodings of bytes by lengths, and bytes of a page of these
_TRUTH, _OTHERS, _INT32, _BYTES, _STRUCT = (1, 2), (4, 6), 5, 8, 12  # types of Thrift; the others are numbers


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
        self._sizes: dict[tuple[int, str], int] = {}  # of columns of row groups that were looked at
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
        """Bytes of the images in a row group, before compression, as the footer says."""
        return sum(chunk.total_uncompressed_size for chunk in self._chunks(number, self.column))

    def read(self, opened: Any, number: int, column: str) -> Any:
        """Read a column of a row group as one array; an error if it is large, before anything is unpacked.

        A few rows at a time, since of a dictionary each may be as large as the whole group.
        """
        if (number, column) not in self._sizes:
            self._sizes[number, column] = self._unpacked(number, column)
        size, rows = self._sizes[number, column], self.groups[number]
        if not 0 <= size <= MAX_GROUP:
            raise DataError(
                f"{self.path}: row groups of {size // 1_000_000} MB are too large to be read at random; "
                "write it anew with smaller ones (row_group_size)"
            )
        step = max(1, min(_ROWS, MAX_GROUP // max(size, 1)))
        if column != self.column or rows <= step:
            table = opened.read_row_group(number, [column], use_threads=False)
            return table.column(0).combine_chunks()
        from pyarrow import chunked_array

        allowance, parts = Allowance(2 * MAX_GROUP), []
        for batch in opened.iter_batches(step, [number], [column], use_threads=False):
            allowance.allocate(batch.nbytes)
            parts.append(batch.column(0))
        return chunked_array(parts).combine_chunks()

    def _chunks(self, number: int, column: str) -> Iterator[Any]:
        """Give the parts of the file that hold a column of a row group: one, in an honest file."""
        group = self.metadata.row_group(number)
        chunks = (group.column(i) for i in range(group.num_columns))
        return (chunk for chunk in chunks if f"{chunk.path_in_schema}.".startswith(f"{column}."))

    def _unpacked(self, number: int, column: str) -> int:
        """Bytes that a column of a row group becomes: by its pages' headers, which are what is allocated."""
        size, most = 0, self.groups[number] + 2  # pages: each holds a row, or a dictionary or an index
        with open(self.path, "rb") as file:
            for chunk in self._chunks(number, column):
                at = min(filter(None, (chunk.dictionary_page_offset, chunk.data_page_offset)))
                end = at + chunk.total_compressed_size
                while at < end:
                    file.seek(at)
                    header = PageHeader(file.read(_HEADER))
                    at, size, most = at + header.length + header.stored, size + header.size, most - 1
                    if most < 0 or header.values > max(self.groups[number], header.size // 4):
                        raise Refused("it claims more pages, or values in one, than it has rows")
                    if header.deltas and header.size > _MOST_DELTAS:
                        raise Refused("a page of deltas, of which a byte may become a hundred, is large")
        return size

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


class PageHeader:
    """What stands before a page, in Thrift's compact protocol, as far as pages use that.

    Attributes:
        size: Bytes that the page becomes.
        stored: Bytes that it has.
        values: How many it says it holds.
        deltas: Whether the lengths of its values are differences.
        length: Bytes of this header.

    Reference:
        https://github.com/apache/parquet-format, parquet.thrift: PageHeader.
    """

    def __init__(self, content: bytes) -> None:
        self._content, self.length = content, 0
        fields = self._struct()
        unpacked, self.stored = fields[2], fields[3]
        self.size = max(unpacked, self.stored)  # without compression it is what it has, whatever it says
        data, dictionary, newer = (fields.get(kind, {}) for kind in (5, 7, 8))
        self.values = max(kind.get(1, 0) for kind in (data, dictionary, newer))
        self.deltas = data.get(2) in _DELTAS or newer.get(4) in _DELTAS
        if min(unpacked, self.stored) < 0:
            raise Refused("a page of less than nothing")

    def _struct(self) -> dict[int, Any]:
        """Read a structure: its numbers of 32 bits and structures, by their field."""
        found: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            step, kind = divmod(head, 16)
            number = number + step if step else self._number()
            if not 0 < number < 100:
                raise Refused("no header of a page")
            if kind == _STRUCT:
                found[number] = self._struct()
            elif kind == _INT32:
                found[number] = self._number()
            elif kind in (*_OTHERS, _BYTES):
                count = self._varint()
                self.length += count if kind == _BYTES else 0
            elif kind not in _TRUTH:
                raise Refused("no header of a page")
        return found

    def _byte(self) -> int:
        self.length += 1
        return self._content[self.length - 1]

    def _varint(self) -> int:
        value, byte, shift = 0, 128, 0
        while byte & 128:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
        return value

    def _number(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)
