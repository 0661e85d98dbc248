"""Files written whole or not at all, JSON and arrays that are checked when read; cache folders; seeds."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.npyio import NpzFile

from mfimage.console import json_text
from mfimage.errors import FULL, DataError, MfimageError, ResourceError, boundary
from mfimage.limits import RATIO, Refused, most_bytes
from mfimage.outputs import check, temporary_name

_FORMULA = re.compile(r"(?![+-]?[\d.]+(e[+-]?\d+)?$)[=+\-@\t\r]")  # what one begins with, numbers apart


@contextmanager
def whole(path: Path, durable: bool = False) -> Iterator[Path]:
    """Give a temporary name beside a path, whose file takes the path's name if all goes well, else none.

    The name is of this call alone, so that two processes may write the same file. What is `durable` is on the
    disk before it takes its name, also if the machine fails. A full disk is a ResourceError, an input of the
    command in this place a UsageError.
    """
    check(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        with room_for(path):
            yield temporary
            if durable:
                to_disk(temporary)
            os.replace(temporary, path)
        if durable:
            with suppress(OSError):  # not every system does this for folders
                to_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def room_for(path: Path) -> Iterator[None]:
    """Turn a full disk, met in writing a file, into a ResourceError that names it."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise ResourceError(f"{path}: cannot be written: {error.strerror}") from error


def to_disk(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def write_text(path: str | Path, text: str, durable: bool = False) -> Path:
    """Write a file whole or not at all, see `whole`; return its path."""
    with whole(Path(path), durable) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")  # names that are no UTF-8
    return Path(path)


def write_csv(path: str | Path, rows: Sequence[Mapping[str, Any]], digits: int | None = None) -> Path:
    """Write rows of the same columns under a head, None as nothing; `digits` rounds numbers to so many.

    A text that a spreadsheet would take for a formula gets a ' before it; line breaks in it are quoted.
    """
    lines = [list(rows[0]), *([_cell(value, digits) for value in row.values()] for row in rows)]
    return write_text(path, "".join(map(_csv_line, lines)))


def _cell(value: Any, digits: int | None) -> Any:
    if isinstance(value, float):
        return f"{value:.{digits}g}" if digits else value
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def _csv_line(cells: Sequence[Any]) -> str:
    text = io.StringIO()
    csv.writer(text).writerow(cells)  # by its own end of lines, so that it quotes carriage returns too
    return text.getvalue().removesuffix("\r\n") + "\n"


def write_json(path: str | Path, values: Any, indent: int | None = 2, durable: bool = False) -> Path:
    """Write values as JSON, see `console.json_text`, whole or not at all; return the path."""
    return write_text(path, json_text(values, indent) + "\n", durable)


def read_json(
    path: str | Path, what: str = "JSON file", error: type[MfimageError] = DataError
) -> dict[str, Any]:
    """Read a JSON file that holds one object; the error says "PATH: not a readable WHAT (REASON)"."""
    require_regular(path, error)
    with boundary(error, f"{path}: not a readable {what}"):
        values = json.loads(Path(path).read_text(encoding="utf-8-sig"))  # some editors write a mark first
    if not isinstance(values, dict):
        kind = type(values).__name__
        raise error(f"{path}: not a readable {what} (one JSON object is expected, not {kind})")
    return values


def require_regular(path: str | Path, error: type[MfimageError] = DataError) -> None:
    """Refuse a pipe, a socket or a device, whose reading may never end; what is missing passes."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise error(f"{path}: not a regular file")


@contextmanager
def open_npz(path: str | Path) -> Iterator[NpzFile]:
    """Open the arrays of an .npz file, no pickles, within a `boundary`: a damaged one raises nearly anything.

    So does one whose arrays are larger than `limits` allow, or than their content, or come twice.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError("not a regular file")
    with open(path, "rb") as stream:  # opened here because numpy leaves a damaged one open
        if stream.read(2) != b"PK":
            raise ValueError("not an .npz file")
        stream.seek(0)
        with np.load(stream, allow_pickle=False) as arrays:
            _require_honest(arrays, os.fstat(stream.fileno()).st_size)
            yield arrays


def _require_honest(arrays: NpzFile, size: int) -> None:
    """Refuse an .npz file by what its headers say, before anything is unpacked."""
    members = arrays.zip.infolist() if arrays.zip else []
    if len({member.filename for member in members}) < len(members):
        raise Refused("an array in it comes twice")
    if (claimed := sum(member.file_size for member in members)) > most_bytes(size):
        raise Refused(f"it unpacks to {claimed:,} bytes, over {RATIO} times its own; numpy.savez packs less")
    for member in members:
        with arrays.zip.open(member) as content:  # type: ignore[union-attr]
            if content.read(6) != np.lib.format.MAGIC_PREFIX:
                raise Refused(f"{member.filename} is no array")
            first, known = content.read(2)[0] == 1, np.lib.format
            read = known.read_array_header_1_0 if first else known.read_array_header_2_0
            shape, _, dtype = read(content)
            held = member.file_size - content.tell()
        if not dtype.hasobject and math.prod(shape) * dtype.itemsize != held:
            raise Refused(f"{member.filename} is not of the shape {shape} that it says")


def file_hash(path: Path) -> str:
    """Compute the SHA-256 of a file's content, in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def cache_folder(*parts: str) -> Path | None:
    """Return $XDG_CACHE_HOME/mfimage/PARTS, by default below ~/.cache; None where there is no home."""
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return None
    return base.joinpath("mfimage", *parts)


def user_path(given: str | Path) -> Path:
    """Read a path as a user writes it: ~ is the home folder, unless a file has that name or there is none."""
    path = Path(given)
    if not os.path.lexists(path):
        with suppress(RuntimeError):
            return path.expanduser()
    return path


def stream(seed: int, number: int) -> torch.Generator:
    """Make the generator of a step, chunk or epoch: its seed is (seed · 1,000,003 + number) mod 2⁶³."""
    return torch.Generator().manual_seed((seed * 1_000_003 + number) % 2**63)
