"""Images that are objects in Python: arrays, tensors, PyTorch's data sets and those of Hugging Face."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from contextlib import suppress
from itertools import islice
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import IterableDataset

from mfimage.datasets.decode import data_errors, picture_values
from mfimage.datasets.pixels import Pixels, ValueRange, over_white, unit
from mfimage.datasets.stores import Store
from mfimage.errors import DataError

_FINGERPRINT = 16  # items that tell one data set from another


class Items(Protocol):
    """A map-style data set, as PyTorch and Hugging Face have them."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...


def array_of_images(images: np.ndarray | Tensor) -> Pixels:
    """An array (N, H, W) or (N, H, W, C) of images; those of a tensor are (N, H, W) or (N, C, H, W).

    DataError for a masked array in which values are missing.
    """
    if isinstance(images, np.ma.MaskedArray) and np.ma.is_masked(images):
        raise DataError("array: values are masked out; fill them first (filled, or mfimage.inpaint)")
    if isinstance(images, np.ndarray):
        return np.asarray(images)
    values = images.detach().cpu()
    values = values.float() if values.is_floating_point() else values  # numpy lacks bfloat16
    return (values.movedim(1, -1) if values.ndim == 4 else values).numpy()


def check_images(images: np.ndarray, name: str) -> None:
    """Raise DataError for an array that is not (N, H, W) or (N, H, W, C) with C from 1 to 4."""
    if not (images.ndim == 3 or (images.ndim == 4 and images.shape[-1] in (1, 2, 3, 4))):
        raise DataError(f"{name}: an array of shape {images.shape} is not (N, H, W) or (N, H, W, C ≤ 4)")
    if images.size == 0:
        raise DataError(f"{name}: holds no images (shape {images.shape})")


def pixels_of(
    images: np.ndarray, name: str, value_range: ValueRange | None = None, beyond: float = 0.0
) -> Pixels:
    """Bring an array of images to (N, H, W, C), uint8 or float32 in [0, 1], C = 1 or 3, laid on white.

    See `unit` for what may lie `beyond`.
    """
    values = unit(np.asarray(images), name, value_range, beyond)
    values = values[..., None] if values.ndim == 3 else values
    return over_white(values) if values.shape[-1] in (2, 4) else values


class ItemStore(Store):
    """A map-style data set as a store; it is read by one thread at a time.

    An item is an image (PIL image, array (H, W) or (H, W, C), tensor (H, W) or (C, H, W)), an image and a
    label, or a row with columns: that which Hugging Face calls an Image, else `image` or `img`, and that
    which it calls a ClassLabel, else `label`. Of a data set without a length the first `limit` are drawn.
    """

    def __init__(self, items: Any, value_range: ValueRange | None = None, limit: int | None = None) -> None:
        kind = type(items)
        if not (hasattr(kind, "__getitem__") or hasattr(kind, "__iter__")) or hasattr(kind, "__next__"):
            raise DataError(f"{kind.__name__}: images are given as a path, an array, a tensor or a data set")
        info = getattr(items, "info", None)
        self.name = str(getattr(info, "dataset_name", None) or kind.__name__)
        features = getattr(items, "features", None) or {}
        self._image, self._label = (
            next((name for name, feature in features.items() if type(feature).__name__ == kind), None)
            for kind in ("Image", "ClassLabel")
        )
        in_turn = isinstance(items, IterableDataset) or not hasattr(items, "__len__")
        named = getattr(features.get(self._label), "names", None) or getattr(items, "classes", None)
        self.class_names = tuple(map(str, named)) if isinstance(named, list | tuple) else ()
        self._items: Items = list(islice(items, limit)) if in_turn else items
        self._value_range, self._lock = value_range, threading.Lock()
        self._labels: dict[int, int | None] = {}  # of items that were read
        self.divided = dict.fromkeys(("train", "valid", "test", "all"), range(len(self)))
        if not len(self):
            raise DataError(f"{self.name}: holds no images")

    def __len__(self) -> int:
        return len(self._items)

    def path(self, row: int) -> str:
        return f"{self.name}[{row}]"

    def content(self, row: int, max_bytes: int) -> Pixels:
        with data_errors(self.path(row), "cannot be read"):
            with self._lock:
                item = self._items[row]
            image, label = self._parts(item)
            values = _pixels(image, self.path(row), self._value_range)
        self._labels[row] = label
        return values

    def labels(self, rows: NDArray[np.int64]) -> NDArray[np.int64] | None:
        for row in rows.tolist():
            if row not in self._labels:
                with suppress(DataError):  # told by whoever wants the image
                    self.content(row, 0)
        found = [label for row in rows.tolist() if (label := self._labels.get(row)) is not None]
        return np.array(found, np.int64) if len(found) == len(rows) else None

    def fingerprint(self) -> str:
        digest = hashlib.sha256(f"{self.name} {len(self)}".encode())
        for row in np.linspace(0, len(self) - 1, min(_FINGERPRINT, len(self))).round().astype(int).tolist():
            with suppress(DataError):
                digest.update(self.content(row, 0).tobytes())
        return digest.hexdigest()

    def _parts(self, item: Any) -> tuple[Any, int | None]:
        """Image and label of an item."""
        if isinstance(item, Mapping):
            column = next((name for name in (self._image, "image", "img") if name in item), None)
            if column is None:
                raise DataError(f"{self.name}: has no column `image`; there are {', '.join(map(str, item))}")
            return item[column], _label(item.get(self._label or "label"))
        if isinstance(item, tuple | list) and item:
            return item[0], _label(item[1]) if len(item) > 1 else None
        return item, None


def _label(value: Any) -> int | None:
    """A class index, None for what is none."""
    if isinstance(value, np.ndarray | Tensor) and value.ndim == 0:
        value = value.item()
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return int(value) if whole else None


def _pixels(image: Any, name: str, value_range: ValueRange | None) -> Pixels:
    """An image (H, W, C), uint8 or float32 in [0, 1]."""
    if isinstance(image, Image.Image):
        return picture_values(image, name, value_range)
    if not isinstance(image, np.ndarray | Tensor):
        raise DataError(f"{name}: is a {type(image).__name__}, not a PIL image, an array or a tensor")
    batch = array_of_images(image[None])
    check_images(batch, name)
    return pixels_of(batch, name, value_range)[0]
