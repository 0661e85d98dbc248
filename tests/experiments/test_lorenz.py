import numpy as np
import pytest
import torch

from mfimage.errors import UsageError
from mfimage.experiments.simulators import Lorenz, lorenz


@pytest.fixture
def short(monkeypatch, tmp_path):
    monkeypatch.setattr(lorenz, "_END", 60.0)
    return lambda: Lorenz(3, 2000, cache=tmp_path)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_trajectories_follow_the_equations(short):
    path = short().trajectory(1).double().numpy() * lorenz._STD + lorenz._MEAN
    x, y, z = path[1:-1].T
    step = 10.0 / 1999
    velocity = (path[2:] - path[:-2]) / (2 * step)
    expected = np.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z], 1)
    assert np.abs(velocity - expected).max() < 0.02 * np.abs(expected).max()


def test_the_cache_is_read_and_a_damaged_one_made_anew(short, tmp_path, monkeypatch):
    first = short().trajectory(0)
    (file,) = tmp_path.iterdir()
    integrate, calls = lorenz.integrate, []
    monkeypatch.setattr(lorenz, "integrate", lambda *a: calls.append(a) or integrate(*a))
    assert torch.equal(short().trajectory(0), first)
    assert not calls
    whole = file.read_bytes()
    half = len(whole) // 2  # a number becomes another, as plausible
    changed = whole[:half] + bytes([whole[half] ^ 1]) + whole[half + 1 :]
    for count, damaged in enumerate((whole[:1000], b"", changed), 1):
        file.write_bytes(damaged)
        assert torch.equal(short().trajectory(0), first)
        assert len(calls) == count
        assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_a_cache_that_cannot_be_written_is_named_leaves_nothing_and_loses_nothing(
    short, tmp_path, monkeypatch
):
    def full(file, **_):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.warns(UserWarning, match=r"lorenz-.*\.npz: the cache cannot be written .*No space left"):
        path = short().trajectory(0)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(lorenz, "cache_folder", lambda: None)  # no home directory
    assert torch.equal(Lorenz(3, 2000).trajectory(0), path)


def test_the_default_cache_is_that_of_the_user(short, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    Lorenz(1, 5).trajectory()
    assert [path.suffix for path in (tmp_path / "mfimage").iterdir()] == [".npz"]


def test_what_is_not_finite_has_no_distance(short):
    attractor = short()
    x = attractor.sample(3, generator()).x
    x[0, 1], x[2, 0] = torch.nan, torch.inf
    assert attractor.distance(x).isnan().tolist() == [True, False, True]
    assert attractor.distance(x[1:2]).item() < 1e-6


def test_points_are_near_the_attractor_and_strangers_are_not(short):
    attractor = short()
    points = attractor.sample(500, generator())
    assert points.x.shape == (500, 3)
    assert attractor.distance(points.x).max() < 1e-6
    assert attractor.distance(attractor.sample_ood(500, generator(1))).median() > 0.02
    assert torch.equal(points.x, attractor.sample(500, generator()).x)


def test_what_it_does_not_know_is_refused(short):
    with pytest.raises(UsageError, match="not known in closed form"):
        short().log_prob(torch.zeros(1, 3))
    with pytest.raises(UsageError, match="give more"):
        short().sample(6001, generator())
