import gzip

import numpy as np
import pytest

from mfimage.datasets import load
from mfimage.datasets.mnist import read_idx
from mfimage.errors import DataError


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def write_idx(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(idx(array)) if path.suffix == ".gz" else idx(array))


def write_mnist(folder, ending=""):
    for stem, count in (("train", 3), ("t10k", 2)):
        images = np.arange(count * 784, dtype=np.uint32).astype(np.uint8).reshape(count, 28, 28)
        write_idx(folder / f"{stem}-images-idx3-ubyte{ending}", images)
        write_idx(folder / f"{stem}-labels-idx1-ubyte{ending}", np.arange(count, dtype=np.uint8))


@pytest.mark.parametrize("place", ["MNIST/raw", "mnist", "."])
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_mnist(tmp_path, place, ending, monkeypatch):
    write_mnist(tmp_path / place, ending)
    images = load("mnist", root=tmp_path)
    assert images.images.shape == (3, 1, 28, 28)
    assert images.images.flatten()[:3].tolist() == [0, 1, 2]
    assert images.labels.tolist() == [0, 1, 2]
    assert images.paths[2] == "mnist/train[2]"
    monkeypatch.setenv("MFIMAGE_DATA", str(tmp_path))
    assert len(load("mnist", "test")) == 2
    assert len(load("mnist", "all")) == 5


def test_missing_mnist_says_what_was_expected_where(tmp_path):
    write_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    expected = (
        rf"mnist: is not there(.|\n)*t10k-labels-idx1(.|\n)*{tmp_path}/MNIST/raw\n(.|\n)*MNIST\('{tmp_path}'"
    )
    with pytest.raises(DataError, match=expected):
        load("mnist", "test", root=tmp_path)
    assert len(load("mnist", "train", root=tmp_path)) == 3


def test_labels_of_another_number(tmp_path):
    write_mnist(tmp_path)
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.zeros(4, np.uint8))
    with pytest.raises(DataError, match="are not those of MNIST"):
        load("mnist", root=tmp_path)


def test_idx(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (3, 4, 5), dtype=np.uint8)
    write_idx(tmp_path / "x.gz", array)
    assert (read_idx(tmp_path / "x.gz") == array).all()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no gzip",
        gzip.compress(b"\0\0\x08\x01\0\0\0\x05abc"),
        gzip.compress(b"\0\0\x0d\x01\0\0\0\x01abcd"),
        gzip.compress(b"\0"),
        gzip.compress(b"\0\0\x08\x01\0\0\0\x03abc")[:-9],
    ],
)
def test_damaged_idx(tmp_path, content):
    (tmp_path / "x.gz").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.gz: is"):
        read_idx(tmp_path / "x.gz")


def test_plain_idx_that_is_gzipped_is_told(tmp_path):
    (tmp_path / "x").write_bytes(gzip.compress(idx(np.zeros(3, np.uint8))))
    with pytest.raises(DataError, match="x: is damaged, or no IDX file"):
        read_idx(tmp_path / "x")
