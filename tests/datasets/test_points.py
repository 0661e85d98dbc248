"""Points in memory, in files and in folders of these."""

import json
import os
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hostile import Call
from tiny import TINY

from mfimage import train
from mfimage.datasets import load
from mfimage.datasets.drawn import write_points
from mfimage.datasets.points import FIELDS, Points, holds_points, load_points
from mfimage.datasets.stylegan import Custom
from mfimage.errors import DataError, ResourceError, UsageError
from mfimage.experiments.simulators import Rendered, Sphere
from mfimage.experiments.simulators.images import Generated
from mfimage.files import file_hash


@pytest.fixture
def points(generator):
    """Seven vectors; what belongs to a vector tells which one it is."""
    row = torch.arange(7.0)[:, None]
    return Points(torch.randn(7, 3, generator=generator), "seven", row, 10 * row, torch.cat([row, -row], 1))


@pytest.fixture
def saved(points, tmp_path):
    return points.save(tmp_path / "points.npz")


def write(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_the_summary_says_what_a_run_records(points):
    summary = points.summary()
    assert {name: summary[name] for name in ("name", "split", "count", "shape", "dtype")} == {
        "name": "seven", "split": "train", "count": 7, "shape": [3], "dtype": "float32",
    }  # fmt: skip
    assert (summary["skipped"], summary["skipped_first"]) == (0, [])


@pytest.mark.parametrize("name", FIELDS)
def test_the_hash_sees_every_tensor(points, name):
    changed = getattr(points, name).clone()
    changed[3, 0] += 1e-3
    hashes = {points.summary()["sha256"], replace(points, **{name: changed}).summary()["sha256"]}
    if name != "x":
        hashes.add(replace(points, **{name: None}).summary()["sha256"])
    assert len(hashes) == (2 if name == "x" else 3)


def test_the_hash_tells_theta_from_score(points):
    exchanged = replace(points, theta=points.score, score=points.theta)
    assert exchanged.summary()["sha256"] != points.summary()["sha256"]


def test_what_is_saved_comes_back(points, saved):
    again = load_points(saved)
    assert all(torch.equal(getattr(again, name), getattr(points, name)) for name in FIELDS)
    assert again.summary()["sha256"] == points.summary()["sha256"]
    assert again.name == str(saved)
    assert os.listdir(saved.parent) == ["points.npz"]


def test_images_without_parameters_come_back(tmp_path):
    images = Points(torch.rand(4, 3, 8, 8), "images")
    again = load_points(images.save(tmp_path / "images.npz"))
    assert torch.equal(again.x, images.x)
    assert (again.theta, again.score, again.latents) == (None, None, None)


@pytest.mark.parametrize("kind", ["int16", "uint8", "float16", "float64"])
def test_any_real_numbers_become_float32(tmp_path, kind):
    found = load_points(write(tmp_path / "x.npz", x=np.arange(6).reshape(3, 2).astype(kind), other=3))
    assert found.x.dtype == torch.float32
    assert found.x.tolist() == [[0, 1], [2, 3], [4, 5]]


def test_an_interrupted_save_leaves_the_old_file_whole_and_nothing_behind(points, saved, monkeypatch):
    before = saved.read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(ResourceError, match=r"points\.npz: cannot be written: No space left"):
        points.save(saved)
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == ["points.npz"]


ROWS = np.zeros((3, 2), np.float32)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": ROWS}, "an array x of shape"),
        ({"x": ROWS[0]}, "an array x of shape"),
        ({"x": ROWS[None]}, "an array x of shape"),
        ({"x": np.float32(1)}, "an array x of shape"),
        ({"x": ROWS[:0]}, r"x must hold .* of shape \(0, 2\)"),
        ({"x": ROWS * np.nan}, "x must hold 3 rows of finite numbers"),
        ({"x": ROWS.astype("f8") + 1e300}, "x must hold 3 rows of finite numbers"),
        ({"x": ROWS.astype(complex)}, "x must hold 3 rows of finite numbers, not complex128"),
        ({"x": ROWS.astype(str)}, "x must hold 3 rows of finite numbers"),
        ({"x": ROWS, "theta": ROWS[:2]}, r"theta must hold 3 rows .*, not float32 of .*\(2, 2\)"),
        ({"x": ROWS, "theta": ROWS[:, 0]}, r"theta must hold 3 rows .*\(3,\)"),
        ({"x": ROWS, "theta": np.float32(0)}, r"theta must hold 3 rows .*\(\)"),
        ({"x": ROWS, "score": ROWS + np.inf}, "score must hold 3 rows of finite numbers"),
        ({"x": ROWS, "latents": ROWS[None]}, "latents must hold 3 rows"),
    ],
)  # fmt: skip
def test_what_is_no_points_is_named(tmp_path, arrays, message):
    path = write(tmp_path / "wrong.npz", **arrays)
    with pytest.raises(DataError, match=message) as caught:
        load_points(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["x", "theta"])
