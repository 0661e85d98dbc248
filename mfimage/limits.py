"""How much may become of a file when it is read: the limits of every reader of files that are not trusted.

What a file claims is cheap: 2 MB of an .npz file are 7 GB of zeros, a Parquet dictionary of 1.5 kB is 7 GB of
rows, a list in a pickle that holds itself twice is 2³² numbers. So results are counted, not what is read, and
before they are made.
"""

from __future__ import annotations

BYTES = 2**30  # that one file may become, however small it is
RATIO = 16  # bytes that each of its own may become, if that is more
ELEMENTS = 2_000_000  # of containers that a pickle fills; a network has about 100,000
INSTRUCTIONS = 1_000_000  # of a pickle; a network with discriminator and moving average has about 60,000
WALK = 1_000_000  # values met when one is walked through, as hashing and printing do
DEPTH = 1000  # of tuples in each other
NAME = 1000  # characters of a name that is put together of several
ROWS = 100_000  # that a Parquet file may claim; more only if it has a byte for each


class Refused(ValueError):
    """A file asks for what is never done, or claims more than it may become."""


class Allowance:
    """What one file may still cost; `Refused` where it asks for more."""

    def __init__(self, allocated: int | None = None) -> None:
        self._bytes = BYTES if allocated is None else allocated
        self._elements, self._instructions = ELEMENTS, INSTRUCTIONS

    def allocate(self, count: int) -> None:
        """Take bytes."""
        self._bytes -= count
        if count < 0 or self._bytes < 0:
            raise Refused("it claims more bytes than such a file may become")

    def make(self, count: int) -> None:
        """Take elements of containers."""
        self._elements -= count
        if self._elements < 0:
            raise Refused("it fills its lists, sets and dictionaries with more than any network needs")

    def step(self) -> None:
        """Take an instruction."""
        self._instructions -= 1
        if self._instructions < 0:
            raise Refused("it has more instructions than any network needs")


def most_bytes(size: int) -> int:
    """Give the bytes that a file of so many may become."""
    return max(BYTES, RATIO * size)
