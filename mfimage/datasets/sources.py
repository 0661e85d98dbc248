"""What one source of images gives, and several put together in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from mfimage.datasets.decode import Preparation
from mfimage.datasets.folders import FOLDERS
from mfimage.datasets.listing import list_zip, open_zip, read_arrays, read_member
from mfimage.datasets.named import NAMED, read_named
from mfimage.datasets.objects import Items, ItemStore, array_of_images
from mfimage.datasets.pixels import Pixels, ValueRange, as_float, check_size, over_white, unit
from mfimage.datasets.prefetch import ahead
from mfimage.datasets.sets import BadFiles, Dataset, ImageSet
from mfimage.datasets.shards import Shards, shard_files
from mfimage.datasets.splits import choose, split_indices, split_paths
from mfimage.datasets.stored import StoredSet
from mfimage.datasets.stores import FolderStore, Store
from mfimage.errors import DataError

_CHUNK = 16  # files a thread takes at once

Key = TypeVar("Key", str, int)


Source: TypeAlias = (
    str | Path | Dataset | np.ndarray | Tensor | torch.utils.data.Dataset | Items | Mapping[str, Items]
)


def open_store(
    source: Source,
    root: str | Path | None = None,
    value_range: ValueRange | None = None,
    limit: int | None = None,
) -> Store | None:
    """Images that are read one at a time: a folder, Parquet shards, a named set of photographs, items.

    Args:
        source: As of `load`.
        root: Where named sets lie; $MFIMAGE_DATA if None.
        value_range: Of black and white in items that are arrays.
        limit: Most items of a data set without a length.

    Returns:
        None for what is not of these kinds: zips, arrays, named sets of arrays, and what does not exist.

    Raises:
        DataError: There are no images in it, or it cannot be read.
    """
    if isinstance(source, Dataset | np.ndarray | Tensor):
        return None
    if not isinstance(source, str | Path):
        if not hasattr(source, "__getitem__") and not hasattr(source, "__iter__"):
            kind = type(source).__name__
            raise DataError(f"{kind}: images are given as a path, an array, a tensor or a data set")
        return ItemStore(source, value_range, limit)
    if source in FOLDERS:
        return FOLDERS[str(source)](root)
    if source in NAMED:
        return None
    path = Path(source).expanduser()
    if path.is_dir():
        files = shard_files(path)
        return Shards(files, str(path)) if files else FolderStore.open(path)
    return Shards([path], str(path)) if path.suffix.lower() == ".parquet" and path.is_file() else None


@dataclass
class Part:
    """What one source gave: images (H, W, C), not yet of one size."""

    pixels: list[Pixels] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    labels: np.ndarray | None = None


def from_array(
    images: Pixels,
    labels: np.ndarray | None,
    split: str,
    limit: int | None,
    name: str,
    prepare: Preparation,
) -> Part:
    """Take the first rows of a split of an array (N, H, W) or (N, H, W, C)."""
    _check_array(images, labels, name)
    rows = split_indices(len(images), split, name)[:limit]
    values = unit(np.asarray(images[rows]), name, prepare.value_range)
    values = values[..., None] if values.ndim == 3 else values
    values = over_white(values) if values.shape[-1] in (2, 4) else values
    paths = [f"{name}[{i}]" for i in rows]
    pixels = [prepare(image, path) for image, path in zip(values, paths, strict=True)]
    return Part(pixels, paths, None if labels is None else labels[rows])


def _check_array(images: Pixels, labels: np.ndarray | None, name: str) -> None:
    if not (images.ndim == 3 or (images.ndim == 4 and images.shape[-1] in (1, 2, 3, 4))):
        raise DataError(f"{name}: an array of shape {images.shape} is not (N, H, W) or (N, H, W, C ≤ 4)")
    if images.size == 0:
        raise DataError(f"{name}: holds no images (shape {images.shape})")
    if labels is not None and labels.shape != images.shape[:1]:
        raise DataError(f"{name}: {labels.shape} labels do not match {len(images)} images")
    if labels is not None and labels.dtype.kind not in "iu":
        raise DataError(f"{name}: labels are {labels.dtype}, not integers")


def from_set(images: ImageSet, rows: Sequence[int], prepare: Preparation) -> Part:
    """Take rows of a set in memory."""
    chosen = images.subset(rows)
    values = chosen.images.movedim(1, -1).numpy()
    pixels = [prepare(image, path) for image, path in zip(values, chosen.paths, strict=True)]
    return Part(pixels, list(chosen.paths), None if chosen.labels is None else chosen.labels.numpy())


def from_store(store: Store, rows: Sequence[int], prepare: Preparation, bad: BadFiles) -> Part:
    """Take rows of a store, with their labels where it knows them."""
    keys = list(map(int, rows))
    part, kept = _read(keys, store.path, lambda row: store.content(row, prepare.max_bytes), prepare, bad)
    part.labels = store.labels(np.array(kept, np.int64))
    return part


def from_files(
    names: Sequence[str],
    prefix: str,
    read: Callable[[str], Path | bytes],
    prepare: Preparation,
    bad: BadFiles,
) -> Part:
    """Take files; `prefix` and a name are the path in messages, `read` gives what is decoded."""
    return _read(names, lambda name: prefix + name, read, prepare, bad)[0]


def _read(
    keys: Sequence[Key],
    path_of: Callable[[Key], str],
    read: Callable[[Key], Path | bytes | Pixels],
    prepare: Preparation,
    bad: BadFiles,
) -> tuple[Part, list[Key]]:
    """Read images in threads; what cannot be read goes to `bad`. Returns also the keys of the others."""

    def read_one(key: Key) -> Pixels | DataError:
        try:
            return prepare(read(key), path_of(key))
        except DataError as error:
            return error

    part, kept = Part(), []
    chunks = [keys[begin : begin + _CHUNK] for begin in range(0, len(keys), _CHUNK)]
    for chunk, results in zip(chunks, ahead(lambda keys: list(map(read_one, keys)), chunks), strict=True):
        bad.count(len(chunk))
        for key, result in zip(chunk, results, strict=True):
            if isinstance(result, DataError):
                bad.add(path_of(key), result)
            else:
                part.pixels.append(result)
                part.paths.append(path_of(key))
                kept.append(key)
    return part, kept


def in_memory(parts: Sequence[Part], name: str, split: str, bad: BadFiles) -> ImageSet:
    """Put parts together, which are empty afterwards.

    Raises:
        DataError: More than the allowed share of files is bad, or none is good.
        MixedSizesError: The images differ in size.
    """
    paths = tuple(path for part in parts for path in part.paths)
    bad.check(len(paths))
    pixels = [image for part in parts for image in part.pixels]
    for part in parts:
        part.pixels.clear()
    return ImageSet(_stack(pixels, paths), name, split, paths, bad.skipped, _joined_labels(parts))


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


def _joined_labels(parts: Sequence[Part]) -> Tensor | None:
    """The labels of all, None if some have none."""
    labels = [part.labels for part in parts if part.labels is not None]
    if len(labels) < len(parts):
        return None
    return torch.from_numpy(np.concatenate(labels).astype(np.int64))


def read_source(
    source: Source,
    store: Store | None,
    split: str,
    prepare: Preparation,
    limit: int | None,
    root: str | Path | None,
    bad: BadFiles,
) -> Part:
    """Read a source of images into memory; `store` is its store where it is open already."""
    store = store or open_store(source, root, prepare.value_range, limit)
    if store is not None:
        rows = choose(store.divided, split, store.name)[:limit]
        return from_store(store, rows, replace(prepare, crop=store.crop), bad)
    name = name_of(source)
    if isinstance(source, StoredSet):
        source = source.in_memory()
    if isinstance(source, ImageSet):
        return from_set(source, range(len(source))[:limit], prepare)
    if isinstance(source, np.ndarray | Tensor):
        return from_array(array_of_images(source), None, "all", limit, name, prepare)
    if source in NAMED:
        known, classes = read_named(name, split, root)
        return from_array(known, classes, "all", limit, f"{name}/{split}", prepare)
    return _from_path(Path(str(source)).expanduser(), split, prepare, limit, bad)


def _from_path(path: Path, split: str, prepare: Preparation, limit: int | None, bad: BadFiles) -> Part:
    name, kind = str(path), path.suffix.lower()
    if not path.exists():
        known = ", ".join((*NAMED, *FOLDERS))
        raise DataError(f"{path}: no such file or folder, and no named set ({known})")
    if kind == ".zip":
        with open_zip(path) as archive:
            chosen = split_paths(list_zip(archive), split, name)[:limit]
            return from_files(
                chosen,
                f"{name}/",
                lambda member: read_member(archive, member, prepare.max_bytes),
                prepare,
                bad,
            )
    if kind in (".npy", ".npz"):
        images, labels = read_arrays(path)
        return from_array(images, labels, split, limit, name, prepare)
    raise DataError(f"{path}: is neither a folder nor a .zip, .npy, .npz or .parquet file")


def name_of(source: Source) -> str:
    """What a source is called: its path, or its name."""
    if isinstance(source, str | Path):
        return str(source)
    if isinstance(source, np.ndarray):
        return "array"
    return str(getattr(source, "name", None) or type(source).__name__)
