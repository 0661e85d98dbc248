"""Folders of drawn examples: what was damaged is neither read nor signed again."""

import json
import os

import pytest
from imagefiles import flip

from mfimage.datasets.drawn import write_points
from mfimage.datasets.points import load_points
from mfimage.errors import DataError
from mfimage.experiments.simulators import Sphere

COUNTS = {"train": 25, "test": 7}


def write(folder, **more):
    return write_points(Sphere(), folder, COUNTS, shard=10, **more)


@pytest.mark.parametrize("damage", [flip, lambda path: os.truncate(path, 100)])
def test_a_damaged_file_is_neither_read_nor_signed_again(tmp_path, damage):
    folder = write(tmp_path / "set")
    before, manifest = load_points(folder), (folder / "points.json").read_text()
    damage(folder / "train-0001.npz")
    for use in (load_points, write):
        with pytest.raises(DataError, match=r"train-0001\.npz: is not as it was written, by the hash"):
            use(folder)
    assert (folder / "points.json").read_text() == manifest
    (folder / "train-0001.npz").unlink()
    write(folder)
    assert (folder / "points.json").read_text() == manifest
    assert load_points(folder).x.equal(before.x)


def test_files_of_a_broken_off_folder_are_checked_too(tmp_path):
    def stop(done, count):
        if done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "set", tell=stop)
    assert set(json.loads((tmp_path / "set" / "points.json").read_text())["written"]) == {
        "train-0000.npz", "train-0001.npz",
    }  # fmt: skip
    (tmp_path / "set" / "train-0002.npz").write_bytes(b"of another process")
    flip(tmp_path / "set" / "train-0000.npz")
    with pytest.raises(DataError, match=r"train-0000\.npz: is not as it was written"):
        write(tmp_path / "set")
    (tmp_path / "set" / "train-0000.npz").unlink()
    write(tmp_path / "set")
    whole = load_points(write(tmp_path / "whole"), "all")
    assert load_points(tmp_path / "set", "all").x.equal(whole.x)
