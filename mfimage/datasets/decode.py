"""The one place where the bytes of an image file become pixels, with Pillow.

What Pillow keeps and what not:

- 16-bit grey and colour (PNG, TIFF) keep their 16 bits, with alpha or without. CMYK and premultiplied alpha
  of 16 bits are reduced by Pillow to the high byte.
- CMYK, YCbCr and LAB become RGB by Pillow's plain formulas; embedded colour profiles are not applied.
- A transparent image (alpha channel, transparent palette entry or colour key) is laid on white.
- Of several frames or pages the first is read.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from mfimage.config import Reading
from mfimage.datasets import formats
from mfimage.datasets.changes import Changes
from mfimage.datasets.pixels import (
    Crop,
    Pixels,
    Size,
    ValueRange,
    cut,
    over_white,
    resize,
    sides_of,
    type_white,
    unit,
    with_channels,
)
from mfimage.errors import DataError, MfimageError
from mfimage.files import require_regular
from mfimage.settings import plain

IMAGE_SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif",
    ".jfif", ".jpe", ".jif", ".mpo", ".apng",
)  # fmt: skip

_BYTES_PER_PIXEL = 8  # an image file that needs more for each of the allowed pixels is no honest one
_TIFF = (b"II\x2a\0", b"MM\0\x2a", b"II\x2b\0", b"MM\0\x2b")  # how such files begin
_ORIENTATION = 274  # of EXIF


def decode(
    source: str | Path | bytes | BinaryIO,
    name: str,
    channels: int | None = None,
    max_pixels: int = Reading.max_pixels,
    value_range: ValueRange | None = None,
    beyond: float = 0.0,
) -> Pixels:
    """Decode one image, upright as its EXIF says: (H, W, C), uint8, or float32 in [0, 1] for deeper ones.

    An open file is read from its beginning, and not closed. Channels are 1 for luma, 3 for colour, None for
    1 where the file is grey and 3 where not (palettes are colour). A header that announces more pixels than
    `max_pixels` is refused before anything is decoded. `value_range` are the values of black and white in
    files deeper than 8 bits, instead of 0 and `picture_white`; floats may lie `beyond` them, see `unit`.
    """
    return with_channels(read_file(source, name, max_pixels, value_range, beyond)[0], channels)


def read_file(
    source: str | Path | bytes | BinaryIO,
    name: str,
    max_pixels: int = Reading.max_pixels,
    value_range: ValueRange | None = None,
    beyond: float = 0.0,
) -> tuple[Pixels, str]:
    """Read an image as `decode` does, and name the mode of Pillow that holds as much of it as one can."""
    with open_picture(source, name, max_pixels) as picture:
        floats = picture.mode == "F"
        values = _upright(picture_values(picture, name, value_range, beyond), picture)
    grey = "L" if values.dtype == np.uint8 else "F" if floats else "I;16"
    return values, "RGB" if values.shape[-1] == 3 else grey


@contextmanager
def open_picture(
    source: str | Path | bytes | BinaryIO, name: str, max_pixels: int = Reading.max_pixels
) -> Iterator[Image.Image]:
    """Open an image file with Pillow; what goes wrong with it inside is a DataError that names it."""
    with data_errors(name), ExitStack() as stack:
        if isinstance(source, str | Path):
            if not Path(source).is_dir():  # which `open` says
                require_regular(source)
            stream: BinaryIO = stack.enter_context(open(source, "rb"))
        else:
            stream = io.BytesIO(source) if isinstance(source, bytes) else source
        if not (start := stream.read(4)):
            raise DataError(f"{name}: is empty (0 bytes)")
        stream.seek(0)
        try:
            picture = formats.open_header(formats.without_texts(stream))
        except UnidentifiedImageError as error:
            if start not in _TIFF:
                raise
            what = "is damaged, or a TIFF of numbers or channels that Pillow does not read"
            raise DataError(f"{name}: {what}; 8 or 16 bits, and grey of 32, are read") from error
        with picture:
            if picture.width * picture.height > max_pixels:
                raise DataError(
                    f"{name}: {picture.width}×{picture.height} pixels are more than the limit of "
                    f"{max_pixels:,}; raise max_pixels (--max-pixels) if this file is trusted"
                )
            yield picture


@contextmanager
def data_errors(name: str, damaged: str = "is damaged") -> Iterator[None]:
    """Turn whatever goes wrong with one file inside into a DataError that names it; lack of memory apart."""
    try:
        yield
    except (MfimageError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        known = "png, jpeg, webp, bmp, tiff, gif"
        raise DataError(f"{name}: is not an image in a format that mfimage reads ({known})") from error
    except Exception as error:  # Readers of formats raise nearly every type on damaged files.
        why = error.strerror if isinstance(error, OSError) else None
        what = f"cannot be read: {why}" if why else f"{damaged}: {str(error) or type(error).__name__}"
        raise DataError(f"{name}: {what}") from error


def picture_values(
    picture: Image.Image, name: str, value_range: ValueRange | None = None, beyond: float = 0.0
) -> Pixels:
    """Give the pixels of an open Pillow image of any mode, as it lies; `name` is for messages.

    They are (H, W, C) with C = 1 for grey and 3 for colour, uint8, or float32 in [0, 1] where the image is
    deeper: grey of any depth, and colour of 16 bits that is not loaded yet (once it is, Pillow has 8 bits of
    it). See `decode` for the rest.
    """
    with data_errors(name):
        formats.mend(picture)
        key, numbers = formats.colour_key(picture), formats.deep_channels(picture)
        if numbers is None and (known := formats.number_type(picture)) != np.uint8:
            numbers = np.asarray(picture, known)[..., None]
            if value_range is None and (known is None or formats.twelve_bits(picture)):
                value_range = (0, picture_white(picture, name))
        if numbers is None:
            return _bytes(picture, key)
        values = unit(numbers, name, value_range, beyond)
        if formats.white_is_zero(picture):
            values = 1 - values
        values = over_white(values) if values.shape[-1] in (2, 4) else values
        return values if key is None else np.where(_equal(numbers, key), np.float32(1), values)


def _bytes(picture: Image.Image, key: NDArray[np.int64] | None) -> Pixels:
    """The pixels of 8 bits, or fewer, on white."""
    grey = picture.mode in ("1", "L", "LA", "La")
    if key is None and picture.has_transparency_data:
        return over_white(np.asarray(picture.convert("LA" if grey else "RGBA")))
    values = np.asarray(picture.convert("L" if grey else "RGB"))
    values = values[..., None] if grey else values
    return values if key is None else np.where(_equal(values, key), np.uint8(255), values)


def _equal(values: Pixels, key: NDArray[np.int64]) -> NDArray[np.bool_]:
    return (values == key).all(-1, keepdims=True)


def picture_white(picture: Image.Image, name: str) -> float:
    """Give the value of white in a Pillow image: that of the type of its numbers, in 12 bits 4,095."""
    if formats.twelve_bits(picture):
        return 4095.0
    if (known := formats.number_type(picture)) is None:
        raise DataError(f"{name}: Pillow mode I does not tell its range of values; convert to I;16, L or F")
    return type_white(known)


def file_white(path: str | Path) -> float:
    """Give the value of white in an image file, whose channels may have 16 bits."""
    with open_picture(path, str(path)) as picture:
        return 65535.0 if formats.is_deep(picture) else picture_white(picture, str(path))


def _upright(values: Pixels, picture: Image.Image) -> Pixels:
    # Read after the pixels: Pillow turns TIFF itself while it loads, and clears the tag.
    try:
        orientation = picture.getexif().get(_ORIENTATION, 1)
    except MemoryError:
        raise
    except Exception:  # Damaged EXIF is no reason to lose the picture.
        orientation = 1
    # EXIF 2.32, tag 274: 5 to 8 are stored with rows and columns exchanged.
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return values


@dataclass(frozen=True)
class Preparation:
    """How files become images: decoded, cropped if asked, scaled to cover `size`, cut to the centre."""

    size: Size | None = None  # (height, width), or one number for both; None: as they are
    channels: int | None = None  # 1 for luma, 3 for colour, None for what each has
    max_pixels: int = Reading.max_pixels  # larger images are not decoded
    value_range: ValueRange | None = None  # of black and white in deep files; see `decode`
    crop: Crop | None = None  # cut out before anything is scaled

    def __post_init__(self) -> None:
        for name in ("size", "channels", "value_range"):
            object.__setattr__(self, name, plain(getattr(self, name)))
        if self.size is not None:
            sides_of(self.size)  # what is no size is refused now, not file by file

    @property
    def sides(self) -> tuple[int, int] | None:
        """Height and width asked for."""
        return None if self.size is None else sides_of(self.size)

    @property
    def max_bytes(self) -> int:
        """A larger file is not read."""
        return self.max_pixels * _BYTES_PER_PIXEL

    def __call__(
        self, content: Path | bytes | Pixels, name: str, changes: Changes | None = None, beyond: float = 0.0
    ) -> Pixels:
        """Read one image, of a file's content or path, or prepare pixels (H, W, C) that are read already.

        What becomes of its size and its colour is noted in `changes`. Floats may lie `beyond` white and
        black, see `unit`. Whatever goes wrong is a DataError that names it.
        """
        with data_errors(name):
            how = (None, self.max_pixels, self.value_range, beyond)
            values = content if isinstance(content, np.ndarray) else decode(content, name, *how)
            if self.crop is not None:
                values = cut(values, self.crop, name)
            before, values = values.shape, with_channels(values, self.channels)
            values = np.ascontiguousarray(values if self.size is None else resize(values, self.size))
        if changes is not None:
            changes.add(name, before, values.shape)
        return values
