"""Where results go: never over an input, only where they can be written, by one writer at a time."""

from __future__ import annotations

import errno
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from mfimage.errors import FULL, ResourceError, UsageError

if TYPE_CHECKING:
    from filelock import BaseFileLock

Identity: TypeAlias = tuple[int, int]  # device and inode
Links: TypeAlias = Callable[[Path], Iterable[Path]]  # lists those in a folder

LOCK, OWNER = ".mfimage.lock", ".mfimage.owner"  # in a folder, while somebody writes there
_NO_RIGHT = (errno.EACCES, errno.EPERM, errno.EROFS)
_LONGEST = 40  # characters of a file's name that its temporary name keeps: file systems limit both
_LEFT = 600.0  # seconds after which a temporary file beside a lone result is of a writer that is dead


@dataclass
class _Command:
    """What a command of the command line reads and which folders it owns, until its end."""

    files: set[Identity] = field(default_factory=set)
    folders: set[Identity] = field(default_factory=set)
    kinds: set[str] = field(default_factory=set)  # endings of files that are inputs if they lie in a folder
    links: list[Callable[[], Iterable[Path]]] = field(default_factory=list)  # in folders, not yet followed
    held: ExitStack = field(default_factory=ExitStack)


_command: _Command | None = None
_owned: ContextVar[frozenset[str]] = ContextVar("owned", default=frozenset())  # folders, by their real paths


@contextmanager
def command() -> Iterator[None]:
    """Note what is read from here on, so that nothing is written over it, and own folders until the end."""
    global _command
    before, _command = _command, _Command()
    try:
        with _command.held:
            yield
    finally:
        _command = before


def given(paths: Iterable[Path], kinds: Iterable[str] = (), links: Links = lambda folder: ()) -> None:
    """Note the inputs of a command: files, and folders with their files of these kinds (endings).

    What links in a folder lead to is read too: `links` lists them, when it is asked for.
    Outside a command, from Python, nothing is noted.
    """
    if _command is None:
        return
    _command.kinds.update(kinds)
    for path in paths:
        known = _identity(path)
        if known and not path.is_dir():
            _command.files.add(known)
        elif known and known not in _command.folders:
            _command.folders.add(known)
            _command.links.append(partial(links, path))


def check(path: Path, named: bool = False) -> None:
    """Raise UsageError for a place where no result may be written: an input, a folder, a pipe or a device."""
    known = _identity(path)
    if known is None:
        return
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; a file is to be written here: choose another name")
    if not path.is_file():
        raise UsageError(f"{path}: is a device or a pipe, not a file: choose another name")
    if _command is None:
        return
    alike = path.suffix.lower() in _command.kinds
    while _command.links and (alike or named):  # not for each file of a run: it takes time
        given(_command.links.pop()())
    if known in _command.files or (alike and _inside(path, _command.folders)):
        raise UsageError(f"{path}: an input lies there and would be overwritten; choose another place")


def claim(*files: Path | None) -> None:
    """Check before any work that files can be written; what a dead process left beside them is removed.

    Raises:
        UsageError: One is an input or no file, two are the same, or there is no right to write into a folder.
    """
    places: set[str] = set()
    folders: dict[Path, str] = {}
    for path in filter(None, files):
        check(path, named=True)
        if path.parent not in folders:
            folders[path.parent] = os.path.realpath(path.parent)
            _require_right(path.parent)
            sweep(path.parent, _LEFT)
        place = os.path.join(folders[path.parent], path.name)
        if place in places:
            raise UsageError(f"{path}: two results would be written here; choose another place for one")
        places.add(place)


def hold(folder: str | Path | None) -> None:
    """Own an output folder, see `owned`, until the command ends; None is none."""
    if folder is not None and _command is not None:
        _command.held.enter_context(owned(folder))


