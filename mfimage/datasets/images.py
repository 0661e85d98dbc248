"""Load images from folders, zips, arrays and named sets into memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mfimage.datasets.decode import MAX_PIXELS, decode, resize
from mfimage.datasets.imageset import ImageSet, Skipped
from mfimage.datasets.named import NAMED
from mfimage.datasets.pixels import Pixels, ValueRange, over_white, unit, with_channels
from mfimage.datasets.sources import iter_files, list_folder, list_zip, open_zip, read_arrays, read_member
from mfimage.datasets.splits import split_indices, split_paths
from mfimage.errors import DataError, MixedSizesError, UsageError

Source = str | Path

# An image file that needs more bytes for each of the allowed pixels than this is no honest one.
_BYTES_PER_PIXEL = 8


@dataclass(frozen=True)
class _How:
    """What `load` was asked for, but for the sources."""

    split: str
    size: int | tuple[int, int] | None
    channels: int | None
    max_pixels: int
    value_range: ValueRange | None


@dataclass
class _Part:
    """What one source gave: images (H, W, C), not yet of one size."""

    pixels: list[Pixels]
    paths: list[str]
    skipped: list[Skipped]
    labels: np.ndarray | None = None


def load(
    source: Source | Sequence[Source],
    split: str = "train",
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
    max_bad: float = 0.05,
    value_range: ValueRange | None = None,
    limit: int | None = None,
) -> ImageSet:
    """Load images into memory.

    Args:
        source: A named set (`fashion-mini`, `fashion-mnist`, `digits`); a folder (searched to any depth, in
            natural order) or .zip of png, jpg, webp, bmp, tiff and gif files; an .npy or .npz array (N, H, W)
            or (N, H, W, C); or a list of several of these, which are put one after the other. A folder
            called like a named set is reached as `./name`.
        split: "train", "valid", "test" or "all". Folders of these names at the top of a source are its
            splits; without them a tenth is held out as "test" (see `splits`).
        size: (height, width) or one number for both, in pixels: larger and smaller images are scaled to
            cover it and cut to the centre. None if all images have one size.
        channels: 1 for luma, 3 for colour, None for 3 if any image has colour and else 1.
        max_pixels: Larger images are not decoded and count as bad.
        max_bad: Largest share of bad files, in [0, 1], that is skipped rather than an error.
        value_range: Values of black and white in arrays, and in image files deeper than 8 bits. Without it
            integers scale by their type's maximum and floats must lie in [0, 1].
        limit: Read only the first so many images.

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
    how = _How(split, size, channels, max_pixels, value_range)
    parts: list[_Part] = []
    for one in sources:
        left = None if limit is None else limit - sum(len(part.paths) + len(part.skipped) for part in parts)
        if left != 0:
            parts.append(_read(one, how, left))
    skipped = tuple(bad for part in parts for bad in part.skipped)
    paths = tuple(path for part in parts for path in part.paths)
    _check_bad(skipped, len(paths), max_bad)
    images = _stack(_taken(parts), paths)
    return ImageSet(images, " + ".join(map(str, sources)), split, paths, skipped, _labels(parts))


def load_files(
    inputs: Sequence[Source],
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
    max_bad: float = 0.05,
    value_range: ValueRange | None = None,
) -> ImageSet:
    """Load files, folders and glob patterns as they are named, without splits; see `iter_files`, `load`.

    Raises:
        DataError: An input matches nothing, too many files are bad, or sizes differ and no size is given.
    """
    paths = [str(path) for path in iter_files(inputs)]
    if not paths:
        raise DataError(f"{', '.join(map(str, inputs))}: no image files here")
    part = _from_files(paths, "", Path, _How("all", size, channels, max_pixels, value_range))
    _check_bad(part.skipped, len(part.paths), max_bad)
    images = _stack(_taken([part]), part.paths)
    return ImageSet(images, " + ".join(map(str, inputs)), "all", tuple(part.paths), tuple(part.skipped))


def _read(source: Source, how: _How, limit: int | None) -> _Part:
    if isinstance(source, str) and source in NAMED:
        known, classes = NAMED[source](how.split)
        return _from_array(known, classes, list(range(len(known)))[:limit], f"{source}/{how.split}", how)
    path = Path(source).expanduser()
    name = str(path)
    if path.is_dir():
        chosen = split_paths(list_folder(path), how.split, name)[:limit]
        return _from_files(chosen, f"{name}/", lambda relative: path / relative, how)
    if not path.exists():
        raise DataError(f"{source}: no such file or folder, and no named set ({', '.join(NAMED)})")
    if path.suffix.lower() == ".zip":
        with open_zip(path) as archive:
            chosen = split_paths(list_zip(archive), how.split, name)[:limit]
            most = how.max_pixels * _BYTES_PER_PIXEL
            return _from_files(chosen, f"{name}/", lambda member: read_member(archive, member, most), how)
    if path.suffix.lower() in (".npy", ".npz"):
        images, labels = read_arrays(path)
        _check_array(images, labels, name)
        return _from_array(images, labels, split_indices(len(images), how.split, name)[:limit], name, how)
    raise DataError(f"{source}: is neither a folder nor a .zip, .npy or .npz file")


