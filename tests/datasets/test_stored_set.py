import json

import numpy as np
import pytest
import torch
from imagefiles import noise, readers
from PIL import Image

from mfimage.config import Reading
from mfimage.datasets import ImageSet, StoredSet, load, stored_set
from mfimage.errors import DataError, MixedSizesError

RNG = np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path):
    return noise(tmp_path / "set", 40, (6, 7, 3))


def stored(folder, split="all", size=None, channels=None, **options):
    images = load(folder, split, size, channels, memory=0, reading=Reading(**options))
    assert isinstance(images, StoredSet)
    return images


@pytest.mark.parametrize("split", ["train", "test", "all"])
@pytest.mark.parametrize(("size", "channels"), [(None, None), (4, None), ((5, 3), 1)])
def test_it_gives_what_a_set_in_memory_gives(folder, split, size, channels):
    lazy, memory = stored(folder, split, size, channels), load(folder, split, size, channels)
    assert len(lazy) == len(memory)
    assert lazy.shape == memory.shape
    for rows in ([0], [2, 1, 2], torch.tensor([2, -1]), slice(1, 3), slice(None), []):
        assert torch.equal(lazy.batch(rows), memory.batch(rows))
    assert torch.equal(torch.cat(list(lazy.batches(7))), memory.batch(slice(None)))
    with pytest.raises(IndexError):
        lazy.batch([len(lazy)])
    assert torch.equal(lazy.subset([2, 1]).batch([1, 0]), memory.batch([1, 2]))


def test_large_images_are_weighed_in_parts(folder, monkeypatch):
    whole = stored(folder)
    monkeypatch.setattr(stored_set, "_AT_ONCE", 10)
    parts = stored(folder)
    assert (parts.mean, parts.std) == pytest.approx((whole.mean, whole.std), rel=1e-12)


def test_every_8_bit_value_is_scaled_as_in_memory(tmp_path):
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(tmp_path / "0.png")
    assert torch.equal(stored(tmp_path).batch([0]), load(tmp_path, "all").batch([0]))


def test_deep_and_grey_images_among_others(folder):
    values = RNG.integers(0, 65536, (6, 7), np.uint16)
    Image.fromarray(values).save(folder / "3.png")
    lazy, memory = stored(folder), load(folder, "all")
    assert torch.equal(lazy.batch(slice(None)), memory.batch(slice(None)))
    assert lazy.in_memory().images.dtype == torch.float32


def test_small_sets_go_into_memory(folder):
    assert isinstance(load(folder), ImageSet)
    assert isinstance(load(folder, "all", memory=40 * 3 * 6 * 7), ImageSet)
    assert isinstance(load(folder, "all", memory=40 * 3 * 6 * 7 - 1), StoredSet)
    assert isinstance(load(folder, "all", 4, memory=40 * 3 * 4 * 4), ImageSet)
    assert isinstance(load(folder, "all", 4, memory=40 * 3 * 4 * 4 - 1), StoredSet)
    assert isinstance(load([folder, folder], "all", memory=0), ImageSet)


def test_load_takes_it_into_memory(folder):
    lazy, memory = stored(folder, "train").subset([4, 2]), load(folder).subset([4, 2])
    taken = lazy.in_memory()
    assert torch.equal(taken.images, memory.images)
    assert taken.paths == memory.paths


def test_summary(folder, tmp_path):
    lazy = stored(folder)
    summary = json.loads(json.dumps(lazy.summary()))
    whole = load(folder, "all").summary()
    same = ("name", "split", "count", "shape", "dtype", "skipped", "skipped_first")
    assert {key: summary[key] for key in same} == {key: whole[key] for key in same}
    np.testing.assert_allclose([summary["mean"], summary["std"]], [whole["mean"], whole["std"]], rtol=1e-6)
    assert summary["sampled"] == 40
    hashes = {
        stored(folder).summary()["sha256"],
        stored(folder, size=4).summary()["sha256"],
        stored(folder, "train").summary()["sha256"],
        lazy.subset([1, 2]).summary()["sha256"],
    }
    assert len(hashes) == 4
    assert summary["sha256"] in hashes
    (folder / "3.png").write_bytes(b"other")
    assert stored(folder).summary()["sha256"] not in hashes


def test_what_cannot_be_read_is_replaced_by_the_next(folder):
    whole = load(folder, "all").batch(slice(None))
    (folder / "5.png").write_bytes(b"")
    (folder / "6.png").write_text("text")
    (folder / "39.png").write_bytes((folder / "39.png").read_bytes()[:60])
    lazy = stored(folder, max_bad=0.1)
    for _ in range(2):
        assert torch.equal(lazy.batch([5, 6, 7, 39, 0]), whole[[7, 7, 7, 0, 0]])
    assert {bad.path for bad in lazy.skipped} == {f"{folder}/{i}.png" for i in (5, 6, 39)}
    assert {bad.reason for bad in lazy.skipped} >= {"is empty (0 bytes)"}
    part = lazy.subset([5, 9])
    assert torch.equal(part.batch([0]), whole[[9]])  # never an image of another subset


def test_too_many_bad_files_are_an_error(folder):
    (folder / "5.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"1 of 40 files .* share of 0 that(.|\n)*5\.png: is empty"):
        stored(folder, max_bad=0.0)
    lazy = stored(folder, max_bad=0.05)
    for path in folder.iterdir():
        path.write_bytes(b"x")
    with pytest.raises(DataError, match=r"cannot be used, more than the share of 0\.05"):
        lazy.batch(slice(None))
    with pytest.raises(DataError, match=r"none of .* can be read|cannot be used"):
        stored(folder, max_bad=1.0)


def test_other_sizes_are_an_error_when_they_are_met(folder):
    Image.new("RGB", (9, 9)).save(folder / "11.png")
    with pytest.raises(MixedSizesError, match=r"0\.png is 6×7 .*11\.png is 9×9; choose one with size"):
        stored(folder)
    assert stored(folder, size=4).shape == (3, 4, 4)
    (folder / "11.png").unlink()
    noise(folder, 40, (6, 7, 3))
    lazy = stored(folder)
    object.__setattr__(lazy, "image_shape", (3, 9, 9))  # as if the sample had been of another size
    with pytest.raises(MixedSizesError, match=r"set is 9×9 .*0\.png is 6×7"):
        lazy.batch([0])


class Numbers(StoredSet):
    def __init__(self, taken):
        object.__setattr__(self, "taken", taken)

    def read(self, positions):
        self.taken.append(positions)
        return positions * 10


@pytest.fixture
def batches():
    taken = []
    with Numbers(taken).prefetched(lambda step: torch.tensor([step, step + 1]), 20) as batches:
        yield batches, taken


def test_a_batch_follows_from_its_step(batches):
    read, taken = batches
    for step in (*range(8), 3, 19, 4, 5):
        assert read(step).tolist() == [10 * step, 10 * step + 10]
    assert max(int(rows[0]) for rows in taken) == 19  # never beyond the last


def test_steps_in_turn_are_read_once(batches):
    read, taken = batches
    for step in range(20):
        read(step)
    assert sorted(int(rows[0]) for rows in taken) == list(range(20))


def test_leaving_ends_the_threads():
    with Numbers([]).prefetched(lambda step: torch.tensor([step, step + 1]), 20) as read:
        read(0)
        assert readers()
    assert not readers()
