"""Which files `mfimage denoise` reads: the images, their mask, and the clean ones they are compared with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mfimage import config
from mfimage.datasets import Skipped, load_files
from mfimage.datasets.decode import decode
from mfimage.datasets.pixels import Pixels, resize
from mfimage.errors import DataError, MixedSizesError


@dataclass(frozen=True)
class Reading:
    """How files are read.

    Attributes:
        channels: Of the model.
        size: Height and width that images must have; with `tiled`, at least.
        scaled: Whether images of other sizes are scaled and cropped to it.
        tiled: Whether images may be larger; they then come one by one.
        max_bad: Largest share of bad files that is skipped.
        max_pixels: Larger images are not decoded and count as bad.
        value_range: Values of black and white in files deeper than 8 bits.
    """

    channels: int
    size: tuple[int, int]
    scaled: bool = False
    tiled: bool = False
    max_bad: float = 0.05
    max_pixels: int = 64_000_000
    value_range: tuple[float, float] | None = None

    def batches(
        self, paths: Sequence[str], skipped: list[Skipped]
    ) -> Iterator[tuple[Tensor, tuple[str, ...]]]:
        """Read images, (B, C, H, W) float32 in [0, 1], with their paths; bad ones are added to `skipped`.

        Raises:
            DataError: Images are of another size, or too many are bad (for tiled ones, that is told last).
        """
        if self.tiled:
            yield from self._one_by_one(paths, skipped)
            return
        height, width = self.size
        try:
            files = load_files(
                paths, self.size if self.scaled else None, self.channels,
                reading=config.Reading(self.max_bad, self.max_pixels, self.value_range),
            )  # fmt: skip
        except MixedSizesError as error:
            raise DataError(
                f"the inputs differ in size, the model takes {height} × {width}: --resize, or --tile"
            ) from error
        skipped.extend(files.skipped)
        if files.shape[1:] != self.size:
            raise DataError(
                f"{files.paths[0]}: {files.shape[1]} × {files.shape[2]} pixels, but the model takes "
                f"{height} × {width}: --resize scales and crops, --tile treats large images in parts"
            )
        yield files.batch(slice(None)), files.paths

    def _one_by_one(
        self, paths: Sequence[str], skipped: list[Skipped]
    ) -> Iterator[tuple[Tensor, tuple[str, ...]]]:
        good = 0
        for path in paths:
            try:
                image = self._tensor(self._decoded(path))[None]
            except DataError as error:
                skipped.append(Skipped(path, str(error).removeprefix(f"{path}: ")))
                continue
            good += 1
            yield image, (path,)
        if not good or len(skipped) > self.max_bad * len(paths):
            raise DataError(
                f"{len(skipped)} of {len(paths)} files cannot be used, more than the share of "
                f"{self.max_bad:g} that is skipped; the first: {skipped[0].path}: {skipped[0].reason}"
            )

    def clean(self, paths: Sequence[Path], size: tuple[int, int]) -> Tensor:
        """Read the clean images (B, C, H, W) of results of a size; DataError if theirs is another."""
        images = [self._decoded(str(path)) for path in paths]
        if self.scaled:
            images = [resize(image, size) for image in images]
        for path, image in zip(paths, images, strict=True):
            if image.shape[:2] != size:
                raise DataError(
                    f"{path}: {image.shape[0]} × {image.shape[1]} pixels, but the result has "
                    f"{size[0]} × {size[1]}"
                )
        return torch.stack([self._tensor(image) for image in images])

    def mask(self, path: Path) -> Tensor:
        """Read a mask as an image reads it: (H, W), bool, True where it is white, or more than half so."""
        values = decode(path, str(path), channels=1, max_pixels=self.max_pixels)
        if self.scaled:
            values = resize(values, self.size)
        if not self.tiled and values.shape[:2] != self.size:
            raise DataError(
                f"{path}: a mask of {values.shape[0]} × {values.shape[1]} pixels, but the model takes "
                f"{self.size[0]} × {self.size[1]}"
            )
        return self._tensor(values)[0] > 0.5

    def _decoded(self, path: str) -> Pixels:
        return decode(
            path, path, channels=self.channels, max_pixels=self.max_pixels, value_range=self.value_range
        )

    def _tensor(self, values: Pixels) -> Tensor:
        image = torch.from_numpy(np.moveaxis(values, -1, 0).copy())  # Pillow's are not writable
        return image.float() / 255 if image.dtype == torch.uint8 else image


def find_clean(folder: Path, paths: Sequence[str]) -> list[Path]:
    """Find the clean image of each path: the file of the same name, or the only one of the same stem.

    Raises:
        DataError: There is none for a path, or there are several.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of clean images")
    by_stem: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()):
        by_stem.setdefault(file.stem, []).append(file)
    found = []
    for path in map(Path, paths):
        alike = by_stem.get(path.stem, [])
        same = [file for file in alike if file.name == path.name] or alike
        if len(same) != 1:
            raise DataError(f"{folder}: holds {len(same) or 'no'} clean images of the name of {path}")
        found.append(same[0])
    return found


def named(paths: Sequence[str], taken: set[str]) -> list[str]:
    """Name the results of paths by their stems, numbered where one is taken, which all of them then are."""
    names = []
    for path in paths:
        name, number = Path(path).stem, 1
        while name in taken:
            number += 1
            name = f"{Path(path).stem}-{number}"
        taken.add(name)
        names.append(name)
    return names