@contextmanager
def owned(folder: str | Path) -> Iterator[None]:
    """Make an output folder if need be, and keep everybody else from writing into it.

    The system releases the lock when a process dies, and the next owner removes what it left half written.
    Who owns a folder may own it again. A folder that was made here, and is empty in the end, is removed.

    Raises:
        UsageError: Another writes there (the message names the process), or it can be no folder to write to.
        ResourceError: The disk is full.
    """
    folder = Path(folder)
    place = os.path.realpath(folder)
    if place in _owned.get():
        yield
        return
    missing = _make(folder)
    try:
        lock = _lock(folder)
        token = _owned.set(_owned.get() | {place})
        try:
            sweep(folder)
            yield
        finally:
            _owned.reset(token)
            _release(folder, lock)
    finally:
        for one in missing:
            with suppress(OSError):  # it is not empty
                one.rmdir()


def refuse_within(folder: str | Path, sources: Iterable[object]) -> None:
    """Raise UsageError for an output folder in a folder that is read: results would be data next time."""
    for source in sources:
        known = _identity(os.path.expanduser(source)) if isinstance(source, str | Path) else None
        if known and _inside(Path(folder) / LOCK, {known}):
            raise UsageError(
                f"{folder}: lies in {source}, whose images are read, and what is written there would be "
                "read as images too; choose a folder outside"
            )


def temporary_name(path: Path) -> Path:
    """Return a name beside a path that no other call gets, of this process or another."""
    return path.with_name(f"{path.name[:_LONGEST]}.mf-{secrets.token_hex(4)}.tmp")


def sweep(folder: Path, age: float = 0.0) -> None:
    """Remove temporary files that were left in a folder, if they are so many seconds old."""
    for left in folder.glob("*.mf-????????.tmp"):
        with suppress(OSError):  # somebody else removed it
            if time.time() - left.stat().st_mtime >= age:
                left.unlink()


def _identity(path: str | Path) -> Identity | None:
    try:
        known = os.stat(path)
    except (OSError, ValueError):
        return None
    return known.st_dev, known.st_ino


def _inside(path: Path, folders: set[Identity]) -> bool:
    """Whether a path lies in one of these folders, at any depth."""
    return any(_identity(one) in folders for one in Path(os.path.realpath(path.parent) + "/x").parents)


def _make(folder: Path) -> list[Path]:
    """Make a folder; return what was not there, it and then its parents."""
    _require_right(folder)
    missing = [one for one in (folder, *folder.parents) if not os.path.lexists(one)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot(folder, error) from error
    return missing


def _cannot(folder: Path, error: OSError) -> ResourceError | UsageError:
    kind = ResourceError if error.errno in FULL else UsageError
    return kind(f"{folder}: cannot be written to: {error.strerror}")


def _require_right(folder: Path) -> None:
    """Raise UsageError unless files can be made in a folder, which may be not there yet."""
    there = next(one for one in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(one))
    if not there.is_dir():
        raise UsageError(f"{folder}: a folder is needed, and {there} is a file")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(f"{folder}: cannot be written to: no right to write into {there}")


def _lock(folder: Path) -> BaseFileLock | None:
    """Lock a folder and note who does; None on a file system without locks."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError(f"{folder}: {_owner(folder)} is writing there: wait, or choose another") from None
    except NotImplementedError:
        return None
    except OSError as error:
        if error.errno in (*FULL, *_NO_RIGHT):
            raise _cannot(folder, error) from error
        return None
    with suppress(OSError):  # the note is for messages only
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        (folder / OWNER).write_text(f"process {os.getpid()} of {socket.gethostname()}, since {since},")
    return lock


def _owner(folder: Path) -> str:
    try:
        text = (folder / OWNER).read_text(encoding="utf-8", errors="replace")[:200]
    except OSError:
        text = ""
    return "".join(c for c in text if c.isprintable()) or "another process"


def _release(folder: Path, lock: Any) -> None:
    if lock is None:
        return
    with suppress(OSError):
        (folder / OWNER).unlink(missing_ok=True)
        (folder / LOCK).unlink(missing_ok=True)  # while it is held: who opened it before gets no lock on it
    lock.release()
