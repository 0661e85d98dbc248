import os

import pytest
import torch
from imagefiles import touch
from PIL import Image

from mfimage.config import Reading
from mfimage.datasets import index, load
from mfimage.datasets.index import Names, index_folder, iter_files, list_inputs
from mfimage.errors import DataError

LONG_AGO = 1_600_000_000


def test_iter_files(tmp_path):
    touch(tmp_path, "b/10.png", "b/9.png", "a/1.png", "odd.name", "c[1].png")
    found = iter_files(
        [tmp_path / "odd.name", str(tmp_path / "b"), f"{tmp_path}/*/1*.png", tmp_path / "c[1].png"]
    )
    names = [path.relative_to(tmp_path).as_posix() for path in found]
    assert names == ["odd.name", "b/9.png", "b/10.png", "a/1.png", "b/10.png", "c[1].png"]
    assert len(iter_files([f"{tmp_path}/**/*.png"])) == 4


def test_iter_files_that_match_nothing(tmp_path):
    for one in (tmp_path / "none.png", f"{tmp_path}/*.jpg"):
        with pytest.raises(DataError, match="no such file"):
            iter_files([one])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        iter_files([tmp_path / "empty"])


def test_what_is_not_read_is_told(tmp_path):
    touch(tmp_path, "a/1.png", "a/2.jfif", "a/3.avif")
    for given in (tmp_path, f"{tmp_path}/a/*"):
        files, unread = list_inputs([given])
        assert [path.name for path in files] == ["1.png", "2.jfif"]
        assert [(bad.path, bad.reason) for bad in unread] == [
            (f"{tmp_path}/a/3.avif", "AVIF is not a format that mfimage reads: convert it")
        ]


def test_a_tilde_is_home_unless_a_file_begins_with_it(tmp_path, monkeypatch):
    touch(tmp_path, "~1.png", "home/2.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert [path.name for path in iter_files(["~1.png", "~/2.png"])] == ["~1.png", "2.png"]
    with pytest.raises(DataError, match="no such file"):
        iter_files(["~nobody-of-this-name/2.png"])


def settle(folder):
    """As if nothing had changed for long."""
    for top, _, _ in os.walk(folder):
        os.utime(top, (LONG_AGO, LONG_AGO))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(index, "KEPT_FROM", 3)
    touch(tmp_path / "set", "a/10.png", "a/9.png", "b/1.png", "c.png")
    settle(tmp_path / "set")
    return tmp_path / "set"


@pytest.fixture
def scans(monkeypatch):
    """How often a folder was really listed."""
    calls = []
    real = index.scan_folder
    monkeypatch.setattr(index, "scan_folder", lambda folder: calls.append(folder) or real(folder))
    return calls


def kept(tmp_path):
    return list((tmp_path / "cache" / "mfimage" / "index").iterdir())


def test_names_are_a_sequence():
    words = ["a", "", "ü/ß.png", os.fsdecode(b"\xff.png"), "e"]
    names = Names.of(words)
    assert list(names) == words
    assert [names[i] for i in range(-5, 5)] == words + words
    assert names[1:4] == words[1:4]
    assert len(Names.of([])) == 0
    with pytest.raises(IndexError):
        names[5]


def test_a_long_list_is_kept_and_used(folder, tmp_path, scans):
    first, second = index_folder(folder), index_folder(folder)
    assert len(scans) == 1
    assert list(first.names) == list(second.names) == ["a/9.png", "a/10.png", "b/1.png", "c.png"]
    assert (first.sizes == second.sizes).all()
    assert (first.times == second.times).all()
    assert first.fingerprint() == second.fingerprint()
    assert [path.suffix for path in kept(tmp_path)] == [".npz"]
    assert load(folder, "all").paths == tuple(f"{folder}/{name}" for name in first.names)
    assert len(scans) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: touch(folder, "a/11.png"),
        lambda folder: (folder / "b" / "1.png").unlink(),
        lambda folder: (folder / "c.png").rename(folder / "d.png"),
        lambda folder: touch(folder, "new/1.png"),
        lambda folder: (folder / "a").rename(folder / "z"),
    ],
)
def test_a_folder_that_changed_is_listed_anew(folder, change, scans):
    index_folder(folder)
    change(folder)
    assert len(index_folder(folder).names) == sum(len(files) for _, _, files in os.walk(folder))
    assert len(scans) == 2


