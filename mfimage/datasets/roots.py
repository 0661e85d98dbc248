"""Where named sets lie that cannot be bundled."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from mfimage.errors import DataError


def data_root(root: str | Path | None = None) -> Path:
    """The folder given, else $MFIMAGE_DATA, else ~/.cache/mfimage."""
    return Path(root or os.environ.get("MFIMAGE_DATA") or Path.home() / ".cache" / "mfimage").expanduser()


def located(
    name: str,
    root: str | Path | None,
    places: Sequence[str],
    holds: Callable[[Path], bool],
    expected: str,
    advice: str,
) -> Path:
    """The first of some folders that holds a set.

    Args:
        name: Of the set.
        root: See `data_root`.
        places: Folders below it, in the order in which they are looked at.
        holds: Whether the set is in a folder.
        expected: What should be there, for the message.
        advice: How to get it; FOLDER in it stands for the root.

    Raises:
        DataError: None does; the message says what was expected where and how to get it.
    """
    base = data_root(root)
    for place in places:
        if holds(base / place):
            return base / place
    where = "\n  ".join(str(base / place) for place in places)
    raise DataError(
        f"{name}: is not there. Expected {expected} in one of\n  {where}\n"
        f"{advice.replace('FOLDER', repr(str(base)))}; $MFIMAGE_DATA chooses another folder than {base}"
    )
