"""Lists of paths on standard input."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Iterator, Sequence
from io import BufferedIOBase
from pathlib import Path

from mfimage.errors import DataError, UsageError

_PIECE = 2**16  # bytes that are read at once
_LONGEST = 2**20  # bytes of a path
_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def with_listed(inputs: Sequence[str]) -> list[str]:
    """Put the lines of standard input in the place of -."""
    listed: list[str] = []
    refuse_options(inputs)
    for one in inputs:
        listed += listed_paths(sys.stdin.buffer.read()) if one == "-" else [one]
    if not listed:
        raise DataError("standard input: no paths, one a line, are listed here")
    return listed


def refuse_options(inputs: Sequence[str]) -> None:
    """Raise UsageError for what looks like an option among inputs, one of which may be -."""
    for one in inputs:
        if one.startswith("-") and one != "-" and not Path(one).exists():
            raise UsageError(f"Unknown option: {one}.")


def arriving_paths(source: BufferedIOBase, most: int) -> Iterator[list[str]]:
    """Give the paths of a list, see `listed_paths`, as its lines come, at most `most` at a time.

    No more is kept than what came at once, and a line that is not yet at its end.
    """
    left = b""
    while piece := source.read1(_PIECE):
        left += piece
        if left.startswith(_WIDE):
            left += source.read()
            break
        whole, end, left = left.rpartition(b"\0" if b"\0" in left else b"\n")
        names = listed_paths(whole + end)
        yield from (names[begin : begin + most] for begin in range(0, len(names), most))
        if len(left) > _LONGEST:
            raise DataError("standard input: no list of paths, one a line: a line of it has no end")
    names = listed_paths(left)
    yield from (names[begin : begin + most] for begin in range(0, len(names), most))


def listed_paths(content: bytes) -> list[str]:
    """Read a list of paths, one a line, as programs of any system write it: with a byte order mark, CRLF.

    Only a line feed ends a line, since names may hold any other break. Where there is a NUL, as of
    `find -print0`, it ends each path instead.
    """
    if content.startswith(_WIDE):
        content = content.decode("utf-16", "surrogatepass").encode("utf-8", "surrogatepass")
    end = b"\0" if b"\0" in content else b"\n"
    names = map(os.fsdecode, content.removeprefix(codecs.BOM_UTF8).split(end))
    cut = (name if os.path.lexists(name) else name.removesuffix("\r") for name in names)
    return [name for name in cut if name]