def test_short_lists_and_folders_just_changed_are_not_kept(folder, tmp_path, scans, monkeypatch):
    os.utime(folder / "a")
    index_folder(folder)
    settle(folder)
    monkeypatch.setattr(index, "KEPT_FROM", 5)
    index_folder(folder)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("damage", [b"", b"nonsense", None])
def test_a_damaged_list_is_made_anew(folder, tmp_path, damage, scans):
    index_folder(folder)
    (path,) = kept(tmp_path)
    path.write_bytes(path.read_bytes()[:-300] if damage is None else damage)
    assert len(index_folder(folder).names) == 4
    assert index_folder(folder).fingerprint()
    assert len(scans) == 2


def test_a_cache_that_cannot_be_written_is_done_without(folder, tmp_path):
    (tmp_path / "cache").write_text("a file")
    assert len(index_folder(folder).names) == 4


def test_a_file_that_goes_while_it_is_read_is_replaced(folder):
    images = load(folder, "all", memory=0, reading=Reading(max_bad=0.5))
    whole = images.batch(slice(None))
    (folder / "a" / "10.png").unlink()
    assert (images.batch([1]) == whole[2]).all()
    assert images.skipped[0].reason == "cannot be read: No such file or directory"


def test_the_fingerprint_is_of_names_and_sizes(folder, tmp_path):
    before = index_folder(folder).fingerprint()
    os.utime(folder / "c.png", (5, 5))
    os.utime(folder)
    assert index_folder(folder).fingerprint() == before
    (folder / "c.png").write_bytes(b"12345")
    os.utime(folder)
    assert index_folder(folder).fingerprint() != before


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_files_rewritten_in_place_are_listed_anew(folder, tmp_path, scans, share):
    before = index_folder(folder).names[:]
    for name in before[: round(share * len(before))]:
        Image.new("L", (4, 4), 200).save(folder / name, "PNG")
    images = load(folder, "all", reading=Reading(max_bad=0.0))
    assert len(scans) == 2
    assert images.paths == tuple(f"{folder}/{name}" for name in before)
    assert int((images.images[:, 0, 0, 0] == 200).sum()) == round(share * len(before))
    assert load(folder, "all", reading=Reading(max_bad=0.0)).images.equal(images.images)


def test_what_is_not_read_is_kept_too(folder, scans):
    touch(folder, "x.heic")
    settle(folder)
    first, second = index_folder(folder), index_folder(folder)
    assert len(scans) == 1
    assert [one.path for one in first.unread] == ["x.heic"]
    assert first.unread == second.unread


def test_a_file_overwritten_while_it_is_read_is_noticed_and_the_list_forgotten(folder, tmp_path):
    images = load(folder, "all", memory=0, reading=Reading(max_bad=0.5))
    Image.new("L", (4, 4), 200).save(folder / "c.png")
    os.utime(folder / "c.png", (1, 1))
    assert torch.equal(images.batch([3]), images.batch([0]))
    assert [(bad.path, bad.reason) for bad in images.skipped] == [
        (f"{folder}/c.png", "has changed since the folder was listed")
    ]
    assert not kept(tmp_path)
    assert not load(folder, "all").skipped


def test_a_set_read_in_place_says_when_it_was_written(folder):
    one = load(folder, "all", memory=0).summary()
    os.utime(folder / "c.png", (7, 7))
    other = load(folder, "all", memory=0).summary()
    assert one["sha256"] == other["sha256"]
    assert one["written"] != other["written"]
