"""Write a folder of images as Parquet shards, which Hugging Face `datasets` reads too.

    OUT/train-00000.parquet, train-00001.parquet, …, validation-…, test-…, manifest.json

A row is an image, {bytes, path}, and its class, where the images lie in a folder each class. Which rows a
shard holds is planned before the first is written and follows from the source alone; each is written whole
or not at all, names its plan, and has its hash noted in the manifest. So a pack that was broken off is
recognised, and completed by the same call, and a shard that was damaged meanwhile is not taken for whole.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfimage.config import Reading
from mfimage.datasets.decode import Preparation
from mfimage.datasets.formats import encode_png
from mfimage.datasets.parquet import FEATURES_KEY, PACK_KEY, Shard, import_parquet
from mfimage.datasets.pixels import Pixels
from mfimage.datasets.recorded import MANIFEST, recorded_hashes, require_recorded
from mfimage.datasets.sets import BadFiles
from mfimage.datasets.shards import Shards, shard_files
from mfimage.datasets.sources import open_store, prefer_folder
from mfimage.datasets.stores import FolderStore, read_chunks
from mfimage.errors import DataError, Skipped, UsageError
from mfimage.files import file_hash, whole, write_json
from mfimage.outputs import owned

SHARD_BYTES = 256_000_000
_SKIPPED = "mfimage.skipped"  # in a file's metadata
_NAMES = {"train": "train", "valid": "validation", "test": "test"}
_GROUP_BYTES, _GROUP_ROWS = 128_000, 16  # a row group is full when it has both


def pack(
    source: str | Path,
    outdir: str | Path,
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    *,
    shard_bytes: int = SHARD_BYTES,
    reading: Reading = Reading(),
    root: str | Path | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Write images as Parquet shards; what was broken off goes on where it stopped.

    Args:
        source: A folder, Parquet files, or a named set of photographs; its splits become those of the pack.
        outdir: Made if it is not there; may hold shards of the same pack.
        size: As of `load`; if it and channels are None, files are copied as they are (but a box is cut out
            of CelebA's), else they become PNG: 8 bits, or 16 for deeper files.
        channels: As of `load`.
        shard_bytes: Most bytes a shard, about.
        reading: As of `load`.
        root: As of `load`.
        tell: Is told of every shard.

    Returns:
        The manifest, also written: shards, hashes, classes, skipped files; images left out beside splits.

    Raises:
        DataError: There are no images, or too many are bad.
        UsageError: outdir is the source, holds other Parquet files or is being written; pyarrow is missing.
    """
    if Path(outdir).resolve() == Path(source).expanduser().resolve():
        raise UsageError(f"{outdir}: is what is read; choose another folder")
    import_parquet()  # not to find out after the planning that it is missing
    outdir = Path(outdir)
    with owned(outdir):
        preferred, said = prefer_folder(source, root)
        for note in said:
            tell(note)
        store = open_store(preferred, root, verify=reading.verify)
        if not isinstance(store, FolderStore | Shards):
            what = "is no folder, Parquet file or named set of photographs; unpack it first"
            raise DataError(f"{source}: {what}")
        prepare = Preparation(size, channels, reading.max_pixels, reading.value_range, store.crop)
        plan = _plan(store, prepare, shard_bytes)
        hashes = _write_missing(plan, outdir, BadFiles(reading.max_bad), tell)
        manifest = _manifest(plan, outdir, hashes, reading.max_bad)
        write_json(outdir / MANIFEST, manifest)
        return manifest


