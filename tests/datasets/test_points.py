"""Points in memory and in files."""

import os
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from commands import raising
from hostile import Call

from mfimage.datasets.points import FIELDS, Points, holds_points, load_points
from mfimage.errors import DataError, ResourceError


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
    monkeypatch.setattr(np, "savez_compressed", raising(OSError(28, "No space left on device")))
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
