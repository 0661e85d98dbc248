import os

import numpy as np
import pytest
from PIL import Image

from mfimage.config import Reading
from mfimage.datasets import listing, load
from mfimage.datasets.listing import Names, index_folder, iter_files, natural, scan_folder
from mfimage.errors import DataError

LONG_AGO = 1_600_000_000


def names_in(folder):
    return list(index_folder(folder).names)


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), len(name)).save(path, "PNG")


def test_natural_order():
    names = ["b.png", "img10.png", "img2.png", "Img1.png", "img02.png", "a/1.png", "1.png", "٣.png"]
    ordered = sorted(names, key=natural)
    assert ordered == ["1.png", "a/1.png", "b.png", "Img1.png", "img02.png", "img2.png", "img10.png", "٣.png"]
    assert sorted(reversed(names), key=natural) == ordered


def test_folder_is_searched_to_any_depth_and_hidden_files_are_not(tmp_path):
    touch(tmp_path, "10.png", "9.JPG", "a/b/c.WebP", "a/x.tif", "y.tiff", "z.bmp", "w.gif", "v.jpeg")
    touch(tmp_path, ".hidden.png", ".cache/1.png", "__MACOSX/1.png", "notes.txt", "k.npy")
    assert names_in(tmp_path) == [
        "9.JPG",
        "10.png",
        "a/b/c.WebP",
        "a/x.tif",
        "v.jpeg",
        "w.gif",
        "y.tiff",
        "z.bmp",
    ]


def test_a_number_of_any_length_has_its_place():
    names = [f"img{number}.png" for number in ("", "0", "00", "7", "007", "10", "9" * 40, "1" + "0" * 40)]
    assert sorted(reversed(names), key=natural) == [
        "img0.png", "img00.png", "img007.png", "img7.png", "img10.png", f"img{'9' * 40}.png",
        f"img1{'0' * 40}.png", "img.png",
    ]  # fmt: skip


def test_scan_tells_sizes_and_the_times_of_folders(tmp_path):
    touch(tmp_path, "a/1.png", ".hidden/2.png")
    found, folders = scan_folder(tmp_path)
    known = (tmp_path / "a" / "1.png").stat()
    assert found == [("a/1.png", known.st_size, known.st_mtime_ns)]
    assert folders == {"": tmp_path.stat().st_mtime_ns, "a/": (tmp_path / "a").stat().st_mtime_ns}


def test_hidden_parent_does_not_hide(tmp_path):
    touch(tmp_path, ".data/1.png")
    assert names_in(tmp_path / ".data") == ["1.png"]


def test_empty_folder_is_named(tmp_path):
    with pytest.raises(DataError, match=f"folder {tmp_path}: holds no images"):
        names_in(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_unreadable_folder(tmp_path):
    touch(tmp_path, "a/1.png", "2.png")
    (tmp_path / "a").chmod(0)
    with pytest.raises(DataError, match="cannot be read"):
        names_in(tmp_path)


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


def settle(folder):
    """As if nothing had changed for long."""
    for top, _, _ in os.walk(folder):
        os.utime(top, (LONG_AGO, LONG_AGO))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(listing, "KEPT_FROM", 3)
    touch(tmp_path / "set", "a/10.png", "a/9.png", "b/1.png", "c.png")
    settle(tmp_path / "set")
    return tmp_path / "set"


@pytest.fixture
def scans(monkeypatch):
    """How often a folder was really listed."""
    calls = []
    real = listing.scan_folder
    monkeypatch.setattr(listing, "scan_folder", lambda folder: calls.append(folder) or real(folder))
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
    monkeypatch.setattr(listing, "KEPT_FROM", 5)
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


def test_a_file_overwritten_in_place_is_noticed_and_the_list_forgotten(folder, tmp_path, scans):
    index_folder(folder)
    Image.new("L", (4, 4), 200).save(folder / "c.png")
    os.utime(folder / "c.png", (1, 1))
    images = load(folder, "all", reading=Reading(max_bad=0.5))
    assert [(bad.path, bad.reason) for bad in images.skipped] == [
        (f"{folder}/c.png", "has changed since the folder was listed")
    ]
    assert not kept(tmp_path)
    assert not load(folder, "all").skipped
    assert len(scans) == 2


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


def test_links_pipes_and_an_empty_folder(tmp_path):
    touch(tmp_path / "set", "1.png")
    (tmp_path / "set" / "gone.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "set" / "link.png").symlink_to(tmp_path / "set" / "1.png")
    (tmp_path / "set" / "loop").symlink_to(tmp_path / "set")
    os.mkfifo(tmp_path / "set" / "pipe.png")
    found = index_folder(tmp_path / "set")
    assert list(found.names) == ["1.png", "gone.png", "link.png"]
    assert found.sizes[1] == -1
    assert np.array_equal(found.sizes[[0]], found.sizes[[2]])
    images = load(tmp_path / "set", "all", reading=Reading(max_bad=0.5))
    assert [bad.reason for bad in images.skipped] == ["cannot be read: No such file or directory"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=f"folder {tmp_path}/empty: holds no images"):
        index_folder(tmp_path / "empty")
