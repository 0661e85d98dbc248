"""Batches for a training loop of one's own."""

import doctest

import numpy as np
import pytest
import torch
from tiny import draw_bumps, write_images

from mfimage import loader
from mfimage.datasets import load
from mfimage.datasets import loader as module
from mfimage.datasets.loader import Loader
from mfimage.errors import DataError, UsageError

BUMPS = draw_bumps(50)


@pytest.fixture
def folder(tmp_path):
    for kind in range(2):
        write_images(tmp_path / "photos" / "ab"[kind], BUMPS[kind::2])
    return tmp_path / "photos"


@pytest.mark.parametrize("memory", [None, 0])
def test_an_epoch_is_all_of_the_data_once(folder, memory):
    batches = loader(folder, 8, split="all", memory=memory)
    assert len(batches) == 7
    first = list(batches)
    assert [x.shape for x in first] == [(8, 1, 8, 8)] * 6 + [(2, 1, 8, 8)]
    assert first[0].dtype == torch.float32
    data, seen = load(folder, "all").batch(slice(None)), torch.cat(first)
    assert not torch.equal(seen, data)
    assert sorted(x.numpy().tobytes() for x in seen) == sorted(x.numpy().tobytes() for x in data)
    assert 0 <= seen.min() < seen.max() <= 1


def test_epochs_follow_from_the_seed_and_their_number(folder):
    one, same, stored = (loader(folder, 8, seed=3, memory=memory) for memory in (None, None, 0))
    first, second = torch.cat(list(one)), torch.cat(list(one))
    assert not torch.equal(first, second)
    assert torch.equal(torch.cat(list(same)), first)
    stored.epoch = 1  # as where another process stopped
    assert torch.equal(torch.cat(list(stored)), second)
    assert not torch.equal(torch.cat(list(loader(folder, 8, seed=4))), first)
    state = torch.get_rng_state()
    next(iter(one))
    assert torch.equal(torch.get_rng_state(), state)


def test_an_epoch_that_is_left_early_is_over(folder):
    batches = loader(folder, 8, memory=0)
    for _ in batches:
        break
    assert batches.epoch == 1
    assert sum(len(x) for x in batches) == len(batches.data)


def test_order_size_channels_and_the_last_batch(folder):
    data = load(folder, "all", 4, 3)
    batches = loader(folder, 16, 4, 3, "all", shuffle=False, drop_last=True)
    assert len(batches) == 3
    assert torch.equal(torch.cat(list(batches)), data.batch(slice(48)))
    assert len(list(loader(folder, 99, drop_last=True))) == len(loader(folder, 99, drop_last=True)) == 0
    assert len(loader(folder, 10, split="all")) == len(loader(folder, 10, split="all", drop_last=True)) == 5


@pytest.mark.parametrize("memory", [None, 0])
def test_labels_belong_to_their_images(folder, memory):
    dark = {x.tobytes(): 0 for x in (BUMPS[0::2] / np.float32(255)).astype(np.float32)}
    for x, kinds in loader(folder, 8, labels=True, memory=memory):
        assert kinds.dtype == torch.int64
        assert [int(one.numpy().tobytes() not in dark) for one in x] == kinds.tolist()


def test_what_has_no_labels_or_no_size_is_told():
    with pytest.raises(DataError, match="array: has no labels"):
        loader(BUMPS, labels=True)
    with pytest.raises(UsageError, match="batch_size"):
        loader(BUMPS, 0)


def test_a_data_set_and_vectors_are_data():
    assert [len(x) for x in Loader(load(BUMPS), 30, shuffle=False)] == [30, 20]
    (x,) = loader(np.zeros((5, 3)))
    assert x.shape == (5, 3)


def test_examples():
    assert doctest.testmod(module).failed == 0