def _check_array(images: Pixels, labels: np.ndarray | None, name: str) -> None:
    if not (images.ndim == 3 or (images.ndim == 4 and images.shape[-1] in (1, 2, 3, 4))):
        raise DataError(f"{name}: an array of shape {images.shape} is not (N, H, W) or (N, H, W, C ≤ 4)")
    if images.size == 0:
        raise DataError(f"{name}: holds no images (shape {images.shape})")
    if labels is not None and labels.shape != images.shape[:1]:
        raise DataError(f"{name}: {labels.shape} labels do not match {len(images)} images")
    if labels is not None and labels.dtype.kind not in "iu":
        raise DataError(f"{name}: labels are {labels.dtype}, not integers")


def _from_array(images: Pixels, labels: np.ndarray | None, chosen: list[int], name: str, how: _How) -> _Part:
    values = unit(np.asarray(images[chosen]), name, how.value_range)
    values = values[..., None] if values.ndim == 3 else values
    values = over_white(values) if values.shape[-1] in (2, 4) else values
    values = with_channels(values, how.channels)
    resized = [image if how.size is None else resize(image, how.size) for image in values]
    return _Part(resized, [f"{name}[{i}]" for i in chosen], [], None if labels is None else labels[chosen])


def _from_files(chosen: Sequence[str], prefix: str, read: Callable[[str], Path | bytes], how: _How) -> _Part:
    def work(relative: str) -> Pixels | Skipped:
        path = prefix + relative
        try:
            content = read(relative)
            values = decode(
                content, path, channels=how.channels, max_pixels=how.max_pixels, value_range=how.value_range
            )
        except DataError as error:
            return Skipped(path, str(error).removeprefix(f"{path}: "))
        return np.ascontiguousarray(values if how.size is None else resize(values, how.size))

    part = _Part([], [], [])
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # Pillow frees the GIL while it decodes.
        for relative, result in zip(chosen, pool.map(work, chosen), strict=True):
            if isinstance(result, Skipped):
                part.skipped.append(result)
            else:
                part.pixels.append(result)
                part.paths.append(prefix + relative)
    return part


def _check_bad(skipped: Sequence[Skipped], good: int, max_bad: float) -> None:
    if good and len(skipped) <= max_bad * (good + len(skipped)):
        return
    first = "".join(f"\n  {bad.path}: {bad.reason}" for bad in skipped[:5])
    raise DataError(
        f"{len(skipped)} of {good + len(skipped)} files cannot be used, more than the share of {max_bad:g} "
        f"that is skipped; the first:{first}"
    )


def _taken(parts: Sequence[_Part]) -> list[Pixels]:
    """All images, which the parts no longer hold."""
    pixels = [image for part in parts for image in part.pixels]
    for part in parts:
        part.pixels.clear()
    return pixels


def _stack(pixels: list[Pixels], paths: Sequence[str]) -> Tensor:
    """Move images (H, W, C) into one tensor (N, C, H, W); grey is repeated where others have colour."""
    height, width = pixels[0].shape[:2]
    for image, path in zip(pixels, paths, strict=True):
        if image.shape[:2] != (height, width):
            raise MixedSizesError(
                f"images differ in size: {paths[0]} is {height}×{width} (height×width), {path} is "
                f"{image.shape[0]}×{image.shape[1]}; choose one with size (--size)"
            )
    channels = max(image.shape[2] for image in pixels)
    dtype = np.uint8 if all(image.dtype == np.uint8 for image in pixels) else np.float32
    stacked = np.empty((len(pixels), channels, height, width), dtype)
    pixels.reverse()
    for row in stacked:
        image = pixels.pop()  # Each is freed when it is copied: memory is needed once, not twice.
        row[:] = (image if image.dtype == dtype else image.astype(np.float32) / 255).transpose(2, 0, 1)
    return torch.from_numpy(stacked)


def _labels(parts: Sequence[_Part]) -> Tensor | None:
    labels = [part.labels for part in parts if part.labels is not None]
    if len(labels) < len(parts):
        return None
    return torch.from_numpy(np.concatenate(labels).astype(np.int64))
