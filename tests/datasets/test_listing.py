import os
import zipfile

import numpy as np
import pytest
from PIL import Image

from mfimage.datasets.listing import (
    iter_files,
    list_folder,
    list_zip,
    natural,
    open_zip,
    read_arrays,
    read_member,
    scan_folder,
)
from mfimage.errors import DataError


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (2, 2)).save(path, "PNG")


def test_natural_order():
    names = ["b.png", "img10.png", "img2.png", "Img1.png", "img02.png", "a/1.png", "1.png", "٣.png"]
    ordered = sorted(names, key=natural)
    assert ordered == ["1.png", "a/1.png", "b.png", "Img1.png", "img02.png", "img2.png", "img10.png", "٣.png"]
    assert sorted(reversed(names), key=natural) == ordered


def test_folder_is_searched_to_any_depth_and_hidden_files_are_not(tmp_path):
    touch(tmp_path, "10.png", "9.JPG", "a/b/c.WebP", "a/x.tif", "y.tiff", "z.bmp", "w.gif", "v.jpeg")
    touch(tmp_path, ".hidden.png", ".cache/1.png", "__MACOSX/1.png", "notes.txt", "k.npy")
    assert list_folder(tmp_path) == [
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
    assert list_folder(tmp_path / ".data") == ["1.png"]


def test_empty_folder_is_named(tmp_path):
    with pytest.raises(DataError, match=f"folder {tmp_path}: holds no images"):
        list_folder(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_unreadable_folder(tmp_path):
    touch(tmp_path, "a/1.png", "2.png")
    (tmp_path / "a").chmod(0)
    with pytest.raises(DataError, match="cannot be read"):
        list_folder(tmp_path)


def test_zip(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("d/2.png", "d/10.png", "__MACOSX/d/._2.png", "labels.txt"):
            archive.writestr(name, b"12345")
    with open_zip(path) as archive:
        assert list_zip(archive) == ["d/2.png", "d/10.png"]
        assert read_member(archive, "d/2.png", 5) == b"12345"
        with pytest.raises(DataError, match=r"d/2\.png: unpacks to more than 4 bytes"):
            read_member(archive, "d/2.png", 4)


def test_damaged_zips(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("1.png", b"some content")
    path.write_bytes(path.read_bytes().replace(b"some content", b"some cOntent"))
    with open_zip(path) as archive, pytest.raises(DataError, match=r"1\.png: cannot be unpacked: Bad CRC"):
        read_member(archive, "1.png", 100)
    path.write_bytes(b"PK no zip")
    with pytest.raises(DataError, match="not a readable zip"):
        open_zip(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", b"")
    with open_zip(path) as archive, pytest.raises(DataError, match=r"zip file .*x\.zip: holds no images"):
        list_zip(archive)


def test_arrays(tmp_path):
    images, other = np.zeros((4, 3, 3), np.uint8), np.ones((4, 2, 2), np.uint8)
    np.save(tmp_path / "a.npy", images)
    np.savez(tmp_path / "images.npz", other=other, images=images, labels=np.arange(4))
    np.savez(tmp_path / "first.npz", images)
    np.savez(tmp_path / "only.npz", faces=images, ages=np.arange(4))
    for name in ("a.npy", "images.npz", "first.npz", "only.npz"):
        found, labels = read_arrays(tmp_path / name)
        assert found.shape == (4, 3, 3)
        assert (labels is not None) == (name == "images.npz")


def test_array_that_cannot_be_told(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.zeros((4, 3, 3)), b=np.zeros((4, 3, 3)))
    with pytest.raises(DataError, match="name the array of images `images`; there are a, b"):
        read_arrays(tmp_path / "x.npz")


class Bomb:
    def __reduce__(self):
        return os.abort, ()


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_pickles_are_never_loaded(tmp_path, name):
    save = np.save if name.endswith("npy") else np.savez
    save(tmp_path / name, np.array([Bomb()], dtype=object))
    with pytest.raises(DataError, match="pickles are never loaded"):
        read_arrays(tmp_path / name)


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_truncated_and_empty_arrays(tmp_path, name):
    path = tmp_path / name
    (np.save if name.endswith("npy") else np.savez)(path, np.zeros((9, 9, 9)))
    whole = path.read_bytes()
    for length in (0, 40, len(whole) // 2):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=str(path)):
            read_arrays(path)


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
