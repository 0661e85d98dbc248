"""Images from folders, shards, zips, arrays and named sets: into memory, or read when they are wanted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mfimage.config import Reading
from mfimage.datasets.decode import Preparation
from mfimage.datasets.folders import FOLDERS
from mfimage.datasets.listing import iter_files, list_zip, open_zip, read_arrays, read_member
from mfimage.datasets.named import NAMED, read_named
from mfimage.datasets.parts import (
    Part,
    check_array,
    check_bad,
    from_array,
    from_files,
    from_store,
    joined_labels,
    stack,
    taken,
)
from mfimage.datasets.sets import ImageSet
from mfimage.datasets.shards import Shards, shard_files
from mfimage.datasets.splits import choose, split_indices, split_paths
from mfimage.datasets.stored import StoredSet
from mfimage.datasets.stores import FolderStore, Store
from mfimage.errors import DataError, UsageError

Source = str | Path

MEMORY = 2 * 1024**3  # bytes; larger sets are trained on where they lie


def load(
    source: Source | Sequence[Source],
    split: str = "train",
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    *,
    reading: Reading = Reading(),
    limit: int | None = None,
    root: Source | None = None,
) -> ImageSet:
    """Load images into memory.

    Args:
        source: A named set (`fashion-mini`, `fashion-mnist`, `mnist`, `digits`, `cifar10`, `celeba`,
            `celeba-178`, `imagenet`); a folder (searched to any depth, in natural order) or .zip of png, jpg,
            webp, bmp, tiff and gif files; a .parquet file or a folder of them, as `mfimage pack` writes; an
            .npy or .npz array (N, H, W) or (N, H, W, C); or a list of several of these, which are put one
            after the other. A folder called like a named set is reached as `./name`.
        split: "train", "valid", "test" or "all". Folders of these names at the top of a source are its
            splits; without them a tenth is held out as "test" (see `splits`).
        size: (height, width) or one number for both, in pixels: larger and smaller images are scaled to
            cover it and cut to the centre. None if all images have one size.
        channels: 1 for luma, 3 for colour, None for 3 if any image has colour and else 1.
        reading: How files are read, and how many may be bad.
        limit: Read only the first so many images.
        root: Where named sets lie that are not bundled; $MFIMAGE_DATA, else ~/.cache/mfimage, if None.

    Returns:
        The images in one tensor: uint8 if every source has 8 bits, else float32.

    Raises:
        DataError: A source does not exist, holds no images or lacks the split; too many files are bad; an
            array holds values out of range; or the images have several sizes and no size is given.
        UsageError: A size, channel count, limit or range makes no sense.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"limit {limit}: must be at least 1")
    sources = [source] if isinstance(source, (str, Path)) else list(source)
    if not sources:
        raise UsageError("no source of images is given")
    prepare = Preparation(size, channels, reading.max_pixels, reading.value_range)
    parts: list[Part] = []
    for one in sources:
        left = None if limit is None else limit - sum(len(part.paths) + len(part.skipped) for part in parts)
        if left != 0:
            parts.append(_read(one, split, prepare, left, root))
    skipped = tuple(bad for part in parts for bad in part.skipped)
    paths = tuple(path for part in parts for path in part.paths)
    check_bad(skipped, len(paths), reading.max_bad)
    images = stack(taken(parts), paths)
    return ImageSet(images, " + ".join(map(str, sources)), split, paths, skipped, joined_labels(parts))


