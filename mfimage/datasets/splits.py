"""Which images of a source belong to which split.

A source that is divided already keeps its division: top-level folders named train, valid (val, validation)
and test are the splits. Otherwise a tenth is held out as `test` and the rest is `train`, by a hash of each
relative path (of its index, for an array), so that the division is the same on every machine and adding
files moves none. `all` is everything, also what lies beside such folders.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from mfimage.errors import DataError

_FOLDERS = {"train": "train", "val": "valid", "valid": "valid", "validation": "valid", "test": "test"}


def held_out(key: str) -> bool:
    """Whether the hash of this key puts it into the tenth that is `test`.

    first 8 bytes of SHA-256(key), as a number, mod 10 = 0
    """
    digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") % 10 == 0


def split_indices(count: int, split: str, name: str) -> list[int]:
    """Positions of the rows of an array that belong to a split.

    Args:
        count: Number of rows.
        split: "train", "test" or "all".
        name: What to call the array in messages.

    Returns:
        Positions in ascending order.

    Raises:
        DataError: There is no such split, or nothing in it.
    """
    divided: dict[str, list[int]] = {"train": [], "test": [], "all": list(range(count))}
    for index in range(count):
        divided["test" if held_out(str(index)) else "train"].append(index)
    return choose(divided, split, name)


def split_paths(paths: Sequence[str], split: str, name: str) -> list[str]:
    """The relative paths that belong to a split.

    Args:
        paths: Relative paths with "/" between folders. One folder around all of them is looked through.
        split: "train", "valid" (or "val", "validation"), "test" or "all".
        name: What to call the source in messages.

    Returns:
        Those of the split, in the order given.

    Raises:
        DataError: There is no such split, or nothing in it.
    """
    divided: dict[str, list[str]] = {}
    depth = _common_depth(paths)
    for path in paths:
        *folders, _ = path.split("/")[depth:]
        if folders and folders[0].lower() in _FOLDERS:
            divided.setdefault(_FOLDERS[folders[0].lower()], []).append(path)
    if not divided:
        divided = {"train": [], "test": []}
        for path in paths:
            divided["test" if held_out(path) else "train"].append(path)
    return choose(divided | {"all": list(paths)}, split, name)


def _common_depth(paths: Sequence[str]) -> int:
    """1 where one folder, itself not named like a split, is around all paths, as in many a zip; else 0."""
    tops = {path.split("/")[0] if "/" in path else "" for path in paths}
    return int(len(tops) == 1 and not {top.lower() for top in tops} & {"", *_FOLDERS})


def choose(divided: dict[str, list], split: str, name: str) -> list:
    """The part of a divided source that has a name, under any of its spellings.

    Args:
        divided: Name of each split, and what is in it.
        split: The name asked for.
        name: What to call the source in messages.

    Returns:
        What is in it.

    Raises:
        DataError: There is no such split, or nothing in it.
    """
    wanted = _FOLDERS.get(split.lower(), split.lower())
    there = ", ".join(divided)
    if wanted not in divided:
        raise DataError(f"{name}: has no split {split!r}; there are {there}")
    if not divided[wanted]:
        counts = ", ".join(f"{key} {len(part)}" for key, part in divided.items())
        raise DataError(f"{name}: nothing falls into the split {split!r} ({counts}); ask for 'all'")
    return divided[wanted]
