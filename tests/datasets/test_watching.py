import os

import numpy as np
import pytest
from tiny import draw_bumps, write_images

from mfimage.datasets.watching import Watch
from mfimage.errors import DataError


class Time:
    """A clock that moves when somebody waits, at each of whose ticks something may happen."""

    def __init__(self, events=()):
        self.now, self.events = 0.0, sorted(events, key=lambda event: event[0])

    def clock(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        while self.events and self.events[0][0] <= self.now:
            self.events.pop(0)[1]()


def watched(folder, events, idle=4.0, most=100):
    """The groups of files that a watch gives while things happen at their times."""
    time = Time(events)
    watch = Watch(folder, time.clock, time.sleep)
    return watch, [(time.now, group) for group in watch.arrivals(most, idle)]


def writes(path, content, mode="wb"):
    def write():
        path.parent.mkdir(exist_ok=True)
        with open(path, mode) as file:
            file.write(content)

    return write


@pytest.fixture
def folder(tmp_path):
    write_images(tmp_path / "in", draw_bumps(2))
    return tmp_path / "in"


def test_files_are_given_once_as_they_appear_at_any_depth(folder):
    content = (folder / "0.png").read_bytes()
    events = [
        (1, writes(folder / "b10.png", content)), (1, writes(folder / "b9.png", content)),
        (2, writes(folder / "deep" / "c.jpg", content)), (2, writes(folder / ".hidden.png", content)),
        (2, writes(folder / "note.txt", content)),
    ]  # fmt: skip
    watch, found = watched(folder, events)
    assert watch.passed == 2
    names = [[os.path.relpath(path, folder) for path in group] for _, group in found]
    assert names == [["b9.png", "b10.png"], ["deep/c.jpg"]]
    assert all(now <= begun + 1.5 for (now, _), begun in zip(found, (1, 2), strict=True))


def test_a_file_is_given_when_it_is_whole(folder):
    content = (folder / "0.png").read_bytes()
    steps = [(1 + 0.5 * i, writes(folder / "slow.png", content[10 * i :][:10], "ab")) for i in range(6)]
    steps.append((4, writes(folder / "slow.png", content[60:], "ab")))
    _, found = watched(folder, steps)
    assert [group for _, group in found] == [[f"{folder}/slow.png"]]
    assert found[0][0] >= 5
    assert (folder / "slow.png").read_bytes() == content


def test_a_file_that_is_written_anew_is_given_again(folder):
    content, other = ((folder / name).read_bytes() for name in ("0.png", "1.png"))

    def replaced():
        (folder / "new.tmp").write_bytes(other + b"\0")
        os.replace(folder / "new.tmp", folder / "latest.png")

    _, found = watched(folder, [(1, writes(folder / "latest.png", content)), (4, replaced)])
    assert [group for _, group in found] == [[f"{folder}/latest.png"]] * 2


def test_what_is_kept_are_eight_bytes_a_file_that_is_there(folder):
    """Files that were taken away are forgotten: a stream of any length fits."""
    content = (folder / "0.png").read_bytes()
    paths = [folder / f"{i}.png" for i in range(10, 60)]
    events = [(i, writes(path, content)) for i, path in enumerate(paths)]
    events += [(i + 3, path.unlink) for i, path in enumerate(paths[:-1])]
    watch, found = watched(folder, events)
    assert [path for _, group in found for path in group] == list(map(str, paths))
    watch._look()
    assert (len(watch.known), watch.known.dtype, watch.waiting) == (3, np.uint64, {})


def test_groups_are_no_larger_than_asked(folder):
    content = (folder / "0.png").read_bytes()
    events = [(1, writes(folder / f"{i}.png", content)) for i in range(10, 17)]
    assert [len(group) for _, group in watched(folder, events, most=3)[1]] == [3, 3, 1]


def test_a_folder_that_is_not_there_is_told(folder):
    with pytest.raises(DataError, match="no such folder to watch"):
        Watch(folder / "none")
    with pytest.raises(DataError, match="no such folder to watch"):
        Watch(folder / "0.png")
