"""SIGINT and SIGTERM, collected while something must not be broken off."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any


@contextmanager
def caught_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying in the middle of a step; a second one is not held back."""
    caught: list[int] = []
    previous: dict[int, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        signal.signal(number, previous[number] or signal.SIG_DFL)

    with suppress(ValueError):  # not the main thread: whoever runs it there handles its signals
        for wanted in (signal.SIGINT, signal.SIGTERM):
            previous[wanted] = signal.signal(wanted, note)
    try:
        yield caught
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler or signal.SIG_DFL)
