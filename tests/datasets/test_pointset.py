"""Folders of simulated examples: whole, resumed, refused."""

import json

import numpy as np
import pytest
import torch

from mfimage.datasets import load, points
from mfimage.datasets.pointset import holds_point_set, load_point_set, write_points
from mfimage.datasets.stylegan import Custom
from mfimage.errors import DataError, UsageError
from mfimage.experiments.simulators import Rendered, Sphere
from mfimage.experiments.simulators.generated import Generated

COUNTS = {"train": 25, "test": 7}


@pytest.fixture(scope="module")
def scene():
    return Rendered(2, 32, 1)


@pytest.fixture
def folder(scene, tmp_path):
    return write_points(scene, tmp_path / "set", COUNTS, shard=10)


def test_examples_come_back_with_their_latents(folder, scene):
    training, test, both = (load_point_set(folder, split) for split in ("train", "test", "all"))
    assert (len(training), len(test), len(both)) == (25, 7, 32)
    assert training.shape == scene.shape
    assert holds_point_set(folder)
    torch.testing.assert_close(scene.render(training.latents).float(), training.x, atol=3e-4, rtol=0)
    assert (training.latents[:7] - test.latents).abs().min() > 1e-6


def test_a_broken_off_folder_is_completed_to_the_same(folder, scene, tmp_path):
    told = []
    other = tmp_path / "other"

    def stop(done, count):
        told.append((done, count))
        if done >= 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_points(scene, other, COUNTS, tell=stop, shard=10)
    with pytest.raises(DataError, match="not completed"):
        load_point_set(other)
    kept = (other / "train-0000.npz").stat().st_mtime_ns
    write_points(scene, other, COUNTS, tell=lambda done, count: told.append((done, count)), shard=10)
    assert told[-1] == (32, 32)
    assert (other / "train-0000.npz").stat().st_mtime_ns == kept
    one, two = (load_point_set(f, "all") for f in (folder, other))
    assert torch.equal(one.x, two.x)
    assert torch.equal(one.latents, two.latents)


def test_another_content_is_refused(folder, scene, tmp_path):
    with pytest.raises(UsageError, match=r"other examples \(seed\)"):
        write_points(scene, folder, COUNTS, seed=1, shard=10)
    with pytest.raises(UsageError, match=r"other examples \(counts\)"):
        write_points(scene, folder, {"train": 26}, shard=10)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        write_points(scene, tmp_path / "full", COUNTS)


def test_damage_is_named(folder):
    (folder / "train-0001.npz").write_bytes(b"no")
    with pytest.raises(DataError, match=r"train-0001\.npz"):
        load_point_set(folder)
    load_point_set(folder, "test")
    (folder / "train-0001.npz").unlink()
    (folder / "train-0000.npz").rename(folder / "train-0001.npz")
    with pytest.raises(DataError, match=r"train-0000\.npz"):
        load_point_set(folder)
    with pytest.raises(DataError, match="valid"):
        load_point_set(folder, "valid")
    (folder / "points.json").write_text("{}")
    with pytest.raises(DataError, match=r"points\.json"):
        load_point_set(folder)


def test_a_shard_of_another_size_is_refused(folder, tmp_path):
    (folder / "test-0000.npz").rename(tmp_path / "seven.npz")
    with np.load(tmp_path / "seven.npz") as arrays:
        np.savez(folder / "test-0000.npz", **{name: array[:3] for name, array in arrays.items()})
    with pytest.raises(DataError, match="other examples"):
        load_point_set(folder, "test")


def test_parameters_and_vectors_are_kept(tmp_path):
    flat = Generated(
        Custom(lambda w: w[:, :1, None, None].sigmoid().expand(-1, 1, 4, 4), 3), 1, 4, conditional=True
    )
    there = load_point_set(write_points(flat, tmp_path / "theta", {"train": 5}, source={"by": "me"}))
    assert there.theta.shape == (5, 1)
    assert json.loads((tmp_path / "theta" / "points.json").read_text())["by"] == "me"
    sphere = load_point_set(write_points(Sphere(), tmp_path / "sphere", {"train": 5}))
    assert isinstance(sphere, points.Points)
    assert sphere.x.shape == (5, 2)


def test_the_one_door_takes_the_folder(folder):
    assert len(load(folder, "all")) == 32
    assert torch.equal(load(folder, "test", 32, 1).x, load_point_set(folder, "test").x)
    both = load([folder, folder / "test-0000.npz"], limit=30)
    assert (both.theta, both.latents.shape) == (None, (30, 2))
    assert torch.equal(both.x[25:], load(folder, "test").x[:5])
    with pytest.raises(UsageError, match=r"is taken as it is, of shape \(1, 32, 32\)"):
        load(folder, size=16)
    with pytest.raises(DataError, match=r"test-0000\.npz: has no split 'test'; there are train, all"):
        load(folder / "test-0000.npz", "test")


def test_training_takes_the_folder(folder, tmp_path):
    from tiny import TINY

    from mfimage import train

    config = TINY.with_(steps=2, density_steps=2, validation=3)
    model = train(folder, tmp_path / "run", config, device="cpu")
    assert model.shape == (1, 32, 32)
