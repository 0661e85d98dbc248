"""Lists of paths on standard input."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from mfimage.errors import DataError, UsageError


def with_listed(inputs: Sequence[str]) -> list[str]:
    """Put the lines of standard input in the place of -."""
    listed: list[str] = []
    for one in inputs:
        if one.startswith("-") and one != "-" and not Path(one).exists():
            raise UsageError(f"Unknown option: {one}.")
        listed += listed_paths(sys.stdin.buffer.read()) if one == "-" else [one]
    if not listed:
        raise DataError("standard input: no paths, one a line, are listed here")
    return listed


def listed_paths(content: bytes) -> list[str]:
    """Read a list of paths, one a line, as programs of any system write it: with a byte order mark, CRLF.

    Only a line feed ends a line, since names may hold any other break. Where there is a NUL, as of
    `find -print0`, it ends each path instead.
    """
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        content = content.decode("utf-16", "surrogatepass").encode("utf-8", "surrogatepass")
    end = b"\0" if b"\0" in content else b"\n"
    names = map(os.fsdecode, content.removeprefix(codecs.BOM_UTF8).split(end))
    cut = (name if os.path.lexists(name) else name.removesuffix("\r") for name in names)
    return [name for name in cut if name]
