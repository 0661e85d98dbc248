"""Sources of images: stores, which are read one image at a time, and arrays; put together in memory."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from mfimage.datasets.decode import Preparation
from mfimage.datasets.folders import FOLDERS
from mfimage.datasets.named import NAMED, read_named
from mfimage.datasets.objects import Items, ItemStore, array_of_images, check_images, pixels_of
from mfimage.datasets.pixels import Pixels, ValueRange, as_float, check_size
from mfimage.datasets.prefetch import ahead
from mfimage.datasets.sets import BadFiles, Dataset, ImageSet
from mfimage.datasets.shards import Shards, shard_files
from mfimage.datasets.splits import choose, divide_rows
from mfimage.datasets.stored import StoredSet
from mfimage.datasets.stores import FolderStore, Store, ZipStore
from mfimage.errors import DataError

Source: TypeAlias = (
    str | Path | Dataset | np.ndarray | Tensor | torch.utils.data.Dataset | Items | Mapping[str, Items]
)

_CHUNK = 16  # files a thread takes at once


def name_of(source: Source) -> str:
    """What a source is called: its path, or its name."""
    if isinstance(source, str | Path):
        return str(source)
    return (
        "array" if isinstance(source, np.ndarray) else getattr(source, "name", None) or type(source).__name__
    )


def open_store(
    source: Source,
    root: str | Path | None = None,
    value_range: ValueRange | None = None,
    limit: int | None = None,
) -> Store | None:
    """Open a folder, zip, Parquet shards, named set of photographs or map-style data set.

    Args:
        source: As of `load`.
        root: Where named sets lie; $MFIMAGE_DATA if None.
        value_range: Of black and white in items that are arrays.
        limit: Most items of a data set without a length.

    Returns:
        None for what is not of these kinds: arrays, named sets of arrays, and files of other kinds.

    Raises:
        DataError: There are no images in it, or it does not exist or cannot be read.
    """
    if isinstance(source, Dataset | np.ndarray | Tensor):
        return None
    if not isinstance(source, str | Path):
        return ItemStore(source, value_range, limit)
    if source in NAMED:
        return None
    if source in FOLDERS:
        return FOLDERS[str(source)](root)
    path = Path(source).expanduser()
    if path.is_dir():
        files = shard_files(path)
        return Shards(files, str(path)) if files else FolderStore.open(path)
    if not path.exists():
        known = ", ".join((*NAMED, *FOLDERS))
        raise DataError(f"{source}: no such file or folder, and no named set ({known})")
    kind = path.suffix.lower()
    return ZipStore(path) if kind == ".zip" else Shards([path], str(path)) if kind == ".parquet" else None


@dataclass
class Part:
    """What one source gave: images (H, W, C), not yet of one size."""

    pixels: list[Pixels] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    labels: np.ndarray | None = None


def read_source(
    source: Source,
    split: str,
    prepare: Preparation,
    limit: int | None,
    root: str | Path | None,
    bad: BadFiles,
) -> Part:
    """Read a split of a source, or its first so many images."""
    if (store := open_store(source, root, prepare.value_range, limit)) is not None:
        rows = choose(store.divided, split, store.name)[:limit]
        return from_store(store, rows, replace(prepare, crop=store.crop), bad)
    name = name_of(source)
    if isinstance(source, StoredSet):
        source = source.in_memory()
    if isinstance(source, ImageSet):
        return _from_set(source, range(len(source))[:limit], prepare)
    if isinstance(source, np.ndarray | Tensor):
        return _from_array(array_of_images(source), None, "all", limit, name, prepare)
    if source in NAMED:
        return _from_array(*read_named(name, split, root), "all", limit, f"{name}/{split}", prepare)
    path = Path(str(source)).expanduser()
    if path.suffix.lower() not in (".npy", ".npz"):
        raise DataError(f"{source}: is neither a folder nor a .zip, .npy, .npz or .parquet file")
    return _from_array(*read_arrays(path), split, limit, str(path), prepare)


def from_store(store: Store, rows: Sequence[int], prepare: Preparation, bad: BadFiles) -> Part:
    """Read rows of a store in threads, with their labels where it knows them; note what cannot be read."""

    def read(row: int) -> Pixels | DataError:
        try:
            return prepare(store.content(row, prepare.max_bytes), store.path(row))
        except DataError as error:
            return error

    part, kept = Part(), []
    chunks = [list(map(int, rows[begin : begin + _CHUNK])) for begin in range(0, len(rows), _CHUNK)]
    for chunk, results in zip(chunks, ahead(lambda chunk: list(map(read, chunk)), chunks), strict=True):
        for row, result in zip(chunk, results, strict=True):
            if isinstance(result, DataError):
                bad.add(store.path(row), result)
            else:
                part.pixels.append(result)
                part.paths.append(store.path(row))
                kept.append(row)
    part.labels = store.labels(np.array(kept, np.int64))
    return part


def _from_set(images: ImageSet, rows: Sequence[int], prepare: Preparation) -> Part:
    chosen = images.subset(rows)
    values = chosen.images.movedim(1, -1).numpy()
    pixels = [prepare(image, path) for image, path in zip(values, chosen.paths, strict=True)]
    return Part(pixels, list(chosen.paths), None if chosen.labels is None else chosen.labels.numpy())


def _from_array(
    images: Pixels,
    labels: np.ndarray | None,
    split: str,
    limit: int | None,
    name: str,
    prepare: Preparation,
) -> Part:
    """Take the first rows of a split of an array (N, H, W) or (N, H, W, C)."""
    check_images(images, name)
    if labels is not None and labels.shape != images.shape[:1]:
        raise DataError(f"{name}: {labels.shape} labels do not match {len(images)} images")
    if labels is not None and labels.dtype.kind not in "iu":
        raise DataError(f"{name}: labels are {labels.dtype}, not integers")
    rows = np.asarray(choose(divide_rows(len(images)), split, name)[:limit], np.int64)
    values = pixels_of(images[rows], name, prepare.value_range)
    paths = [f"{name}[{i}]" for i in rows]
    pixels = [prepare(image, path) for image, path in zip(values, paths, strict=True)]
    return Part(pixels, paths, None if labels is None else labels[rows])


def read_arrays(path: Path) -> tuple[Pixels, np.ndarray | None]:
    """Images as they are stored (memory-mapped from .npy), and labels or None, of an array file; no pickle.

    In an .npz the images are the array `images`, else `arr_0`, else the only one with 3 or 4 dimensions;
    `labels` are the labels. DataError if the file is damaged or no array of images can be told.
    """
    try:
        if path.suffix.lower() == ".npy":
            return np.load(path, mmap_mode="r", allow_pickle=False), None
        # Opened here because numpy leaves a damaged one open.
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            for key in ("images", "arr_0"):
                if key in arrays:
                    return arrays[key], arrays.get("labels")
            likely = [array for key in arrays.files if (array := arrays[key]).ndim in (3, 4)]
            if len(likely) != 1:
                names = ", ".join(arrays.files)
                raise DataError(f"{path}: name the array of images `images`; there are {names}")
            return likely[0], arrays.get("labels")
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: cannot be read as arrays (pickles are never loaded): {error}") from error


def assemble(parts: Sequence[Part], name: str, split: str, bad: BadFiles) -> ImageSet:
    """Put parts together, which are empty afterwards; DataError if the sizes differ or too many are bad."""
    paths = tuple(path for part in parts for path in part.paths)
    bad.check(len(paths))
    pixels = [image for part in parts for image in part.pixels]
    for part in parts:
        part.pixels.clear()
    labels = [part.labels for part in parts if part.labels is not None]
    joined = np.concatenate(labels).astype(np.int64) if len(labels) == len(parts) else None
    known = None if joined is None else torch.from_numpy(joined)
    return ImageSet(_stack(pixels, paths), name, split, paths, bad.skipped, known)


def _stack(pixels: list[Pixels], paths: Sequence[str]) -> Tensor:
    """Move images (H, W, C) into one tensor (N, C, H, W); grey is repeated where others have colour."""
    height, width = pixels[0].shape[:2]
    for image, path in zip(pixels, paths, strict=True):
        check_size((height, width), paths[0], image.shape, path)
    channels = max(image.shape[2] for image in pixels)
    dtype = np.uint8 if all(image.dtype == np.uint8 for image in pixels) else np.float32
    stacked = np.empty((len(pixels), channels, height, width), dtype)
    pixels.reverse()
    for row in stacked:
        image = pixels.pop()  # Each is freed when it is copied: memory is needed once, not twice.
        row[:] = (image if image.dtype == dtype else as_float(image)).transpose(2, 0, 1)
    return torch.from_numpy(stacked)
