import os

import pytest
from PIL import Image

from mfimage import denoise
from mfimage.config import Config, Reading
from mfimage.datasets import load, load_files, load_for_training, stores
from mfimage.datasets.decode import Preparation
from mfimage.datasets.packing import pack
from mfimage.datasets.sources import named_set
from mfimage.errors import DataError, MixedSizesError

SAID = "./digits is read, the folder here; rename it to have the set that mfimage knows by this name"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current directory, with a folder called like a bundled set."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    for i in range(12):
        Image.new("RGB", (9, 7), (i, 0, 0)).save(f"digits/{i}.png")
    return tmp_path


def test_the_folder_of_a_set_s_name_is_taken_everywhere_and_said(here):
    training, _ = load_for_training("digits", Config())
    for images in (load("digits", "all"), load("digits", "all", memory=0), training, load_files(["digits"])):
        assert images.shape == (3, 7, 9)
        assert [note for note in images.notes if "digits" in note] == [SAID]
    assert load("digits").name == "./digits"
    told = []
    pytest.importorskip("pyarrow")
    assert pack("digits", "out", tell=told.append)["images"] == 12
    assert told[0] == SAID


def test_the_set_is_there_without_such_a_folder(here):
    assert len(load("digits/", "all")) == 12
    assert load("digits/", "all").notes == ()
    (here / "digits").rename(here / "mine")
    assert load("digits", "all").shape == (1, 28, 28)
    assert load("digits").name == "digits"


def test_the_place_of_named_sets_is_not_taken_for_a_folder_of_images(here, monkeypatch):
    (here / "digits").rename(here / "mnist")
    assert load("mnist", "all").name == "./mnist"
    monkeypatch.setenv("MFIMAGE_DATA", str(here))
    with pytest.raises(DataError, match="mnist: is not there"):
        load("mnist")


def test_a_set_can_be_had_by_its_name_alone(here):
    assert named_set("digits", "test", 14, 3).shape == (3, 14, 14)


def write(folder, sizes):
    folder.mkdir()
    for i, (width, height, mode) in enumerate(sizes):
        Image.new(mode, (width, height)).save(folder / f"{i}.png")
    return folder


def test_what_is_done_to_images_is_said(tmp_path):
    folder = write(tmp_path / "set", [(30, 20, "RGB"), (8, 8, "RGB"), (9, 40, "L"), (8, 8, "L")])
    for memory in (None, 0):
        images = load(folder, "all", 8, 1, memory=memory)
        assert images.notes == (
            f"2 of 4 images are scaled and cut to 8×8 pixels; the largest, {folder}/0.png, has 30×20",
            "2 of 4 images lose their colour",
        )
        assert images.summary()["notes"] == list(images.notes)
        assert images.subset([0, 1]).notes == images.notes
    assert load_files([str(folder)], 8, 1).notes == images.notes
    same = write(tmp_path / "same", [(8, 8, "RGB"), (8, 8, "L")])
    assert load(same, "all").notes == load(same, "all", 8, 3).notes == ()


def test_photographs_that_training_shrinks_are_said(tmp_path):
    folder = write(tmp_path / "set", [(300, 225, "RGB"), *[(200, 150, "RGB")] * 30])
    images, config = load_for_training(folder, Config())
    assert config.size == 64
    assert images.notes[0].startswith(f"{len(images)} of {len(images)} images are scaled and cut to 64×64")


def test_what_lies_beside_the_splits_is_said(tmp_path):
    (tmp_path / "set").mkdir()
    for name in ("train", "test", "more"):
        write(tmp_path / "set" / name, [(8, 8, "L")] * 3)
    for split in ("train", "test"):
        assert load(tmp_path / "set", split).notes == (
            f"{tmp_path}/set: 3 images beside the splits: left out",
        )
    assert load(tmp_path / "set", "all", reading=Reading(max_bad=0.0)).notes == ()


def test_an_image_of_another_size_is_told_before_all_are_read(tmp_path, monkeypatch):
    folder, read = write(tmp_path / "set", [(8, 8, "L"), *[(9, 9, "L")] * 300]), []
    prepare = Preparation.__call__
    monkeypatch.setattr(stores, "workers", lambda: 1)
    monkeypatch.setattr(Preparation, "__call__", lambda *a: read.append(a[2]) or prepare(*a))
    for memory in (None, 0):
        read.clear()
        with pytest.raises(MixedSizesError, match=r"0\.png is 8×8.*\.png is 9×9"):
            load(folder, "all", memory=memory)
        assert 2 <= len(read) < 100


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("kind", ["png", "npy", "npz", "zip", "parquet"])
def test_a_pipe_is_not_waited_for(tmp_path, model, kind):
    path = tmp_path / f"x.{kind}"
    os.mkfifo(path)
    for read in (
        (lambda: load_files([path]), lambda: denoise(path, model)) if kind == "png" else (lambda: load(path),)
    ):
        with pytest.raises(DataError, match=rf"x\.{kind}: not a regular file"):
            read()
