"""One Parquet file of encoded images: which columns hold what, as the Hugging Face Hub writes them.

The images are a column of structs {bytes, path}, or of bytes; it is the one that the file's Hugging Face
features call an Image, else the one named `image` or `img`. Labels are an integer column `label` or `labels`.
What `mfimage pack` writes also says, under the key `mfimage`, of which pack it is a part; see `packing`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from mfimage.errors import DataError, UsageError

PACK_KEY, FEATURES_KEY = b"mfimage", b"huggingface"  # of the Arrow schema
SKIPPED_KEY = "mfimage.skipped"  # of the file


def import_parquet() -> Any:
    """Import pyarrow.parquet; UsageError tells how to install it."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError(
            f"Parquet files need pyarrow ({error}): pip install 'mfimage[large]', or pip install pyarrow"
        ) from error
    return pyarrow.parquet


class Shard:
    """A Parquet file, of which only the footer is read.

    Args:
        path: Of the file.

    Raises:
        DataError: It is damaged, or has no column of images.
        UsageError: pyarrow is not installed.
    """

    def __init__(self, path: Path) -> None:
        self.path, parquet = path, import_parquet()
        with self.told(), parquet.ParquetFile(path) as file:
            self.metadata, self.schema = file.metadata, file.schema_arrow
            numbers = range(file.metadata.num_row_groups)
            self.groups = [file.metadata.row_group(number).num_rows for number in numbers]
        self.column = self._image_column()
        self.label = self._label_column()

    @contextmanager
    def told(self) -> Iterator[None]:
        """Turn what pyarrow raises on a damaged file into a DataError that names it."""
        import pyarrow

        try:
            yield
        except MemoryError:
            raise
        except (OSError, ValueError, pyarrow.ArrowException) as error:
            raise DataError(f"{self.path}: is not a readable Parquet file: {error}") from error

    @cached_property
    def features(self) -> dict[str, Any]:
        """The Hugging Face features that the file states, by column; empty if it states none."""
        features = self._stated(FEATURES_KEY).get("info")
        features = features.get("features") if isinstance(features, dict) else None
        named = features.items() if isinstance(features, dict) else ()
        return {name: feature for name, feature in named if isinstance(feature, dict)}

    @cached_property
    def pack(self) -> dict[str, Any]:
        """What `mfimage pack` noted, empty in other files."""
        return self._stated(PACK_KEY)

    @property
    def class_names(self) -> list[str] | None:
        """What the labels mean, None where the file does not tell."""
        names = self.features.get(self.label or "", {}).get("names")
        return names if isinstance(names, list) else None

    def group_bytes(self, number: int) -> int:
        """Bytes of the images in a row group, before compression."""
        group = self.metadata.row_group(number)
        columns = (group.column(i) for i in range(group.num_columns))
        return sum(c.total_uncompressed_size for c in columns if c.path_in_schema == self.column)

    def _stated(self, key: bytes) -> dict[str, Any]:
        try:
            stated = json.loads((self.schema.metadata or {}).get(key, b"{}"))
        except ValueError:
            return {}
        return stated if isinstance(stated, dict) else {}

    def _image_column(self) -> str:
        import pyarrow.types as types

        images = [name for name, feature in self.features.items() if feature.get("_type") == "Image"]
        for name in (*images, "image", "img"):
            if self.schema.get_field_index(name) < 0:
                continue
            kind = self.schema.field(name).type
            if types.is_binary(kind) or types.is_large_binary(kind):
                return name
            if types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
                return f"{name}.bytes"
        raise DataError(
            f"{self.path}: has no column `image` of encoded images; there are {', '.join(self.schema.names)}"
        )

    def _label_column(self) -> str | None:
        import pyarrow.types as types

        for name in ("label", "labels"):
            if (i := self.schema.get_field_index(name)) >= 0 and types.is_integer(self.schema.field(i).type):
                return name
        return None
