"""CelebA and ImageNet: named sets that are folders of photographs, as they are distributed."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from mfimage.datasets.decode import data_errors
from mfimage.datasets.index import Names, index_folder
from mfimage.datasets.named import located
from mfimage.datasets.pixels import Crop
from mfimage.datasets.splits import Divided, group_rows
from mfimage.datasets.stores import FolderStore, Kinds
from mfimage.errors import DataError

# (x, y) = (15 … 163, 40 … 188): Larsen et al. 2015, arXiv 1512.09300; Dinh et al. 2016, arXiv 1605.08803.
CROP_148 = Crop(height=218, width=178, top=40, left=15, side=148)
CROP_178 = Crop(height=218, width=178, top=20, left=0, side=178)

_PARTITION = ("list_eval_partition.txt", "list_eval_partition.csv")
_SPLITS = {"0": "train", "1": "valid", "2": "test"}


def celeba(root: str | Path | None = None, crop: Crop = CROP_148) -> FolderStore:
    """The 202,599 aligned faces of CelebA, in the official splits train, valid and test.

    A square is cut out of each image of 178×218 before it is scaled: of side 148 around the face, as in most
    papers that show faces at 64×64, or the largest, of side 178. Liu, Luo, Wang, Tang, 2015, arXiv 1411.7766.
    """
    folder = located(
        "celeba",
        root,
        ("celeba", "CelebA", ""),
        lambda place: (place / "img_align_celeba").is_dir() and bool(_partitions(place)),
        "img_align_celeba/ (the aligned images, unpacked) and list_eval_partition.txt",
        "Both are at https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html, for non-commercial research; "
        "torchvision.datasets.CelebA(FOLDER, download=True) gets them too",
    )
    index = index_folder(folder / "img_align_celeba")
    divided = _divide_celeba(index.names, _partitions(folder)[0])
    return FolderStore(folder / "img_align_celeba", index, divided, "celeba", crop)


def _partitions(folder: Path) -> list[Path]:
    return [folder / name for name in _PARTITION if (folder / name).is_file()]


def _divide_celeba(names: Names, path: Path) -> Divided:
    with data_errors(str(path), "cannot be read"):
        lines = path.read_text(encoding="ascii").split("\n")
    # 000001.jpg 0, or with a comma; the images may have been converted to another format
    known = {m[1]: _SPLITS[m[2]] for line in lines if (m := re.match(r"(\d+)\.\w+[\s,]+([012])\s*$", line))}
    divided = group_rows((known.get(PurePosixPath(name).stem) for name in names), _SPLITS.values())
    if not any(divided.values()):
        raise DataError(f"{path}: names none of the images in img_align_celeba/")
    return {**divided, "all": range(len(names))}


def imagenet(root: str | Path | None = None) -> FolderStore:
    """ImageNet (ILSVRC 2012): "train", and as "test" the official validation images, as everyone measures.

    No box is cut out: as for any folder the shorter side is scaled to `size`, antialiased, and the middle
    of the longer one kept. Labels are the places of the classes' folders in alphabetical order. Russakovsky
    et al., 2014, arXiv 1409.0575.
    """
    folder = located(
        "imagenet",
        root,
        ("imagenet", "ImageNet", "ILSVRC2012", "ILSVRC/Data/CLS-LOC", ""),
        lambda place: (place / "train").is_dir() and (place / "val").is_dir(),
        "train/ and val/, with a folder a class (n01440764/, …)",
        "Register at https://image-net.org, unpack the archives of 2012, and sort val/ into folders of "
        "classes if labels are wanted",
    )
    index = index_folder(folder)
    divided, classes, names = _divide_imagenet(index.names)
    return FolderStore(folder, index, divided, "imagenet", kinds=Kinds(classes, names))


def _divide_imagenet(names: Names) -> tuple[Divided, NDArray[np.int64], list[str]]:
    parts = {"train": "train", "val": "test"}
    divided = group_rows((parts.get(top) for top, _ in map(_place, names)), parts.values())
    known = sorted({kind for top, kind in map(_place, names) if top == "train" and kind})
    number = {kind: i for i, kind in enumerate(known)}
    classes = np.fromiter((number.get(kind, -1) for _, kind in map(_place, names)), np.int64, len(names))
    both = array("q", sorted([*divided["train"], *divided["test"]]))
    return {**divided, "all": both}, classes, known


def _place(name: str) -> tuple[str, str]:
    """Top folder and class of a path; the class is empty where there is no folder for it."""
    top, _, rest = name.partition("/")
    return top, rest.partition("/")[0] if "/" in rest else ""


FOLDERS: dict[str, Callable[[str | Path | None], FolderStore]] = {
    "celeba": celeba,
    "celeba-178": lambda root: celeba(root, CROP_178),
    "imagenet": imagenet,
}
