"""Where encoded images lie, one at a time: folders here, Parquet shards in `shards`."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mfimage.datasets.index import Index, index_folder
from mfimage.datasets.pixels import Crop, Pixels
from mfimage.datasets.splits import Divided, divide_paths
from mfimage.errors import DataError


class Store(Protocol):
    """Encoded images in an order of their own; threads may read at the same time."""

    @property
    def name(self) -> str:
        """What it is called in messages."""

    @property
    def divided(self) -> Divided:
        """The rows of each split."""

    @property
    def crop(self) -> Crop | None:
        """A box that is cut out of every image, None for all of it."""

    def __len__(self) -> int: ...

    @property
    def class_names(self) -> Sequence[str] | None:
        """What the labels mean, None if unknown."""

    def path(self, row: int) -> str:
        """What to call an image."""

    def file(self, row: int) -> str:
        """The same, shorter: within the store."""

    def content(self, row: int, max_bytes: int) -> bytes | Pixels:
        """The encoded image or its pixels; DataError if it is gone, has changed or is larger than allowed."""

    def stored_bytes(self, row: int) -> int:
        """About how many bytes `content` has."""

    def labels(self, rows: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """Class indices of rows, None if unknown."""

    def fingerprint(self) -> str:
        """A hash that tells whether it still holds the same."""


@dataclass(frozen=True, eq=False)
class FolderStore:
    """The images of a folder, to any depth.

    Attributes:
        folder: Where they lie.
        index: What lies there.
        divided: The rows of each split.
        name: What it is called in messages.
        crop: See `Store`.
        classes: (N,) class indices, −1 where there is none; None if the set has none.
        class_names: What they mean.
    """

    folder: Path
    index: Index
    divided: Divided
    name: str
    crop: Crop | None = None
    classes: NDArray[np.int64] | None = field(default=None, repr=False)
    class_names: Sequence[str] | None = None

    @classmethod
    def open(cls, folder: Path) -> FolderStore:
        """Take any folder as it is; its top-level folders may be splits.

        Raises:
            DataError: There is no image in it, or a folder in it cannot be read.
        """
        index = index_folder(folder)
        return cls(folder, index, divide_paths(index.names), str(folder))

    def __len__(self) -> int:
        return len(self.index.names)

    def path(self, row: int) -> str:
        """Path of the file."""
        return f"{self.folder}/{self.index.names[row]}"

    def file(self, row: int) -> str:
        """Path within the folder."""
        return self.index.names[row]

    def content(self, row: int, max_bytes: int) -> bytes:
        """Content of the file; DataError if it is gone, changed since it was listed, or larger."""
        path = self.path(row)
        try:
            with open(path, "rb", buffering=0) as file:
                known = os.fstat(file.fileno())
                if (known.st_size, known.st_mtime_ns) != (self.index.sizes[row], self.index.times[row]):
                    self.index.forget()
                    raise DataError(f"{path}: has changed since the folder was listed")
                if known.st_size > max_bytes:
                    raise DataError(f"{path}: is larger than {max_bytes:,} bytes")
                return file.read()
        except OSError as error:
            if error.errno == errno.ENOENT and self.index.sizes[row] >= 0:  # there when it was listed
                self.index.forget()
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error

    def stored_bytes(self, row: int) -> int:
        """Size of the file when it was listed."""
        return max(0, int(self.index.sizes[row]))

    def labels(self, rows: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """Class indices, where the set has them and none of these rows lacks one (−1)."""
        if self.classes is None or (self.classes[rows] < 0).any():
            return None
        return self.classes[rows]

    def fingerprint(self) -> str:
        """Hash of the names and sizes of all files."""
        return self.index.fingerprint()
