import gzip
import io
import os
import pickle
import struct

import numpy as np
import pytest
from hostile import Call

from mfimage.datasets import named
from mfimage.datasets.named import read_cifar, read_idx
from mfimage.errors import DataError


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def test_idx(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (3, 4, 5), dtype=np.uint8)
    (tmp_path / "x.gz").write_bytes(gzip.compress(idx(array), mtime=0))
    assert (read_idx(tmp_path / "x.gz") == array).all()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no gzip",
        gzip.compress(b"\0\0\x08\x01\0\0\0\x05abc", mtime=0),
        gzip.compress(b"\0\0\x0d\x01\0\0\0\x01abcd", mtime=0),
        gzip.compress(b"\0", mtime=0),
        gzip.compress(b"\0\0\x08\x01\0\0\0\x03abc", mtime=0)[:-9],
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


class Old(pickle._Pickler):
    """Writes bytes as Python 2 did, which wrote the original files."""

    dispatch = pickle._Pickler.dispatch | {}

    def save_string(self, value):
        self.write(b"T" + struct.pack("<i", len(value)) + value)
        self.memoize(value)

    dispatch[bytes] = save_string


def write_pickle(path, rows, labels):
    with open(path, "wb") as file:
        Old(file, 2).dump({b"batch_label": b"some", b"labels": labels.tolist(), b"data": rows})


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_executes_nothing(tmp_path, protocol):
    trap = Call(os.mkdir, str(tmp_path / "trace"))
    for content in (
        trap,
        {b"data": trap, b"labels": []},
        {b"data": np.array([trap], object), b"labels": [1]},
    ):
        (tmp_path / "x").write_bytes(pickle.dumps(content, protocol))
        with pytest.raises(DataError, match="x: is not a batch of CIFAR-10"):
            read_cifar(tmp_path / "x")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    ("rows", "labels"),
    [
        (np.zeros((2, 3072), np.uint8), np.array([1])),
        (np.zeros((2, 3071), np.uint8), np.array([1, 2])),
        (np.zeros((2, 3072), np.uint8), np.array([1, 10])),
        (np.zeros((2, 3072), np.float32), np.array([1, 2])),
        (np.asfortranarray(np.zeros((2, 3072), np.uint8)), np.array([1, 2])),
    ],
)
def test_pickles_of_something_else(tmp_path, rows, labels):
    write_pickle(tmp_path / "x", rows, labels)
    with pytest.raises(DataError, match="CIFAR-10"):
        read_cifar(tmp_path / "x")


def test_damaged_pickles(tmp_path):
    write_pickle(tmp_path / "x", np.zeros((1, 3072), np.uint8), np.array([1]))
    whole = (tmp_path / "x").read_bytes()
    for length in (0, 1, 20, 90, len(whole) - 1):
        (tmp_path / "y").write_bytes(whole[:length])
        with pytest.raises(DataError, match="y: is not a batch"):
            read_cifar(tmp_path / "y")


@pytest.mark.parametrize(
    "labels",
    [b"]q\xf0(h\xf0h\xf0e", b"](](K\x01ee", b"]\x88a", b"U\x011", b"}", b"](K\x01K\x01e"],
    ids=["holds itself twice", "nested", "a truth value", "a string", "a dict", "too many"],
)
def test_labels_that_are_no_list_of_numbers(tmp_path, labels):
    stream = io.BytesIO()
    Old(stream, 2).dump(np.zeros((1, 3072), np.uint8))
    begin = b"\x80\x02}(U\x04data" + stream.getvalue()[2:-1] + b"U\x06labels"
    (tmp_path / "x").write_bytes(begin + b"]K\x01au.")
    assert read_cifar(tmp_path / "x")[1].tolist() == [1]
    (tmp_path / "x").write_bytes(begin + labels + b"u.")  # of the first np.array has 2^32 elements or more
    with pytest.raises(DataError, match="CIFAR-10"):
        read_cifar(tmp_path / "x")


def test_what_is_larger_than_any_batch_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(named, "_MOST", 3073)
    (tmp_path / "x.bin").write_bytes(bytes(3073))
    assert read_cifar(tmp_path / "x.bin")[1].tolist() == [0]
    (tmp_path / "x.bin").write_bytes(bytes(2 * 3073))
    with pytest.raises(DataError, match="larger than 3,073 bytes"):
        read_cifar(tmp_path / "x.bin")
