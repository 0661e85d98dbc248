"""Image sets that are known by name.

`fashion-mini` is bundled in data/fashion-mini.npz: the first 10,000 training and the first 2,000 test images
of Fashion-MNIST, in the order of the original files, with their labels; arrays `train` (10000, 28, 28),
`train_labels` (10000,), `test` (2000, 28, 28), `test_labels` (2000,), all uint8, written by
`numpy.savez_compressed`. The licence is beside it.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mfimage._torchvision import import_torchvision
from mfimage.datasets.cifar import cifar10
from mfimage.datasets.mnist import FILES, mnist, read_idx
from mfimage.datasets.pixels import Pixels, resize
from mfimage.datasets.roots import data_root
from mfimage.datasets.splits import choose, split_indices
from mfimage.errors import DataError, UsageError

Labelled = tuple[Pixels, np.ndarray]

_MINI = Path(__file__).parent / "data" / "fashion-mini.npz"
_DEBIAN = Path("/usr/share/datasets/fashion-mnist")


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


def fashion_mnist(part: str, root: str | Path | None = None) -> Labelled:
    """All of Fashion-MNIST, from Debian's package dataset-fashion-mnist or torchvision's download.

    The download goes to $MFIMAGE_DATA, by default ~/.cache/mfimage.

    Args:
        part: "train" (60,000) or "test" (10,000).
        root: Where torchvision's folder FashionMNIST lies or is made; $MFIMAGE_DATA if None.

    Returns:
        Images (N, 28, 28) uint8 and labels (N,) in 0..9.

    Raises:
        DataError: A file is damaged, or the download fails.
    """
    if root is None and _DEBIAN.is_dir():
        return _fashion_debian(part)
    return _fashion_torchvision(part, data_root(root))


def _fashion_debian(part: str) -> Labelled:
    stem = FILES[part]
    return read_idx(_DEBIAN / f"{stem}-images-idx3-ubyte.gz"), read_idx(
        _DEBIAN / f"{stem}-labels-idx1-ubyte.gz"
    )


def _fashion_torchvision(part: str, root: Path) -> Labelled:
    import_torchvision()
    from torchvision.datasets import FashionMNIST

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


BUNDLED: dict[str, Callable[[str], Labelled]] = {"fashion-mini": fashion_mini, "digits": digits}
PLACED: dict[str, Callable[[str, str | Path | None], Labelled]] = {
    "fashion-mnist": fashion_mnist,
    "mnist": mnist,
    "cifar10": cifar10,
}
NAMED = (*BUNDLED, *PLACED)


def read_named(name: str, split: str, root: str | Path | None = None) -> Labelled:
    """Read a named set of arrays.

    Args:
        name: One of NAMED.
        split: "train", "test" or "all".
        root: Where it lies, for those that are not bundled; $MFIMAGE_DATA if None.

    Returns:
        Images (N, H, W) or (N, H, W, C) uint8 and labels (N,).

    Raises:
        DataError: There is no such split, or its files are not there or damaged.
        UsageError: A place is given for a bundled set.
    """
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
