"""New image files of a folder as they appear, once they are whole."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mfimage.datasets.index import SETTLED
from mfimage.datasets.listing import ListedFile, Scan, scan_folder
from mfimage.errors import DataError

_LOOK = 0.25  # seconds between two looks
_WHOLE = 1.0  # seconds for which a file has not changed, when it is taken to be whole
_AGAIN = 60.0  # seconds after which a folder is listed again though no name in it came or went


class Watch:
    """The image files that appear in a folder and below it; those that are there already are passed over.

    A file is given when size and time have stood still for a second, and once more whenever it has changed
    since; one that is put there whole, by renaming it, is best. What is kept is 8 bytes a file that lies in
    the folder, and the files that are still being written.

    Args:
        folder: Hidden files in it, and what no image is called, are left out; see `scan_folder`.
        clock: Seconds, for tests; monotonic.
        sleep: Waits so many of them.

    Attributes:
        passed: How many images were there already.

    Raises:
        DataError: If there is no such folder, or it cannot be listed, now or later.
    """

    def __init__(
        self,
        folder: str | Path,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.folder, self.clock, self.sleep = Path(folder), clock, sleep
        if not self.folder.is_dir():
            raise DataError(f"{folder}: no such folder to watch")
        self.waiting: dict[str, tuple[ListedFile, float]] = {}  # and since when it is as it is
        found = self._scan()
        self.known = _marks(found.files)
        self.passed = len(found.files)

    def arrivals(self, most: int, until_idle: float | None = None) -> Iterator[list[str]]:
        """Give the paths of new files, at most `most` at a time, as soon as they are whole, in natural order.

        It ends when nothing has come for `until_idle` seconds, or never.
        """
        last = self.clock()
        while True:
            self._look()
            whole = self._whole()
            for begin in range(0, len(whole), most):
                yield whole[begin : begin + most]
            if whole or self.waiting:
                last = self.clock()
            elif until_idle is not None and self.clock() - last >= until_idle:
                return
            self.sleep(_LOOK)

    def _scan(self) -> Scan:
        began, self._scanned = time.time_ns(), self.clock()
        found = scan_folder(self.folder)
        # A folder that changed just now may change again within its clock's tick.
        self._times = found.times if max(found.times.values()) < began - SETTLED else {}
        return found

    def _look(self) -> None:
        """List the folder if it may have changed, and note what is new."""
        if self._times and self._unchanged() and self.clock() - self._scanned < _AGAIN:
            return
        files = self._scan().files
        marks = _marks(files)
        for row in np.flatnonzero(~np.isin(marks, self.known)):
            if files[row].path not in self.waiting:
                self.waiting[files[row].path] = files[row], self.clock()
        there = {mark.path for mark in files} if self.waiting else set()
        self.waiting = {path: seen for path, seen in self.waiting.items() if path in there}
        self.known = self.known[np.isin(self.known, marks)]  # those that are gone are forgotten

    def _unchanged(self) -> bool:
        try:
            return all(os.stat(self.folder / name).st_mtime_ns == t for name, t in self._times.items())
        except OSError:
            return False

    def _whole(self) -> list[str]:
        """Take from those that wait what has stood still."""
        done = []
        for path, (before, since) in list(self.waiting.items()):
            try:
                found = os.stat(self.folder / path)
            except OSError:  # gone, or a broken link, which reading will tell
                now = before
            else:
                now = ListedFile(path, found.st_size, found.st_mtime_ns)
            if now != before:
                self.waiting[path] = now, self.clock()
            elif self.clock() - since >= _WHOLE:
                del self.waiting[path]
                self.known = np.append(self.known, _marks([now]))
                done.append(f"{self.folder}/{path}")
        return done


def _marks(files: list[ListedFile]) -> NDArray[np.uint64]:
    """A number of 64 bits of each file, by its path, size and time."""
    texts = (os.fsencode(f"{one.path}\0{one.size}\0{one.time}") for one in files)
    return np.array(
        [int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") for text in texts], np.uint64
    )
