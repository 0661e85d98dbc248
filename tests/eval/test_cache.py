"""Features that are computed once, by whoever comes first."""

import os
import subprocess
import sys

import pytest
import torch
from commands import raising
from tiny import ONE_THREAD

from mfimage.errors import ResourceError, UsageError
from mfimage.eval import cache as module
from mfimage.eval.cache import FeatureStore


class Mean:
    """The features of an image are its mean and a one."""

    name, dim, weights = "mean", 2, "w"

    def __init__(self):
        self.seen = 0

    def __call__(self, images):
        self.seen += len(images)
        return torch.stack([images.flatten(1).mean(1), torch.ones(len(images))], 1)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 10)
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


X = torch.arange(25.0).view(25, 1, 1, 1).expand(25, 1, 2, 2)


def rows(places):
    return X[places.start : places.stop]


def test_features_are_those_of_all_images_in_order(tmp_path):
    extractor, told = Mean(), []
    features = FeatureStore(extractor, tmp_path, told.append).features("x", 25, rows, "numbers")
    assert features[:, 0].tolist() == list(range(25))
    assert told[-1] == "features of numbers: 25 of 25, 0.0 min left"
    assert FeatureStore(extractor, tmp_path).features("x", 25, rows, "numbers").equal(features)
    assert extractor.seen == 25  # the second time from files


def test_another_key_or_other_weights_are_computed_anew(tmp_path):
    extractor, other = Mean(), Mean()
    other.weights = "v"
    for each, key in ((extractor, "x"), (extractor, "y"), (other, "x")):
        FeatureStore(each, tmp_path).features(key, 25, rows, "numbers")
    assert (extractor.seen, other.seen) == (50, 25)


def test_a_broken_off_set_goes_on_and_a_damaged_file_is_replaced(tmp_path):
    def stops(places):
        if places.start == 20:
            raise KeyboardInterrupt
        return rows(places)

    extractor = Mean()
    store = FeatureStore(extractor, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        store.features("x", 25, stops, "numbers")
    assert extractor.seen == 20
    first = sorted(tmp_path.rglob("*.safetensors"))[0]
    first.write_bytes(first.read_bytes()[:20])
    assert store.features("x", 25, rows, "numbers")[:, 0].tolist() == list(range(25))
    assert extractor.seen == 20 + 5 + 10


def test_forgotten_sets_leave_nothing(tmp_path):
    store = FeatureStore(Mean(), tmp_path)
    store.features("x", 25, rows, "numbers")
    store.forget("x")
    assert list(tmp_path.iterdir()) == []


SHARE = """
import sys, torch
from mfimage.eval import cache as store
store.CHUNK = 10
class Mean:
    name, dim, weights, seen = "mean", 1, "v1", 0
    def __call__(self, images):
        Mean.seen += len(images)
        return images.flatten(1).mean(1, keepdim=True)
x = torch.arange(45.0).view(45, 1, 1, 1)
found = store.FeatureStore(Mean(), __import__("pathlib").Path(sys.argv[1])).features(
    "x", 45, lambda places: x[places.start : places.stop], "numbers")
print(Mean.seen, found[:, 0].tolist() == list(range(45)) if len(found) else "none")
"""


def test_two_processes_share_the_work_without_duplicates(tmp_path):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SHARE, str(tmp_path)],
            env={**os.environ, **ONE_THREAD, "RANK": str(rank), "WORLD_SIZE": "2"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=300)[0].strip() for process in processes]
    assert said == ["25 True", "20 none"]


def test_the_first_process_does_the_work_of_one_that_is_gone(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.5)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    extractor = Mean()
    features = FeatureStore(extractor, tmp_path).features("x", 25, rows, "numbers")
    assert features[:, 0].tolist() == list(range(25))
    assert extractor.seen == 25


def test_processes_may_write_the_same_chunk_at_once(tmp_path):
    """Each under a temporary name of its own: what the slower one writes last is whole too."""
    other = FeatureStore(Mean(), tmp_path)

    class Overtaken(Mean):
        def __call__(self, images):
            other.features("x", 25, rows, "numbers")
            return super().__call__(images)

    features = FeatureStore(Overtaken(), tmp_path).features("x", 25, rows, "numbers")
    assert features[:, 0].tolist() == list(range(25))
    assert not list(tmp_path.rglob("*.tmp"))


def test_without_a_home_features_are_not_kept(monkeypatch):
    monkeypatch.setattr(module, "cache_folder", lambda *parts: None)
    store = FeatureStore(Mean())
    assert store.features("x", 25, rows, "numbers")[:, 0].tolist() == list(range(25))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="XDG_CACHE_HOME"):
        FeatureStore(Mean())


def test_a_cache_that_cannot_be_written_is_done_without(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    told = []
    store = FeatureStore(Mean(), tmp_path / "file" / "features", told.append)
    assert "file/features: cannot be written" in told[0]
    assert store.features("x", 25, rows, "numbers")[:, 0].tolist() == list(range(25))


def test_a_disk_that_fills_up_costs_no_features(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "save_tensors", raising(ResourceError("no space")))
    extractor, told = Mean(), []
    store = FeatureStore(extractor, tmp_path, told.append)
    for _ in range(2):
        assert store.features("x", 25, rows, "numbers")[:, 0].tolist() == list(range(25))
    assert extractor.seen == 25
    assert [line for line in told if "not kept" in line] == ["features are not kept: no space"]
    store.forget("x")
    store.features("x", 25, rows, "numbers")
    assert extractor.seen == 50


def test_the_cache_lies_where_caches_lie(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert FeatureStore(Mean()).directory == tmp_path / "mfimage" / "features"
