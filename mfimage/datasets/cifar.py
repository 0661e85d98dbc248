"""CIFAR-10 from the files that its authors distribute, as binary or for Python.

The files for Python are pickles. A pickle is a program; this reader runs none of it: the three names that an
array needs stand for one class without methods, and any other is refused.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from mfimage.datasets.pixels import Pixels
from mfimage.datasets.roots import located
from mfimage.errors import DataError

BINARY, PYTHON = "cifar-10-batches-bin", "cifar-10-batches-py"
PLACES = tuple(f"{place}{folder}" for place in ("", "cifar10/", "CIFAR10/") for folder in (BINARY, PYTHON))
_BATCHES = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
_SIDE = 32
_ROW = 3 * _SIDE * _SIDE
_NAMES = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
}


def cifar10(part: str, root: str | Path | None = None) -> tuple[Pixels, np.ndarray]:
    """The photographs of CIFAR-10, in the order of the original batches.

    Args:
        part: "train" (50,000) or "test" (10,000).
        root: Where cifar-10-batches-bin or cifar-10-batches-py lies; $MFIMAGE_DATA if None.

    Returns:
        Images (N, 32, 32, 3) uint8 and labels (N,) in 0..9.

    Raises:
        DataError: The files are not there, damaged, or a pickle among them holds something else.

    Reference:
        Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
    """
    batches = _BATCHES[part]
    folder = located(
        "cifar10",
        root,
        PLACES,
        lambda place: all(_file(place, batch).is_file() for batch in batches),
        f"{', '.join(batches)} (.bin in {BINARY}, no ending in {PYTHON})",
        "Unpack the binary or the Python version of https://www.cs.toronto.edu/~kriz/cifar.html there; "
        "torchvision.datasets.CIFAR10(FOLDER, download=True) does",
    )
    read = read_binary if folder.name == BINARY else read_pickle
    rows, labels = zip(*(read(_file(folder, batch)) for batch in batches), strict=True)
    images = np.concatenate(rows).reshape(-1, 3, _SIDE, _SIDE)
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1)), np.concatenate(labels)


def _file(folder: Path, batch: str) -> Path:
    return folder / (f"{batch}.bin" if folder.name == BINARY else batch)


def read_binary(path: Path) -> tuple[Pixels, np.ndarray]:
    """Read a batch of the binary version: a byte of the label and 3,072 of the pixels an image.

    Raises:
        DataError: The file cannot be read or is cut off.
    """
    content = np.frombuffer(_content(path), np.uint8)
    if content.size == 0 or content.size % (1 + _ROW):
        raise DataError(f"{path}: {content.size} bytes are not whole images of {1 + _ROW}; it is cut off")
    rows = content.reshape(-1, 1 + _ROW)
    return _checked(path, rows[:, 1:], rows[:, 0])


class _Inert:
    """What stands for numpy's classes while a pickle is read: it keeps what it is given."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments, self.state = arguments, ()

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Reader(pickle._Unpickler):  # in Python: the one in C allocates what a damaged file claims
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NAMES:
            raise pickle.UnpicklingError(
                f"it asks for {module[:60]}.{name[:60]}, which no batch of CIFAR-10 does"
            )
        return _Inert


def read_pickle(path: Path) -> tuple[Pixels, np.ndarray]:
    """Read a batch of the Python version, executing nothing: {b"data": (N, 3072) uint8, b"labels": [N]}.

    Raises:
        DataError: The file cannot be read, is damaged, or holds anything else.
    """
    content = _content(path)
    try:
        batch = _Reader(io.BytesIO(content), encoding="bytes").load()
        batch = {key if isinstance(key, bytes) else str(key).encode(): value for key, value in batch.items()}
        _, shape, _, in_columns, pixels = batch[b"data"].state
        if in_columns or not isinstance(pixels, bytes):
            raise ValueError("its pixels lie in another order than the original's")
        rows = np.frombuffer(pixels, np.uint8).reshape(shape)
        labels = np.array(batch[b"labels"], np.int64)
    except MemoryError:
        raise
    except Exception as error:  # a damaged pickle raises nearly every type
        raise DataError(f"{path}: is not a batch of CIFAR-10: {error or type(error).__name__}") from error
    return _checked(path, rows, labels)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def _checked(path: Path, rows: Pixels, labels: np.ndarray) -> tuple[Pixels, np.ndarray]:
    if rows.shape != (len(labels), _ROW) or labels.ndim != 1 or not ((labels >= 0) & (labels < 10)).all():
        raise DataError(f"{path}: {rows.shape} pixels and {labels.shape} labels are not a batch of CIFAR-10")
    return rows, labels
