"""Sources of images: stores, which are read one image at a time, and arrays; put together in memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from mfimage.config import Reading
from mfimage.console import counted
from mfimage.datasets.arrays import read_arrays
from mfimage.datasets.changes import Changes
from mfimage.datasets.decode import Preparation
from mfimage.datasets.folders import FOLDERS
from mfimage.datasets.from_python import Items, ItemStore, array_of_images, check_images, pixels_of
from mfimage.datasets.named import BUNDLED, NAMED, data_root, read_named
from mfimage.datasets.pixels import Pixels, Size, ValueRange, as_float, check_size
from mfimage.datasets.sets import BadFiles, Dataset, ImageSet
from mfimage.datasets.shards import Shards, shard_files
from mfimage.datasets.splits import choose, divide_rows, split_name
from mfimage.datasets.stored_set import StoredSet
from mfimage.datasets.stores import FolderStore, Key, Store, ZipStore, read_chunks
from mfimage.errors import DataError, MixedSizesError, Skipped
from mfimage.files import require_regular, user_path

Root: TypeAlias = str | Path | None
Source: TypeAlias = (
    str | Path | Dataset | np.ndarray | Tensor | torch.utils.data.Dataset | Items | Mapping[str, Items]
)


def name_of(source: Source) -> str:
    """What a source is called: its path, or its name."""
    if isinstance(source, str | Path):
        return str(source)
    if isinstance(source, np.ndarray):
        return "array"
    theirs = getattr(getattr(source, "info", None), "dataset_name", None)  # of Hugging Face
    return getattr(source, "name", None) or theirs or type(source).__name__


def prefer_folder(source: Source, root: Root = None) -> tuple[Source, tuple[str, ...]]:
    """Take a folder that is called like a named set as ./NAME, and say so: the user's own comes first.

    Not so where named sets themselves lie in the current directory.
    """
    if not isinstance(source, str) or source not in (*NAMED, *FOLDERS) or not os.path.isdir(source):
        return source, ()
    with suppress(DataError, OSError):
        if source not in BUNDLED and os.path.samefile(data_root(root), os.curdir):
            return source, ()
    said = f"./{source} is read, the folder here; rename it to have the set that mfimage knows by this name"
    return f"./{source}", (said,)


def named_set(name: str, split: str, size: Size | None = None, channels: int | None = None) -> ImageSet:
    """Read a split of one of NAMED, even where a folder is called like it; see `load`."""
    images = ImageList(split, size, channels, Reading())
    images.add_named(name)
    return images.to_set(name)


def open_store(
    source: Source,
    root: Root = None,
    value_range: ValueRange | None = None,
    limit: int | None = None,
    verify: bool = False,
) -> Store | None:
    """Open a folder, zip, Parquet shards, named set of photographs or map-style data set.

    None for what is not of these kinds: arrays, named sets of arrays, and files of other kinds. `limit` is
    the most items of a data set without a length; `verify` is of `Reading`.
    """
    if isinstance(source, Dataset | np.ndarray | Tensor):
        return None
    if not isinstance(source, str | Path):
        return ItemStore(source, value_range, limit)
    if source in NAMED:
        return None
    if source in FOLDERS:
        return FOLDERS[str(source)](root)
    path = user_path(source)
    if path.is_dir():
        files = shard_files(path)
        return Shards(files, str(path), verify) if files else FolderStore.open(path)
    if not path.exists():
        known = ", ".join((*NAMED, *FOLDERS))
        raise DataError(f"{source}: no such file or folder, and no named set ({known})")
    require_regular(path)
    if path.suffix.lower() == ".zip":
        return ZipStore(path)
    return Shards([path], str(path), verify) if path.suffix.lower() == ".parquet" else None


class ImageList:
    """A split of one source after the other, images (H, W, C) not yet of one size, and the bad files."""

    def __init__(
        self,
        split: str,
        size: Size | None,
        channels: int | None,
        reading: Reading,
        limit: int | None = None,
        root: Root = None,
    ) -> None:
        self.split, self.limit, self.root, self.verify = split, limit, root, reading.verify
        self.prepare = Preparation(size, channels, reading.max_pixels, reading.value_range)
        self.bad = BadFiles(reading.max_bad)
        self.unread: list[Skipped] = []  # what may be taken for an image and is not read
        self.notes: list[str] = []
        self.changes = Changes()
        self.paths: list[str] = []
        self._pixels: list[Pixels] = []
        self._labels: list[np.ndarray | None] = []  # of each source
        self._classes: list[tuple[str, ...]] = []  # the same

    @property
    def left(self) -> int | None:
        """How many images are still wanted, None for all."""
        return None if self.limit is None else self.limit - len(self.paths) - len(self.bad.skipped)

    def open(self, source: Source) -> Store | None:
        """Open a source as a store, see `open_store`."""
        return open_store(source, self.root, self.prepare.value_range, self.left, self.verify)

    def rows(self, store: Store) -> Sequence[int]:
        """The rows of a store that are wanted; what is left out beside them is noted."""
        chosen = choose(store.divided, self.split, store.name)
        self.unread += store.unread
        within = sum(len(rows) for split, rows in store.divided.items() if split != "all")
        if split_name(self.split) != "all" and (beside := len(store.divided["all"]) - within) > 0:
            self.notes.append(f"{store.name}: {counted(beside, 'image')} beside the splits: left out")
        return chosen[: self.left]

    def add(self, source: Source) -> None:
        """Read what is wanted of a source."""
        name = name_of(source)
        if isinstance(source, StoredSet):
            source = source.in_memory()
        if isinstance(source, ImageSet):
            chosen = source.subset(slice(self.left))
            self._add_pixels(chosen.images.movedim(1, -1).numpy(), chosen.paths)
            self._label(None if chosen.labels is None else chosen.labels.numpy(), chosen.classes)
        elif isinstance(source, np.ndarray | Tensor):
            self._add_array(array_of_images(source), None, name, "all")
        elif (store := self.open(source)) is not None:
            self.add_store(store, self.rows(store))
        elif source in NAMED:
            self.add_named(name)
        else:
            path = user_path(str(source))
            if path.suffix.lower() not in (".npy", ".npz"):
                raise DataError(f"{source}: is neither a folder nor a .zip, .npy, .npz or .parquet file")
            self._add_array(*read_arrays(path), str(path), self.split)

    def add_named(self, name: str) -> None:
        """Read one of NAMED."""
        images, labels = read_named(name, self.split, self.root)
        self._add_array(images, labels, f"{name}/{self.split}", "all", NAMED[name])

    def add_store(self, store: Store, rows: Sequence[int]) -> None:
        """Read rows of a store, with their labels where it knows them."""
        prepare = replace(self.prepare, crop=store.crop)
        good = self._read(
            lambda row: store.image(row, prepare, self.changes), list(map(int, rows)), store.path
        )
        self._label(store.labels(np.array(good, np.int64)), store.class_names)

    def add_files(self, paths: Sequence[str], beyond: float = 0.0) -> None:
        """Read files as they are named; floats may lie `beyond` white and black, see `pixels.unit`."""
        self._read(lambda path: self.prepare(Path(path), path, self.changes, beyond), paths, str)
        self._label(None)

    def _read(
        self, read: Callable[[Key], Pixels], keys: Sequence[Key], path: Callable[[Key], str]
    ) -> list[Key]:
        """Add what can be read, and return its keys; note what cannot."""

        def alike(key: Key) -> Pixels:
            return self._checked(read(key), path(key))

        good, left = [], iter(keys)
        # One alone, until there is something that all others must be like.
        while some := list(islice(left, None if self._pixels else 1)):
            for key, image in chain.from_iterable(read_chunks(alike, some)):
                if isinstance(image, MixedSizesError):
                    raise image
                if isinstance(image, DataError):
                    self.bad.add(path(key), image)
                else:
                    self._take(image, path(key))
                    good.append(key)
        return good

    def _add_array(
        self, images: Pixels, labels: np.ndarray | None, name: str, split: str, classes: Sequence[str] = ()
    ) -> None:
        """Take the first rows of a split of an array (N, H, W) or (N, H, W, C)."""
        check_images(images, name)
        if labels is not None and labels.shape != images.shape[:1]:
            raise DataError(f"{name}: {labels.shape} labels do not match {len(images)} images")
        if labels is not None and labels.dtype.kind not in "iu":
            raise DataError(f"{name}: labels are {labels.dtype}, not integers")
        rows = np.asarray(choose(divide_rows(len(images)), split, name)[: self.left], np.int64)
        values = pixels_of(images[rows], name, self.prepare.value_range)
        self._add_pixels(values, [f"{name}[{i}]" for i in rows])
        self._label(None if labels is None else labels[rows], classes)

    def _label(self, labels: np.ndarray | None, classes: Sequence[str] = ()) -> None:
        """Note the class indices of a source's images, and what they mean, where they are known."""
        self._labels.append(labels)
        self._classes.append(tuple(classes))

    def _add_pixels(self, values: Pixels, paths: Sequence[str]) -> None:
        for image, path in zip(values, paths, strict=True):
            self._take(self.prepare(image, path, self.changes), path)

    def _take(self, image: Pixels, path: str) -> None:
        self._pixels.append(self._checked(image, path))
        self.paths.append(path)

    def _checked(self, image: Pixels, path: str) -> Pixels:
        """Return an image; MixedSizesError for another size, now, and not when memory is full of them."""
        if self._pixels:
            check_size(self._pixels[0].shape, self.paths[0], image.shape, path)
        return image

    def to_set(self, name: str) -> ImageSet:
        """Put all together, the list is empty afterwards; DataError if sizes differ or too many are bad."""
        self.bad.check(len(self.paths))
        labels, classes = _joined(self._labels, self._classes)
        images = _stack(self._pixels)
        skipped, notes = (*self.unread, *self.bad.skipped), (*self.notes, *self.changes.notes())
        return ImageSet(images, name, self.split, tuple(self.paths), skipped, labels, notes, classes)


