"""Full disks, little memory, and streams that take nothing more."""

from __future__ import annotations

import os
import pickle
import random
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from PIL import Image
from torments.place import Ended, Place, Process, Torment, Trial, blobs, mfimage, refusal
from torments.verbs import (
    VERBS,
    Contents,
    any_verb,
    contents,
    differences,
    is_left_over,
    kept,
    lay_out,
    reference,
    typed,
)

DISK, MEMORY, STREAM = "a full disk loses nothing", "too little memory is told", "a full stream loses nothing"
_ROOM, _PAGE, _LEAST = 2**28, 4096, 2000  # bytes


def full_disk(place: Place, chance: random.Random) -> Iterator[Trial]:
    """Let a verb write where there is too little room, then give it room."""
    name, old, share = any_verb(chance), chance.random() < 0.5, chance.random()
    verb, whole, small = VERBS[name], reference(place, name), chance.random() < 0.3
    with _disk(place) as (folder, resize):
        before = lay_out(place, verb, whole.contents, folder, old and not verb.stepwise)
        if resize is None or small:
            room = int(_LEAST * max(1.0, max(whole.sizes.values()) / _LEAST) ** share)
            what = f"{name} in files of at most {room:,} bytes"
            limit = _limited(resource.RLIMIT_FSIZE, room)
        else:
            room = _PAGE * int(share * sum(-(-size // _PAGE) for size in whole.sizes.values()))
            what, limit = f"{name} on a disk with room for {room:,} bytes", None
            resize(max(_used(folder) + room, _PAGE))
        ended = mfimage(*verb.words(place, 0), cwd=folder, before=limit, forked=True)
        wrong = _after(ended, contents(folder), before, whole.contents, verb.stepwise)
        if resize is not None:
            resize(_ROOM)
        if not wrong and ended.code:
            again = mfimage(*verb.again(place, folder), cwd=folder, forked=True)
            wrong = f"again {again.said}" if again.code else differences(contents(folder), whole.contents)
    what += f"; {ended.said}"
    yield Trial(DISK, not wrong, f"{what}: {wrong}" if wrong else what, ended.busy, ended.peak)


@contextmanager
def _disk(place: Place) -> Iterator[tuple[Path, Callable[[int], None] | None]]:
    """Give a folder, and what sets the size of the disk in it where one may be made."""

    def mount(*words: str) -> bool:
        done = subprocess.run(["mount", *words, str(folder)], capture_output=True, check=False)
        return done.returncode == 0

    with place.fresh() as folder:
        mounted = os.geteuid() == 0 and mount("-t", "tmpfs", "-o", f"size={_ROOM}", "torture")
        try:
            yield folder, (lambda size: mount("-o", f"remount,size={size}")) if mounted else None
        finally:
            if mounted:
                subprocess.run(["umount", "-l", folder], check=False)


def _used(folder: Path) -> int:
    disk = os.statvfs(folder)
    return (disk.f_blocks - disk.f_bfree) * disk.f_frsize


def _limited(kind: int, most: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(kind, (most, most))


def _after(ended: Ended, found: Contents, before: Contents, whole: Contents, stepwise: bool) -> str:
    """Say what is wrong after a disk was full, "" if nothing is."""
    if ended.code not in (0, 6) or b"Traceback" in ended.err:
        return "not exit code 6 in a word"
    if halves := sorted(name for name in found if is_left_over(name)):
        return f"left over: {', '.join(halves)}"
    said = ended.err.decode("utf-8", "replace")
    if ended.code == 0:
        lost = [name for name, one in whole.items() if name not in found or found[name] != one]
        return f"not a word of {', '.join(lost[:5])}" if lost and "warning: no" not in said else ""
    parts = {part for name in (*whole, *found) for part in Path(name).parts}
    if not any(part in said for part in (*parts, "standard output", tempfile.gettempdir())):
        return "names no file"
    return "" if stepwise else differences(found, whole, before)


def little_memory(place: Place, chance: random.Random) -> Iterator[Trial]:
    """Give a verb less memory than it needs, and more than it needs for small images."""
    name = chance.choice(list(_LARGE))
    least, most = (_virtual(place, name, large) for large in (False, True))
    limit = int(least + chance.random() * (most - least))
    with place.fresh() as folder:
        ended = mfimage(
            *_typed(place, name, True, folder), cwd=folder, before=_limited(resource.RLIMIT_AS, limit)
        )
        halves = [path.name for path in folder.rglob("*") if is_left_over(path.name)]
    found = refusal(MEMORY, ended, f"{name} in {limit / 2**20:.0f} MiB; {ended.said}", frozenset({0, 6}))
    yield Trial(MEMORY, found.held and not halves, f"{found.what} {halves or ''}", ended.busy, ended.peak)


_LARGE = {  # small and large
    "score": "score @images/blob-00.png|@pictures/large.png -m @run",
    "denoise": "denoise @images/blob-00.png|@pictures/large.png -m @run --resize -o out",
    "calibrate": "calibrate @npy|@huge -m run --split all --alpha 0.1 --batch-size 1000000",
    "train": "train @npy|@huge -o out --config @settings --device cpu -q",
    "pack": "pack @images|@pictures out --size 16",
}


def _typed(place: Place, name: str, large: bool, folder: Path) -> list[str]:
    """What is typed in a folder, which is prepared for it."""
    if name == "calibrate":
        shutil.copytree(place.run, folder / "run")
    made = kept(place, "large", _large)
    return typed(_LARGE[name], int(large), {**vars(place), "pictures": made, "huge": made / "huge.npy"})


def _large(folder: Path) -> None:
    """Make an image of 49 million pixels, nearly the most that is read, and an array of 40,000."""
    picture = np.zeros((7000, 7000), np.uint8) + np.arange(7000).astype(np.uint8)
    Image.fromarray(picture).save(folder / "large.png")
    np.save(folder / "huge.npy", np.tile(blobs(40), (1000, 1, 1)))


def _virtual(place: Place, name: str, large: bool) -> int:
    """Measure once how much address space a verb takes, in bytes."""

    def measure(made: Path) -> None:
        with place.fresh() as folder:
            process, most = Process(*_typed(place, name, large, folder), cwd=folder), 0
            status = Path(f"/proc/{process.pid}/status")
            with suppress(StopIteration, OSError):  # it has ended
                while True:
                    most = next(int(line.split()[1]) for line in status.open() if line.startswith("VmPeak"))
                    time.sleep(0.01)
            if (ended := process.end()).code:
                raise RuntimeError(f"{name}: {ended.said}")
        (made / "bytes").write_bytes(pickle.dumps(most * 1024))

    return pickle.loads((kept(place, f"{name}-{large}", measure) / "bytes").read_bytes())


def full_streams(place: Place, chance: random.Random) -> Iterator[Trial]:
    """Let a verb print its result, or its talk, where nothing can be written."""
    name, stream = any_verb(chance), chance.choice([1, 2])
    verb, whole = VERBS[name], reference(place, name)

    def fill() -> None:
        os.dup2(os.open("/dev/full", os.O_WRONLY), stream)

    with place.fresh() as folder:
        verb.begin(place, folder)
        ended = mfimage(*verb.words(place, 0), cwd=folder, before=fill, forked=True)
        wrong = differences(contents(folder), whole.contents)
    code = 6 if stream == 1 else 0
    wrong += "" if ended.code == code else f" not exit code {code}"
    wrong += "" if code == 0 or b"standard output" in ended.err else " does not name standard output"
    what = f"{name} with stream {stream} full"
    yield Trial(STREAM, not wrong, f"{what}: {wrong}; {ended.said}" if wrong else what)


TORMENTS: dict[str, Torment] = {
    "full-disk": full_disk, "little-memory": little_memory, "full-streams": full_streams
}  # fmt: skip
