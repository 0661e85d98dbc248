import os

import pytest
from imagefiles import touch

from mfimage.config import Reading
from mfimage.datasets import load
from mfimage.datasets.index import index_folder
from mfimage.datasets.listing import natural, scan_folder, sort_members
from mfimage.errors import DataError


def names_in(folder):
    return list(index_folder(folder).names)


def test_natural_order():
    names = ["b.png", "img10.png", "img2.png", "Img1.png", "img02.png", "a/1.png", "1.png", "٣.png"]
    ordered = sorted(names, key=natural)
    assert ordered == ["1.png", "a/1.png", "b.png", "Img1.png", "img02.png", "img2.png", "img10.png", "٣.png"]
    assert sorted(reversed(names), key=natural) == ordered


def test_folder_is_searched_to_any_depth_and_hidden_files_are_not(tmp_path):
    touch(
        tmp_path, "10.png", "9.JPG", "a/b/c.WebP", "a/x.tif", "y.tiff", "z.bmp", "w.gif", "v.jpeg", "u.JFIF"
    )
    touch(tmp_path, ".hidden.png", ".cache/1.png", "__MACOSX/1.png", "notes.txt", "k.md")
    touch(tmp_path, "@eaDir/9.JPG/SYNOPHOTO_THUMB_M.jpg", "a/$RECYCLE.BIN/x.png", "a/#recycle/y.png")
    assert names_in(tmp_path) == [
        "9.JPG", "10.png", "a/b/c.WebP", "a/x.tif", "u.JFIF", "v.jpeg", "w.gif", "y.tiff", "z.bmp",
    ]  # fmt: skip
    assert scan_folder(tmp_path).unread == []


def test_what_may_be_taken_for_an_image_is_told(tmp_path):
    touch(
        tmp_path, "1.png", "a/2.avif", "a/3.JP2", "4.heic", "labels.npy", "more.zip", "notes.txt", ".x.avif"
    )
    found = {one.path: one.reason for one in scan_folder(tmp_path).unread}
    assert list(found) == ["4.heic", "a/2.avif", "a/3.JP2", "labels.npy", "more.zip"]
    assert found["a/3.JP2"] == "JP2 is not a format that mfimage reads: convert it"
    assert found["more.zip"] == "may hold many images: give it by itself"
    for memory in (None, 0):
        images = load(tmp_path, "all", memory=memory, reading=Reading(max_bad=0.0))
        assert [bad.path for bad in images.skipped] == [f"{tmp_path}/{path}" for path in found]
        assert len(images) == 1
    (tmp_path / "1.png").unlink()
    with pytest.raises(DataError, match=r"holds no images .*; 5 others, the first 4\.heic: HEIC is"):
        load(tmp_path)


def test_members_of_an_archive(tmp_path):
    names = ["b/2.png", "b/10.png", "a.avif", "@eaDir/x.png", "00.png/", "b/2.png", "n.txt", "__MACOSX/2.png"]
    rows, unread = sort_members(names)
    assert rows == [0, 5, 1]
    assert [one.path for one in unread] == ["a.avif"]


def test_a_number_of_any_length_has_its_place():
    names = [f"img{number}.png" for number in ("", "0", "00", "7", "007", "10", "9" * 40, "1" + "0" * 40)]
    assert sorted(reversed(names), key=natural) == [
        "img0.png", "img00.png", "img007.png", "img7.png", "img10.png", f"img{'9' * 40}.png",
        f"img1{'0' * 40}.png", "img.png",
    ]  # fmt: skip


def test_scan_tells_sizes_and_the_times_of_folders(tmp_path):
    touch(tmp_path, "a/1.png", ".hidden/2.png")
    found, folders, _ = scan_folder(tmp_path)
    known = (tmp_path / "a" / "1.png").stat()
    assert found == [("a/1.png", known.st_size, known.st_mtime_ns)]
    assert folders == {"": tmp_path.stat().st_mtime_ns, "a/": (tmp_path / "a").stat().st_mtime_ns}


def test_hidden_parent_does_not_hide(tmp_path):
    touch(tmp_path, ".data/1.png")
    assert names_in(tmp_path / ".data") == ["1.png"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_unreadable_folder(tmp_path):
    touch(tmp_path, "a/1.png", "2.png")
    (tmp_path / "a").chmod(0)
    with pytest.raises(DataError, match="cannot be read"):
        names_in(tmp_path)


def test_links_and_pipes(tmp_path):
    touch(tmp_path / "set", "1.png")
    (tmp_path / "set" / "gone.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "set" / "link.png").symlink_to(tmp_path / "set" / "1.png")
    os.mkfifo(tmp_path / "set" / "pipe.png")
    (tmp_path / "set" / "itself").symlink_to(tmp_path / "set" / "itself")
    found = index_folder(tmp_path / "set")
    assert list(found.names) == ["1.png", "gone.png", "link.png"]
    assert found.sizes[1] == -1
    assert found.sizes[0] == found.sizes[2]
    images = load(tmp_path / "set", "all", reading=Reading(max_bad=0.5))
    assert {bad.path.rsplit("/", 1)[1]: bad.reason for bad in images.skipped} == {
        "itself": "is a link to what is not there",
        "pipe.png": "is no file",
        "gone.png": "cannot be read: No such file or directory",
    }


def test_links_to_folders_are_followed_and_no_folder_is_read_twice(tmp_path):
    top = tmp_path / "set"
    touch(top, "dogs/1.png", "dogs/2.png")
    touch(tmp_path, "store/3.png", "store/deep/4.png")
    links = {"cats": tmp_path / "store", "cats2": tmp_path / "store", "dogs2": top / "dogs", "dogs/up": top}
    links |= {"all": tmp_path, "dogs/self": top / "dogs", "gone": tmp_path / "nowhere"}
    for name, target in links.items():
        (top / name).symlink_to(target)
    found = scan_folder(top)
    assert [one.path for one in found.files] == ["cats/3.png", "cats/deep/4.png", "dogs/1.png", "dogs/2.png"]
    around = "is a link to a folder that it lies in: not followed"
    twice = "is read already, under another name"
    assert {one.path: one.reason for one in found.unread} == {
        "all": around, "dogs/up": around, "cats2": twice, "dogs2": twice, "dogs/self": twice,
        "gone": "is a link to what is not there",
    }  # fmt: skip
    assert set(found.times) == {"", "dogs/", "cats/", "cats/deep/"}
