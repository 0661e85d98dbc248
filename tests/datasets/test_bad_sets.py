"""Sets as they come, a test for each row of docs/promises.md, which `tests/test_promises.py` compares."""

import os
import zipfile
from contextlib import nullcontext
from unittest import mock

import numpy as np
import pytest
import torch
from imagefiles import content, noise, pixels
from PIL import Image

from mfimage.config import Reading
from mfimage.datasets import load, load_files, sources, to_batch
from mfimage.errors import DataError

GONE = "cannot be read: No such file or directory"


@pytest.fixture
def folder(tmp_path):
    return noise(tmp_path / "set", [f"good{i}.png" for i in range(30)], (8, 8, 3))


def read(folder, **how):
    """How many images there are in a folder, and why the others are skipped."""
    images = load(folder, "all", **how)
    return len(images), [bad.reason for bad in images.skipped]


def test_mixed_sizes(folder):
    noise(folder, ["other.png"], (9, 8, 3))
    with pytest.raises(DataError, match=r"differ in size: .*8×8.*other\.png is 9×8; .*--size") as caught:
        load(folder, "all")
    assert caught.value.exit_code == 3
    assert len(load(folder, "all", size=8)) == 31


def test_colour_for_a_model_of_grey_images(folder):
    assert load(folder, "all", channels=1).notes == ("30 of 30 images lose their colour",)


def test_images_of_other_formats(folder):
    for name in ("a.avif", "b.JP2", "c.zip"):
        (folder / name).write_bytes(b"whatever")
    assert read(folder, reading=Reading(max_bad=0.0)) == (
        30,
        [
            "AVIF is not a format that mfimage reads: convert it",
            "JP2 is not a format that mfimage reads: convert it",
            "may hold many images: give it by itself",
        ],
    )


def test_jfif(tmp_path):
    (tmp_path / "one.jfif").write_bytes(content(Image.new("RGB", (8, 8)), "JPEG"))
    assert load(tmp_path, "all").shape == (3, 8, 8)


def test_folders_of_systems(folder):
    for place in ("@eaDir/good0.png", "$RECYCLE.BIN", "__MACOSX", ".hidden"):
        noise(folder / place, ["x.png"], (8, 8, 3))
    assert read(folder) == (30, [])


def test_link_to_a_folder(folder, tmp_path):
    noise(tmp_path / "more", ["one.png"], (8, 8, 3))
    (folder / "more").symlink_to("../more")
    (folder / "up").symlink_to("..")
    (folder / "again").symlink_to(tmp_path / "more")
    images = load(folder, "all", reading=Reading(max_bad=0.0))
    assert len(images) == 31
    assert {bad.path.removeprefix(f"{folder}/"): bad.reason for bad in images.skipped} == {
        "more": "is read already, under another name",
        "up": "is a link to a folder that it lies in: not followed",
    }


def test_a_name_several_times_in_a_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.png", content(Image.new("L", (8, 8), 1)))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a.png", content(Image.new("L", (8, 8), 2)))
    images = load(tmp_path / "x.zip", "all")
    assert images.images[:, 0, 0, 0].tolist() == [1, 2]
    assert images.paths == (f"{tmp_path}/x.zip/a.png", f"{tmp_path}/x.zip/a.png (2)")


def test_unreadable_permissions(folder):
    noise(folder, ["bad.png"], (8, 8, 3))
    (folder / "bad.png").chmod(0)
    true_open = open

    def refusing(path, *rest, **how):  # also to root, whom permissions do not stop
        if str(path).endswith("bad.png"):
            raise PermissionError(13, "Permission denied")
        return true_open(path, *rest, **how)

    with mock.patch("builtins.open", refusing) if os.geteuid() == 0 else nullcontext():
        assert read(folder) == (30, ["cannot be read: Permission denied"])


def test_broken_symlink(folder):
    (folder / "bad.png").symlink_to(folder / "nowhere.png")
    assert read(folder) == (30, [GONE])


def test_argument_that_is_not_there_among_others(folder, tmp_path):
    (tmp_path / "dead.png").symlink_to(folder / "nowhere.png")
    gone = [tmp_path / "dead.png", tmp_path / "gone.png"]
    images = load_files([*folder.iterdir(), gone[0]])
    assert len(images) == 30
    assert [vars(one) for one in images.skipped] == [{"path": str(gone[0]), "reason": GONE}]
    with pytest.raises(DataError, match=r"2 of 5 files cannot be used(.|\n)*dead\.png(.|\n)*gone\.png"):
        load_files([*sorted(folder.iterdir())[:3], *gone])
    with pytest.raises(DataError, match=r"gone\.png: no such file"):
        load_files(gone[1:])


def changed_after_listing(folder, change):
    listed = sources.choose

    def then(*given):
        rows = listed(*given)
        change()
        return rows

    with mock.patch.object(sources, "choose", then):
        return read(folder)


def test_file_that_vanishes_while_the_folder_is_read(folder):
    assert changed_after_listing(folder, (folder / "good7.png").unlink) == (29, [GONE])


def test_file_that_appears_while_the_folder_is_read(folder):
    data = content(pixels(8, 8, 3))
    assert changed_after_listing(folder, lambda: (folder / "new.png").write_bytes(data)) == (30, [])


def test_non_finite_floats(tmp_path):
    values = np.full((3, 8, 8), 0.5, np.float32)
    values[1, 2, 3] = np.nan
    np.save(tmp_path / "bad.npy", values)
    with pytest.raises(DataError, match=r"bad\.npy: holds values that are not finite") as caught:
        load(tmp_path / "bad.npy", "all")
    assert caught.value.exit_code == 3
    with pytest.raises(DataError, match="not finite"):
        to_batch(torch.full((1, 8, 8), float("inf")))


def test_floats_outside_0_1(tmp_path):
    np.save(tmp_path / "bad.npy", np.linspace(-1, 1, 64, dtype=np.float32).reshape(1, 8, 8))
    with pytest.raises(DataError, match=r"bad\.npy: .*value_range"):
        load(tmp_path / "bad.npy", "all")
    x = load(tmp_path / "bad.npy", "all", reading=Reading(value_range=(-1, 1))).batch([0])
    assert (float(x.min()), float(x.max())) == (0.0, 1.0)


def test_wrong_channel_count(tmp_path):
    np.save(tmp_path / "bad.npy", np.zeros((2, 8, 8, 5), np.uint8))
    with pytest.raises(DataError, match=r"bad\.npy: an array of shape \(2, 8, 8, 5\)") as caught:
        load(tmp_path / "bad.npy", "all")
    assert caught.value.exit_code == 3
    with pytest.raises(DataError, match=r"\(5, 8, 8\)"):
        to_batch(torch.zeros(5, 8, 8))
