"""Where images lie that are read one at a time: folders, files and zips; others in `shards` and `objects`."""

from __future__ import annotations

import errno
import hashlib
import os
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from mfimage.datasets.listing import Index, image_paths, index_folder, require_some
from mfimage.datasets.pixels import Crop, Pixels
from mfimage.datasets.splits import Divided, divide_paths
from mfimage.errors import DataError


class Store(ABC):
    """Images in an order of their own; threads may read at the same time.

    Attributes:
        name: What it is called in messages.
        divided: The rows of each split.
        crop: A box that is cut out of every image, None for all of it.
        class_names: What the labels mean, None if unknown.
    """

    name: str
    divided: Divided
    crop: Crop | None = None
    class_names: Sequence[str] | None = None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def path(self, row: int) -> str:
        """What to call an image."""

    @abstractmethod
    def content(self, row: int, max_bytes: int) -> bytes | Path | Pixels:
        """An image: its file's content or path, or pixels; DataError if it is gone, changed or too large."""

    @abstractmethod
    def fingerprint(self) -> str:
        """A hash that tells whether it still holds the same."""

    def labels(self, rows: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """Class indices of rows, None if unknown."""
        return None

    def file(self, row: int) -> str:
        """The name of an image within the store."""
        return PurePosixPath(self.path(row)).name


@dataclass(frozen=True, eq=False)
class FolderStore(Store):
    """The images of a folder, to any depth.

    Attributes:
        folder: Where they lie.
        index: What lies there.
        classes: (N,) class indices, −1 where there is none; None if the set has none.
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
        """Take any folder with images; its top-level folders may be splits."""
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

    def stored_bytes(self, row: int) -> int:
        """Size of the file when it was listed."""
        return max(0, int(self.index.sizes[row]))

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

    def labels(self, rows: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """Class indices, where the set has them and none of these rows lacks one (−1)."""
        if self.classes is None or (self.classes[rows] < 0).any():
            return None
        return self.classes[rows]

    def fingerprint(self) -> str:
        """Hash of the names and sizes of all files."""
        return self.index.fingerprint()


class FileStore(Store):
    """Files as they are named."""

    def __init__(self, paths: Sequence[str], name: str) -> None:
        self.paths, self.name, self.divided = paths, name, {"all": range(len(paths))}

    def __len__(self) -> int:
        return len(self.paths)

    def path(self, row: int) -> str:
        """Path of the file."""
        return self.paths[row]

    def content(self, row: int, max_bytes: int) -> Path:
        """Path of the file."""
        return Path(self.paths[row])

    def fingerprint(self) -> str:
        """Hash of the paths."""
        return hashlib.sha256("\0".join(self.paths).encode("utf-8", "surrogateescape")).hexdigest()


class ZipStore(Store):
    """The images in a zip file, read in place; DataError if it is none or holds none."""

    def __init__(self, path: Path) -> None:
        self.name, self._process = str(path), -1
        self._names = image_paths(self._archive().namelist())
        require_some(self._names, f"zip file {path}")
        self.divided = divide_paths(self._names)

    def _archive(self) -> zipfile.ZipFile:
        if self._process != os.getpid():  # a forked process would share the place in the file
            try:
                self._opened, self._process = zipfile.ZipFile(self.name), os.getpid()
            except (OSError, zipfile.BadZipFile) as error:
                raise DataError(f"{self.name}: is not a readable zip file: {error}") from error
        return self._opened

    def __len__(self) -> int:
        return len(self._names)

    def path(self, row: int) -> str:
        """Path of the zip and in it."""
        return f"{self.name}/{self._names[row]}"

    def content(self, row: int, max_bytes: int) -> bytes:
        """Content of a file; DataError if it is damaged, encrypted, packed in an unknown way or too large."""
        archive, member = self._archive(), self._names[row]
        if archive.getinfo(member).file_size > max_bytes:
            raise DataError(f"{self.path(row)}: unpacks to more than {max_bytes:,} bytes")
        try:
            return archive.read(member)
        except (OSError, RuntimeError, zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise DataError(f"{self.path(row)}: cannot be unpacked: {error}") from error

    def fingerprint(self) -> str:
        """Hash of names, sizes and checksums."""
        known = [self._archive().getinfo(name) for name in self._names]
        return hashlib.sha256(
            repr([(one.filename, one.file_size, one.CRC) for one in known]).encode()
        ).hexdigest()
