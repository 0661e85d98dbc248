"""The door for everything that takes data: whatever holds images or vectors becomes a `Dataset`.

- A named set: `fashion-mini`, `fashion-mnist`, `mnist`, `digits`, `cifar10`, `celeba`, `celeba-178`,
  `imagenet`. A folder here that is called like one is taken instead, and the set's notes say so.
- A folder (searched to any depth, links too, in natural order) or .zip of png, jpg, webp, bmp, tiff and gif
  files; a .parquet file or a folder of them, as `mfimage pack` writes.
- An .npy or .npz array (N, H, W) or (N, H, W, C); an .npz file of points (with an array x, see `load_points`)
  or a folder of them, as `mfimage stylegan manifold` writes.
- `hf:NAME[/CONFIG][@REVISION][:SPLIT]`, a data set of Hugging Face: see `datasets.hugging_face`.
- An array (N, H, W) or (N, H, W, C), a tensor (N, H, W) or (N, C, H, W), either of vectors (N, D), a data set
  of PyTorch (whose items are images, or images and labels) or of Hugging Face (with a column of images); a
  `Dataset`. These are taken whole, whatever the split.
- A list of several of these, which are put one after the other in memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

from mfimage.config import Config, Reading
from mfimage.datasets.decode import Preparation
from mfimage.datasets.folders import FOLDERS
from mfimage.datasets.from_python import array_of_images
from mfimage.datasets.hugging_face import is_hub_data, open_hub_data, parse_name
from mfimage.datasets.index import list_inputs
from mfimage.datasets.named import NAMED
from mfimage.datasets.pixels import Size
from mfimage.datasets.points import Points, finite_tensor, holds_points, join_points, load_points
from mfimage.datasets.sets import Dataset, ImageSet
from mfimage.datasets.sources import ImageList, Root, Source, name_of, prefer_folder
from mfimage.datasets.splits import choose, split_name
from mfimage.datasets.stored_set import SAMPLED, StoredSet
from mfimage.datasets.stores import Store
from mfimage.errors import DataError, MixedSizesError, NoSplitError, UsageError
from mfimage.files import user_path
from mfimage.settings import plain, whole_number

Data: TypeAlias = Source | Sequence[Source]

MEMORY = 2 * 1024**3  # bytes; larger sets are read where they lie
PHOTO_SIZE = 64  # pixels; what a first manifold of photographs is learned at
_PHOTOGRAPH = 128  # pixels; larger images are photographs


def load(
    data: Data,
    split: str = "train",
    size: Size | None = None,
    channels: int | None = None,
    *,
    reading: Reading = Reading(),
    limit: int | None = None,
    memory: int | None = MEMORY,
    root: str | Path | None = None,
) -> Dataset:
    """Load images or points, into memory if they fit.

    Args:
        data: A named set, folder, file, array, data set or a list of these: see `mfimage.datasets.loading`.
        split: "train", "valid", "test" or "all". Folders of these names at the top of a source are its
            splits; without them a tenth is held out as "test" (see `splits`).
        size: (height, width) or one number for both, in pixels: images are scaled to cover it and cut to the
            centre. None if all have one size.
        channels: 1 for luma, 3 for colour, None for 3 if any image (in place: of 256) has colour, else 1.
        reading: How files are read, and the share of them (in place: of those read so far) that may be bad.
        limit: Read only the first so many.
        memory: Most bytes, at 8 bits a value, that images may take in memory; more are read in place, if they
            are a folder, zip, shards or data set. None takes all into memory.
        root: Where named sets lie that are not bundled; $MFIMAGE_DATA, else ~/.cache/mfimage, if None.

    Returns:
        An `ImageSet` (uint8 if every source has 8 bits, else float32), a `StoredSet`, or `Points`.

    Raises:
        DataError: A source is not there, holds no images, lacks the split, has too many bad files, values
            out of range, or images of several sizes while no size is given.
        UsageError: An option makes no sense, or asks points or a `Dataset` for what they have not.
    """
    limit, memory = plain((limit, memory))
    if limit is not None:
        whole_number("limit", limit, 1)
    sources, images = _sources(data, split), ImageList(split, size, channels, reading, limit, root)
    for i, (source, said) in enumerate([prefer_folder(one, root) for one in sources]):
        sources[i] = source
        images.notes += said
    if (known := _as_it_is(sources, split, reading)) is not None:
        return _cut(known, images.prepare, limit, memory)
    return _read(sources, images, memory)


def _cut(data: Dataset, asked: Preparation, limit: int | None, memory: int | None) -> Dataset:
    """The first examples of data that are taken as they are; UsageError where something else is asked."""
    channels, sides = asked.channels, asked.sides
    wrong = (channels, sides) != (None, None) and len(data.shape) != 3
    wrong = wrong or channels not in (None, data.shape[0]) or (sides is not None and sides != data.shape[1:])
    if wrong or asked.value_range:
        raise UsageError(
            f"{data.name}: is taken as it is, of shape {data.shape}, without another size, other channels or "
            "a value range"
        )
    data = data if limit is None or limit >= len(data) else data.subset(slice(limit))
    return data if memory is not None else data.in_memory()


def _read(sources: Sequence[Source], images: ImageList, memory: int | None) -> Dataset:
    """Images of all sources in memory, or of the only one where it lies if they do not fit."""
    if len(sources) == 1 and (store := images.open(sources[0])) is not None:
        rows, prepare = images.rows(store), replace(images.prepare, crop=store.crop)
        if memory is not None and not _fits(store, rows, prepare, memory):
            stored = StoredSet.open(store, rows, prepare, images.split, images.bad.max_bad)
            if len(rows) * math.prod(stored.shape) > memory:
                return replace(stored, notes=(*images.notes, *stored.notes))
        images.add_store(store, rows)
    else:
        for source in sources:
            if images.left != 0:
                images.add(source)
    return images.to_set(" + ".join(map(name_of, sources)))


def load_for_training(
    data: Data,
    config: Config,
    reading: Reading = Reading(),
    memory: int | None = MEMORY,
    root: str | Path | None = None,
) -> tuple[Dataset, Config]:
    """Load the training split as `load` does, and settle in the configuration what the data decide.

    Without a size, photographs (images of several sizes, or above 128 pixels) are taken at 64 × 64, and other
    images as they are; the rest as `Config.settled` says.
    """
    if (known := _as_it_is(_sources(data, "train"), "train", reading)) is not None:
        data = known
    elif config.size is None:
        config = replace(config, size=_photo_size(data, config.channels, reading, root))
    size, channels = config.size, config.channels
    try:
        images = load(data, "train", size, channels, reading=reading, memory=memory, root=root)
        return images, config.settled(len(images.shape) == 3)
    except MixedSizesError:  # the first few were alike
        if size is not None:
            raise
        return load_for_training(data, replace(config, size=PHOTO_SIZE), reading, memory, root)


def load_watching(
    data: Data,
    training: Dataset,
    config: Config,
    reading: Reading = Reading(),
    memory: int | None = MEMORY,
    root: str | Path | None = None,
) -> Dataset | None:
    """Load the images that watch the error of a training: the split "valid" of data that have a "test" too.

    `training` is what `load_for_training` loaded, `config` what it settled. None for all other data: where
    there are but two splits, the other is for the test, whatever its name.

    Raises:
        DataError: If these images are not of the kind of those to learn from.
    """
    sources = data if isinstance(data, list | tuple) else [data]
    if any(map(_taken_whole, sources)):
        return None
    size = training.shape[1:] if len(training.shape) == 3 and config.size is not None else None
    channels = training.shape[0] if len(training.shape) == 3 else None
    how: Any = {"size": size, "channels": channels, "root": root}
    try:
        load(data, "test", limit=1, memory=None, reading=replace(reading, max_bad=1.0), **how)
    except NoSplitError:
        return None
    except DataError:  # there it is: reading it will tell
        pass
    try:
        valid = load(data, "valid", reading=reading, memory=memory, **how)
    except NoSplitError:
        return None
    both = training, valid
    kinds = {(one.shape, one.theta is None, one.classes if config.classes else ()) for one in both}
    if len(kinds) > 1:
        raise DataError(
            f"{valid.name}: the splits train and valid are not alike: they have shapes {training.shape} "
            f"and {valid.shape}, classes {list(training.classes)} and {list(valid.classes)}"
        )
    return valid


def _taken_whole(source: Source) -> bool:
    """Whether a source has no splits, and is taken whole whatever the split."""
    if isinstance(source, str) and is_hub_data(source):
        return parse_name(source).split is not None
    return not isinstance(source, str | Path | Mapping)


def _photo_size(data: Data, channels: int | None, reading: Reading, root: Root) -> int | None:
    """The size of photographs, judged by the first few images; None for others."""
    try:
        few = replace(reading, max_bad=1.0)
        shape = load(data, "train", None, channels, reading=few, limit=4, memory=None, root=root).shape
    except MixedSizesError:
        return PHOTO_SIZE
    except DataError:  # none of these few can be read: loading all will tell
        return None
    return PHOTO_SIZE if max(shape[1:]) > _PHOTOGRAPH else None


def typed(data: Data) -> list[str]:
    """Name sources as they are typed on the command line; DATA stands for what only Python can give."""
    sources = data if isinstance(data, list | tuple) else [data]
    return [str(one) if isinstance(one, str | Path) else "DATA" for one in sources]


def load_files(
    inputs: Sequence[str | Path],
    size: Size | None = None,
    channels: int | None = None,
    *,
    reading: Reading = Reading(),
    beyond: float = 0.0,
) -> ImageSet:
    """Load files, folders and glob patterns as they are named, without splits; see `iter_files`, `load`.

    Floats in files may lie `beyond` white and black, see `pixels.unit`.
    """
    (paths, unread), name = list_inputs(inputs), " + ".join(map(str, inputs))
    if not paths:
        raise DataError(f"{name}: no image files here")
    images = ImageList("all", size, channels, reading)
    images.unread += unread
    images.notes += [note for one in inputs for note in prefer_folder(str(one))[1]]
    images.add_files([str(path) for path in paths], beyond)
    return images.to_set(name)


def _sources(data: Data, split: str) -> list[Source]:
    """Sources one by one; of a mapping, such as Hugging Face's DatasetDict, the split."""
    sources: list[Source] = []
    for one in data if isinstance(data, list | tuple) else [data]:
        one = open_hub_data(one) if isinstance(one, str) and is_hub_data(one) else one
        if not isinstance(one, Mapping):
            sources.append(one)
        elif split == "all":
            sources += one.values()
        else:
            named: dict[str, Any] = {split_name(name): items for name, items in one.items()}
            sources.append(choose(named, split, "data set"))
    if not sources:
        raise UsageError("no source of images is given")
    return sources


