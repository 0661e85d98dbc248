"""The file formats of MNIST (IDX) and CIFAR-10 (binary, and pickles that are read without executing them)."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from pathlib import Path

import numpy as np

from mfimage.datasets.pickles import ARRAYS, Unpickler
from mfimage.datasets.pixels import Pixels
from mfimage.errors import DataError

_MOST = 256_000_000  # bytes of an IDX file; what a small gzipped one could unpack to has no end
_ROW = 3 * 32 * 32  # values of an image of CIFAR-10


def read_idx(path: Path) -> Pixels:
    """Read an IDX file of unsigned bytes, the format of MNIST, gzipped if it ends in .gz.

    Bytes 0, 0, 8 (unsigned byte) and n; n dimensions as big-endian 32-bit integers; the values.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            content = file.read(_MOST)
        zero, kind, dimensions = struct.unpack_from(">HBB", content)
        shape = struct.unpack_from(f">{dimensions}I", content, 4)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        packed = "gzipped " if path.suffix == ".gz" else ""
        raise DataError(f"{path}: is not a readable {packed}IDX file: {error}") from error
    start = 4 + 4 * dimensions
    if zero or kind != 8 or len(content) - start != np.prod(shape, dtype=np.int64):
        raise DataError(f"{path}: is damaged, or no IDX file of bytes")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def read_cifar_binary(path: Path) -> tuple[Pixels, np.ndarray]:
    """Read a batch of the binary CIFAR-10: of each image a byte of the label and 3,072 of the pixels."""
    content = np.frombuffer(_content(path), np.uint8)
    if content.size == 0 or content.size % (1 + _ROW):
        raise DataError(f"{path}: {content.size} bytes are not whole images of {1 + _ROW}; it is cut off")
    rows = content.reshape(-1, 1 + _ROW)
    return _checked(path, rows[:, 1:], rows[:, 0])


def read_cifar_pickle(path: Path) -> tuple[Pixels, np.ndarray]:
    """Read a batch of CIFAR-10 for Python, {b"data": (N, 3072) uint8, b"labels": [N]}, executing nothing."""
    content = _content(path)
    try:
        batch = Unpickler(io.BytesIO(content), ARRAYS).load()
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
