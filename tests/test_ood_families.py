"""Families of strange images, treatment and sets of benchmarks/ood.py."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import smooth_pictures

from mfimage.datasets import ImageSet
from mfimage.errors import DataError, UsageError
from mfimage.eval.features import quantise, through_jpeg

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
families, sets = (importlib.import_module(f"strange.{name}") for name in ("families", "sets"))
LeftOutError = importlib.import_module("harness").LeftOutError
sys.path.pop(0)
Family = families.Family
SURE = {  # kinds that draw nothing
    "contrast", "brightness", "gamma", "hue", "posterise", "blur", "pixelate", "upside_down", "mirror",
    "turn", "hide", "jpeg", "stuck_bit",
}  # fmt: skip


@pytest.mark.parametrize("kind", families.KINDS)
def test_a_family_makes_images_of_8_bits_that_follow_from_the_seed(kind):
    x = smooth_pictures(6, size=(16, 18))
    before = x.clone()
    made, again, other = Family(kind).of(x), Family(kind).of(x), Family(kind).of(x, seed=1)
    assert (x == before).all()
    assert made.shape == x.shape
    assert made.dtype == torch.float32
    assert (made == quantise(made)).all()
    assert (made == again).all()
    assert (made == other).all() == (kind in SURE)
    assert ((made - x).abs().flatten(1).amax(1) > 0).sum() >= 5


def test_what_some_families_make():
    x = smooth_pictures(4)
    pale, means = Family("contrast", {"factor": 0.5}).of(x), x.mean((1, 2, 3), keepdim=True)
    assert (pale - means).std() == pytest.approx(float((x - means).std()) / 2, rel=0.02)
    double = (2 * Family("blend").of(x) - x).flatten(1)
    partners = torch.cdist(double, x.flatten(1)).argmin(1)
    assert sorted(partners.tolist()) == [0, 1, 2, 3]
    assert not (partners == torch.arange(4)).any()
    lost = Family("dead_lines", {"count": 2, "columns": False}).of(x)
    assert ((lost == 0).all(3).all(1).sum(1) == 2).all()
    moved = Family("clock_slip", {"pixels": 3}).of(x)
    same = (moved == x).all(3).all(1)
    assert same[:, 0].all()
    assert not same[:, -1].any()
    assert Family("jpeg", {"quality": 50}).of(x).equal(through_jpeg(x, 50))
    grey = x[:, :1]
    with pytest.raises(UsageError, match="grey"):
        Family("hue").of(grey)
    with pytest.raises(UsageError, match="alone"):
        Family("blend").of(x[:1])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"a": {"kind": "melt"}}, "a: there is no kind 'melt'; there are blend, "),
        ({"a": {"kind": "blend", "heavy": 1}}, "no setting 'heavy'; it has weight"),
        ({"a": {"kind": "blend", "weight": True}}, "weight of blend is a number, not True"),
        ({"a": {"kind": "jpeg", "quality": 10.5}}, "quality of jpeg is a whole number"),
        ({"a": "blend"}, "is expected, not 'blend'"),
        ({}, "holds no families"),
    ],
)
def test_a_wrong_file_of_families_is_refused_by_name(content, said, tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UsageError, match="mine") as raised:
        families.read_families(path)
    assert said in str(raised.value)


def test_families_of_a_file_and_those_that_cannot_be_made(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text('{"pale": {"kind": "contrast", "factor": 0.5}, "red": {"kind": "hue"}}')
    x = smooth_pictures(20, 1)
    task = sets.Task("some", None, x[:10], x[10:], {}, ()).with_families(families.read_families(path))
    assert list(task.strange) == ["pale"] == list(task.counted)
    assert task.notes[0].startswith("without red: hue")
    with pytest.raises(UsageError, match="weight lies between 0 and 1, and is not 2"):
        Family("blend", {"weight": 2}).of(x)
    with pytest.raises(DataError, match="gone"):
        families.read_families(tmp_path / "gone.json")
    assert set(families.KINDS) >= {
        one.kind for one in families.read_families(BENCHMARKS / "strange" / "families.json").values()
    }


def test_after_the_same_treatment_a_file_that_was_a_jpeg_is_like_one_that_was_not():
    x = smooth_pictures(8, size=(24, 24))
    earlier = through_jpeg(x)
    assert not earlier.equal(x)
    one, other = sets.treated(x), sets.treated(earlier, jpeg=True)
    assert one.equal(other)
    assert one.equal(quantise(one))
    assert one.shape == x.shape
    assert 0.001 < (one - x).abs().mean() < 0.05
    training = ImageSet(x.mul(255).round().byte(), "some", "train", ("",) * 8)
    task = sets.Task("some", training, x[:4], x[4:], {"a": x, "b": earlier}, (), jpegs=("b",)).treated(5)
    assert task.strange["a"].equal(one)
    assert task.strange["b"].equal(one)
    assert task.training.batch(slice(None)).equal(one[:5])
    assert torch.cat([task.known, task.fresh]).equal(one)


def test_a_class_left_out_is_strange_and_never_learned():
    labels = torch.arange(40) % 4
    images = (labels * 10).to(torch.uint8)[:, None, None, None].expand(40, 1, 4, 4).contiguous()
    whole = ImageSet(images, "four", "train", ("",) * 40, labels=labels, classes=tuple("abcd"))
    task = sets.without(whole, whole, 2, "c")
    assert set(task.training.labels.tolist()) == {0, 1, 3}
    assert (task.strange["c"] * 255).round().unique().tolist() == [20]
    assert len(task.known) + len(task.fresh) == 30
    assert 20 not in (torch.cat([task.known, task.fresh]) * 255).round()


def test_cifar_is_read_from_the_unpacked_package(tmp_path):
    with pytest.raises(LeftOutError, match="npm pack"):
        sets.cifar10(None)
    with pytest.raises(LeftOutError, match="not the package"):
        sets.cifar10(tmp_path)
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    for i, name in enumerate(["test_batch", *(f"data_batch_{i}" for i in range(1, 6))]):
        Image.fromarray(images[2 * i : 2 * i + 2].reshape(2, 1024, 3)).save(tmp_path / f"{name}.png")
    (tmp_path / "test_lables.json").write_text("[3, 8]")
    (tmp_path / "train_lables.json").write_text(json.dumps([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]))
    train, test = sets.cifar10(tmp_path)
    assert test.labels.tolist() == [3, 8]
    assert [test.classes[i] for i in test.labels] == ["cat", "ship"]
    assert (train.images[9].movedim(0, -1).numpy() == images[11]).all()
    assert len(train) == 10
