"""The one place where the bytes of an image file become pixels, with Pillow.

What Pillow keeps and what not:

- 16-bit grey (PNG, TIFF) keeps its 16 bits; colour with 16 bits a channel is reduced by Pillow to its high
  byte, and 16-bit grey with alpha becomes 8-bit colour with alpha.
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
from threading import Lock
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from mfimage.config import Reading
from mfimage.datasets.changes import Changes
from mfimage.datasets.pixels import Crop, Pixels, ValueRange, cut, over_white, resize, unit, with_channels
from mfimage.errors import DataError, MfimageError

IMAGE_SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif",
    ".jfif", ".jpe", ".jif", ".mpo", ".apng",
)  # fmt: skip

# Named one by one because others (EPS) start a foreign program. JPEG includes MPO, which phones write.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
_BYTES_PER_PIXEL = 8  # an image file that needs more for each of the allowed pixels is no honest one
_BITS, _PHOTOMETRIC, _ORIENTATION, _SAMPLE_FORMAT = 258, 262, 274, 339
_header_lock = Lock()


def decode(
    source: str | Path | bytes | BinaryIO,
    name: str,
    channels: int | None = None,
    max_pixels: int = Reading.max_pixels,
    value_range: ValueRange | None = None,
) -> Pixels:
    """Decode one image, upright as its EXIF says: (H, W, C), uint8, or float32 in [0, 1] for deeper ones.

    An open file is read from its beginning, and not closed. Channels are 1 for luma, 3 for colour, None for
    1 where the file is grey and 3 where not (palettes are colour). A header that announces more pixels than
    `max_pixels` is refused before anything is decoded. `value_range` are the values of black and white in
    float and 16- or 32-bit grey files, instead of 0 and `picture_white`.
    """
    with open_picture(source, name, max_pixels) as picture:
        values = _upright(picture_values(picture, name, value_range), picture)
    return with_channels(values, channels)


@contextmanager
def open_picture(
    source: str | Path | bytes | BinaryIO, name: str, max_pixels: int = Reading.max_pixels
) -> Iterator[Image.Image]:
    """Open an image file with Pillow; what goes wrong with it inside is a DataError that names it."""
    with _data_errors(name), ExitStack() as stack:
        if isinstance(source, str | Path):
            stream: BinaryIO = stack.enter_context(open(source, "rb"))
        else:
            stream = io.BytesIO(source) if isinstance(source, bytes) else source
        if not stream.read(1):
            raise DataError(f"{name}: is empty (0 bytes)")
        stream.seek(0)
        with _read_header(stream) as picture:
            if picture.width * picture.height > max_pixels:
                raise DataError(
                    f"{name}: {picture.width}×{picture.height} pixels are more than the limit of "
                    f"{max_pixels:,}; raise max_pixels (--max-pixels) if this file is trusted"
                )
            yield picture


@contextmanager
def _data_errors(name: str) -> Iterator[None]:
    try:
        yield
    except (MfimageError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        known = "png, jpeg, webp, bmp, tiff, gif"
        raise DataError(f"{name}: is not an image in a format that mfimage reads ({known})") from error
    except Exception as error:  # Pillow's decoders raise nearly every type on damaged files.
        why = error.strerror if isinstance(error, OSError) else None
        what = f"cannot be read: {why}" if why else f"is damaged: {error or type(error).__name__}"
        raise DataError(f"{name}: {what}") from error


def _read_header(stream: BinaryIO) -> Image.Image:
    # Pillow's own limit is a global of its module. It is lifted only while a header is read, since ours,
    # which the caller chooses, is checked next.
    with _header_lock:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(stream, formats=_FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def picture_values(picture: Image.Image, name: str, value_range: ValueRange | None = None) -> Pixels:
    """Give the pixels of an open Pillow image of any mode, as it lies; `name` is for messages.

    They are (H, W, C) with C = 1 for grey and 3 for colour, uint8, or float32 in [0, 1] from modes I, I;16
    and F.
    """
    with _data_errors(name):
        if picture.mode == "F" or picture.mode.startswith("I"):
            if picture.mode != "F" and value_range is None:
                value_range = (0, picture_white(picture, name))
            deep = unit(np.asarray(picture), name, value_range)[..., None]
            inverted = picture.format == "TIFF" and _tag(picture, _PHOTOMETRIC, 1) == 0
            return 1 - deep if inverted else deep
        grey = picture.mode in ("1", "L", "LA", "La")
        if picture.has_transparency_data:
            return over_white(np.asarray(picture.convert("LA" if grey else "RGBA")))
        values = np.asarray(picture.convert("L" if grey else "RGB"))
        return values[..., None] if grey else values


def picture_white(picture: Image.Image, name: str) -> float:
    """Give the value of white in a Pillow image: 255, of floats 1, of deeper grey what its file says."""
    if not picture.mode.startswith("I"):
        return 1.0 if picture.mode == "F" else 255.0
    if picture.format == "TIFF":  # Mode I;16 also holds 12 bits, mode I signed 16 and 32.
        return 2.0 ** (_tag(picture, _BITS, 16) - (_tag(picture, _SAMPLE_FORMAT, 1) == 2)) - 1
    if picture.mode != "I" or picture.format == "PNG":  # Older Pillow opens 16-bit PNG as mode I.
        return 65535.0
    raise DataError(f"{name}: Pillow mode I does not tell its range of values; convert it to I;16, L or F")


def _tag(picture: Image.Image, tag: int, default: int) -> int:
    value = getattr(picture, "tag_v2", {}).get(tag, default)
    return int(value[0] if isinstance(value, tuple) else value)


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

    size: int | tuple[int, int] | None = None  # (height, width), or one number for both; None: as they are
    channels: int | None = None  # 1 for luma, 3 for colour, None for what each has
    max_pixels: int = Reading.max_pixels  # larger images are not decoded
    value_range: ValueRange | None = None  # of black and white in deep files; see `decode`
    crop: Crop | None = None  # cut out before anything is scaled

    @property
    def sides(self) -> tuple[int, int] | None:
        """Height and width asked for."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    @property
    def max_bytes(self) -> int:
        """A larger file is not read."""
        return self.max_pixels * _BYTES_PER_PIXEL

    def __call__(self, content: Path | bytes | Pixels, name: str, changes: Changes | None = None) -> Pixels:
        """Read one image, of a file's content or path, or prepare pixels (H, W, C) that are read already.

        What becomes of its size and its colour is noted in `changes`.
        """
        if isinstance(content, np.ndarray):
            values = content
        else:
            values = decode(content, name, None, self.max_pixels, self.value_range)
        if self.crop is not None:
            values = cut(values, self.crop, name)
        before, values = values.shape, with_channels(values, self.channels)
        values = np.ascontiguousarray(values if self.size is None else resize(values, self.size))
        if changes is not None:
            changes.add(name, before, values.shape)
        return values
