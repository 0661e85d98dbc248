"""Arrays of pixels: their value range, their transparency and their number of channels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfimage.errors import DataError, UsageError

Pixels = NDArray[Any]
"""An array (..., C) of uint8 in 0..255 or float32 in [0, 1]."""

ValueRange = tuple[float, float]

# A float32 computation that should end at 1 ends within this of it.
_SLACK = 1e-6


def unit(values: Pixels, name: str, value_range: ValueRange | None = None) -> Pixels:
    """Bring pixel values to the unit interval by their type or a declared range, never by their content.

    value = (raw − low) / (high − low)

    Args:
        values: Array of any shape; booleans, integers (low, high = 0, maximum of the type) or floats
            (low, high = 0, 1).
        name: What the values came from, for messages.
        value_range: (low, high) instead of these.

    Returns:
        The same shape: uint8 unchanged unless a range is declared (booleans become 0 and 255), all else
        float32 in [0, 1]. Values within 1e-6 of the interval are clipped into it.

    Raises:
        DataError: Values are missing, not finite or outside their range, or integers of 32 or 64 bits use
            so little of it that every image would be black.
    """
    if values.size == 0:
        raise DataError(f"{name}: holds no pixels")
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind not in "uif":
        raise DataError(f"{name}: holds {values.dtype} values, which are no pixels")
    if values.dtype == np.uint8 and value_range is None:
        return values
    low, high = _limits(values.dtype, value_range)
    _check(values, name, low, high, declared=value_range is not None)
    scaled: Any = values.astype(np.float32 if values.dtype.itemsize <= 4 else np.float64)
    scaled -= low
    scaled /= high - low
    return np.clip(scaled, 0, 1, out=scaled).astype(np.float32, copy=False)


def _limits(dtype: np.dtype, value_range: ValueRange | None) -> ValueRange:
    if value_range is None:
        return (0.0, 1.0) if dtype.kind == "f" else (0.0, float(np.iinfo(dtype).max))
    low, high = value_range
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise UsageError(f"value range {value_range}: the first number must be below the second")
    return low, high


def _check(values: Pixels, name: str, low: float, high: float, declared: bool) -> None:
    least, most = float(values.min()), float(values.max())
    if not (np.isfinite(least) and np.isfinite(most)):
        raise DataError(f"{name}: holds values that are not finite (NaN or infinite)")
    slack = _SLACK * (high - low)
    advice = "" if declared else ": declare their range with value_range=(low, high)"
    if least < low - slack or most > high + slack:
        raise DataError(f"{name}: values from {least:g} to {most:g} lie outside [{low:g}, {high:g}]{advice}")
    wide = values.dtype.kind in "ui" and values.dtype.itemsize > 2
    if wide and not declared and 0 < most < high / 255:
        raise DataError(
            f"{name}: {values.dtype} values up to {most:g} are all black on a scale to {high:g}{advice}"
        )


def as_float(values: Pixels) -> Pixels:
    """uint8 as float32 in [0, 1], value / 255; float32 as it is."""
    return values.astype(np.float32) / np.float32(255) if values.dtype == np.uint8 else values


def over_white(values: Pixels) -> Pixels:
    """Lay an image with an alpha channel on white.

    out = 1 − alpha · (1 − colour)

    Args:
        values: (..., 2) grey and alpha or (..., 4) colour and alpha, uint8 or float32 in [0, 1], alpha not
            premultiplied.

    Returns:
        (..., 1) or (..., 3) of the same type; uint8 is rounded to the nearest.
    """
    colour, alpha = values[..., :-1], values[..., -1:]
    if values.dtype == np.uint8:
        shade = (255 - colour).astype(np.uint16) * alpha
        return (255 - (shade + 127) // 255).astype(np.uint8)
    return (1 - alpha * (1 - colour)).astype(np.float32)


def with_channels(values: Pixels, channels: int | None) -> Pixels:
    """Bring pixels to a number of channels.

    grey = 0.299 red + 0.587 green + 0.114 blue

    Args:
        values: (..., 1) or (..., 3), uint8 or float32 in [0, 1].
        channels: 1 for luma (ITU-R 601), 3 for colour (grey is repeated), None to leave them.

    Returns:
        (..., channels) of the same type.

    Raises:
        UsageError: Another number of channels is asked for.
    """
    if channels not in (None, 1, 3):
        raise UsageError(f"channels: {channels} is not possible, only 1 (grey) or 3 (colour)")
    if channels is None or values.shape[-1] == channels:
        return values
    if channels == 3:
        return np.repeat(values, 3, axis=-1)
    if values.dtype == np.uint8:
        # The integers that Pillow uses, so that a grey colour image keeps its values exactly.
        return ((values @ np.array([19595, 38470, 7471], np.uint32) + 32768) >> 16).astype(np.uint8)[
            ..., None
        ]
    return np.clip(values @ np.array([0.299, 0.587, 0.114], np.float32), 0, 1)[..., None]
