"""Arrays of images that are known by name: where they lie, how to get them, and the formats of their files.

`fashion-mini` is bundled in data/fashion-mini.npz: the first 10,000 training and the first 2,000 test images
of Fashion-MNIST, in the order of the original files, with their labels; arrays `train` (10000, 28, 28),
`train_labels` (10000,), `test` (2000, 28, 28), `test_labels` (2000,), all uint8, written by
`numpy.savez_compressed`. The licence is beside it.
"""

from __future__ import annotations

import gzip
import io
import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mfimage._torchvision import import_torchvision
from mfimage.datasets.decode import data_errors
from mfimage.datasets.pickles import ARRAYS, Unpickler
from mfimage.datasets.pixels import Pixels, resize
from mfimage.datasets.splits import choose, divide_rows
from mfimage.errors import DataError, UsageError, boundary
from mfimage.files import cache_folder, open_npz, user_path

Labelled = tuple[Pixels, np.ndarray]

_MINI = Path(__file__).parent / "data" / "fashion-mini.npz"
_DEBIAN = Path("/usr/share/datasets/fashion-mnist")
_IDX = {"train": "train", "test": "t10k"}
_BINARY, _PYTHON = "cifar-10-batches-bin", "cifar-10-batches-py"
_MOST = 256_000_000  # bytes of a file; what a small gzipped one could unpack to has no end
_ROW = 3 * 32 * 32  # values of an image of CIFAR-10
_BATCHES = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}


def data_root(root: str | Path | None = None) -> Path:
    """Give the folder of named sets: `root`, else $MFIMAGE_DATA, else the cache folder ~/.cache/mfimage."""
    chosen = root or os.environ.get("MFIMAGE_DATA") or cache_folder()
    if chosen is None:
        raise DataError("there is no home folder in which named sets could lie: set MFIMAGE_DATA")
    return user_path(chosen)


def located(
    name: str,
    root: str | Path | None,
    places: Sequence[str],
    holds: Callable[[Path], bool],
    expected: str,
    advice: str,
) -> Path:
    """Find the first place below `data_root(root)` that holds a set; `advice` calls the root FOLDER."""
    base = data_root(root)
    for place in places:
        if holds(base / place):
            return base / place
    where = "\n  ".join(str(base / place) for place in places)
    raise DataError(
        f"{name}: is not there. Expected {expected} in one of\n  {where}\n"
        f"{advice.replace('FOLDER', repr(str(base)))}; $MFIMAGE_DATA chooses another folder than {base}"
    )


def fashion_mini(split: str) -> Labelled:
    """The bundled part of Fashion-MNIST: 10,000 train and 2,000 test images (N, 28, 28), labels in 0..9.

    Xiao, Rasul, Vollgraf, Fashion-MNIST, 2017, arXiv 1708.07747.
    """
    parts = _parts(split, "fashion-mini")
    damaged = f"{_MINI}: the bundled file is damaged, install mfimage again"
    with boundary(DataError, damaged), open_npz(_MINI) as arrays:
        return _joined([(arrays[part], arrays[f"{part}_labels"]) for part in parts])


def digits(split: str) -> Labelled:
    """The 1,797 handwritten digits that scikit-learn bundles, 8×8 enlarged to 28×28, bright on black.

    A tenth is the test split, held out by index as for any array. Alpaydin, Kaynak, Optical Recognition of
    Handwritten Digits, UCI Machine Learning Repository, 1998.
    """
    from sklearn.datasets import load_digits

    flat, labels = load_digits(return_X_y=True)
    chosen = list(choose(divide_rows(len(flat)), split, "digits"))
    small = np.rint(flat[chosen].reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    return np.stack([resize(image, 28)[..., 0] for image in small]), labels[chosen]


def fashion_whole(part: str, root: str | Path | None = None) -> Labelled:
    """All of Fashion-MNIST, 60,000 train and 10,000 test, from Debian's package or torchvision's download.

    Debian's dataset-fashion-mnist is read if no root is given; else torchvision's folder FashionMNIST below
    the root is, or is made.
    """
    if root is None and _DEBIAN.is_dir():
        files = [_DEBIAN / f"{stem}.gz" for stem in _idx_stems(part)]
        return read_idx(files[0]), read_idx(files[1])
    import_torchvision()
    from torchvision.datasets import FashionMNIST

    place = data_root(root)
    missing = (
        f"fashion-mnist: is not in {_DEBIAN} and cannot be downloaded to {place}; install Debian's "
        "dataset-fashion-mnist, set MFIMAGE_DATA to a folder that has it, or use fashion-mini"
    )
    with boundary(DataError, missing):
        whole = FashionMNIST(str(place), train=part == "train", download=True)
    return whole.data.numpy(), whole.targets.numpy()


def mnist(part: str, root: str | Path | None = None) -> Labelled:
    """The handwritten digits of MNIST, 60,000 train and 10,000 test, from the original files, gzipped or not.

    LeCun, Bottou, Bengio, Haffner, Gradient-based learning applied to document recognition, 1998.
    """
    stems = _idx_stems(part)
    folder = located(
        "mnist",
        root,
        ("MNIST/raw", "mnist", "MNIST", ""),
        lambda place: all(_plain_or_gzipped(place / stem).is_file() for stem in stems),
        " and ".join(f"{stem}[.gz]" for stem in stems),
        "torchvision.datasets.MNIST(FOLDER, download=True) puts them there",
    )
    images, labels = (read_idx(_plain_or_gzipped(folder / stem)) for stem in stems)
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise DataError(f"{folder}: {images.shape} images and {labels.shape} labels are not those of MNIST")
    return images, labels


def _idx_stems(part: str) -> list[str]:
    return [f"{_IDX[part]}-{what}-ubyte" for what in ("images-idx3", "labels-idx1")]


def _plain_or_gzipped(path: Path) -> Path:
    return path if path.is_file() else path.with_name(f"{path.name}.gz")


def cifar10(part: str, root: str | Path | None = None) -> Labelled:
    """The photographs of CIFAR-10 (N, 32, 32, 3), 50,000 train and 10,000 test, in the original order.

    Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
    """

    def files(place: Path) -> list[Path]:
        return [place / (f"{batch}.bin" if place.name == _BINARY else batch) for batch in _BATCHES[part]]

    folder = located(
        "cifar10",
        root,
        [f"{place}{version}" for place in ("", "cifar10/", "CIFAR10/") for version in (_BINARY, _PYTHON)],
        lambda place: all(file.is_file() for file in files(place)),
        f"{', '.join(_BATCHES[part])} (.bin in {_BINARY}, no ending in {_PYTHON})",
        "Unpack the binary or the Python version of https://www.cs.toronto.edu/~kriz/cifar.html there; "
        "torchvision.datasets.CIFAR10(FOLDER, download=True) does",
    )
    rows, labels = _joined([read_cifar(file) for file in files(folder)])
    return np.ascontiguousarray(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)), labels