def _as_it_is(sources: Sequence[Source], split: str, reading: Reading) -> Dataset | None:
    """What needs no preparation: a `Dataset`, or points; None for images, and DataError for both."""
    if len(sources) == 1 and isinstance(sources[0], Dataset):
        return sources[0]
    tables = sum(isinstance(one, np.ndarray | Tensor) and one.ndim == 2 for one in sources)
    if tables and len(sources) > 1:
        raise DataError("a list of tables: put images into one array (N, H, W), and vectors into one (N, D)")
    found = [_points(source, split, reading.verify) for source in sources]
    points = [one for one in found if one is not None]
    if not points:
        return None
    if len(points) < len(sources):
        raise DataError(f"{points[0].name}: points and images cannot be put together")
    name = " + ".join(one.name for one in points)
    return points[0] if len(points) == 1 else join_points(points, name, split)


def _points(source: Source, split: str, verify: bool) -> Points | None:
    if isinstance(source, Points):
        return source
    if isinstance(source, np.ndarray | Tensor) and source.ndim == 2:
        array = array_of_images(source)
        return Points(finite_tensor(array, "x", len(array), name_of(source)), name_of(source), split=split)
    if not isinstance(source, str | Path) or source in NAMED or source in FOLDERS:
        return None
    path = user_path(source)
    return load_points(path, split, verify) if holds_points(path) else None


def _fits(store: Store, rows: Sequence[int], prepare: Preparation, memory: int) -> bool:
    """Whether images in colour, of the size asked for or of the first that can be read, fit into memory."""
    if prepare.sides is not None:
        return len(rows) * 3 * math.prod(prepare.sides) <= memory
    for row in map(int, rows[:SAMPLED]):
        with suppress(DataError):
            return len(rows) * 3 * math.prod(store.image(row, prepare).shape[:2]) <= memory
    return len(rows) <= SAMPLED
