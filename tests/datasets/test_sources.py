import os

import numpy as np
import pytest

from mfimage.datasets.sources import read_arrays
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


def test_an_npz_that_holds_no_archive_is_refused(tmp_path):
    with open(tmp_path / "x.npz", "wb") as file:
        np.save(file, np.zeros((4, 3, 3)))
    with pytest.raises(DataError, match=r"x\.npz: cannot be read as arrays .*: not an \.npz file"):
        read_arrays(tmp_path / "x.npz")
