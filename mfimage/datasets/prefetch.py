"""Read ahead: threads decode what comes next while the present is worked on, and the order stays.

Threads, because Pillow and numpy free the interpreter while they decode, scale and copy, at least half of the
time; they share the files' lists, start at once, and end with an error like any call.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from torch import Tensor

Key = TypeVar("Key")
Value = TypeVar("Value")


def workers() -> int:
    """How many threads decode: one a core that this process may use, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, cores)


def ahead(
    read: Callable[[Key], Value], keys: Iterable[Key], threads: int | None = None, depth: int | None = None
) -> Generator[Value, None, None]:
    """Read values in threads, in the order of their keys, never more than a few before they are wanted.

    Keys are drawn in the caller's thread, as the values are taken. An error in `read` is raised where its
    value would have come. Closing the generator waits for what is being read and drops what is not yet begun.

    Args:
        read: Key to value; called by several threads at once.
        keys: What is read.
        threads: `workers()` if None.
        depth: Values that are read or wait to be taken, two a thread if None.
    """
    threads = threads or workers()
    left = iter(keys)
    waiting: deque[Future[Value]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="mfimage-read")
    try:
        waiting.extend(pool.submit(read, key) for key in islice(left, depth or 2 * threads))
        while waiting:
            value = waiting.popleft().result()
            waiting.extend(pool.submit(read, key) for key in islice(left, 1))
            yield value
    finally:
        pool.shutdown(cancel_futures=True)


class Ahead:
    """The batches of a training, of which the next are read while the present one trains.

    A batch follows from its step alone: a resumed training gets what an unbroken one would have got there.
    """

    def __init__(self, read: Callable[[Tensor], Tensor], rows: Callable[[int], Tensor], steps: int) -> None:
        self._read, self._rows, self._steps = read, rows, steps
        self._next = -1
        self._batches: Generator[Tensor, None, None] | None = None

    def __call__(self, step: int) -> Tensor:
        """The batch of a step; steps in turn are the quick ones."""
        if step != self._next or self._batches is None:
            self.close()
            self._batches = ahead(self._read, map(self._rows, range(step, max(step + 1, self._steps))))
        self._next = step + 1
        return next(self._batches)

    def close(self) -> None:
        """Stop reading ahead."""
        if self._batches is not None:
            self._batches.close()
            self._batches = None
