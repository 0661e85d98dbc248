"""Tables, as scikit-learn and pyod take them, as the images or vectors of a model, and back."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from mfimage.config import Reading
from mfimage.datasets import Dataset, load
from mfimage.datasets.pixels import ValueRange, type_white
from mfimage.errors import DataError, UsageError

_LEAST_SIDE = 8  # pixels of a square that is guessed: shorter tables are rarely pictures


class InputError(DataError, ValueError):
    """What is given makes no sense: a ValueError too, as scikit-learn and pyod raise them."""


@contextmanager
def value_errors() -> Iterator[None]:
    """Turn what mfimage says of wrong data and settings into an error that is a ValueError too."""
    try:
        yield
    except InputError:
        raise
    except (DataError, UsageError) as error:
        raise InputError(str(error)) from error


def flattened(X: Any) -> Any:
    """Turn images (N, H, W) or (N, H, W, C) into a table (N, H·W·C); all else stays as it is."""
    return X.reshape(len(X), -1) if isinstance(X, np.ndarray) and X.ndim > 2 and len(X) else X


@dataclass(frozen=True)
class Layout:
    """How the rows of a table lie.

    Attributes:
        shape: Of a row: (H, W) or (H, W, C) of images, (D,) of vectors.
        given: Of what `to_rows` gives back for each row: `shape`, or (D,).
        value_range: Values of black and white; see `Reading`.
        white: The value of white where no range is given.
    """

    shape: tuple[int, ...]
    given: tuple[int, ...]
    value_range: ValueRange | None = None
    white: float = 1.0

    @classmethod
    def of(cls, X: Any, image_shape: tuple[int, ...] | None, value_range: ValueRange | None) -> Layout:
        """Find the layout of a table (N, D), or of images (N, H, W) or (N, H, W, C).

        Without an `image_shape` a table is of grey squares if D is the square of 8 or more and the values can
        be those of pixels (a value range is given, they are uint8, or lie in [0, 1]), else of vectors.
        """
        values = np.asarray(X)
        given = tuple(values.shape[1:])
        shape = given if values.ndim > 2 else _shape_of_rows(values, image_shape, value_range is not None)
        if math.prod(shape) != math.prod(given) or (values.ndim > 2 and image_shape not in (None, given)):
            raise InputError(f"image_shape {image_shape}: does not fit X of shape {values.shape}")
        if len(shape) > 3 or (len(shape) == 3 and shape[2] not in (1, 3)):
            raise InputError(f"X of shape {values.shape}: images are (N, H, W) or (N, H, W, C), C 1 or 3")
        white = type_white(values.dtype) if values.dtype.kind in "uib" else 1.0
        return cls(shape, given, value_range, white)

    @property
    def of_images(self) -> bool:
        """Whether rows are images, not vectors."""
        return len(self.shape) > 1

    @property
    def channels(self) -> int | None:
        """1 or 3 of images, None of vectors."""
        return (3 if self.shape[2:] == (3,) else 1) if self.of_images else None

    @property
    def reading(self) -> Reading:
        """How the values are read."""
        return Reading(value_range=self.value_range)

    def array(self, table: np.ndarray) -> np.ndarray:
        """Turn a table (N, D) into the array that `mfimage.load` takes."""
        return table.reshape(len(table), *self.shape)

    def dataset(self, table: np.ndarray) -> Dataset:
        """Turn a table (N, D) into a set of images (C, H, W) in [0, 1], or of vectors."""
        with value_errors():
            return load(self.array(table), "all", None, self.channels, reading=self.reading)

    def to_rows(self, x: Tensor, dtype: np.dtype) -> np.ndarray:
        """Turn images (N, C, H, W) or vectors (N, D) into what they came as, in its units, as floats."""
        values = x.movedim(1, -1).numpy() if self.of_images else x.numpy()
        if self.of_images:
            low, high = self.value_range or (0.0, self.white)
            values = low + (high - low) * values
        return values.reshape(len(values), *self.given).astype(dtype)


def _shape_of_rows(values: np.ndarray, image_shape: tuple[int, ...] | None, ranged: bool) -> tuple[int, ...]:
    if image_shape is not None:
        return tuple(image_shape)
    if values.ndim < 2 or not values.size:
        return tuple(values.shape[1:])
    side = math.isqrt(values.shape[1])
    pixels = ranged or values.dtype == np.uint8
    pixels = pixels or (values.dtype.kind == "f" and values.min() >= 0 and values.max() <= 1)
    square = side**2 == values.shape[1] and side >= _LEAST_SIDE
    return (side, side) if square and pixels else tuple(values.shape[1:])
