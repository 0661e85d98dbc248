import gzip
import hashlib

import numpy as np
import pytest
from test_named_formats import idx, write_pickle

from mfimage.datasets import NAMED, load, named
from mfimage.errors import DataError, UsageError

RNG = np.random.default_rng(0)
BATCHES = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]


def write_idx(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(idx(array)) if path.suffix == ".gz" else idx(array))


def test_fashion_mini():
    train, test = load("fashion-mini"), load("fashion-mini", "test")
    assert train.images.shape == (10_000, 1, 28, 28)
    assert test.images.shape == (2_000, 1, 28, 28)
    assert train.labels[:5].tolist() == [9, 0, 0, 3, 0]
    assert test.labels[:5].tolist() == [9, 2, 1, 1, 6]
    assert train.paths[3] == "fashion-mini/train[3]"
    digest = hashlib.sha256(train.images.numpy().tobytes() + test.images.numpy().tobytes()).hexdigest()
    assert digest == "78d3cc8b8ca3aa86161e6af456b84afdbf23a96a65c33be1bcf87b35f8d6f804"
    assert len(load("fashion-mini", "all")) == 12_000


def test_fashion_mini_is_the_beginning_of_fashion_mnist():
    if not named._DEBIAN.is_dir():
        pytest.skip("Debian's dataset-fashion-mnist is not installed")
    whole, labels = named.read_named("fashion-mnist", "test")
    assert whole.shape == (10_000, 28, 28)
    assert (whole[:2000] == load("fashion-mini", "test").images[:, 0].numpy()).all()
    assert (labels[:2000] == load("fashion-mini", "test").labels.numpy()).all()


def test_other_sizes_and_channels():
    assert load("fashion-mini", "test", size=32, channels=3, limit=5).images.shape == (5, 3, 32, 32)


def test_digits():
    train, test = load("digits"), load("digits", "test")
    assert train.shape == (1, 28, 28)
    assert len(train) + len(test) == len(load("digits", "all")) == 1797
    assert train.images.max() > 240
    assert train.images.float().mean() < 110


@pytest.mark.parametrize("name", NAMED)
def test_unknown_split(name):
    with pytest.raises(DataError, match=f"{name}: has no split 'valid'; there are train, test, all"):
        load(name, "valid")


def test_a_bundled_set_has_no_other_place(tmp_path):
    with pytest.raises(UsageError, match=f"digits: is bundled, and not looked for in {tmp_path}"):
        load("digits", root=tmp_path)


def test_damaged_bundle(tmp_path, monkeypatch):
    whole = named._MINI.read_bytes()
    monkeypatch.setattr(named, "_MINI", tmp_path / "mini.npz")
    with pytest.raises(DataError, match="install mfimage again"):
        load("fashion-mini")
    (tmp_path / "mini.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="install mfimage again"):
        load("fashion-mini")


def test_debian_files_are_read_where_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(named, "_DEBIAN", tmp_path)
    write_idx(tmp_path / "train-images-idx3-ubyte.gz", np.full((2, 28, 28), 7, np.uint8))
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", np.array([3, 4], np.uint8))
    images = load("fashion-mnist", "train")
    assert images.labels.tolist() == [3, 4]
    assert (images.images == 7).all()
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte\.gz: is not a readable"):
        load("fashion-mnist", "test")


def test_torchvision_is_used_without_debian_files(tmp_path, monkeypatch):
    raw = tmp_path / "FashionMNIST" / "raw"
    monkeypatch.setattr(named, "_DEBIAN", tmp_path / "none")
    monkeypatch.setenv("MFIMAGE_DATA", str(tmp_path))
    for stem, count in (("train", 2), ("t10k", 1)):
        for kind, array in (
            ("images-idx3", np.full((count, 28, 28), 7, np.uint8)),
            ("labels-idx1", np.arange(count, dtype=np.uint8)),
        ):
            for ending in ("", ".gz"):
                write_idx(raw / f"{stem}-{kind}-ubyte{ending}", array)
    both = load("fashion-mnist", "all")
    assert both.labels.tolist() == [0, 1, 0]
    assert (both.images == 7).all()


def test_a_download_that_fails_says_what_to_do(tmp_path, monkeypatch):
    from mfimage._torchvision import import_torchvision

    import_torchvision()
    from torchvision.datasets import FashionMNIST

    def offline(self):
        raise RuntimeError("Error downloading train-images-idx3-ubyte.gz")

    monkeypatch.setattr(FashionMNIST, "download", offline)
    monkeypatch.setattr(named, "_DEBIAN", tmp_path / "none")
    monkeypatch.setenv("MFIMAGE_DATA", str(tmp_path))
    with pytest.raises(
        DataError, match=r"dataset-fashion-mnist.*MFIMAGE_DATA.*fashion-mini.*Error downloading"
    ):
        load("fashion-mnist")


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


def test_named_sets_lie_in_the_folder_that_is_given_or_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.delenv("MFIMAGE_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert named.data_root() == tmp_path / "mfimage"
    monkeypatch.setenv("MFIMAGE_DATA", str(tmp_path / "data"))
    assert named.data_root() == tmp_path / "data"
    assert named.data_root(tmp_path / "root") == tmp_path / "root"
    monkeypatch.delenv("MFIMAGE_DATA")
    monkeypatch.setattr(named, "cache_folder", lambda: None)
    with pytest.raises(DataError, match="set MFIMAGE_DATA"):
        named.data_root()