def open_images(
    source: Source | Sequence[Source],
    split: str = "train",
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    *,
    memory: int = MEMORY,
    reading: Reading = Reading(),
    root: Source | None = None,
) -> ImageSet | StoredSet:
    """Load images into memory if they fit, else open them where they lie.

    Args:
        source: As of `load`; zips, arrays and several sources always go into memory.
        split: As of `load`.
        size: As of `load`.
        channels: As of `load`; for a stored set None looks at a sample of 256 images.
        memory: Most bytes, at 8 bits a value, that a folder's or shards' images may take in memory.
        reading: As of `load`; of a stored set max_bad is the share of what has been read.
        root: As of `load`.

    Raises:
        DataError: As of `load`, as far as a sample of 256 images tells.
        UsageError: As of `load`.
    """
    sources = [source] if isinstance(source, (str, Path)) else list(source)
    store = open_store(sources[0], root) if len(sources) == 1 else None
    if store is not None:
        rows = choose(store.divided, split, store.name)
        sides = (size, size) if isinstance(size, int) else size
        if sides is None or len(rows) * 3 * math.prod(sides) > memory:
            prepare = Preparation(size, channels, reading.max_pixels, reading.value_range, store.crop)
            stored = StoredSet.open(store, rows, prepare, split, reading.max_bad)
            if stored.nbytes > memory:
                return stored
    return load(source, split, size, channels, reading=reading, root=root)


def load_files(
    inputs: Sequence[Source],
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    *,
    reading: Reading = Reading(),
) -> ImageSet:
    """Load files, folders and glob patterns as they are named, without splits; see `iter_files`, `load`.

    Raises:
        DataError: An input matches nothing, too many files are bad, or sizes differ and no size is given.
    """
    paths = [str(path) for path in iter_files(inputs)]
    if not paths:
        raise DataError(f"{', '.join(map(str, inputs))}: no image files here")
    part = from_files(paths, "", Path, Preparation(size, channels, reading.max_pixels, reading.value_range))
    check_bad(part.skipped, len(part.paths), reading.max_bad)
    images = stack(taken([part]), part.paths)
    return ImageSet(images, " + ".join(map(str, inputs)), "all", tuple(part.paths), tuple(part.skipped))


def open_store(source: Source, root: Source | None = None) -> Store | None:
    """A folder, Parquet shards or a named set of photographs, to be read one image at a time.

    Args:
        source: As of `load`.
        root: Where named sets lie; $MFIMAGE_DATA if None.

    Returns:
        None for what is not of these kinds: zips, arrays, named sets of arrays, and what does not exist.

    Raises:
        DataError: There are no images in it, or it cannot be read.
    """
    if isinstance(source, str) and source in FOLDERS:
        return FOLDERS[source](root)
    if isinstance(source, str) and source in NAMED:
        return None
    path = Path(source).expanduser()
    if path.is_dir():
        files = shard_files(path)
        return Shards(files, str(path)) if files else FolderStore.open(path)
    return Shards([path], str(path)) if path.suffix.lower() == ".parquet" and path.is_file() else None


def _read(source: Source, split: str, prepare: Preparation, limit: int | None, root: Source | None) -> Part:
    if isinstance(source, str) and source in NAMED:
        known, classes = read_named(source, split, root)
        return from_array(known, classes, list(range(len(known)))[:limit], f"{source}/{split}", prepare)
    if store := open_store(source, root):
        rows = choose(store.divided, split, store.name)[:limit]
        return from_store(store, rows, replace(prepare, crop=store.crop))
    path = Path(source).expanduser()
    name = str(path)
    if not path.exists():
        known_names = ", ".join((*NAMED, *FOLDERS))
        raise DataError(f"{source}: no such file or folder, and no named set ({known_names})")
    if path.suffix.lower() == ".zip":
        with open_zip(path) as archive:
            chosen = split_paths(list_zip(archive), split, name)[:limit]
            return from_files(
                chosen, f"{name}/", lambda member: read_member(archive, member, prepare.max_bytes), prepare
            )
    if path.suffix.lower() in (".npy", ".npz"):
        images, labels = read_arrays(path)
        check_array(images, labels, name)
        return from_array(images, labels, split_indices(len(images), split, name)[:limit], name, prepare)
    raise DataError(f"{source}: is neither a folder nor a .zip, .npy, .npz or .parquet file")
