"""Files of `mfimage denoise`: the images and masks that it reads, the table and the sheet that it writes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from mfimage.config import Reading
from mfimage.datasets import load_files
from mfimage.datasets.changes import Changes
from mfimage.datasets.convert import kind_of
from mfimage.datasets.decode import Preparation, open_picture, picture_white
from mfimage.datasets.formats import is_deep
from mfimage.datasets.listing import scan_folder
from mfimage.datasets.pixels import with_channels
from mfimage.datasets.sets import BadFiles
from mfimage.errors import DataError, MixedSizesError, Skipped
from mfimage.files import user_path
from mfimage.inputs import BEYOND

Batches: TypeAlias = Iterator[tuple[Tensor, tuple[str, ...]]]  # images with their paths

EIGHT_BITS = 255.0  # white of such files
AT_ONCE = 32  # images that are read and restored before progress is told, and the results are written


@dataclass(frozen=True)
class FileReader:
    """Read the images that are to be restored, the clean ones to compare with, and a mask."""

    channels: int  # of the model
    size: tuple[int, int]  # height and width that images must have; with `tiled`, at least
    reading: Reading = Reading()  # what counts as bad, and how deep files are read
    scaled: bool = False  # whether images of other sizes are scaled and cropped to it
    tiled: bool = False  # whether images may be larger; they then come one by one
    notes: list[str] = field(default_factory=list)  # what a user should know of what was read
    enlarged: bool = False  # whether they will be enlarged, which is not done in tiles
    beyond: float = BEYOND  # how far noise may carry floats outside [0, 1]

    def batches(self, paths: Sequence[str], skipped: list[Skipped], mask: Tensor | None = None) -> Batches:
        """Read images, (B, C, H, W) float32 in [0, 1], with their paths; bad ones are added to `skipped`.

        With `tiled` an image that is too small, or has not the size of the mask (H, W), is a bad one.
        """
        if self.tiled:
            yield from self._one_by_one(paths, skipped, mask)
            return
        tile = "" if self.enlarged else ", --tile treats large images in parts"
        hint = f": --resize scales and crops{tile}"
        if not self.scaled:
            self._require_alike(paths, hint)
        try:
            size = self.size if self.scaled else None
            files = load_files(paths, size, self.channels, reading=self.reading, beyond=self.beyond)
        except MixedSizesError as error:
            height, width = self.size
            tile = "" if self.enlarged else ", or --tile"
            raise DataError(
                f"the inputs differ in size, the model takes {height} × {width}: --resize{tile}"
            ) from error
        skipped.extend(files.skipped)
        self.notes.extend(files.notes)
        _require_size(f"{files.paths[0]}:", files.shape, self.size, "the model takes", hint)
        for part in _parts(len(files)):
            yield files.batch(part), files.paths[part]

    def _require_alike(self, paths: Sequence[str], hint: str) -> None:
        """Refuse what is all of another size by the first two, and not when memory is full of the others."""
        first = list(islice(sizes(paths, self.reading.max_pixels), 2))
        if len({size for _, size in first}) == 1 and sorted(first[0][1]) != sorted(self.size):
            _require_size(f"{first[0][0]}:", first[0][1], self.size, "the model takes", hint)

    def _one_by_one(self, paths: Sequence[str], skipped: list[Skipped], mask: Tensor | None) -> Batches:
        bad, good, changes = BadFiles(self.reading.max_bad), 0, Changes()
        for path in paths:
            try:
                image = _read(path, self._preparation(None), changes, self.beyond)
                self._check_tiled(path, image, mask)
            except DataError as error:
                skipped.append(bad.add(path, error))
            else:
                good += 1
                yield image[None], (path,)
        bad.check(good)
        self.notes.extend(changes.notes())

    def _check_tiled(self, path: str, image: Tensor, mask: Tensor | None) -> None:
        above, across = image.shape[1:]
        height, width = self.size
        if above < height or across < width:
            least = f"less than a tile of {height} × {width}"
            raise DataError(f"{path}: {above} × {across} pixels are {least}; --resize scales it")
        if mask is not None and mask.shape != image.shape[1:]:
            raise DataError(
                f"{path}: {above} × {across} pixels, but the mask has {mask.shape[0]} × {mask.shape[1]}"
            )

    def clean(self, paths: Sequence[Path], size: tuple[int, int]) -> Tensor:
        """Read the clean images (B, C, H, W) of results of a size; DataError if theirs is another."""
        images = [_read(path, self._preparation(size)) for path in paths]
        for path, image in zip(paths, images, strict=True):
            _require_size(f"{path}:", image.shape, size, "the result has")
        return torch.stack(images)

    def mask(self, path: Path) -> Tensor:
        """Read a mask as an image reads it: (H, W), bool, True where it is white, or more than half so."""
        mask = _read(path, replace(self._preparation(self.size), channels=1, value_range=None))[0]
        if not self.tiled:
            _require_size(f"{path}: a mask of", mask.shape, self.size, "the model takes")
        return mask > 0.5

    def _preparation(self, size: tuple[int, int] | None) -> Preparation:
        scaled = size if self.scaled else None
        return Preparation(scaled, self.channels, self.reading.max_pixels, self.reading.value_range)


def _parts(count: int) -> list[slice]:
    """Divide images into batches of `AT_ONCE`; the last takes what is over, up to a quarter of that."""
    starts = range(0, max(1, count - AT_ONCE // 4), AT_ONCE)
    return [slice(begin, end) for begin, end in zip(starts, [*starts[1:], count], strict=True)]


def sizes(paths: Sequence[str], max_pixels: int) -> Iterator[tuple[str, tuple[int, int]]]:
    """Give height and width of images as they lie, by their headers; of bad ones nothing."""
    for path in paths:
        with suppress(DataError), open_picture(path, path, max_pixels) as picture:
            yield path, (picture.height, picture.width)


@dataclass(frozen=True)
class FileKind:
    """What a result keeps of its file, or cannot."""

    white: float = EIGHT_BITS  # the value of white
    grey: bool = False  # whether it has no colour; of palettes and of files that are gone this is not asked
    clear: bool = False  # whether it may be transparent, which results are not

    @property
    def deep(self) -> bool:
        """Whether it holds more than 8 bits a channel, and so its result too."""
        return self.white != EIGHT_BITS

    def picture(self, result: Tensor) -> Tensor:
        """Make a result (C, H, W) grey where the file is."""
        if not self.grey or len(result) == 1:
            return result
        return torch.from_numpy(with_channels(result.movedim(0, -1).numpy(), 1).copy()).movedim(-1, 0)


def kinds_of(paths: Sequence[str]) -> list[FileKind]:
    """Look at the headers of files; one that is gone since, or damaged, counts as 8 bits."""
    kinds = []
    for path in paths:
        kind = FileKind()
        with suppress(DataError), open_picture(path, path) as picture:
            white = 65535.0 if is_deep(picture) else picture_white(picture, path)
            known = kind_of(picture)
            kind = FileKind(white, not known.colour, known.clear)
        kinds.append(kind)
    return kinds


def _read(
    path: str | Path, prepare: Preparation, changes: Changes | None = None, beyond: float = 0.0
) -> Tensor:
    """Read a file as (C, H, W) float32 in [0, 1]."""
    values = np.moveaxis(prepare(Path(path), str(path), changes, beyond), -1, 0)
    image = torch.from_numpy(values.copy())  # Pillow's are not writable
    return image.float() / 255 if image.dtype == torch.uint8 else image


def _require_size(
    what: str, shape: tuple[int, ...], size: tuple[int, int], wanted: str, hint: str = ""
) -> None:
    if tuple(shape[-2:]) != size:
        raise DataError(f"{what} {shape[-2]} × {shape[-1]} pixels, but {wanted} {size[0]} × {size[1]}{hint}")


def find_clean(folder: Path, paths: Sequence[str], inputs: Sequence[str]) -> list[Path]:
    """Find the clean image of each path, by its place in the folder that was given, whatever its suffix.

    Where there is none, the folders before its name may be left out, one after the other. The paths come from
    the inputs, folders and files; of files the given folder is the one around all of them.

    Raises:
        DataError: There is none, there are several, it is the path itself, or two paths have the same one.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of clean images")
    by_name: dict[str, list[Path]] = {}
    for file in scan_folder(folder).files:
        by_name.setdefault(os.path.splitext(file.path)[0], []).append(folder / file.path)
    found, owners = list[Path](), dict[Path, str]()
    for path, name in zip(paths, _names_within(paths, inputs), strict=True):
        parts = os.path.splitext(name)[0].split("/")
        keys = ("/".join(parts[i:]) for i in range(len(parts)))
        alike = next((by_name[key] for key in keys if key in by_name), [])
        same = [file for file in alike if file.name == Path(path).name] or alike
        if len(same) != 1:
            raise DataError(f"{folder}: holds {len(same) or 'no'} clean images of the name of {path}")
        if same[0].samefile(path):
            raise DataError(
                f"{folder}: its {same[0].name} is the image that is to be denoised, not a clean one"
            )
        if (other := owners.setdefault(same[0], path)) != path:
            raise DataError(
                f"{same[0]}: would be the clean image of both {other} and {path}: put the clean images into "
                "folders like those of the noisy ones, or denoise one folder after the other"
            )
        found.append(same[0])
    return found


def _names_within(paths: Sequence[str], inputs: Sequence[str]) -> list[str]:
    """The path of each file in the folder that was given, or in the one around all files that were given."""
    full = [os.path.abspath(path) for path in paths]
    folders = tuple(os.path.join(os.path.abspath(one), "") for one in map(user_path, inputs) if one.is_dir())
    loose = [os.path.dirname(path) for path in full if not path.startswith(folders)]
    around = os.path.join(os.path.commonpath(loose), "") if loose else ""
    places = [next((one for one in folders if path.startswith(one)), around) for path in full]
    return [path.removeprefix(place) for path, place in zip(full, places, strict=True)]
