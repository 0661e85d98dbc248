"""Signals that end a process, collected while something must not be broken off."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any


def endings() -> list[signal.Signals]:
    """SIGTERM, and SIGHUP of a terminal that goes away, unless it is ignored, as below `nohup`."""
    hang_up = [getattr(signal, name) for name in ("SIGHUP",) if hasattr(signal, name)]  # not on Windows
    return [signal.SIGTERM, *(one for one in hang_up if signal.getsignal(one) is not signal.SIG_IGN)]


@contextmanager
def caught_signals() -> Iterator[list[int]]:
    """Collect SIGINT and `endings` instead of dying in mid-step; a second one is not held back."""
    caught: list[int] = []
    previous: dict[int, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        signal.signal(number, previous[number] or signal.SIG_DFL)

    with suppress(ValueError):  # not the main thread: whoever runs it there handles its signals
        for wanted in (signal.SIGINT, *endings()):
            previous[wanted] = signal.signal(wanted, note)
    try:
        yield caught
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler or signal.SIG_DFL)
