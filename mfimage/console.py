"""The terminal: what is said where, progress, and how failures end."""

from __future__ import annotations

import errno
import json
import logging
import math
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from mfimage import signals
from mfimage.errors import FULL, MfimageError, reason_of
from mfimage.streams import prepare_streams, printable, put, say

if TYPE_CHECKING:
    from mfimage.errors import Skipped


def prepare() -> None:
    """Make SIGTERM and a lost terminal run clean-up, threads fail in a line, and streams safe to use."""
    for ended in signals.endings():
        signal.signal(ended, lambda number, frame: sys.exit(128 + number))
    threading.excepthook = _tell_of_thread
    prepare_streams()


def _tell_of_thread(failed: threading.ExceptHookArgs) -> None:
    """Say what failed in a thread, such as TensorBoard's; whoever needs its work is told in its own way."""
    if isinstance(failed.exc_value, Exception):
        say(f"warning: {reason_of(failed.exc_value)}", logging.WARNING)


@contextmanager
def exit_codes(verbose: bool = False, batched: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Turn every failure into a message and a documented exit code.

    With `verbose` the traceback is shown too; `batched` says whether the verb has a --batch-size.
    """
    try:
        yield
        put("", end="")
    except KeyboardInterrupt as stopped:
        _fail(str(stopped) or "interrupted", getattr(stopped, "exit_code", 128 + signal.SIGINT), verbose)
    except BrokenPipeError:  # nobody reads on, as of `| head`
        sys.exit(1)
    except Exception as error:
        _fail(*_diagnose(error, batched), verbose)


def _diagnose(error: Exception, batched: Callable[[], bool]) -> tuple[str, int]:
    if isinstance(error, MfimageError):
        return str(error), error.exit_code
    text = f"{type(error).__name__}: {error}".rstrip(": ")
    if isinstance(error, MemoryError) or "out of memory" in text.lower() or "can't allocate memory" in text:
        advice = ": lower --batch-size" if batched() else ""
        return f"out of memory{advice} ({text.splitlines()[0]})", 6
    if isinstance(error, OSError):
        return reason_of(error), 6 if error.errno in (*FULL, errno.ENOMEM) else 2
    return f"{text} (an internal error; -v shows the traceback)", 1


def _fail(message: str, code: int, verbose: bool) -> NoReturn:
    if verbose:
        say(traceback.format_exc().rstrip(), logging.ERROR)
    say(f"mfimage: {message}", logging.ERROR)
    sys.exit(code)


@contextmanager
def optional(what: str) -> Iterator[None]:
    """Report on stderr what fails of a last step that is not essential: the work before it is done."""
    try:
        yield
    except Exception as error:
        say(f"warning: no {what}: {reason_of(error)}", logging.WARNING)


class Late:
    """Errors of steps after the work, kept until its result is told; of several the first is raised.

    >>> late = Late()
    >>> with late:
    ...     raise OSError("the disk is full")
    >>> late.end()
    Traceback (most recent call last):
    OSError: the disk is full
    """

    def __init__(self) -> None:
        self.error: Exception | None = None

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, where: object) -> bool:
        if isinstance(error, Exception):
            self.error = self.error or error
        return isinstance(error, Exception)

    def end(self) -> None:
        """Raise the first error."""
        if self.error is not None:
            raise self.error


def json_text(values: Any, indent: int | None = None) -> str:
    """Write values as JSON; what it has no word for, such as an infinite PSNR, becomes null."""
    return json.dumps(_finite(values), indent=indent, allow_nan=False, default=str)


def _finite(values: Any) -> Any:
    if is_dataclass(values) and not isinstance(values, type):
        return _finite(asdict(values))
    if isinstance(values, Mapping):
        return {name: _finite(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [_finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def counted(n: int, what: str) -> str:
    """Write a number of things: 1 image, 1,349 images."""
    return f"{n:,} {what}{'s' * (n != 1)}"


def percent(share: float) -> str:
    """Write a share in percent, with two digits below 10 %."""
    return f"{100 * share:.{0 if share >= 0.0995 else 1}f} %"


def list_skipped(skipped: Sequence[Skipped]) -> None:
    """List skipped files, with the reasons, on stderr."""
    if skipped:
        listed = "".join(f"\n  {printable(bad.path)}: {printable(bad.reason)}" for bad in skipped)
        say(f"{counted(len(skipped), 'file')} skipped:{listed}", logging.WARNING)


INTERVAL = 10.0  # seconds between lines of progress where no bar can be drawn
FIRST = 2.0  # seconds before the first of them


class Advance(Protocol):
    """Tells a progress bar how many are done, of how many, and what else to say."""

    def __call__(self, done: int, total: int | None = None, note: str = "") -> None:
        """Show that so many are done."""


@contextmanager
def progress(
    what: str, total: int | None = None, quiet: bool = False, own_words: bool = False
) -> Iterator[Advance]:
    """Show on stderr how much is done: a bar on a terminal, elsewhere a line every ten seconds.

    Nothing is shown before the first call: what has nothing to do says nothing, and outside a terminal
    what is done within two seconds neither. With `own_words` the notes say how much is done, and how long
    the rest takes, and the last one is always said.
    """
    if quiet:
        yield lambda done, total=None, note="": None
        return
    shown = (_Bar if sys.stderr.isatty() else _Lines)(what, total, own_words)
    try:
        yield shown
    finally:
        shown.close()


class _Bar:
    """A progress bar, of a task that may go on from its middle."""

    def __init__(self, what: str, total: int | None, own_words: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        note = TextColumn("{task.fields[note]}")
        said = [note] if own_words else [MofNCompleteColumn(), note, TimeRemainingColumn()]
        columns = (TextColumn("{task.description:9}"), BarColumn(), *said)
        self.bar = Progress(*columns, console=Console(file=sys.stderr), refresh_per_second=2)
        self.what, self.total = what, total

    def __call__(self, done: int, total: int | None = None, note: str = "") -> None:
        self.total = total or self.total
        with suppress(OSError):  # the terminal is gone
            if not self.bar.tasks:
                self.bar.start()
                self.bar.add_task(self.what, completed=done, total=self.total, note=note)
            self.bar.update(self.bar.task_ids[0], completed=done, total=self.total, note=note)

    def close(self) -> None:
        with suppress(OSError):
            if self.bar.tasks:
                self.bar.stop()


class _Lines:
    """A line after two seconds, one every ten seconds, and then one at the end."""

    def __init__(self, what: str, total: int | None, own_words: bool) -> None:
        self.what, self.total, self.own_words = what, total, own_words
        self.first: tuple[float, int] | None = None  # when it began, and how much was done then
        self.said, self.line, self.last = time.monotonic() - INTERVAL + FIRST, "", own_words

    def __call__(self, done: int, total: int | None = None, note: str = "") -> None:
        now, self.total = time.monotonic(), total or self.total
        self.first = self.first or (now, done)
        count = f"{done}/{self.total}" if self.total else f"{done}"
        words = (note,) if self.own_words else (count, note, self._time_left(now, done))
        self.line = f"{self.what:9} {'  '.join(filter(None, words))}"
        if now - self.said >= INTERVAL:
            self._say(now)

    def _time_left(self, now: float, done: int) -> str:
        began, before = self.first or (now, done)
        if not (self.total and before < done < self.total):
            return ""
        return f"{duration((now - began) / (done - before) * (self.total - done))} left"

    def _say(self, now: float) -> None:
        say(self.line)
        self.said, self.line, self.last = now, "", True

    def close(self) -> None:
        if self.line and self.last:
            self._say(self.said)


def duration(seconds: float, given: bool = False) -> str:
    """Write a time as a person would say it: 45 s, 6 min, 1.5 h; a `given` one is not rounded."""
    if seconds < 90 or (given and seconds % 60):
        return f"{max(seconds, 0):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def rates(record: Mapping[str, float]) -> str:
    """Say the loss of a training step, and its speed."""
    return f"loss {record['loss']:.4g}  {record['images_per_second']:.0f} images/s"