def test_objects_are_refused_and_never_unpickled(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    trap = np.empty((3, 2), object)
    trap[:] = Call(os.mkdir, "sprung")
    path = write(tmp_path / "trap.npz", **{"x": ROWS, name: trap})
    holds_points(path)
    with pytest.raises(DataError, match=r"trap\.npz: cannot be read"):
        load_points(path)
    path.write_bytes(pickle.dumps(Call(os.mkdir, "sprung")))
    assert not holds_points(path)
    with pytest.raises(DataError, match=r"trap\.npz: cannot be read"):
        load_points(path)
    assert os.listdir() == ["trap.npz"]


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9, 0.98])
def test_a_damaged_file_is_named(saved, share):
    whole = saved.read_bytes()
    start = int(share * len(whole))
    saved.write_bytes(whole[:start] + b"\xff" * 25 + whole[start + 25 :])
    with pytest.raises(DataError, match=r"points\.npz: "):
        load_points(saved)
    saved.write_bytes(whole[:start])
    assert not holds_points(saved)
    with pytest.raises(DataError, match=r"points\.npz: cannot be read"):
        load_points(saved)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    for path in (tmp_path / "none.npz", tmp_path):
        assert not holds_points(path)
        with pytest.raises(DataError, match="cannot be read"):
            load_points(path)


def test_points_are_told_from_arrays_of_images(saved, tmp_path):
    assert holds_points(saved)
    assert holds_points(str(saved))
    assert not holds_points(write(tmp_path / "images.npz", images=np.zeros((2, 8, 8), np.uint8)))
    np.save(tmp_path / "x.npy", ROWS)
    assert not holds_points(tmp_path / "x.npy")
    assert not holds_points("fashion-mnist")


COUNTS = {"train": 25, "test": 7}


@pytest.fixture(scope="module")
def scene():
    return Rendered(2, 32, 1)


@pytest.fixture
def folder(scene, tmp_path):
    return write_points(scene, tmp_path / "set", COUNTS, shard=10)


def test_examples_come_back_with_their_latents(folder, scene):
    training, test, both = (load_points(folder, split) for split in ("train", "test", "all"))
    assert (len(training), len(test), len(both)) == (25, 7, 32)
    assert training.shape == scene.shape
    assert holds_points(folder)
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
        load_points(other)
    kept = (other / "train-0000.npz").stat().st_mtime_ns
    write_points(scene, other, COUNTS, tell=lambda done, count: told.append((done, count)), shard=10)
    assert told[-1] == (32, 32)
    assert (other / "train-0000.npz").stat().st_mtime_ns == kept
    one, two = (load_points(f, "all") for f in (folder, other))
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
    manifest = json.loads((folder / "points.json").read_text())
    manifest["files"]["test-0000.npz"] = file_hash(folder / "test-0000.npz")
    (folder / "points.json").write_text(json.dumps(manifest))
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
    manifest = json.loads((folder / "points.json").read_text())
    (folder / "points.json").write_text(json.dumps({**manifest, **change}))
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
    model = train(folder, tmp_path / "run", config, device="cpu")
    assert model.shape == (1, 32, 32)
