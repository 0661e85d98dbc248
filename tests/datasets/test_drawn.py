"""Folders of drawn examples: written, completed, read, and checked when they are opened."""

import json
import os

import numpy as np
import pytest
import torch
from hostile import edit_json
from imagefiles import flip
from tiny import TINY, learn

from mfimage.datasets import load
from mfimage.datasets.drawn import write_points
from mfimage.datasets.points import Points, holds_points, load_points
from mfimage.datasets.stylegan import Custom
from mfimage.errors import DataError, UsageError
from mfimage.experiments.simulators import Rendered, Sphere
from mfimage.experiments.simulators.images import Generated
from mfimage.files import file_hash

COUNTS = {"train": 25, "test": 7}


def write(folder, scene=None, **more):
    return write_points(scene or Sphere(), folder, COUNTS, shard=10, **more)


def broken_off(folder, scene=None):
    """A folder of which the first two files were written."""

    def stop(done, count):
        if done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(folder, scene, tell=stop)
    return folder


@pytest.fixture(scope="module")
def scene():
    return Rendered(2, 32, 1)


@pytest.fixture
def folder(scene, tmp_path):
    return write(tmp_path / "set", scene)


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
    folder = broken_off(tmp_path / "set")
    written = json.loads((folder / "points.json").read_text())["written"]
    assert set(written) == {"train-0000.npz", "train-0001.npz"}
    (folder / "train-0002.npz").write_bytes(b"of another process")
    flip(folder / "train-0000.npz")
    with pytest.raises(DataError, match=r"train-0000\.npz: is not as it was written"):
        write(folder)
    (folder / "train-0000.npz").unlink()
    write(folder)
    whole = load_points(write(tmp_path / "whole"), "all")
    assert load_points(folder, "all").x.equal(whole.x)


def test_examples_come_back_with_their_latents(folder, scene):
    training, test, both = (load_points(folder, split) for split in ("train", "test", "all"))
    assert (len(training), len(test), len(both)) == (25, 7, 32)
    assert training.shape == scene.shape
    assert holds_points(folder)
    torch.testing.assert_close(scene.render(training.latents).float(), training.x, atol=3e-4, rtol=0)
    assert (training.latents[:7] - test.latents).abs().min() > 1e-6


def test_a_broken_off_folder_is_completed_to_the_same(folder, scene, tmp_path):
    told, other = [], broken_off(tmp_path / "other", scene)
    with pytest.raises(DataError, match="not completed"):
        load_points(other)
    kept = (other / "train-0000.npz").stat().st_mtime_ns
    write(other, scene, tell=lambda done, count: told.append((done, count)))
    assert told[-1] == (32, 32)
    assert (other / "train-0000.npz").stat().st_mtime_ns == kept
    one, two = (load_points(f, "all") for f in (folder, other))
    assert torch.equal(one.x, two.x)
    assert torch.equal(one.latents, two.latents)


def test_another_content_is_refused(folder, scene, tmp_path):
    with pytest.raises(UsageError, match=r"other examples \(seed\)"):
        write(folder, scene, seed=1)
    with pytest.raises(UsageError, match=r"other examples \(counts\)"):
        write_points(scene, folder, {"train": 26}, shard=10)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        write(tmp_path / "full", scene)


def test_damage_is_named(folder):
    (folder / "train-0001.npz").write_bytes(b"no")
    with pytest.raises(DataError, match=r"train-0001\.npz"):
        load_points(folder)
    load_points(folder, "test")
    (folder / "train-0001.npz").unlink()
    (folder / "train-0000.npz").rename(folder / "train-0001.npz")
    with pytest.raises(DataError, match=r"train-0000\.npz"):
        load_points(folder)
    with pytest.raises(DataError, match="valid"):
        load_points(folder, "valid")
    (folder / "points.json").write_text("{}")
    with pytest.raises(DataError, match=r"points\.json"):
        load_points(folder)


def test_a_shard_of_another_size_is_refused(folder, tmp_path):
    (folder / "test-0000.npz").rename(tmp_path / "seven.npz")
    with np.load(tmp_path / "seven.npz") as arrays:
        np.savez(folder / "test-0000.npz", **{name: array[:3] for name, array in arrays.items()})
    with pytest.raises(DataError, match=r"test-0000\.npz: is not as it was written"):
        load_points(folder, "test")
    files = json.loads((folder / "points.json").read_text())["files"]
    edit_json(folder / "points.json", files=files | {"test-0000.npz": file_hash(folder / "test-0000.npz")})
    with pytest.raises(DataError, match="other examples"):
        load_points(folder, "test")


@pytest.mark.parametrize(
    "change",
    [
        {"counts": {"train": 10**15, "test": 0}}, {"counts": {"train": -5, "test": 0}, "files": {}},
        {"counts": {"train": 1e308, "test": 0}}, {"shard": 0}, {"files": [1]}, {"shape": None}, {"shape": 3},
    ],
)  # fmt: skip
def test_a_list_of_more_than_there_is_is_refused_at_once(folder, change):
    edit_json(folder / "points.json", **change)
    with pytest.raises(DataError, match=r"points\.json: not a readable list of examples"):
        load_points(folder)


def test_parameters_and_vectors_are_kept(tmp_path):
    flat = Generated(
        Custom(lambda w: w[:, :1, None, None].sigmoid().expand(-1, 1, 4, 4), 3), 1, 4, conditional=True
    )
    there = load_points(write_points(flat, tmp_path / "theta", {"train": 5}, source={"by": "me"}))
    assert there.theta.shape == (5, 1)
    assert json.loads((tmp_path / "theta" / "points.json").read_text())["by"] == "me"
    sphere = load_points(write_points(Sphere(), tmp_path / "sphere", {"train": 5}))
    assert isinstance(sphere, Points)
    assert sphere.x.shape == (5, 2)


def test_the_one_door_takes_the_folder(folder):
    assert len(load(folder, "all")) == 32
    assert torch.equal(load(folder, "test", 32, 1).x, load_points(folder, "test").x)
    both = load([folder, folder / "test-0000.npz"], limit=30)
    assert (both.theta, both.latents.shape) == (None, (30, 2))
    assert torch.equal(both.x[25:], load(folder, "test").x[:5])
    with pytest.raises(UsageError, match=r"is taken as it is, of shape \(1, 32, 32\)"):
        load(folder, size=16)
    with pytest.raises(DataError, match=r"test-0000\.npz: has no split 'test'; there are train, all"):
        load(folder / "test-0000.npz", "test")


def test_training_takes_the_folder(folder, tmp_path):
    config = TINY.with_(steps=2, density_steps=2, validation=3)
    model = learn(folder, tmp_path / "run", config)
    assert model.shape == (1, 32, 32)