def read_idx(path: Path) -> Pixels:
    """Read an IDX file of unsigned bytes, the format of MNIST, gzipped if it ends in .gz.

    Bytes 0, 0, 8 (unsigned byte) and n; n dimensions as big-endian 32-bit integers; the values.
    """
    packed = path.suffix == ".gz"
    with boundary(DataError, f"{path}: is not a readable {'gzipped ' if packed else ''}IDX file"):
        with gzip.open(path) if packed else open(path, "rb") as file:
            content = file.read(_MOST)
        zero, kind, dimensions = struct.unpack_from(">HBB", content)
        shape = struct.unpack_from(f">{dimensions}I", content, 4)
    start = 4 + 4 * dimensions
    if zero or kind != 8 or len(content) - start != np.prod(shape, dtype=np.int64):
        raise DataError(f"{path}: is damaged, or no IDX file of bytes")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def read_cifar(path: Path) -> Labelled:
    """Read a batch of CIFAR-10, of images (N, 3072): .bin is the binary version, others that for Python."""
    with data_errors(str(path)), open(path, "rb") as file:
        content = file.read(_MOST + 1)
    if len(content) > _MOST:
        raise DataError(f"{path}: is larger than {_MOST:,} bytes, which no batch of CIFAR-10 is")
    rows, labels = (_binary if path.suffix == ".bin" else _pickled)(path, content)
    if rows.shape != (len(labels), _ROW) or labels.ndim != 1 or not ((labels >= 0) & (labels < 10)).all():
        raise DataError(f"{path}: {rows.shape} pixels and {labels.shape} labels are not a batch of CIFAR-10")
    return rows, labels


def _binary(path: Path, content: bytes) -> Labelled:
    """Of each image a byte of the label and 3,072 of the pixels."""
    if not content or len(content) % (1 + _ROW):
        raise DataError(f"{path}: {len(content)} bytes are not whole images of {1 + _ROW}; it is cut off")
    rows = np.frombuffer(content, np.uint8).reshape(-1, 1 + _ROW)
    return rows[:, 1:], rows[:, 0]


def _pickled(path: Path, content: bytes) -> Labelled:
    """A pickle {b"data": (N, 3072) uint8, b"labels": [N]}, of which nothing is executed."""
    with data_errors(str(path), "is not a batch of CIFAR-10"):
        batch = Unpickler(io.BytesIO(content), ARRAYS).load()
        batch = {key if isinstance(key, bytes) else str(key).encode(): value for key, value in batch.items()}
        _, shape, _, in_columns, pixels = batch[b"data"].state
        labels = batch[b"labels"]
        if in_columns or not isinstance(pixels, bytes) or not isinstance(labels, list):
            raise ValueError("its pixels lie in another order than the original's")
        if not all(type(number) is int for number in (*shape, *labels)):  # a list may hold itself, twice
            raise ValueError("its shape and its labels are no plain numbers")
        return np.frombuffer(pixels, np.uint8).reshape(shape), np.array(labels, np.int64)


BUNDLED: dict[str, Callable[[str], Labelled]] = {"fashion-mini": fashion_mini, "digits": digits}
PLACED: dict[str, Callable[[str, str | Path | None], Labelled]] = {
    "fashion-mnist": fashion_whole,
    "mnist": mnist,
    "cifar10": cifar10,
}
_CLOTHES = (
    "t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
_OBJECTS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_DIGITS = tuple("0123456789")
NAMED: dict[str, tuple[str, ...]] = {  # what the labels of each mean
    "fashion-mini": _CLOTHES,
    "digits": _DIGITS,
    "fashion-mnist": _CLOTHES,
    "mnist": _DIGITS,
    "cifar10": _OBJECTS,
}


def read_named(name: str, split: str, root: str | Path | None = None) -> Labelled:
    """Read a split (train, test or all) of one of NAMED: images (N, H, W[, C]) uint8 and labels (N,)."""
    if name in PLACED:
        return _joined([PLACED[name](part, root) for part in _parts(split, name)])
    if root is not None:
        raise UsageError(f"{name}: is bundled, and not looked for in {root}")
    return BUNDLED[name](split)


def _parts(split: str, name: str) -> list[str]:
    return choose({"train": ["train"], "test": ["test"], "all": ["train", "test"]}, split, name)


def _joined(parts: list[Labelled]) -> Labelled:
    images, labels = zip(*parts, strict=True)
    return np.concatenate(images), np.concatenate(labels)
