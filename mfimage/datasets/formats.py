"""PNG and TIFF files that Pillow alone reads wrongly, not at all, or not to their depth."""

from __future__ import annotations

import io
import os
import re
import struct
import sys
import zlib
from threading import Lock
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Named one by one because others (EPS) start a foreign program. JPEG includes MPO, which phones write.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
_PNG = b"\x89PNG\r\n\x1a\n"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
_SCANS = 500  # of a JPEG, at most; an honest one has about ten
_SCAN = b"\xff\xda"  # how one begins in a JPEG; in what is packed there is no such pair
_SHORT = 1000  # bytes, which never unpack to the megabyte that Pillow allows
_TURNED = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")  # of texts that may say which way is up
_BITS, _PHOTOMETRIC, _PLANES, _SAMPLE_FORMAT = 258, 262, 284, 339  # of TIFF
_WRONG_ORDER = re.compile(r"(I;16|I;32|F;32)B?([SF])")
_DEEP = re.compile(r"(RGB|RGBA|RGBX|[RGBA]);16([BLN])")
_NATIVE, _OTHER = ("L", "B") if sys.byteorder == "little" else ("B", "L")
_BYTES = np.dtype(np.uint8)
_header_lock = Lock()


def open_header(stream: BinaryIO) -> Any:
    """Open an image with Pillow, of which only the header is read, whatever its size.

    ValueError for a progressive JPEG that takes for ever.
    """
    # Pillow's own limit is a global of its module. It is lifted only while a header is read, since ours,
    # which the caller chooses, is checked next.
    with _header_lock:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            picture = Image.open(stream, formats=FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    if picture.info.get("progressive") and _scans(stream) > _SCANS:
        raise ValueError(f"it draws its image more than {_SCANS} times; save it anew as a plain jpeg")
    return picture


def without_texts(stream: BinaryIO) -> BinaryIO:
    """Leave long texts and colour profiles, which nobody reads, out of a PNG: Pillow refuses a megabyte."""
    head = stream.read(len(_PNG))
    size, place, long = stream.seek(0, os.SEEK_END), len(_PNG), []
    while head == _PNG and place + _SHORT <= size:  # in what is left there is room for a long one
        stream.seek(place)
        length, kind = struct.unpack(">I4s", stream.read(8))
        end = place + 12 + length  # with the checksum
        if kind in _TEXTS and length >= _SHORT and not stream.read(32).startswith(_TURNED):
            long.append((place, end))
        place = end
    stream.seek(0)
    if not long:
        return stream
    content, ends = stream.read(), [0, *(end for _, end in long)]
    starts = [*(start for start, _ in long), len(content)]
    return io.BytesIO(b"".join(content[end:start] for end, start in zip(ends, starts, strict=True)))


def _scans(stream: BinaryIO) -> int:
    """Count the passes over the image in a JPEG file; one that is made to be slow has thousands."""
    place = stream.tell()
    stream.seek(0)
    count = stream.read().count(_SCAN)
    stream.seek(place)
    return count


def encode_png(numbers: NDArray[Any]) -> bytes:
    """Write an image (H, W) or (H, W, 1 or 3) of uint8 or uint16 as a PNG, of as many bits a channel."""
    if numbers.dtype == np.uint8:
        stream, single = io.BytesIO(), numbers.ndim == 3 and numbers.shape[2] == 1
        Image.fromarray(numbers[..., 0] if single else numbers).save(stream, "PNG")
        return stream.getvalue()
    # Pillow has no colour of 16 bits.
    height, width, channels = np.atleast_3d(numbers).shape
    rows = np.zeros((height, 1 + 2 * channels * width), np.uint8)  # each begins with its filter: none
    rows[:, 1:] = np.ascontiguousarray(numbers, ">u2").reshape(height, -1).view(np.uint8)
    header = struct.pack(">IIBBBBB", width, height, 16, 0 if channels == 1 else 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b""))
    return _PNG + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )


def mend(picture: Any) -> None:
    """Correct how Pillow will unpack a TIFF picture that is not loaded yet.

    libtiff gives numbers in the order of this machine's bytes, and Pillow turns those of some files around
    once more; planes of 16 bits that lie one after the other are taken for 8 bits.
    """
    if picture.format != "TIFF":
        return
    deep = _tag(picture, _PLANES, 1) == 2 and _tag(picture, _BITS, 8) == 16
    for number, tile in enumerate(picture.tile):
        raw = _raw_mode(tile)
        if tile[0] == "libtiff":
            raw = _WRONG_ORDER.sub(r"\1N\2", raw)
        elif deep and len(raw) == 1:
            raw += ";16B" if picture.tag_v2.prefix == b"MM" else ";16L"
        if raw != _raw_mode(tile):
            picture.tile[number] = _with_raw_mode(tile, raw)


