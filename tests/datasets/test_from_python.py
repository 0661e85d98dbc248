"""Images that are objects in Python, through the one door."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TINY, draw_bumps

from mfimage import train
from mfimage.config import Reading
from mfimage.datasets import ImageSet, Points, StoredSet, load
from mfimage.errors import DataError, UsageError

BUMPS = draw_bumps(40)
COLOUR = np.random.default_rng(0).integers(0, 256, (40, 5, 7, 3), np.uint8)
LABELS = [i % 3 for i in range(40)]


class Items(torch.utils.data.Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        return map(Image.fromarray, BUMPS)


class Feature:
    def __init__(self, kind):
        self.__class__ = type(kind, (Feature,), {})


class HubSet(Items):
    """What `datasets.Dataset` of Hugging Face shows: rows, and features by column."""

    def __init__(self, images):
        self.features = {"age": Feature("Value"), "photo": Feature("Image"), "kind": Feature("ClassLabel")}
        rows = zip(images, LABELS, strict=False)
        super().__init__([{"age": 3, "photo": Image.fromarray(x), "kind": k} for x, k in rows])


@pytest.mark.parametrize(
    ("data", "shape"),
    [
        (BUMPS, (1, 8, 8)),
        (COLOUR, (3, 5, 7)),
        (torch.from_numpy(BUMPS), (1, 8, 8)),
        (torch.from_numpy(COLOUR).movedim(-1, 1), (3, 5, 7)),
        (torch.from_numpy(COLOUR).movedim(-1, 1)[:, :1].float() / 255, (1, 5, 7)),
    ],
)
def test_arrays_and_tensors(data, shape):
    images = load(data)
    assert isinstance(images, ImageSet)
    assert (len(images), images.shape) == (40, shape)
    values = torch.as_tensor(data)
    values = values if values.dtype == torch.float32 else values / 255
    values = values.movedim(-1, 1) if isinstance(data, np.ndarray) and data.ndim == 4 else values
    torch.testing.assert_close(images.batch(slice(None)), values.reshape(40, *shape))
    assert images.paths[3] == f"{images.name}[3]"
    assert load(data, size=4, channels=3, limit=2).batch([0, 1]).shape == (2, 3, 4, 4)


def test_values_of_arrays_are_checked():
    with pytest.raises(DataError, match=r"array: values from .* outside \[0, 1\].*value_range"):
        load(BUMPS.astype(np.float32))
    assert torch.equal(
        load(BUMPS.astype(np.float32), reading=Reading(value_range=(0, 255))).batch([1]),
        load(BUMPS).batch([1]),
    )
    with pytest.raises(DataError, match=r"Tensor: an array of shape .* is not"):
        load(torch.zeros(3, 8, 8, 1, 1))
    with pytest.raises(DataError, match="Tensor: an array of shape"):
        load(torch.zeros(3, 8, 9, 10))  # channels are second
    assert load(torch.ones(3, 1, 4, 4, dtype=torch.bfloat16)).images.dtype == torch.float32


def test_a_table_is_vectors():
    vectors = load(np.arange(12.0).reshape(6, 2))
    assert isinstance(vectors, Points)
    assert vectors.x.dtype == torch.float32
    assert torch.equal(load(torch.arange(12.0).view(6, 2)).x, vectors.x)
    with pytest.raises(DataError, match="finite numbers"):
        load(np.full((3, 2), np.nan))


@pytest.mark.parametrize(
    ("item", "labels"),
    [
        (lambda x, k: Image.fromarray(x), None),
        (lambda x, k: x, None),
        (lambda x, k: torch.from_numpy(x)[None].float() / 255, None),
        (lambda x, k: (torch.from_numpy(x), k), LABELS),
        (lambda x, k: (x[..., None], torch.tensor(k)), LABELS),
        (lambda x, k: {"image": Image.fromarray(x), "label": np.int64(k)}, LABELS),
        (lambda x, k: (Image.fromarray(x), "a word"), None),
    ],
)
@pytest.mark.parametrize("memory", [None, 0])
def test_items_of_a_data_set(item, labels, memory):
    items = [item(x, k) for x, k in zip(BUMPS, LABELS, strict=True)]
    images = load(Items(items), memory=memory)
    assert isinstance(images, ImageSet if memory is None else StoredSet)
    assert (len(images), images.shape, images.name) == (40, (1, 8, 8), "Items")
    torch.testing.assert_close(images.batch(slice(None)), load(BUMPS).batch(slice(None)))
    assert images.labels is None if labels is None else images.labels.tolist() == labels
    assert images.summary()["sha256"] == load(Items(items), memory=memory).summary()["sha256"]
    assert images.summary()["sha256"] != load(Items(items[:39]), memory=memory).summary()["sha256"]


def test_a_hugging_face_set_and_its_splits():
    images = load(HubSet(COLOUR))
    assert torch.equal(images.batch(slice(None)), load(COLOUR).batch(slice(None)))
    assert images.labels.tolist() == LABELS
    splits = {"train": HubSet(COLOUR[:30]), "validation": HubSet(COLOUR[30:])}
    assert [len(load(splits, split)) for split in ("train", "valid", "all")] == [30, 10, 40]
    with pytest.raises(DataError, match="no split 'test'; there are train, valid"):
        load(splits, "test")


def test_a_stream_is_read_from_its_beginning():
    assert len(load(Stream())) == 40
    assert torch.equal(load(Stream(), limit=3).batch(slice(None)), load(BUMPS, limit=3).batch(slice(None)))


def test_bad_items_are_skipped_and_named():
    items = [*map(Image.fromarray, BUMPS), Image.open(io.BytesIO(b"P1\n9 9\n")), "no image", (), None]
    with pytest.raises(DataError, match=r"4 of 44 files cannot(.|\n)*Items\[41\]: is a str, not a PIL image"):
        load(Items(items))
    images = load(Items(items), reading=Reading(max_bad=0.1))
    assert (len(images), len(images.skipped)) == (40, 4)
    with pytest.raises(DataError, match="no column `image`; there are x"):
        load(Items([{"x": 1}]))
    with pytest.raises(DataError, match="1 of 1 files cannot"):
        load(Items([torch.zeros(9, 8, 8)]))
    with pytest.raises(DataError, match="Items: holds no images"):
        load(Items([]))
    for nothing in (3, None, Image.fromarray(BUMPS[0]), map(Image.fromarray, BUMPS)):
        with pytest.raises(DataError, match="given as a path, an array, a tensor or a data set"):
            load(nothing)


def test_several_objects_and_files_become_one_set(tmp_path):
    np.save(tmp_path / "x.npy", COLOUR)
    both = load([COLOUR, tmp_path / "x.npy", load(COLOUR), HubSet(COLOUR)], "all", limit=150)
    assert torch.equal(both.images, load(COLOUR).images.repeat(4, 1, 1, 1)[:150])
    assert both.name == f"array + {tmp_path}/x.npy + array + HubSet"
    assert both.labels is None
    with pytest.raises(DataError, match="points and images cannot be put together"):
        load([COLOUR, Points(torch.zeros(3, 2), "x")])
    with pytest.raises(DataError, match=r"put images into one array \(N, H, W\)"):
        load(list(BUMPS))


def test_a_data_set_is_given_back_as_it_is():
    images = load(COLOUR)
    assert load(images) is images
    assert load(images, "test", (5, 7), 3) is images
    assert len(load(images, limit=3)) == 3
    assert isinstance(load(load(HubSet(COLOUR), memory=0), memory=None), ImageSet)
    for wrong in ({"size": 5}, {"size": (7, 5)}, {"channels": 1}, {"reading": Reading(value_range=(0, 1))}):
        with pytest.raises(UsageError, match=r"array: is taken as it is, of shape \(3, 5, 7\)"):
            load(images, **wrong)
        with pytest.raises(UsageError, match=r"x: is taken as it is, of shape \(2,\)"):
            load(Points(torch.zeros(3, 2), "x"), **wrong)


@pytest.mark.parametrize(
    "data",
    [
        BUMPS,
        torch.from_numpy(BUMPS)[:, None].float() / 255,
        Items([(Image.fromarray(x), k) for x, k in zip(BUMPS, LABELS, strict=True)]),
        HubSet(BUMPS),
        [BUMPS, HubSet(BUMPS)],
    ],
    ids=["numpy", "torch", "data set", "hugging face", "several"],
)
@pytest.mark.parametrize("memory", [None, 0])
def test_training_takes_them(data, memory, tmp_path):
    config = TINY.with_(steps=2, density_steps=2, validation=5)
    model = train(data, tmp_path / "run", config, device="cpu", memory=memory)
    assert model.shape == (1, 8, 8)


def test_training_takes_vectors(tmp_path):
    x = np.random.default_rng(0).normal(size=(60, 3))
    assert train(
        x, tmp_path / "run", TINY.with_(steps=2, density_steps=2, validation=5, model={}), device="cpu"
    )
