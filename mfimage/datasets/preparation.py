"""From the bytes of a file to an image of the size and channels that are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mfimage.datasets.decode import MAX_PIXELS, decode, resize
from mfimage.datasets.pixels import Pixels, ValueRange
from mfimage.errors import DataError, MixedSizesError

# An image file that needs more bytes for each of the allowed pixels than this is no honest one.
BYTES_PER_PIXEL = 8


class Crop(NamedTuple):
    """A square that is cut out of every image of a set, all of one size; in pixels."""

    height: int
    width: int
    top: int
    left: int
    side: int


@dataclass(frozen=True)
class Preparation:
    """How files become images: decoded, cut if the set has a box, scaled to cover `size`, cut to the centre.

    Attributes:
        size: (height, width), one number for both, or None to keep what they have.
        channels: 1 for luma, 3 for colour, None for what each has.
        max_pixels: Larger images are not decoded.
        value_range: Of black and white in files deeper than 8 bits; see `decode`.
        crop: Cut out before anything is scaled.
    """

    size: int | tuple[int, int] | None = None
    channels: int | None = None
    max_pixels: int = MAX_PIXELS
    value_range: ValueRange | None = None
    crop: Crop | None = None

    @property
    def max_bytes(self) -> int:
        """A larger file is not read."""
        return self.max_pixels * BYTES_PER_PIXEL

    def __call__(self, content: Path | bytes, name: str) -> Pixels:
        """Read one image.

        Args:
            content: Of the file, or its path.
            name: What to call it in messages.

        Returns:
            (H, W, C), uint8 or float32 in [0, 1].

        Raises:
            DataError: As in `decode`; or it has not the size that the box belongs to.
        """
        values = decode(
            content, name, channels=self.channels, max_pixels=self.max_pixels, value_range=self.value_range
        )
        if self.crop is not None:
            values = _cut(values, self.crop, name)
        return np.ascontiguousarray(values if self.size is None else resize(values, self.size))


def _cut(values: Pixels, crop: Crop, name: str) -> Pixels:
    if values.shape[:2] != (crop.height, crop.width):
        raise DataError(
            f"{name}: is {values.shape[0]}×{values.shape[1]} (height×width), not {crop.height}×{crop.width} "
            "like the originals; load the folder itself"
        )
    return values[crop.top : crop.top + crop.side, crop.left : crop.left + crop.side]


def check_size(first: tuple[int, ...], first_name: str, shape: tuple[int, ...], name: str) -> None:
    """Raise MixedSizesError unless two images have the same height and width, the first of their shapes."""
    if shape[:2] != first[:2]:
        raise MixedSizesError(
            f"images differ in size: {first_name} is {first[0]}×{first[1]} (height×width), {name} is "
            f"{shape[0]}×{shape[1]}; choose one with size (--size)"
        )