@dataclass(frozen=True, eq=False)
class _Plan:
    """What is written: from where, how, and which rows of the store in which shards."""

    store: FolderStore | Shards
    prepare: Preparation
    shards: dict[str, NDArray[np.int64]]
    classes: tuple[str, ...]
    labels: NDArray[np.int64] | None
    left_out: int

    @cached_property
    def code(self) -> str:
        """Hash that tells one plan from another."""
        rows = hashlib.sha256(b"".join(rows.tobytes() for rows in self.shards.values())).hexdigest()
        how = {**asdict(self.prepare), "max_pixels": None}
        content = [self.store.fingerprint(), how, list(self.shards), rows, self.classes]
        text = json.dumps(content, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def row(self, row: int) -> dict[str, Any]:
        """A row of the table; DataError if its image cannot be read, which a pack then does not hold."""
        store, prepare = self.store, self.prepare
        content = store.content(row, prepare.max_bytes)
        values, path = prepare(content, store.path(row)), PurePosixPath(store.path(row)).name
        name = store.index.names[row] if isinstance(store, FolderStore) else path
        if (prepare.size, prepare.channels, prepare.crop) != (None, None, None):  # else it is copied as it is
            content, name = stored_png(values), str(PurePosixPath(name).with_suffix(".png"))
        label = {} if self.labels is None else {"label": int(self.labels[row])}
        # Names that are no UTF-8 cannot stand in a Parquet file.
        return {"image": {"bytes": content, "path": name.encode("utf-8", "replace").decode()}, **label}


def _plan(store: FolderStore | Shards, prepare: Preparation, shard_bytes: int) -> _Plan:
    """Divide images into shards of about `shard_bytes`, by their files or, where scaled, by their pixels."""
    divided = {name: np.asarray(store.divided[name], np.int64) for name in _NAMES if name in store.divided}
    pixels = prepare.sides and math.prod(prepare.sides) * (prepare.channels or 3)
    shards = {}
    for name, rows in divided.items():
        sizes = [store.stored_bytes(int(row)) if pixels is None else pixels for row in rows]
        number = (np.cumsum(np.array(sizes, np.int64)) - 1).clip(0) // shard_bytes
        for i, one in enumerate(np.unique(number)):
            shards[f"{_NAMES[name]}-{i:05d}.parquet"] = rows[number == one]
    labels = store.labels(np.arange(len(store)))
    packed = sum(len(rows) for rows in divided.values())
    return _Plan(store, prepare, shards, tuple(store.class_names), labels, len(store.divided["all"]) - packed)


def _write_missing(plan: _Plan, outdir: Path, bad: BadFiles, tell: Callable[[str], None]) -> dict[str, str]:
    """Write the shards that are not there, and return the hashes of all.

    What is there is kept if its hash was recorded, and is an error if it has another; UsageError if there are
    shards of another plan.
    """
    for left_over in outdir.glob("*.parquet.*tmp"):  # of a process that was killed
        left_over.unlink()
    there, recorded = shard_files(outdir), recorded_hashes(outdir)
    for path in there:
        if Shard(path).pack.get("plan") != plan.code:
            raise UsageError(f"{path} is not of this pack: choose another folder, or remove what is there")
    here = {path.name for path in there if path.parent == outdir}
    known = {name: sha256 for name, sha256 in recorded.items() if name in here}
    require_recorded(outdir, known, "remove it to have it written anew", verify=True)
    for number, (file, rows) in enumerate(plan.shards.items(), 1):
        if file not in known:
            write_shard(plan, rows, outdir / file, bad)
            known[file] = file_hash(outdir / file)
            shards = [{"file": name, "sha256": sha256} for name, sha256 in known.items()]
            write_json(outdir / MANIFEST, {"plan": plan.code, "unfinished": True, "shards": shards})
        tell(f"{file}, {number} of {len(plan.shards)}")
    return {file: known[file] for file in plan.shards}


def _manifest(plan: _Plan, outdir: Path, hashes: Mapping[str, str], max_bad: float) -> dict[str, Any]:
    """What was written; DataError if too many files are bad."""
    skipped, shards = list[dict[str, str]](), list[dict[str, Any]]()
    for file, sha256 in hashes.items():
        shard, size = Shard(outdir / file), (outdir / file).stat().st_size
        skipped += json.loads(shard.metadata.metadata[_SKIPPED.encode()])
        shards.append({"file": file, "images": sum(shard.groups), "bytes": size, "sha256": sha256})
    images = sum(one["images"] for one in shards)
    BadFiles(max_bad, [Skipped(**one) for one in skipped]).check(images)
    return {
        "source": plan.store.name, "plan": plan.code,
        "size": plan.prepare.size, "channels": plan.prepare.channels,
        "classes": list(plan.classes), "images": images, "shards": shards,
        "skipped": [*skipped, *map(vars, plan.store.unread)], "left_out": plan.left_out,
    }  # fmt: skip


def write_shard(plan: _Plan, rows: NDArray[np.int64], path: Path, bad: BadFiles) -> None:
    """Write a shard, whole or not at all; DataError if too many files are bad."""
    import pyarrow as pa

    schema, skipped = _schema(plan), list[Skipped]()
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    with whole(path) as temporary, import_parquet().ParquetWriter(temporary, schema, **options) as file:
        for group in _groups(plan, rows, bad, skipped):
            file.write_table(pa.Table.from_pylist(group, schema), row_group_size=len(group))
        file.add_key_value_metadata({_SKIPPED: json.dumps([vars(one) for one in skipped])})


def _schema(plan: _Plan) -> Any:
    import pyarrow as pa

    fields = [pa.field("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))]
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    if plan.labels is not None:
        fields.append(pa.field("label", pa.int64()))
        named = {"names": list(plan.classes), "_type": "ClassLabel"}
        features["label"] = named if plan.classes else {"dtype": "int64", "_type": "Value"}
    about = {
        FEATURES_KEY: json.dumps({"info": {"features": features}}),
        PACK_KEY: json.dumps({"plan": plan.code, "shards": len(plan.shards)}),
    }
    return pa.schema(fields, about)


def _groups(
    plan: _Plan, rows: NDArray[np.int64], bad: BadFiles, skipped: list[Skipped]
) -> Iterator[list[dict[str, Any]]]:
    """The row groups of a shard; what cannot be read goes to `skipped`."""
    group: list[dict[str, Any]] = []
    for chunk in read_chunks(plan.row, rows.tolist()):
        bad.count(len(chunk))
        for row, result in chunk:
            if isinstance(result, DataError):
                skipped.append(bad.add(plan.store.path(row), result))
                bad.check_so_far()
            else:
                group.append(result)
        if len(group) >= _GROUP_ROWS and sum(len(one["image"]["bytes"]) for one in group) >= _GROUP_BYTES:
            yield group
            group = []
    if group:
        yield group


def stored_png(values: Pixels) -> bytes:
    """An image (H, W, C) as PNG: 8 bits, or 16 bits a channel for float32."""
    deep = values.dtype != np.uint8
    return encode_png(np.rint(values * np.float32(65535)).astype(np.uint16) if deep else values)
