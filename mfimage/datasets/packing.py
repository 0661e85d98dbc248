"""Write a folder of images as Parquet shards, which Hugging Face `datasets` reads too.

    OUT/train-00000.parquet, train-00001.parquet, …, validation-…, test-…, manifest.json

A row is an image, {bytes, path}, and its class, where the images lie in a folder each class. Which rows a
shard holds is planned before the first is written and follows from the source alone; each is written whole
or not at all and names its plan. So what was broken off is gone on with, and a pack that lacks a shard is
told from one that does not.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfimage.config import Reading
from mfimage.datasets.decode import Preparation
from mfimage.datasets.parquet import SKIPPED_KEY, Shard
from mfimage.datasets.sets import BadFiles, Skipped
from mfimage.datasets.shards import shard_files
from mfimage.datasets.shardwriter import Plan, Planned, write_shard
from mfimage.datasets.sources import open_store
from mfimage.datasets.splits import class_folders
from mfimage.datasets.stores import FolderStore, Store
from mfimage.errors import DataError, UsageError
from mfimage.files import write_text

MANIFEST = "manifest.json"
SHARD_BYTES = 256_000_000
_NAMES = {"train": "train", "valid": "validation", "test": "test"}


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
        size: As of `load`; None keeps what the images have.
        channels: As of `load`. Without size and channels the files are copied as they are (but a box is cut
            out of CelebA's), else they become PNG: 8 bits, or 16 for deeper grey.
        shard_bytes: Most bytes a shard, about.
        reading: As of `load`.
        root: As of `load`.
        tell: Is told of every shard.

    Returns:
        The manifest, which is also written: shards with their hashes, classes, what was skipped and how many
        images beside folders of splits were left out.

    Raises:
        DataError: There are no images, or too many are bad.
        UsageError: outdir holds other Parquet files, or pyarrow is not installed.
    """
    store = open_store(source, root)
    if store is None:
        raise DataError(f"{source}: is no folder, Parquet file or named set of photographs; unpack it first")
    prepare = Preparation(size, channels, reading.max_pixels, reading.value_range, store.crop)
    return write(plan(store, prepare, shard_bytes), Path(outdir), reading.max_bad, tell)


def plan(store: Store, prepare: Preparation, shard_bytes: int) -> Plan:
    """Divide a store's images into shards of at most about so many bytes each.

    Their size is taken from the files, or, where they are scaled, from the pixels, which is more.

    Args:
        store: The images.
        prepare: How they are read.
        shard_bytes: At least 1.
    """
    divided = {name: np.asarray(store.divided[name], np.int64) for name in _NAMES if name in store.divided}
    sides = (prepare.size, prepare.size) if isinstance(prepare.size, int) else prepare.size
    pixels = None if sides is None else math.prod(sides) * (prepare.channels or 3)
    shards = []
    for name, rows in divided.items():
        sizes = np.array(
            [store.stored_bytes(int(row)) if pixels is None else pixels for row in rows], np.int64
        )
        number = (np.cumsum(sizes) - 1).clip(0) // shard_bytes
        parts = [rows[number == i] for i in np.unique(number)]
        shards += [Planned(f"{_NAMES[name]}-{i:05d}.parquet", part) for i, part in enumerate(parts)]
    labels, classes = _classes(store)
    packed = sum(len(rows) for rows in divided.values())
    return Plan(store, prepare, tuple(shards), classes, labels, len(store.divided["all"]) - packed)


def _classes(store: Store) -> tuple[NDArray[np.int64] | None, tuple[str, ...]]:
    """Labels of all rows of a store, and what they mean; its folders, if it does not know."""
    labels = store.labels(np.arange(len(store)))
    if labels is not None or not isinstance(store, FolderStore) or store.classes is not None:
        return labels, tuple(store.class_names or ())
    kinds = class_folders(store.index.names)
    known = tuple(sorted(set(kinds)))
    if "" in known:
        return None, ()
    number = {kind: i for i, kind in enumerate(known)}
    return np.array([number[kind] for kind in kinds], np.int64), known


def write(
    planned: Plan, outdir: Path, max_bad: float = 0.05, tell: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Write the shards of a plan that are not there yet, and the manifest.

    Args:
        planned: See `plan`.
        outdir: Made if it is not there; may hold shards of the same plan.
        max_bad: Largest share of unreadable files, in [0, 1], that is left out rather than an error.
        tell: Is told of every shard.

    Returns:
        The manifest.

    Raises:
        DataError: Too many files are bad.
        UsageError: The folder holds Parquet files of anything else, or pyarrow is not installed.
    """
    code, bad = planned.hash(), BadFiles(max_bad)
    outdir.mkdir(parents=True, exist_ok=True)
    for left_over in outdir.glob("*.parquet*.tmp"):  # of a process that was killed
        left_over.unlink()
    there = _there(outdir, code)
    for number, shard in enumerate(planned.shards, 1):
        if shard.file not in there:
            write_shard(planned, shard, outdir / shard.file, code, bad)
        tell(f"{shard.file}, {number} of {len(planned.shards)}")
    written = [Shard(outdir / shard.file) for shard in planned.shards]
    manifest = _manifest(planned, written, code)
    BadFiles(max_bad, [Skipped(**one) for one in manifest["skipped"]]).check(manifest["images"])
    write_text(outdir / MANIFEST, json.dumps(manifest, indent=2) + "\n")
    return manifest


def _there(outdir: Path, code: str) -> set[str]:
    """The shards that need not be written again."""
    files = shard_files(outdir)
    for path in files:
        if Shard(path).pack.get("plan") != code:
            raise UsageError(f"{path} is not of this pack: choose another folder, or remove what is there")
    return {path.name for path in files}


def _manifest(planned: Plan, written: Sequence[Shard], code: str) -> dict[str, Any]:
    size, channels = planned.prepare.size, planned.prepare.channels
    shards, skipped = [], []
    for shard in written:
        skipped += json.loads(shard.metadata.metadata[SKIPPED_KEY.encode()])
        shards.append(
            {
                "file": shard.path.name,
                "images": sum(shard.groups),
                "bytes": shard.path.stat().st_size,
                "sha256": _sha256(shard.path),
            }
        )
    return {
        "source": planned.store.name, "plan": code, "size": size, "channels": channels,
        "classes": list(planned.classes), "images": sum(one["images"] for one in shards), "shards": shards,
        "skipped": skipped, "left_out": planned.left_out,
    }  # fmt: skip


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()
