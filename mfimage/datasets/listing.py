"""What lies in a folder, a zip or an array file."""

from __future__ import annotations

import glob
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from mfimage.datasets.decode import IMAGE_SUFFIXES
from mfimage.datasets.pixels import Pixels
from mfimage.errors import DataError


def natural(path: str) -> tuple[str, str]:
    """Sort key that puts `img2` before `img10`; equal ones are ordered by their plain text."""
    return re.sub(r"[0-9]+", _number, path.lower()), path


def _number(match: re.Match[str]) -> str:
    # NUL, which is in no path, puts a number before any letter; its length puts 9 before 10.
    digits = match[0].lstrip("0")
    return f"\0{chr(len(digits))}{digits}"


def _images(paths: Iterable[str]) -> list[str]:
    """Those that end like an image and lie in no hidden place, in natural order."""
    chosen = [path for path in paths if _is_image(path) and not any(map(_hidden, path.split("/")))]
    return sorted(chosen, key=natural)


def _is_image(path: str) -> bool:
    return PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES


def _hidden(part: str) -> bool:
    return (part.startswith(".") and part not in (".", "..")) or part == "__MACOSX"


class Found(NamedTuple):
    """A file in a folder: its relative path ("/" between folders), size in bytes, time of change in ns."""

    path: str
    size: int
    time: int


def scan_folder(folder: Path) -> tuple[list[Found], dict[str, int]]:
    """The images in a folder and below it, in natural order, and the time of change of every folder seen.

    Hidden files and folders are left out; links to files are followed (a broken one has size −1), links to
    folders are not; what is neither (a pipe) is left out.

    Args:
        folder: An existing folder.

    Returns:
        The images, maybe none, and the times (ns) by relative path, the folder itself being "".

    Raises:
        DataError: A folder in it cannot be read.
    """
    found: list[Found] = []
    times: dict[str, int] = {}
    left = [""]
    while left:
        here = left.pop()
        try:
            # Before it is listed: what changes meanwhile then makes the time too old, not too new.
            times[here] = os.stat(folder / here).st_mtime_ns
            with os.scandir(folder / here) as entries:
                seen = [entry for entry in entries if not _hidden(entry.name)]
        except OSError as error:
            raise DataError(f"{error.filename}: cannot be read: {error.strerror}") from error
        found += _files(seen, here)
        left += [f"{here}{entry.name}/" for entry in seen if entry.is_dir(follow_symlinks=False)]
    return sorted(found, key=lambda one: natural(one.path)), times


def _files(entries: list[os.DirEntry[str]], here: str) -> Iterator[Found]:
    for entry in entries:
        if not _is_image(entry.name):
            continue
        try:
            known = entry.stat()
        except OSError:
            yield Found(here + entry.name, -1, -1)
            continue
        if stat.S_ISREG(known.st_mode):
            yield Found(here + entry.name, known.st_size, known.st_mtime_ns)


def list_folder(folder: Path) -> list[str]:
    """Relative paths of the images in a folder; see `scan_folder`.

    Raises:
        DataError: There is no image in it, or a folder in it cannot be read.
    """
    return some([one.path for one in scan_folder(folder)[0]], f"folder {folder}")


def list_zip(archive: zipfile.ZipFile) -> list[str]:
    """Names of the images in a zip, in natural order; errors as in `list_folder`."""
    return some(_images(archive.namelist()), f"zip file {archive.filename}")


def some(paths: list[str], where: str) -> list[str]:
    """Raise DataError if there are no paths, else return them."""
    if not paths:
        raise DataError(f"{where}: holds no images ({', '.join(IMAGE_SUFFIXES)})")
    return paths


def open_zip(path: Path) -> zipfile.ZipFile:
    """Open a zip file for reading in place.

    Raises:
        DataError: It cannot be read or is no zip file.
    """
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: is not a readable zip file: {error}") from error


def read_member(archive: zipfile.ZipFile, member: str, max_bytes: int) -> bytes:
    """Content of one file in a zip.

    Args:
        archive: An open zip.
        member: Name in it.
        max_bytes: A larger one is refused before it is unpacked.

    Raises:
        DataError: It is too large, damaged, encrypted or packed by an unknown method.
    """
    if archive.getinfo(member).file_size > max_bytes:
        raise DataError(f"{archive.filename}/{member}: unpacks to more than {max_bytes:,} bytes")
    try:
        return archive.read(member)
    except (OSError, RuntimeError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DataError(f"{archive.filename}/{member}: cannot be unpacked: {error}") from error


def read_arrays(path: Path) -> tuple[Pixels, np.ndarray | None]:
    """Images, and labels where there are any, of an .npy or .npz file; never a pickle.

    Args:
        path: In an .npz the images are the array `images`, else `arr_0`, else the only one with 3 or 4
            dimensions; `labels` (N,), if there, are the labels.

    Returns:
        Images (N, H, W) or (N, H, W, C) as stored (memory-mapped from .npy), and labels (N,) or None.

    Raises:
        DataError: The file is damaged, holds Python objects, or no array of images can be told.
    """
    try:
        if path.suffix.lower() == ".npy":
            return np.load(path, mmap_mode="r", allow_pickle=False), None
        # Opened here because numpy leaves a damaged one open.
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            labels = arrays.get("labels")
            return _pick(arrays, path), labels
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: cannot be read as arrays (pickles are never loaded): {error}") from error


def _pick(arrays: np.lib.npyio.NpzFile, path: Path) -> Pixels:
    for key in ("images", "arr_0"):
        if key in arrays:
            return arrays[key]
    likely = [array for key in arrays.files if (array := arrays[key]).ndim in (3, 4)]
    if len(likely) != 1:
        raise DataError(f"{path}: name the array of images `images`; there are {', '.join(arrays.files)}")
    return likely[0]


def iter_files(inputs: Iterable[str | Path]) -> list[Path]:
    """Expand files, folders and glob patterns to image files, in the order given.

    Args:
        inputs: A file is taken whatever its name; a folder gives the images in it and below it, a pattern
            (`*`, `?`, `[…]`, `**`) those that it matches, both in natural order.

    Returns:
        Paths of files.

    Raises:
        DataError: An input matches nothing.
    """
    return [path for one in inputs for path in _expand(one)]


def _expand(one: str | Path) -> list[Path]:
    path = Path(one).expanduser()
    if path.is_dir():
        return [path / relative for relative in list_folder(path)]
    if path.exists():
        return [path]
    matches = [Path(match) for match in glob.glob(str(path), recursive=True)]
    images = [match for match in matches if match.suffix.lower() in IMAGE_SUFFIXES and match.is_file()]
    if not images:
        raise DataError(f"{one}: no such file or folder, and no image matches it as a pattern")
    return sorted(images, key=lambda match: natural(str(match)))
