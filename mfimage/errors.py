"""What can go wrong, each with the exit code that the command line documents."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # of a disk, one's part of it, or what a file may take
_LONGEST = 200  # characters of a reason


@dataclass(frozen=True)
class Skipped:
    """A file that could not be read."""

    path: str
    reason: str


class MfimageError(Exception):
    """An error whose message says what is wrong, in which file, and what to do."""

    exit_code = 1


class UsageError(MfimageError):
    """The request itself makes no sense (exit code 2)."""

    exit_code = 2


class DataError(MfimageError):
    """Images are missing, unreadable or of the wrong kind (exit code 3)."""

    exit_code = 3


class NoSplitError(DataError):
    """A source has no split of this name, or nothing in it (exit code 3)."""


class MixedSizesError(DataError):
    """Images of one set have several sizes, and none was asked for (exit code 3)."""


class ModelError(MfimageError):
    """A checkpoint or a set of weights is missing, damaged or does not match (exit code 4)."""

    exit_code = 4


class DivergedError(MfimageError):
    """Training met a non-finite loss and stopped (exit code 5)."""

    exit_code = 5


class ResourceError(MfimageError):
    """The disk or the memory is full (exit code 6)."""

    exit_code = 6


class UnfamiliarWarning(UserWarning):
    """Images are far from what the model was trained on: what is made of them may be invented."""


class ChangedWarning(UserWarning):
    """A result cannot keep all that its image has, such as colour or transparency."""


class Interrupted(KeyboardInterrupt):
    """A signal stopped the work once it had saved its step (exit code 128 + signal: 130 or 143).

    A KeyboardInterrupt, so that no `except Exception`, of a sweep for instance, swallows it.
    """

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


@contextmanager
def boundary(kind: type[MfimageError], what: str) -> Iterator[None]:
    """Turn whatever goes wrong in reading a file into one kind of error, "WHAT (REASON)".

    Readers and decoders raise nearly every type on damaged files. Errors of that kind, a lack of memory and
    a full disk pass as they are.
    """
    try:
        yield
    except (kind, ResourceError, MemoryError):
        raise
    except Exception as error:
        raise kind(f"{what} ({reason_of(error)})") from error


def reason_of(error: Exception) -> str:
    """Say what went wrong: in an error's own words where they are meant for people, else in a short line."""
    if isinstance(error, MfimageError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    text = " ".join(str(error).split())[:_LONGEST]
    if text and isinstance(error, OSError | ValueError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
