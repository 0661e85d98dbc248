"""Which images of a source belong to which split.

A source that is divided already keeps its division: top-level folders named train (training), valid (val,
validation, dev) and test (testing, eval, evaluation) are the splits, also with more words around where there
are several, as train_images and test_images. Otherwise a tenth is held out as `test` and the rest is
`train`, by a hash of each relative path (of its index, for an array), so that the division is the same on
every machine and adding files moves none. `all` is everything, also what lies beside such folders.
"""

from __future__ import annotations

import hashlib
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias, TypeVar

import torch
from torch import Tensor

from mfimage.errors import NoSplitError

Divided: TypeAlias = Mapping[str, Sequence[int]]
"""Name of each split, and which rows are in it, ascending; "all" is one of them."""

_Part = TypeVar("_Part", bound=Sequence)

_SPELLINGS = {  # as Hugging Face's data sets have them
    "train": ("train", "training"),
    "valid": ("valid", "val", "validation", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_FOLDERS = {name: split for split, names in _SPELLINGS.items() for name in names}
SPLIT_FOLDERS = tuple(_FOLDERS)


def held_out(key: str) -> bool:
    """Whether the hash of this key puts it into the tenth that is `test`.

    first 8 bytes of SHA-256(key), as a number, mod 10 = 0
    """
    digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") % 10 == 0


def validation_rows(count: int, most: int, seed: int) -> tuple[Tensor, Tensor]:
    """Divide a training split: rows to learn from, ascending, and those that watch the error.

    The latter are drawn by the seed: `most`, but at most a tenth, and at least one. They are in the order of
    drawing, so that the first few of them tell of all, whatever order the images have.
    """
    order = drawn_rows(count, count, seed)
    watching = max(1, min(most, count // 10))
    return order[watching:].sort().values, order[:watching]


def drawn_rows(count: int, most: int, seed: int) -> Tensor:
    """Rows drawn by the seed, in the order of drawing: `most` of them, or all if there are fewer."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:most]


def group_rows(marks: Iterable[str | None], splits: Iterable[str] = ()) -> dict[str, array]:
    """The rows of each split, given that of every row, None for none; the named ones may be empty."""
    divided = {split: array("q") for split in splits}
    for row, mark in enumerate(marks):
        if mark is not None:
            divided.setdefault(mark, array("q")).append(row)
    return divided


def divide_rows(count: int) -> Divided:
    """The splits of rows that have no names: by the hash of each row's index."""
    return _by_hash(map(str, range(count)), count)


def divide_paths(paths: Sequence[str]) -> Divided:
    """The splits of relative paths ("/" between folders): by top-level folders, else by each path's hash.

    Folders around all of them are looked through; folders of classes may hold those of the splits.
    """
    marked = group_rows(split for split, _ in _splits_and_classes(paths))
    return {**marked, "all": range(len(paths))} if marked else _by_hash(paths, len(paths))


def _by_hash(keys: Iterable[str], count: int) -> Divided:
    marks = ("test" if held_out(key) else "train" for key in keys)
    return {**group_rows(marks, ("train", "test")), "all": range(count)}


def class_folders(paths: Sequence[str]) -> list[str]:
    """The folder of each path that is its class: the first below the split's; "" where there is none."""
    return [kind for _, kind in _splits_and_classes(paths)]


def _splits_and_classes(paths: Sequence[str]) -> Iterator[tuple[str | None, str]]:
    depth = _common_depth(paths)

    def folders() -> Iterator[tuple[str, str]]:
        for path in paths:
            top, below = (*path.split("/")[depth:-1], "", "")[:2]
            yield top, below

    seen = set(folders())
    marks, inner = _marks(top for top, _ in seen), _marks(below for _, below in seen)
    if not marks and {"train"} < set(inner.values()) and all(below in inner for _, below in seen):
        yield from ((inner[below], top) for top, below in folders())  # cats/train, cats/test, dogs/train, …
        return
    for top, below in folders():
        yield marks.get(top), below if top in marks else top


def _marks(names: Iterable[str]) -> dict[str, str]:
    """The splits that folders are named after; with more words around only if there are several splits."""
    words = {name: re.split(r"[-_. ]+", name.lower()) for name in names}
    exact = {name: _FOLDERS[name.lower()] for name in words if name.lower() in _FOLDERS}
    found = {name: _FOLDERS.get(some[0]) or _FOLDERS.get(some[-1]) for name, some in words.items()}
    loose = {name: split for name, split in found.items() if split is not None}
    return loose if len(set(loose.values())) > 1 else exact


def named_split(path: str) -> str | None:
    """The split that a file's name begins with, or its folder's name is: `train-00001.parquet`; else None."""
    *folders, file = path.split("/")
    first = re.split(r"[-_.]", file.lower())[0]
    return _FOLDERS.get(first) or next((_FOLDERS[f.lower()] for f in folders if f.lower() in _FOLDERS), None)


def _common_depth(paths: Sequence[str]) -> int:
    """How many folders, none of them named like a split, are around all paths, as in many a zip."""
    common = paths[0].split("/")[:-1] if len(paths) else []
    for path in paths:
        while common and path.split("/")[: len(common)] != common:
            common.pop()
    return next((i for i, name in enumerate(common) if name.lower() in _FOLDERS), len(common))


def split_name(name: str) -> str:
    """The name of a split under any of its spellings, such as "valid" for "validation"."""
    return _FOLDERS.get(name.lower(), name.lower())


def choose(divided: Mapping[str, _Part], split: str, name: str) -> _Part:
    """What is in a split of a source called `name`; NoSplitError if it is not there, or nothing in it."""
    wanted = split_name(split)
    if wanted not in divided:
        raise NoSplitError(f"{name}: has no split {split!r}; there are {', '.join(divided)}")
    if hasattr(divided[wanted], "__len__") and not len(divided[wanted]):  # a stream has none
        counts = ", ".join(f"{key} {len(part)}" for key, part in divided.items())
        raise NoSplitError(f"{name}: nothing falls into the split {split!r} ({counts}): give more images")
    return divided[wanted]