def _joined(
    labels: Sequence[np.ndarray | None], classes: Sequence[tuple[str, ...]]
) -> tuple[Tensor | None, tuple[str, ...]]:
    """Put class indices of several sources together, by their names if any; None where some are unknown."""
    known = [one for one in labels if one is not None]
    names = tuple(dict.fromkeys(name for some in classes for name in some))
    if len(known) < len(labels) or (names and not all(classes)):
        return None, ()
    places = [np.array([names.index(name) for name in some], np.int64) for some in classes] if names else []
    numbers = [where[one] for where, one in zip(places, known, strict=True)] if names else known
    return torch.from_numpy(np.concatenate(numbers).astype(np.int64)), names


def _stack(pixels: list[Pixels]) -> Tensor:
    """Move images (H, W, C) into one tensor (N, C, H, W); grey is repeated where others have colour."""
    height, width = pixels[0].shape[:2]
    channels = max(image.shape[2] for image in pixels)
    dtype = np.uint8 if all(image.dtype == np.uint8 for image in pixels) else np.float32
    stacked = np.empty((len(pixels), channels, height, width), dtype)
    pixels.reverse()
    for row in stacked:
        image = pixels.pop()  # Each is freed when it is copied: memory is needed once, not twice.
        row[:] = (image if image.dtype == dtype else as_float(image)).transpose(2, 0, 1)
    return torch.from_numpy(stacked)
