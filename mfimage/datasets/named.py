"""Image sets that are known by name.

`fashion-mini` is bundled in data/fashion-mini.npz: the first 10,000 training and the first 2,000 test images
of Fashion-MNIST, in the order of the original files, with their labels; arrays `train` (10000, 28, 28),
`train_labels` (10000,), `test` (2000, 28, 28), `test_labels` (2000,), all uint8, written by
`numpy.savez_compressed`. The licence is beside it.
"""

from __future__ import annotations

import gzip
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mfimage._torchvision import import_torchvision
from mfimage.datasets.decode import resize
from mfimage.datasets.pixels import Pixels
from mfimage.datasets.splits import choose, split_indices
from mfimage.errors import DataError

Labelled = tuple[Pixels, np.ndarray]

_MINI = Path(__file__).parent / "data" / "fashion-mini.npz"
_DEBIAN = Path("/usr/share/datasets/fashion-mnist")
_FILES = {"train": "train", "test": "t10k"}


def fashion_mini(split: str) -> Labelled:
    """The bundled part of Fashion-MNIST: 10,000 train and 2,000 test images.

    Args:
        split: "train", "test" or "all".

    Returns:
        Images (N, 28, 28) uint8 and labels (N,) in 0..9.

    Raises:
        DataError: There is no such split, or the file is damaged.

    Reference:
        Xiao, Rasul, Vollgraf, Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
        Algorithms, 2017, arXiv 1708.07747.
    """
    try:
        with open(_MINI, "rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return _joined(
                [(arrays[part], arrays[f"{part}_labels"]) for part in _parts(split, "fashion-mini")]
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{_MINI}: the bundled file is damaged, install mfimage again: {error}") from error


def fashion_mnist(split: str) -> Labelled:
    """All of Fashion-MNIST, from Debian's package dataset-fashion-mnist or torchvision's download.

    The download goes to $MFIMAGE_DATA, by default ~/.cache/mfimage.

    Args:
        split: "train" (60,000), "test" (10,000) or "all".

    Returns:
        Images (N, 28, 28) uint8 and labels (N,) in 0..9.

    Raises:
        DataError: There is no such split, a file is damaged, or the download fails.
    """
    read = _fashion_debian if _DEBIAN.is_dir() else _fashion_torchvision
    return _joined([read(part) for part in _parts(split, "fashion-mnist")])


def _fashion_debian(part: str) -> Labelled:
    stem = _FILES[part]
    return read_idx(_DEBIAN / f"{stem}-images-idx3-ubyte.gz"), read_idx(
        _DEBIAN / f"{stem}-labels-idx1-ubyte.gz"
    )


def _fashion_torchvision(part: str) -> Labelled:
    import_torchvision()
    from torchvision.datasets import FashionMNIST

    root = Path(os.environ.get("MFIMAGE_DATA") or Path.home() / ".cache" / "mfimage")
    try:
        whole = FashionMNIST(str(root), train=part == "train", download=True)
    except (RuntimeError, OSError, ValueError) as error:
        raise DataError(
            f"fashion-mnist: is not in {_DEBIAN} and cannot be downloaded to {root} ({error}); install "
            "Debian's dataset-fashion-mnist, set MFIMAGE_DATA to a folder that has it, or use fashion-mini"
        ) from error
    return whole.data.numpy(), whole.targets.numpy()


def digits(split: str) -> Labelled:
    """The 1,797 handwritten digits that scikit-learn bundles, 8×8 enlarged to 28×28: like MNIST, no download.

    Args:
        split: "train", "test" (a tenth, held out by index as for any array) or "all".

    Returns:
        Images (N, 28, 28) uint8, bright on black, and labels (N,) in 0..9.

    Raises:
        DataError: There is no such split.

    Reference:
        Alpaydin, Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998.
    """
    from sklearn.datasets import load_digits

    flat, labels = load_digits(return_X_y=True)
    chosen = split_indices(len(flat), split, "digits")
    small = np.rint(flat[chosen].reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    return np.stack([resize(image, 28)[..., 0] for image in small]), labels[chosen]


NAMED: dict[str, Callable[[str], Labelled]] = {
    "fashion-mini": fashion_mini,
    "fashion-mnist": fashion_mnist,
    "digits": digits,
}


def _parts(split: str, name: str) -> list[str]:
    return choose({"train": ["train"], "test": ["test"], "all": ["train", "test"]}, split, name)


def _joined(parts: list[Labelled]) -> Labelled:
    images, labels = zip(*parts, strict=True)
    return np.concatenate(images), np.concatenate(labels)


def read_idx(path: Path) -> Pixels:
    """Read a gzipped IDX file of unsigned bytes, the format of MNIST.

    Bytes 0, 0, 8 (unsigned byte) and n; n dimensions as big-endian 32-bit integers; the values.

    Args:
        path: The .gz file.

    Returns:
        An array of uint8 with the dimensions that the file states.

    Raises:
        DataError: The file is missing, damaged, truncated or holds something else.
    """
    try:
        content = gzip.decompress(path.read_bytes())
        zero, kind, dimensions = struct.unpack_from(">HBB", content)
        shape = struct.unpack_from(f">{dimensions}I", content, 4)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise DataError(f"{path}: is not a readable gzipped IDX file: {error}") from error
    start = 4 + 4 * dimensions
    if zero or kind != 8 or len(content) - start != np.prod(shape, dtype=np.int64):
        raise DataError(f"{path}: is damaged, or no IDX file of bytes")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
