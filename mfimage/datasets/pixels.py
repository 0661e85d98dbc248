"""Arrays of pixels: value range, transparency, channels, size and crop."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mfimage.errors import DataError, MixedSizesError, UsageError
from mfimage.settings import check_range, plain, whole_numbers

Pixels = NDArray[Any]
"""An array (..., C) of uint8 in 0..255 or float32 in [0, 1]."""

ValueRange: TypeAlias = tuple[float, float]
Size: TypeAlias = int | tuple[int, int]

_SLACK = 1e-6  # a float32 computation that should end at 1 ends within this of it
_WIDEST = 1e30  # beyond it, and below its inverse, float32 is not to be trusted with a range


def unit(values: Pixels, name: str, value_range: ValueRange | None = None, beyond: float = 0.0) -> Pixels:
    """Bring pixel values to the unit interval by their type or a declared range, never by their content.

    value = (raw − low) / (high − low),   clipped where it lies within 1e-6 of [0, 1]

    Low and high are 0 and 1 for floats, 0 and the maximum of the type for integers. uint8 stays as it is
    unless a range is declared, booleans become 0 and 255, all else float32. Integers of 32 or 64 bits that
    use so little of their range that every image would be black are refused. Floats may lie `beyond` outside
    [0, 1], as noise puts them, and stay there; at infinity they may be anything, NaN too.
    """
    if values.size == 0:
        raise DataError(f"{name}: holds no pixels")
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind not in "uif":
        raise DataError(f"{name}: holds {values.dtype} values, which are no pixels")
    if values.dtype == np.uint8 and value_range is None:
        return values
    low, high = (0.0, type_white(values.dtype)) if value_range is None else check_range(value_range)
    beyond = max(beyond, _SLACK) if values.dtype.kind == "f" else 0.0
    if beyond < np.inf:
        _check(values, name, low, high, beyond * (high - low), declared=value_range is not None)
    wide = values.dtype.itemsize > 4 or max(abs(low), high) > _WIDEST or high - low < 1 / _WIDEST
    scaled: Any = values.astype(np.float64 if wide else np.float32)
    scaled -= low
    scaled /= high - low
    if beyond == _SLACK or values.dtype.kind != "f":
        np.clip(scaled, 0, 1, out=scaled)
    return scaled.astype(np.float32, copy=False)


def type_white(dtype: np.dtype) -> float:
    """Give the value of white in an array of this type: the maximum of integers, 1 of floats and booleans."""
    return 1.0 if dtype.kind in "fb" else float(np.iinfo(dtype).max)


def _check(values: Pixels, name: str, low: float, high: float, slack: float, declared: bool) -> None:
    least, most = float(values.min()), float(values.max())
    if not (np.isfinite(least) and np.isfinite(most)):
        raise DataError(f"{name}: holds values that are not finite (NaN or infinite)")
    advice = "" if declared else ": scale them first, or load them with value_range=(low, high)"
    if slack > _SLACK * (high - low):
        far = max(low - least, most - high)
        advice = (
            f" by {far:g}, where the noise that is expected may carry them {slack:g} at most: "
            "name noise that is stronger, or scale the values if white is not 1"
        )
    if least < low - slack or most > high + slack:
        raise DataError(f"{name}: values from {least:g} to {most:g} lie outside [{low:g}, {high:g}]{advice}")
    wide = values.dtype.kind in "ui" and values.dtype.itemsize > 2
    if wide and not declared and 0 < most < high / 255:
        raise DataError(
            f"{name}: {values.dtype} values up to {most:g} are all black on a scale to {high:g}{advice}"
        )


def as_float(values: Pixels) -> Pixels:
    """Bring uint8 to float32 in [0, 1], value / 255, and leave float32 as it is."""
    return values.astype(np.float32) / np.float32(255) if values.dtype == np.uint8 else values


def over_white(values: Pixels) -> Pixels:
    """Lay an image with an alpha channel on white: out = 1 − alpha · (1 − colour).

    From (..., 2) grey and alpha or (..., 4) colour and alpha, not premultiplied, to (..., 1) or (..., 3) of
    the same type; uint8 is rounded to the nearest.
    """
    colour, alpha = values[..., :-1], values[..., -1:]
    if values.dtype == np.uint8:
        shade = (255 - colour).astype(np.uint16) * alpha
        return (255 - (shade + 127) // 255).astype(np.uint8)
    shade = 1 - colour
    shade *= alpha
    return np.subtract(1, shade, out=shade).astype(np.float32, copy=False)


def with_channels(values: Pixels, channels: int | None) -> Pixels:
    """Bring pixels (..., 1 or 3) to 1 channel (luma, ITU-R 601) or 3 (grey is repeated); None leaves them.

    grey = 0.299 red + 0.587 green + 0.114 blue
    """
    if channels not in (None, 1, 3):
        raise UsageError(f"channels: {channels} is not possible, only 1 (grey) or 3 (colour)")
    if channels is None or values.shape[-1] == channels:
        return values
    if channels == 3:
        return np.repeat(values, 3, axis=-1)
    if values.dtype == np.uint8:
        # The integers that Pillow uses, so that a grey colour image keeps its values exactly.
        luma = (values @ np.array([19595, 38470, 7471], np.uint32) + 32768) >> 16
        return luma.astype(np.uint8)[..., None]
    grey = values @ np.array([0.299, 0.587, 0.114], np.float32)
    return np.clip(grey, values.min(-1), values.max(-1))[..., None]  # as it lies but for rounding errors


def sides_of(size: Size) -> tuple[int, int]:
    """Return the height and width that a size, (height, width) or one number for both, means in pixels."""
    size = plain(size)
    sides = size if isinstance(size, tuple) else (size, size)
    if not whole_numbers(sides, 2, 1):
        raise UsageError(f"size {size}: height and width are whole numbers of pixels, and at least 1")
    return sides


def box_of(rows: int, columns: int, height: int, width: int) -> tuple[float, float, float, float]:
    """Find what is kept of an image that is scaled to cover a size: left, top, right, bottom in pixels."""
    scale = min(rows / height, columns / width)
    # Rounding errors must not carry it over an edge, which Pillow refuses.
    top, left = (max(0.0, (side - scale * kept) / 2) for side, kept in ((rows, height), (columns, width)))
    return left, top, min(left + scale * width, float(columns)), min(top + scale * height, float(rows))


def resize(values: Pixels, size: Size) -> Pixels:
    """Scale an image (H, W, C), antialiased, until it just covers the target in pixels, and keep the centre.

    The proportions stay; what is too much on the longer side is cut off equally at both ends. One Lanczos
    pass does both. An image that has the size already is returned as it is. The result lies in [0, 1], or
    wherever the image lies beyond it.
    """
    height, width = sides_of(size)
    rows, columns = values.shape[:2]
    if (rows, columns) == (height, width):
        return values
    box = box_of(rows, columns, height, width)
    planes = [
        np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.LANCZOS, box=box))
        for plane in np.moveaxis(values, -1, 0)
    ]
    scaled = np.stack(planes, axis=-1)
    if values.dtype == np.uint8:
        return scaled
    return np.clip(scaled, min(0.0, float(values.min())), max(1.0, float(values.max())))


class Crop(NamedTuple):
    """A square that is cut out of every image of a set, all of one size; in pixels."""

    height: int
    width: int
    top: int
    left: int
    side: int


def cut(values: Pixels, crop: Crop, name: str) -> Pixels:
    """Cut a square out of an image; DataError unless the image has the size that the square belongs to."""
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
