"""Which image files lie in a folder or an archive, in natural order, and what lies there that is not read."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from mfimage.datasets.decode import IMAGE_SUFFIXES, data_errors
from mfimage.errors import DataError, Skipped

# What a user may take for an image of the set: formats that are not decoded, and files that hold many images.
_OTHER = re.compile(
    r"avifs?|hei[cf]|hif|jp2|j2[kc]|jpc|jp[fx]|jx[lr]|wdp|jls|svgz?|ps[db]|xcf|raw|dng|cr[23w]|nef|nrw|arw|"
    r"sr[f2w]|orf|rw2|raf|pef|x3f|3fr|erf|kdc|mos|mrw|exr|hdr|p[fpgbn]m|tga|ico|cur|icns|pcx|dds|sgi|ras|dib|bpg|qoi|"
    r"fits?|dcm|nii|eps|[ew]mf|x[pb]m"
)
_MANY = frozenset((".zip", ".npy", ".npz", ".parquet", ".tar", ".tgz", ".7z", ".rar"))
# Of file servers, Windows and macOS: thumbnails, deleted files, resource forks.
_SYSTEM = {
    "__macosx", "@eadir", "@tmp", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "$recycle.bin",
    "system volume information", "lost+found",
}  # fmt: skip


def natural(path: str) -> tuple[str, str]:
    """Sort key that puts `img2` before `img10`; equal ones are ordered by their plain text."""

    def number(match: re.Match[str]) -> str:
        # NUL, which is in no path, puts a number before any letter; its length puts 9 before 10.
        digits = match[0].lstrip("0")
        return f"\0{chr(len(digits))}{digits}"

    return re.sub(r"[0-9]+", number, path.lower()), path


def sort_members(paths: Iterable[str]) -> tuple[list[int], list[Skipped]]:
    """Tell the images among paths, in natural order, as positions, and what looks like one and is not read.

    What lies in a hidden place or a system's own is left out.
    """
    files = [(path, row) for row, path in enumerate(paths) if not path.endswith("/")]  # else a folder
    seen = [(path, row) for path, row in files if not any(map(hidden, path.split("/")))]
    images = sorted((natural(path), row) for path, row in seen if is_image(path))
    return [row for _, row in images], [one for path, _ in seen if (one := unread(path)) is not None]


def is_image(path: str) -> bool:
    """Whether a name ends like an image that is read."""
    return PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES


def unread(path: str) -> Skipped | None:
    """Say why a file is not read that may be taken for an image of the set; None for all others."""
    suffix = PurePosixPath(path).suffix.lower()
    if _OTHER.fullmatch(suffix[1:]):
        return Skipped(path, f"{suffix[1:].upper()} is not a format that mfimage reads: convert it")
    return Skipped(path, "may hold many images: give it by itself") if suffix in _MANY else None


def hidden(part: str) -> bool:
    """Whether a file or folder of this name is hidden, or a system's own."""
    return (part.startswith(".") and part not in (".", "..")) or part.lower() in _SYSTEM


def require_some(images: Sequence[object], where: str, others: Sequence[Skipped] = ()) -> None:
    """Raise DataError if there are no images; `others` is what was found instead."""
    if not images:
        instead = f"; {len(others)} others, the first {others[0].path}: {others[0].reason}" if others else ""
        raise DataError(f"{where}: holds no images ({', '.join(IMAGE_SUFFIXES)}){instead}")


class ListedFile(NamedTuple):
    """A file in a folder."""

    path: str  # relative, "/" between folders
    size: int  # bytes
    time: int  # of change, ns


class Scan(NamedTuple):
    """What was found in a folder and below it."""

    files: list[ListedFile]  # the images, in natural order; a broken link has size −1
    times: dict[str, int]  # of change (ns) of every folder seen; the folder itself is ""
    unread: list[Skipped]  # what may be taken for images and is not read, by relative path


def scan_folder(folder: Path) -> Scan:
    """List a folder and all below it; DataError if a folder in it cannot be read.

    Hidden files and folders, and those of systems, are left out. Links to files are followed, and links to
    folders, after the folders that lie there themselves: but no folder is read twice, and none that lies
    around this one.
    """
    walk = _walk(folder)
    walk.unread.sort(key=lambda one: natural(one.path))
    return Scan(sorted(walk.files, key=lambda one: natural(one.path)), walk.times, walk.unread)


def links_in(folder: Path) -> list[Path]:
    """List the links in a folder that are followed when it is read; DataError if it cannot be."""
    return [folder / link for link in _walk(folder).links]


def _walk(folder: Path) -> _Walk:
    walk = _Walk(folder)
    waiting, links = [""], list[str]()
    while waiting or links:
        if not waiting:
            links.sort(key=lambda link: natural(link.rstrip("/")), reverse=True)
            waiting.append(links.pop())
            if not walk.may_follow(waiting[-1]):
                waiting.pop()
                continue
            walk.links.append(waiting[-1])
        inner, linked = walk.enter(waiting.pop())
        waiting += inner
        links += linked
    return walk


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


class _Walk:
    """What was met in a folder so far."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._top = folder, os.path.realpath(folder)
        self.files: list[ListedFile] = []
        self.times: dict[str, int] = {}
        self.unread: list[Skipped] = []
        self.links: list[str] = []
        self._seen: set[tuple[int, int]] = set()

    def may_follow(self, link: str) -> bool:
        """Whether a link to a folder leads away from here; else it is noted."""
        target = os.path.realpath(self.folder / link)
        if os.path.commonpath((target, self._top)) != target:
            return True
        self.unread.append(Skipped(link.rstrip("/"), "is a link to a folder that it lies in: not followed"))
        return False

    def enter(self, here: str) -> tuple[list[str], list[str]]:
        """List a folder, unless it was read already; give the folders in it, and the links to folders."""
        with data_errors(str(self.folder / here)):
            # Before it is listed: what changes meanwhile then makes the time too old, not too new.
            known = os.stat(self.folder / here)
            if (known.st_dev, known.st_ino) in self._seen:
                self.unread.append(Skipped(here.rstrip("/"), "is read already, under another name"))
                return [], []
            self._seen.add((known.st_dev, known.st_ino))
            self.times[here] = known.st_mtime_ns
            with os.scandir(self.folder / here) as entries:
                seen = [entry for entry in entries if not hidden(entry.name)]
        inner: tuple[list[str], list[str]] = ([], [])
        for entry in seen:
            if _is_folder(entry):
                inner[entry.is_symlink()].append(f"{here}{entry.name}/")
            else:
                self._take(entry, here + entry.name)
        return inner

    def _take(self, entry: os.DirEntry[str], path: str) -> None:
        """Note a file that is an image, or may be taken for one, and any link."""
        image = is_image(entry.name)
        if entry.is_symlink():
            self.links.append(path)
        if not image and not (entry.is_symlink() and "." not in entry.name):
            if (other := unread(path)) is not None:
                self.unread.append(other)
            return
        try:
            known = entry.stat()
        except OSError:
            if image:
                self.files.append(ListedFile(path, -1, -1))
            else:  # perhaps a folder's
                self.unread.append(Skipped(path, "is a link to what is not there"))
            return
        if image and stat.S_ISREG(known.st_mode):
            self.files.append(ListedFile(path, known.st_size, known.st_mtime_ns))
        elif image:
            self.unread.append(Skipped(path, "is no file"))