def number_type(picture: Any) -> np.dtype | None:
    """Tell the type of the numbers that a picture's file holds, None where mode I does not tell its range.

    Pillow has uint8 for int8, and int32 for int16 and uint32.
    """
    mode = picture.mode
    if mode == "F":
        return np.dtype(np.float32)
    if mode == "I" and picture.format not in ("TIFF", "PNG"):  # of a 16-bit PNG in older Pillow
        return None
    if picture.format == "TIFF" and mode in ("I", "L") and (bits := _tag(picture, _BITS, 0)) >= 8:
        return np.dtype(f"{'i' if _tag(picture, _SAMPLE_FORMAT, 1) == 2 else 'u'}{bits // 8}")
    return np.dtype(np.uint16) if mode.startswith("I") else _BYTES


def white_is_zero(picture: Any) -> bool:
    """Tell whether black and white of a TIFF are exchanged, which Pillow undoes in 8 bits alone."""
    return picture.format == "TIFF" and _tag(picture, _PHOTOMETRIC, 0) == 0  # by default, as in Pillow


def twelve_bits(picture: Any) -> bool:
    """Tell whether the numbers of a picture, which are uint16, end at 4,095."""
    return picture.mode == "I;16" and _tag(picture, _BITS, 16) == 12


def is_deep(picture: Any) -> bool:
    """Tell whether a picture that is not loaded yet has channels of 16 bits, of which Pillow keeps 8."""
    tiles = getattr(picture, "tile", None)
    if not tiles or picture.format not in ("PNG", "TIFF"):
        return False
    if not _raw_mode(tiles[0]).endswith((";16B", ";16L", ";16N")):
        return False
    raws = [_raw_mode(tile) for tile in tiles]
    return raws == ["LA;16B"] or all(map(_DEEP.fullmatch, raws))


def deep_channels(picture: Any) -> NDArray[np.uint16] | None:
    """Read both bytes of the channels of a picture that is not loaded yet: (H, W, 2, 3 or 4) uint16.

    None where there are no channels of 16 bits. Pillow unpacks the high byte; taken for numbers of the other
    order of bytes, it unpacks the low one. Grey with alpha is four bytes a pixel, like colour with alpha.
    """
    if not is_deep(picture):
        return None
    if _raw_mode(picture.tile[0]) == "LA;16B":
        pairs = _unpacked_as(picture, lambda raw: "RGBA")
        high, low = pairs[..., 0::2], pairs[..., 1::2]
    else:
        low, high = _unpacked_as(picture, _swapped), np.asarray(picture)
    numbers = high.astype(np.uint16)
    numbers <<= 8
    numbers |= low
    return numbers


def colour_key(picture: Any) -> NDArray[np.int64] | None:
    """Give the grey or colour that is transparent in a picture that is not loaded yet, None if none is.

    It is in the scale of the pixels, where Pillow has that of the file's bits.
    """
    value = picture.info.get("transparency")
    keyed = picture.mode in ("1", "L", "RGB") or picture.mode.startswith("I")
    if not keyed or not isinstance(value, int | tuple):
        return None
    key, raw = np.atleast_1d(np.asarray(value, np.int64)), ""
    if tiles := getattr(picture, "tile", []):
        raw = _raw_mode(tiles[0])
    if raw in ("L;2", "L;4"):
        return key % 4 * 85 if raw == "L;2" else key % 16 * 17
    if raw.endswith(";16B") or picture.mode.startswith("I"):
        return key
    return key >> 8 if key.max() > 255 else key  # of a picture of 16 bits that is loaded, and has 8 now


def _tag(picture: Any, tag: int, default: int) -> int:
    value = getattr(picture, "tag_v2", {}).get(tag, default)
    return int(value[0] if isinstance(value, tuple) else value)


def _raw_mode(tile: Any) -> str:
    first = tile[3][0] if isinstance(tile[3], tuple) and tile[3] else tile[3]
    return first if isinstance(first, str) else ""


def _with_raw_mode(tile: Any, raw: str) -> Any:
    return tile._replace(args=(raw, *tile[3][1:]) if isinstance(tile[3], tuple) else raw)


def _swapped(raw: str) -> str:
    order = raw[-1] if raw[-1] != "N" else _NATIVE
    return raw[:-1] + (_OTHER if order == _NATIVE else _NATIVE)


def _unpacked_as(picture: Any, raw_mode: Any) -> NDArray[np.uint8]:
    """Read a picture's file once more, unpacked in another way; the picture stays as it is."""
    place = picture.fp.tell()
    picture.fp.seek(0)
    try:
        with open_header(picture.fp) as twin:
            mend(twin)
            twin.tile = [_with_raw_mode(tile, raw_mode(_raw_mode(tile))) for tile in twin.tile]
            return np.array(twin)
    finally:
        picture.fp.seek(place)
