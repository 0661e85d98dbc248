import contextlib
import io
import os
import zipfile

import numpy as np
import pytest
from hostile import Call

from mfimage import limits
from mfimage.datasets.arrays import read_arrays
from mfimage.datasets.points import holds_points, load_points
from mfimage.errors import DataError


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


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_pickles_are_never_loaded(tmp_path, name):
    save = np.save if name.endswith("npy") else np.savez
    save(tmp_path / name, np.array([Call(os.abort)], dtype=object))
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


def archive(path, members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members:
            file.writestr(name, content)
    return path


def stored(array, shape=None):
    """An array as .npy, with a shape that it may not have."""
    stream = io.BytesIO()
    header = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False}
    np.lib.format.write_array_header_1_0(stream, {**header, "shape": array.shape if shape is None else shape})
    return stream.getvalue() + array.tobytes()


def refused(path, message):
    """Whoever reads arrays refuses this file."""
    with pytest.raises(DataError, match=message):
        read_arrays(path)
    assert not holds_points(path)
    with pytest.raises(DataError, match=message):
        load_points(path)


def test_what_is_no_archive_is_refused(tmp_path):
    path = tmp_path / "x.npz"
    for content in (b"", b"no archive", stored(np.zeros((4, 3, 3)))):
        path.write_bytes(content)
        refused(path, r"x\.npz: cannot be read .*not an \.npz file")


def test_what_unpacks_to_much_more_than_it_is_is_refused(tmp_path, monkeypatch):
    zeros = np.zeros((200, 40, 40), np.uint8)
    path = archive(tmp_path / "x.npz", [("x.npy", stored(zeros)), ("images.npy", stored(zeros))])
    assert read_arrays(path)[0].shape == zeros.shape  # a small file may become much
    monkeypatch.setattr(limits, "BYTES", 100_000)
    refused(path, "unpacks to 640,256 bytes, over 16 times its own; numpy.savez packs less")
    assert (
        read_arrays(archive(path, [("images.npy", stored(zeros))], zipfile.ZIP_STORED))[0].shape
        == zeros.shape
    )


@pytest.mark.parametrize("shape", [(10**12, 28, 28), (2**31, 2**31, 2**31), (-1, 28, 28), (3, 28), ()])
def test_a_shape_that_is_not_that_of_the_content_is_refused(tmp_path, shape):
    content = stored(np.zeros((4, 28, 28), np.uint8), shape)
    refused(archive(tmp_path / "x.npz", [("x.npy", content)]), "is not of the shape")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_array_that_comes_twice_is_refused(tmp_path):
    members = [("x.npy", stored(np.full((4, 3), value, np.float32))) for value in (0, 1)]
    refused(archive(tmp_path / "x.npz", members), "an array in it comes twice")


@pytest.mark.parametrize(
    "content", [b"\x93NUMPY", b"\x93NUMPY\x01\x00\xff\xff{", b"\x93NUMPY\x09\x00\x04\x00((((", b"text"]
)
@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_damaged_arrays_are_named(tmp_path, content, compression):
    refused(archive(tmp_path / "x.npz", [("x.npy", content)], compression), r"x\.npz: ")
    path = archive(tmp_path / "y.npz", [("x.npy", stored(np.zeros((40, 40), np.float32)))], compression)
    data = path.read_bytes()
    for at in range(40, len(data), 7):
        path.write_bytes(data[:at] + b"\xff\x00\xff" + data[at + 3 :])
        with contextlib.suppress(DataError):
            load_points(path)
