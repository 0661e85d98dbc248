"""What can go wrong, each with the exit code that the command line documents."""

from __future__ import annotations

from dataclasses import dataclass


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


class Interrupted(MfimageError):
    """Training was stopped by a signal after saving (exit code 128 + signal: 130 or 143)."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = 128 + number
