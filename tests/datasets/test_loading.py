import zipfile

import numpy as np
import pytest
import torch
from imagefiles import noise
from PIL import Image

from mfimage.config import Reading
from mfimage.datasets import load
from mfimage.errors import DataError, UsageError

RNG = np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path):
    return noise(tmp_path / "set", 40)


def test_folder(folder):
    images = load(folder, "all")
    assert images.images.dtype == torch.uint8
    assert images.images.shape == (40, 3, 6, 6)
    assert images.paths == tuple(f"{folder}/{i}.png" for i in range(40))
    expected = np.asarray(Image.open(folder / "17.png")).transpose(2, 0, 1)
    assert (images.images[17].numpy() == expected).all()
    assert images.labels is None
    train, test = load(str(folder)), load(f"{folder}/", "test")
    assert len(train) + len(test) == 40
    assert not set(train.paths) & set(test.paths)


def test_zip_equals_folder(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "set.ZIP", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in folder.iterdir():
            archive.write(path, path.name)
    for split in ("train", "test", "all"):
        zipped, plain = load(tmp_path / "set.ZIP", split), load(folder, split)
        assert torch.equal(zipped.images, plain.images)
        assert [path.rsplit("/", 1)[1] for path in zipped.paths] == [
            path.rsplit("/", 1)[1] for path in plain.paths
        ]


def test_split_folders(tmp_path):
    noise(tmp_path / "train", ["a/1.png", "b/2.png"])
    noise(tmp_path / "validation", ["3.png"])
    assert len(load(tmp_path)) == 2
    assert load(tmp_path, "val").paths == (f"{tmp_path}/validation/3.png",)
    with pytest.raises(DataError, match="there are train, valid, all"):
        load(tmp_path, "test")


def test_size_and_channels(tmp_path):
    noise(tmp_path, ["1.png"], (6, 9, 3))
    noise(tmp_path, ["2.png"], (20, 8))
    with pytest.raises(DataError, match=r"1\.png is 6×9 .*2\.png is 20×8; .*--size"):
        load(tmp_path, "all")
    assert load(tmp_path, "all", size=5).images.shape == (2, 3, 5, 5)
    assert load(tmp_path, "all", size=(4, 8), channels=1).images.shape == (2, 1, 4, 8)
    grey = load(tmp_path, "all", size=(20, 8)).images[1]
    assert torch.equal(grey[0], grey[2])
    assert (grey[0].numpy() == np.asarray(Image.open(tmp_path / "2.png"))).all()


def test_grey_stays_one_channel(tmp_path):
    noise(tmp_path, ["1.png", "2.png"], (5, 5))
    assert load(tmp_path, "all").shape == (1, 5, 5)
    assert load(tmp_path, "all", channels=3).shape == (3, 5, 5)


def test_deeper_files_make_the_set_float(tmp_path):
    noise(tmp_path, ["1.png"], (5, 5))
    noise(tmp_path, ["2.png"], (5, 5), np.uint16)
    images = load(tmp_path, "all").images
    assert images.dtype == torch.float32
    np.testing.assert_allclose(images[0, 0], np.asarray(Image.open(tmp_path / "1.png")) / 255, atol=1e-6)
    np.testing.assert_allclose(images[1, 0], np.asarray(Image.open(tmp_path / "2.png")) / 65535, atol=1e-6)


def test_bad_files_are_skipped_and_listed(folder):
    (folder / "3.png").write_bytes(b"")
    (folder / "5.png").write_bytes((folder / "5.png").read_bytes()[:60])
    images = load(folder, "all", reading=Reading(max_bad=0.05))
    assert len(images) == 38
    assert [bad.path for bad in images.skipped] == [f"{folder}/3.png", f"{folder}/5.png"]
    assert images.skipped[0].reason == "is empty (0 bytes)"
    assert f"{folder}/6.png" in images.paths
    assert images.summary()["skipped"] == 2
    (folder / "7.png").write_text("text")
    with pytest.raises(
        DataError, match=r"3 of 40 files.*share of 0\.05(.|\n)*3\.png: is empty(.|\n)*7\.png: is not"
    ) as caught:
        load(folder, "all")
    assert caught.value.exit_code == 3


def test_all_bad(tmp_path):
    (tmp_path / "1.png").write_bytes(b"")
    with pytest.raises(DataError, match="1 of 1 files"):
        load(tmp_path, "all", reading=Reading(max_bad=1.0))


def test_damaged_member_of_a_zip_is_skipped(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, path.name)
    data = (folder / "3.png").read_bytes()
    whole = (tmp_path / "x.zip").read_bytes()
    (tmp_path / "x.zip").write_bytes(whole.replace(data, data[:-9] + b"123456789"))
    images = load(tmp_path / "x.zip", "all")
    assert [bad.path for bad in images.skipped] == [f"{tmp_path}/x.zip/3.png"]
    assert "Bad CRC" in images.skipped[0].reason


def test_too_large_files_are_skipped(folder):
    Image.new("RGB", (60, 60)).save(folder / "big.png")
    assert "60×60" in load(folder, "all", reading=Reading(max_pixels=100)).skipped[0].reason


def test_no_images(tmp_path):
    with pytest.raises(DataError, match=f"folder {tmp_path}: holds no images"):
        load(tmp_path)
    with pytest.raises(
        DataError, match=r"fashoin: no such file or folder, and no named set \(fashion-mini, "
    ):
        load("fashoin")
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(DataError, match="neither a folder nor"):
        load(tmp_path / "x.txt")
    with pytest.raises(UsageError, match="no source"):
        load([])


def test_several_sources(folder, tmp_path):
    np.save(tmp_path / "more.npy", RNG.integers(0, 256, (30, 6, 6), dtype=np.uint8))
    both = load([folder, tmp_path / "more.npy"], "all")
    assert both.images.shape == (70, 3, 6, 6)
    assert both.name == f"{folder} + {tmp_path}/more.npy"
    assert both.paths[39:41] == (f"{folder}/39.png", f"{tmp_path}/more.npy[0]")
    assert torch.equal(both.images[:40], load(folder, "all").images)


def test_limit_counts_over_sources(folder):
    assert len(load(folder, "all", limit=3)) == 3
    assert len(load([folder, folder, folder], "all", limit=50)) == 50
    assert load(folder, "all", limit=2).paths == (f"{folder}/0.png", f"{folder}/1.png")
    with pytest.raises(UsageError, match="limit"):
        load(folder, limit=0)


@pytest.mark.parametrize("shape", [(30, 5, 7), (30, 5, 7, 1), (30, 5, 7, 3)])
def test_arrays(tmp_path, shape):
    array = RNG.integers(0, 256, shape, dtype=np.uint8)
    np.savez(tmp_path / "x.npz", images=array, labels=np.arange(30))
    images = load(tmp_path / "x.npz", "all")
    assert images.images.shape == (30, shape[3] if len(shape) == 4 else 1, 5, 7)
    assert (images.images.movedim(1, -1).numpy().reshape(shape) == array).all()
    assert images.labels.tolist() == list(range(30))
    test = load(tmp_path / "x.npz", "test")
    assert [int(path.split("[")[1][:-1]) for path in test.paths] == test.labels.tolist()
    assert torch.equal(test.images, images.images[test.labels])


def test_array_with_alpha_is_laid_on_white(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((3, 4, 4, 4), np.uint8))
    assert (load(tmp_path / "x.npy", "all").images == 255).all()


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((5, 3, 8, 8)), "is not"),
        (np.zeros((5, 8)), "is not"),
        (np.zeros((0, 8, 8)), "holds no images"),
    ],
)
def test_array_shapes(tmp_path, array, reason):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(DataError, match=reason):
        load(tmp_path / "x.npy", "all")


def test_labels_that_do_not_match(tmp_path):
    np.savez(tmp_path / "x.npz", images=np.zeros((5, 4, 4)), labels=np.arange(4))
    with pytest.raises(DataError, match="do not match 5 images"):
        load(tmp_path / "x.npz", "all")
    np.savez(tmp_path / "x.npz", images=np.zeros((5, 4, 4)), labels=np.array(list("abcde")))
    with pytest.raises(DataError, match="labels are <U1, not integers"):
        load(tmp_path / "x.npz", "all")


def test_home_is_found(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert load("~/set", "all").paths[0] == f"{folder}/0.png"


def test_usage_errors_are_not_counted_as_bad_files(folder):
    with pytest.raises(UsageError, match="channels"):
        load(folder, channels=4)
    with pytest.raises(UsageError, match="size"):
        load(folder, size=0)
