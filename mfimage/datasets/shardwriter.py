"""One shard of a pack: which images it holds, and its Parquet file."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mfimage.datasets.decode import Preparation
from mfimage.datasets.parquet import FEATURES_KEY, PACK_KEY, SKIPPED_KEY, import_parquet
from mfimage.datasets.pixels import Pixels
from mfimage.datasets.prefetch import ahead
from mfimage.datasets.sets import BadFiles, Skipped
from mfimage.datasets.stores import Store
from mfimage.errors import DataError
from mfimage.files import whole

_GROUP_BYTES, _GROUP_ROWS = 128_000, 16  # a row group is full when it has both
_CHUNK = 16  # images a thread takes at once


@dataclass(frozen=True)
class Planned:
    """A shard that is to be written: its file's name, and which rows of the store it holds."""

    file: str
    rows: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Plan:
    """What is written: from where, how, and in which shards."""

    store: Store
    prepare: Preparation
    shards: tuple[Planned, ...]
    classes: tuple[str, ...]
    labels: NDArray[np.int64] | None
    left_out: int

    @property
    def verbatim(self) -> bool:
        """Whether files are copied as they are."""
        return self.prepare.size is None and self.prepare.channels is None and self.prepare.crop is None

    def hash(self) -> str:
        """Tells one plan from another."""
        rows = hashlib.sha256(b"".join(shard.rows.tobytes() for shard in self.shards)).hexdigest()
        how = {**asdict(self.prepare), "max_pixels": None}
        files = [shard.file for shard in self.shards]
        text = json.dumps([self.store.fingerprint(), how, files, rows, self.classes], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def write_shard(planned: Plan, shard: Planned, path: Path, code: str, bad: BadFiles) -> None:
    """Write a shard, whole or not at all.

    Raises:
        DataError: Too many files are bad.
    """
    parquet = import_parquet()
    schema = _schema(planned, code)
    skipped: list[Skipped] = []
    with (
        whole(path) as temporary,
        parquet.ParquetWriter(
            temporary, schema, compression="none", use_dictionary=False, write_statistics=False
        ) as file,
    ):
        for group in _groups(planned, shard, bad, skipped):
            file.write_table(_table(group, schema), row_group_size=len(group))
        file.add_key_value_metadata({SKIPPED_KEY: json.dumps([vars(one) for one in skipped])})


def _schema(planned: Plan, code: str) -> Any:
    import pyarrow as pa

    fields = [pa.field("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))]
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    if planned.labels is not None:
        fields.append(pa.field("label", pa.int64()))
        named = {"names": list(planned.classes), "_type": "ClassLabel"}
        features["label"] = named if planned.classes else {"dtype": "int64", "_type": "Value"}
    return pa.schema(
        fields,
        {
            FEATURES_KEY: json.dumps({"info": {"features": features}}),
            PACK_KEY: json.dumps({"plan": code, "shards": len(planned.shards)}),
        },
    )


def _table(rows: list[dict[str, Any]], schema: Any) -> Any:
    import pyarrow as pa

    return pa.Table.from_pylist(rows, schema)


def _groups(
    planned: Plan, shard: Planned, bad: BadFiles, skipped: list[Skipped]
) -> Iterator[list[dict[str, Any]]]:
    """The row groups of a shard; what cannot be read goes to `skipped`."""
    group: list[dict[str, Any]] = []
    chunks = np.array_split(shard.rows, range(_CHUNK, len(shard.rows), _CHUNK))
    for rows, results in zip(chunks, ahead(lambda some: _encoded(planned, some), chunks), strict=True):
        bad.count(len(rows))
        for row, result in zip(rows.tolist(), results, strict=True):
            if isinstance(result, DataError):
                path = planned.store.path(row)
                skipped.append(bad.add(path, result))
                bad.check_so_far()
            else:
                group.append(result)
        if len(group) >= _GROUP_ROWS and sum(len(one["image"]["bytes"]) for one in group) >= _GROUP_BYTES:
            yield group
            group = []
    if group:
        yield group


def _encoded(planned: Plan, rows: NDArray[np.int64]) -> list[dict[str, Any] | DataError]:
    return [_row(planned, int(row)) for row in rows]


def _row(planned: Plan, row: int) -> dict[str, Any] | DataError:
    store, prepare, name = planned.store, planned.prepare, planned.store.file(row)
    try:
        content = store.content(row, prepare.max_bytes)
        values = prepare(
            content, store.path(row)
        )  # also of those copied: a pack holds none that cannot be read
    except DataError as error:
        return error
    if not planned.verbatim:
        content, name = png(values), str(PurePosixPath(name).with_suffix(".png"))
    label = {} if planned.labels is None else {"label": int(planned.labels[row])}
    # Names that are no UTF-8 cannot stand in a Parquet file.
    return {"image": {"bytes": content, "path": name.encode("utf-8", "replace").decode()}, **label}


def png(values: Pixels) -> bytes:
    """An image (H, W, C) as PNG: 8 bits, or 16 bits of grey for float32, which only grey files become."""
    if values.dtype != np.uint8:
        values = np.rint(values[..., :1] * np.float32(65535)).astype(np.uint16)
    picture = Image.fromarray(values[..., 0] if values.shape[-1] == 1 else values)
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()
