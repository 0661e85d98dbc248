import os
import pickle
import struct

import numpy as np
import pytest

from mfimage.datasets import load
from mfimage.datasets.cifar import read_pickle
from mfimage.errors import DataError

RNG = np.random.default_rng(0)
BATCHES = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]


class Old(pickle._Pickler):
    """Writes bytes as Python 2 did, which wrote the original files."""

    dispatch = pickle._Pickler.dispatch | {}

    def save_string(self, value):
        self.write(b"T" + struct.pack("<i", len(value)) + value)
        self.memoize(value)

    dispatch[bytes] = save_string


def batches(count=2):
    return {
        name: (RNG.integers(0, 256, (count, 3072), np.uint8), RNG.integers(0, 10, count)) for name in BATCHES
    }


def write_binary(folder, content):
    folder.mkdir(parents=True)
    for name, (rows, labels) in content.items():
        (folder / f"{name}.bin").write_bytes(
            np.concatenate([labels[:, None].astype(np.uint8), rows], 1).tobytes()
        )


def write_pickle(path, rows, labels):
    with open(path, "wb") as file:
        Old(file, 2).dump({b"batch_label": b"some", b"labels": labels.tolist(), b"data": rows})


def write_pickles(folder, content):
    folder.mkdir(parents=True)
    for name, (rows, labels) in content.items():
        write_pickle(folder / name, rows, labels)


@pytest.mark.parametrize(
    ("write", "place"),
    [
        (write_binary, "cifar-10-batches-bin"),
        (write_binary, "cifar10/cifar-10-batches-bin"),
        (write_pickles, "cifar-10-batches-py"),
    ],
)
def test_both_versions(tmp_path, write, place):
    content = batches()
    write(tmp_path / place, content)
    images = load("cifar10", root=tmp_path)
    assert images.images.shape == (10, 3, 32, 32)
    assert (
        images.images.numpy().reshape(10, 3072) == np.concatenate([content[b][0] for b in BATCHES[:5]])
    ).all()
    assert images.labels.tolist() == np.concatenate([content[b][1] for b in BATCHES[:5]]).tolist()
    assert (
        load("cifar10", "test", root=tmp_path).images.numpy().reshape(2, 3072) == content["test_batch"][0]
    ).all()


def test_missing_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"data_batch_5 \(\.bin in cifar-10-batches-bin(.|\n)*kriz/cifar"):
        load("cifar10", root=tmp_path)


def test_binary_that_is_cut_off(tmp_path):
    write_binary(tmp_path / "cifar-10-batches-bin", batches())
    path = tmp_path / "cifar-10-batches-bin" / "data_batch_3.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"data_batch_3\.bin: 6145 bytes are not whole images"):
        load("cifar10", root=tmp_path)


class Trap:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_executes_nothing(tmp_path, protocol):
    trap = Trap(os.mkdir, str(tmp_path / "trace"))
    for content in (
        trap,
        {b"data": trap, b"labels": []},
        {b"data": np.array([trap], object), b"labels": [1]},
    ):
        (tmp_path / "x").write_bytes(pickle.dumps(content, protocol))
        with pytest.raises(DataError, match="x: is not a batch of CIFAR-10"):
            read_pickle(tmp_path / "x")
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
        read_pickle(tmp_path / "x")


def test_damaged_pickles(tmp_path):
    write_pickle(tmp_path / "x", np.zeros((1, 3072), np.uint8), np.array([1]))
    whole = (tmp_path / "x").read_bytes()
    for length in (0, 1, 20, 90, len(whole) - 1):
        (tmp_path / "y").write_bytes(whole[:length])
        with pytest.raises(DataError, match="y: is not a batch"):
            read_pickle(tmp_path / "y")
