"""Data sets of Hugging Face: by name, from folders as they are from the cache, and as objects."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TINY, draw_bumps, write_images

from mfimage import train
from mfimage.datasets import ImageSet, StoredSet, load
from mfimage.datasets.hugging_face import HubData, import_datasets, parse_name
from mfimage.datasets.splits import divide_rows
from mfimage.errors import DataError, NoSplitError, UsageError

pytest.importorskip("pyarrow")
try:
    datasets = import_datasets()
except UsageError:
    pytest.skip("datasets of Hugging Face is not installed", allow_module_level=True)

BUMPS, SHORT = draw_bumps(40), TINY.with_(steps=2, density_steps=2, validation=4)


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    """A cache of this test, and no Hub."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets.disable_progress_bars()


@pytest.fixture
def folder(tmp_path):
    """Thirty images to learn from and ten for the test, in two classes."""
    for split, images in (("train", BUMPS[:30]), ("test", BUMPS[30:])):
        for kind in (0, 1):
            write_images(tmp_path / "set" / split / "ab"[kind], images[kind::2])
    return tmp_path / "set"


def rows(count, kinds=("a", "b")):
    """A `datasets.Dataset` of bumps with classes."""
    features = datasets.Features(
        {"picture": datasets.Image(), "kind": datasets.ClassLabel(names=list(kinds))}
    )
    images = [Image.fromarray(x) for x in BUMPS[:count]]
    return datasets.Dataset.from_dict({"picture": images, "kind": [i % 2 for i in range(count)]}, features)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("hf:mnist", ("mnist", None, None, None)),
        ("hf:ylecun/mnist:test", ("ylecun/mnist", None, None, "test")),
        ("hf:user/set/config@refs/pr/1:train[:50%]", ("user/set", "config", "refs/pr/1", "train[:50%]")),
        ("hf:user/set@main", ("user/set", None, "main", None)),
    ],
)
def test_names(name, meant):
    assert parse_name(name) == HubData(*meant, False)


@pytest.mark.parametrize("name", ["hf:", "hf:/a", "hf:a//b", "hf:a/b/c/d", "hf:a:", "hf:a@"])
def test_what_is_no_name(name):
    with pytest.raises(UsageError, match=r"hf:NAME\[/CONFIG\]\[@REVISION\]\[:SPLIT\]"):
        load(name)


def test_splits_are_for_their_uses(folder):
    name = f"hf:{folder}"
    training, test = load(name), load(name, "test")
    assert (len(training), len(test), len(load(name, "all"))) == (30, 10, 40)
    assert training.classes == ("a", "b")
    assert (training.name, test.paths[3]) == (name, f"{name}[3]")
    assert training.labels.bincount().tolist() == [15, 15]
    files = load(folder)
    assert {x.numpy().tobytes() for x in training.images} == {x.numpy().tobytes() for x in files.images}
    assert torch.equal(load(f"{name}:test", "train").images, test.images)  # one split is taken whole
    assert len(load(f"{name}:train[:7]")) == 7
    assert isinstance(load(name, memory=0), StoredSet)
    assert isinstance(load([name, BUMPS], "test"), ImageSet)
    with pytest.raises(NoSplitError, match="no split 'valid'; there are train, test"):
        load(name, "valid")
    with pytest.raises(DataError, match='Unknown split "valid"'):
        load(f"{name}:valid")


def test_of_one_split_a_tenth_is_held_out(tmp_path):
    write_images(tmp_path / "set", BUMPS)
    name, expected = f"hf:{tmp_path / 'set'}", divide_rows(40)
    assert [len(load(name, split)) for split in ("train", "test", "all")] == [
        len(expected[split]) for split in ("train", "test", "all")
    ]


@pytest.mark.parametrize("whole", [False, True])
def test_what_save_to_disk_wrote(tmp_path, whole):
    saved = rows(40) if whole else datasets.DatasetDict(train=rows(30), test=rows(10))
    saved.save_to_disk(str(tmp_path / "saved"))
    name = f"hf:{tmp_path / 'saved'}"
    assert len(load(name)) == (len(divide_rows(40)["train"]) if whole else 30)
    if not whole:
        assert len(load(f"{name}:test")) == 10


def test_a_cached_set_is_read_offline(folder, tmp_path, monkeypatch):
    before = load(f"hf:{folder}").images
    assert (tmp_path / "cache").is_dir()
    assert torch.equal(load(f"hf:{folder}").images, before)
    for name in ("hf:mnist", "hf:nobody/nothing:train"):
        with pytest.raises(DataError, match=f"{name}: the Hub is not reached .*not in the cache here"):
            load(name)


def test_without_datasets_it_is_told_what_to_install(folder, monkeypatch):
    monkeypatch.delitem(sys.modules, "datasets")
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(UsageError, match=r"needs Hugging Face's datasets: pip install 'mfimage\[hf\]'"):
        load(f"hf:{folder}")


def test_the_link_of_this_repository_is_passed_over():
    assert hasattr(import_datasets(), "load_dataset")
    assert "mfimage" not in import_datasets().__file__


@pytest.mark.parametrize("memory", [None, 0])
def test_a_data_set_of_theirs_is_data(memory):
    images = load(rows(40), memory=memory)
    assert (len(images), images.shape, images.classes) == (40, (1, 8, 8), ("a", "b"))
    assert torch.equal(images.batch(slice(None)), load(BUMPS).batch(slice(None)))
    assert images.labels.tolist() == [i % 2 for i in range(40)]


def test_a_stream_of_theirs_is_read_from_its_beginning():
    stream = rows(40).to_iterable_dataset()
    assert not hasattr(stream, "__len__")
    images = load(stream)
    assert torch.equal(images.images, load(BUMPS).images)
    assert images.labels.tolist() == [i % 2 for i in range(40)]
    assert torch.equal(load(stream, limit=3).images, images.images[:3])
    drawn = []

    def told():
        for image in BUMPS:
            drawn.append(1)
            yield {"image": np.asarray(image)}

    assert len(load(datasets.IterableDataset.from_generator(told), limit=5)) == 5
    assert len(drawn) <= 10  # endless ones are not waited for


def test_a_streamed_folder_is_data(folder):
    streamed = datasets.load_dataset(str(folder), streaming=True)
    assert [len(load(streamed, split)) for split in ("train", "test")] == [30, 10]


def test_training_takes_a_name_a_set_and_a_stream(folder, tmp_path):
    for i, data in enumerate(
        (f"hf:{folder}", f"hf:{folder}:train", rows(40), rows(40).to_iterable_dataset())
    ):
        assert train(data, tmp_path / f"run{i}", SHORT, device="cpu").shape == (1, 8, 8)


def test_the_command_line_takes_a_name(folder, mfimage, tmp_path):
    short = ("--steps", 2, "--density-steps", 2, "--dim", 2, "--no-flip", "--noise", 0, "--validation", 4)
    code, out, err = mfimage("train", f"hf:{folder}", "-o", "run", *short)
    assert (code, out) == (0, "run/model\n"), err
    assert f"mfimage evaluate run hf:{folder}" in err
    code, out, err = mfimage("evaluate", "run", "--metrics", "reconstruction")
    assert code == 0, err
    assert "10" in out
    code, _, err = mfimage("train", "hf:nobody/nothing", "-o", "other", *short)
    assert code == 3
    assert "the Hub is not reached" in err
