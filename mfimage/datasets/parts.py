"""What the sources of one set give, put together in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from mfimage.datasets.decode import Preparation
from mfimage.datasets.pixels import Pixels, as_float, check_size, over_white, resize, unit, with_channels
from mfimage.datasets.prefetch import ahead
from mfimage.datasets.sets import Skipped
from mfimage.datasets.stores import Store
from mfimage.errors import DataError

_CHUNK = 16  # files a thread takes at once

Key = TypeVar("Key", str, int)


@dataclass
class Part:
    """What one source gave: images (H, W, C), not yet of one size."""

    pixels: list[Pixels] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    labels: np.ndarray | None = None


def from_array(
    images: Pixels, labels: np.ndarray | None, chosen: list[int], name: str, prepare: Preparation
) -> Part:
    """Take rows of an array (N, H, W) or (N, H, W, C)."""
    values = unit(np.asarray(images[chosen]), name, prepare.value_range)
    values = values[..., None] if values.ndim == 3 else values
    values = over_white(values) if values.shape[-1] in (2, 4) else values
    values = with_channels(values, prepare.channels)
    resized = [image if prepare.size is None else resize(image, prepare.size) for image in values]
    return Part(resized, [f"{name}[{i}]" for i in chosen], [], None if labels is None else labels[chosen])


def check_array(images: Pixels, labels: np.ndarray | None, name: str) -> None:
    """Raise DataError for arrays that hold no images, or labels that do not belong to them."""
    if not (images.ndim == 3 or (images.ndim == 4 and images.shape[-1] in (1, 2, 3, 4))):
        raise DataError(f"{name}: an array of shape {images.shape} is not (N, H, W) or (N, H, W, C ≤ 4)")
    if images.size == 0:
        raise DataError(f"{name}: holds no images (shape {images.shape})")
    if labels is not None and labels.shape != images.shape[:1]:
        raise DataError(f"{name}: {labels.shape} labels do not match {len(images)} images")
    if labels is not None and labels.dtype.kind not in "iu":
        raise DataError(f"{name}: labels are {labels.dtype}, not integers")


def from_store(store: Store, chosen: Sequence[int], prepare: Preparation) -> Part:
    """Take rows of a store, with their labels where it knows them."""
    rows = list(map(int, chosen))
    part, kept = _read(rows, store.path, lambda row: store.content(row, prepare.max_bytes), prepare)
    part.labels = store.labels(np.array(kept, np.int64))
    return part


def from_files(
    chosen: Sequence[str], prefix: str, read: Callable[[str], Path | bytes], prepare: Preparation
) -> Part:
    """Take files; `prefix` and a name are the path in messages, `read` gives what is decoded."""
    return _read(chosen, lambda name: prefix + name, read, prepare)[0]


def _read(
    keys: Sequence[Key],
    path_of: Callable[[Key], str],
    read: Callable[[Key], Path | bytes],
    prepare: Preparation,
) -> tuple[Part, list[Key]]:
    """Read images in threads; what cannot be read is noted. Returns also the keys of the others."""

    def work(some: Sequence[Key]) -> list[Pixels | Skipped]:
        return [one(key) for key in some]

    def one(key: Key) -> Pixels | Skipped:
        path = path_of(key)
        try:
            return prepare(read(key), path)
        except DataError as error:
            return Skipped(path, str(error).removeprefix(f"{path}: "))

    part, kept = Part(), []
    chunks = [keys[begin : begin + _CHUNK] for begin in range(0, len(keys), _CHUNK)]
    for some, results in zip(chunks, ahead(work, chunks), strict=True):
        for key, result in zip(some, results, strict=True):
            if isinstance(result, Skipped):
                part.skipped.append(result)
            else:
                part.pixels.append(result)
                part.paths.append(path_of(key))
                kept.append(key)
    return part, kept


def check_bad(skipped: Sequence[Skipped], good: int, max_bad: float) -> None:
    """Raise DataError if more than a share of the files is bad, or none is good."""
    if good and len(skipped) <= max_bad * (good + len(skipped)):
        return
    first = "".join(f"\n  {bad.path}: {bad.reason}" for bad in skipped[:5])
    raise DataError(
        f"{len(skipped)} of {good + len(skipped)} files cannot be used, more than the share of {max_bad:g} "
        f"that is skipped; the first:{first}"
    )


def taken(parts: Sequence[Part]) -> list[Pixels]:
    """All images, which the parts no longer hold."""
    pixels = [image for part in parts for image in part.pixels]
    for part in parts:
        part.pixels.clear()
    return pixels


def stack(pixels: list[Pixels], paths: Sequence[str]) -> Tensor:
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


def joined_labels(parts: Sequence[Part]) -> Tensor | None:
    """The labels of all, None if some have none."""
    labels = [part.labels for part in parts if part.labels is not None]
    if len(labels) < len(parts):
        return None
    return torch.from_numpy(np.concatenate(labels).astype(np.int64))
