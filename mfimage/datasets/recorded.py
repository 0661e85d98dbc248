"""The hashes that were recorded when data were written, checked when they are opened.

A file's size and times are looked at whenever it is opened; its content only if they are not those that it
had when its hash was last found right, which the user's cache keeps. So an untouched set costs nothing, a
copy is read once, and what was altered or cut is an error.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mfimage.datasets.decode import data_errors
from mfimage.datasets.index import SETTLED, kept_file
from mfimage.errors import DataError, ResourceError
from mfimage.files import file_hash, read_json, write_json

MANIFEST = "manifest.json"  # beside the shards of `mfimage pack`


def require_recorded(folder: Path, recorded: Mapping[str, str], advice: str, verify: bool = False) -> None:
    """Raise DataError unless files are those whose SHA-256 was recorded, by name.

    Args:
        folder: Where the files lie.
        recorded: The hash of each file that is asked for.
        advice: What to do about one that is another.
        verify: Read all of them, whatever is known of them.
    """
    kept, began, known = kept_file(folder, "hashes", ".json"), time.time_ns(), dict[str, Any]()
    if kept is not None and not verify:
        with suppress(DataError):  # what is not there, or damaged, is done without
            known = read_json(kept)
    found = dict(known)
    for name, digest in recorded.items():
        path = folder / name
        with data_errors(str(path)):
            stat = os.stat(path)
            seen = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, digest]
            if known.get(name) != seen and file_hash(path) != digest:
                raise DataError(f"{path}: is not as it was written, by the hash recorded then; {advice}")
        if max(stat.st_mtime_ns, stat.st_ctime_ns) < began - SETTLED:
            found[name] = seen
    if kept is not None and found != known:
        with suppress(OSError, ResourceError):  # without a cache they are read again
            write_json(kept, found)


def recorded_hashes(folder: Path) -> dict[str, str]:
    """The hashes of the shards that `mfimage pack` has written into a folder, by name.

    Empty without a manifest, and for one of somebody else's; DataError if it is damaged.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return {}
    shards = read_json(path, "list of shards").get("shards")
    if not isinstance(shards, list):
        return {}
    found = [one for one in shards if isinstance(one, dict)]
    return {
        one["file"]: one["sha256"] for one in found if isinstance(one.get("file"), str) and "sha256" in one
    }
