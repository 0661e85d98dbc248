"""MNIST and files like it: arrays of bytes in the IDX format, plain or gzipped."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np

from mfimage.datasets.pixels import Pixels
from mfimage.datasets.roots import located
from mfimage.errors import DataError

PLACES = ("MNIST/raw", "mnist", "MNIST", "")
FILES = {"train": "train", "test": "t10k"}
_MOST = 256_000_000  # bytes; what a small file could unpack to has no end


def mnist(part: str, root: str | Path | None = None) -> tuple[Pixels, np.ndarray]:
    """The handwritten digits of MNIST, from the four original files, gzipped or not.

    Args:
        part: "train" (60,000) or "test" (10,000).
        root: Where the files or torchvision's folder MNIST lie; $MFIMAGE_DATA if None.

    Returns:
        Images (N, 28, 28) uint8 and labels (N,) in 0..9.

    Raises:
        DataError: The files are not there or damaged.

    Reference:
        LeCun, Bottou, Bengio, Haffner, Gradient-based learning applied to document recognition, 1998.
    """
    stems = [f"{FILES[part]}-{what}-ubyte" for what in ("images-idx3", "labels-idx1")]
    folder = located(
        "mnist",
        root,
        PLACES,
        lambda place: all(_either(place / stem).is_file() for stem in stems),
        " and ".join(f"{stem}[.gz]" for stem in stems),
        "torchvision.datasets.MNIST(FOLDER, download=True) puts them there",
    )
    images, labels = (read_idx(_either(folder / stem)) for stem in stems)
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise DataError(f"{folder}: {images.shape} images and {labels.shape} labels are not those of MNIST")
    return images, labels


def _either(path: Path) -> Path:
    return path if path.is_file() else path.with_name(f"{path.name}.gz")


def read_idx(path: Path) -> Pixels:
    """Read an IDX file of unsigned bytes, the format of MNIST, gzipped if it ends in .gz.

    Bytes 0, 0, 8 (unsigned byte) and n; n dimensions as big-endian 32-bit integers; the values.

    Args:
        path: The file.

    Returns:
        An array of uint8 with the dimensions that the file states.

    Raises:
        DataError: The file is missing, damaged, truncated or holds something else.
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
