"""What is done to images so that all of a set have one size and one number of channels."""

from __future__ import annotations

from threading import Lock


class Changes:
    """How many images were scaled, and how many lost their colour; threads may share it."""

    def __init__(self) -> None:
        self._seen = self._scaled = self._greyed = 0
        self._largest, self._size = (0, 0, 0, ""), (0, 0)
        self._lock = Lock()

    def add(self, name: str, before: tuple[int, ...], after: tuple[int, ...]) -> None:
        """Note an image that had one shape (H, W, C), and now has another."""
        with self._lock:
            self._seen += 1
            self._greyed += before[2] > after[2]
            if before[:2] != after[:2]:
                self._scaled += 1
                self._size = (after[0], after[1])
                self._largest = max(self._largest, (before[0] * before[1], before[0], before[1], name))

    def notes(self) -> tuple[str, ...]:
        """Say what was done, a sentence each; nothing where nothing was."""
        _, rows, columns, name = self._largest
        (height, width), seen = self._size, f"of {self._seen:,} images"
        scaled = f"{self._scaled:,} {seen} are scaled and cut to {width}×{height} pixels"
        scaled += f"; the largest, {name}, has {columns}×{rows}"
        greyed = f"{self._greyed:,} {seen} lose their colour"
        return (scaled,) * (self._scaled > 0) + (greyed,) * (self._greyed > 0)
