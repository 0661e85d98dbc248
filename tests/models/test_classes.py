"""Classes: what is drawn of one follows Bayes' rule, and what a training learns of them is of use."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from commands import fails
from tiny import SHORT, TINY, draw_bumps, learn, write_images
from torch.distributions import Normal

from mfimage import ModelConfig, build, from_pretrained
from mfimage.datasets import load
from mfimage.errors import DataError, ModelError, UsageError
from mfimage.models.classes import noise_of_class

SIDES = ("left", "right")


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    """A folder of 300 bumps in two others, left and right."""
    folder, drawn = tmp_path_factory.mktemp("sides"), draw_bumps(300)
    columns = np.arange(8)
    right = (drawn.sum(1) * columns).sum(1) / drawn.sum((1, 2)) > 3.5
    for name, chosen in zip(SIDES, (~right, right), strict=True):
        write_images(folder / name, drawn[chosen])
    return folder


@pytest.fixture(scope="module")
def run(sides, tmp_path_factory):
    """A run that learned the classes."""
    folder = tmp_path_factory.mktemp("runs") / "sides"
    config = replace(TINY, classes=True, density_steps=400, model={**TINY.model, "density_width": 32})
    learn(load(sides), folder, config)
    return folder


def test_noise_of_a_class_has_its_density_by_bayes_rule():
    """z ~ N(0, 1), p(c|z) = Φ(2z − 1): then E z = 2φ(a)/(√5 Φ(a)), a = −1/√5."""
    normal = Normal(0.0, 1.0)
    noise = noise_of_class(
        lambda z: normal.cdf(2 * z[:, 0] - 1).log(), 200_000, 2, torch.Generator().manual_seed(0)
    )
    at = torch.tensor(-(5**-0.5))
    mean = 2 * 5**-0.5 * normal.log_prob(at).exp() / normal.cdf(at)
    assert noise.shape == (200_000, 2)
    torch.testing.assert_close(noise.mean(0), torch.tensor([mean, 0.0]), atol=0.01, rtol=0)
    torch.testing.assert_close(noise[:, 1].std(), torch.tensor(1.0), atol=0.01, rtol=0)


def test_a_class_that_is_hardly_ever_drawn_is_an_error():
    with pytest.raises(ModelError, match=r"hardly draws this class: 0 times in 10\d,\d{3}"):
        noise_of_class(lambda z: torch.full((len(z),), -50.0), 1, 2, torch.Generator().manual_seed(0))
    assert noise_of_class(lambda z: torch.zeros(len(z)), 0, 2).shape == (0, 2)


def test_a_training_learns_classes_from_folders(run):
    model = from_pretrained(run)
    assert model.config.classes == model.classifier.classes == SIDES
    found = model.measured["classes"]
    assert found["images"] == 20
    assert found["accuracy"] > 0.8
    page = (run / "report.html").read_text()
    assert "Samples by class" in page
    assert "the class" in page
    phases = {json.loads(line)["phase"] for line in (run / "stats.jsonl").read_text().splitlines()}
    assert "classes" in phases


def test_samples_of_a_class_are_of_it(run):
    model = from_pretrained(run)
    columns = torch.arange(8.0)
    middle = {}
    for label in (*SIDES, 0, "1"):
        x = model.sample(60, torch.Generator().manual_seed(0), label=label)
        assert (model.classify(x).argmax(1) == model.class_number(label)).float().mean() > 0.8
        middle[label] = (x.clamp(0, 1).sum((1, 2)) * columns).sum(1) / x.clamp(0, 1).sum((1, 2, 3))
        few = model.sample(60, torch.Generator().manual_seed(0), 7, label=label)
        assert torch.equal(x, few)
    assert middle["left"].mean() < 3.3 < 3.7 < middle["right"].mean()
    assert torch.equal(middle["left"], middle[0])
    assert torch.equal(middle["right"], middle["1"])


def test_what_is_no_class_is_an_error(run):
    model = from_pretrained(run)
    for label in ("top", 2, -1, "2", True, 0.0):
        with pytest.raises(UsageError, match="there are left, right"):
            model.sample(1, label=label)
    plain = build(ModelConfig((1, 8, 8), 2))
    for ask in (lambda: plain.sample(1, label=0), lambda: plain.classify(torch.zeros(1, 1, 8, 8))):
        with pytest.raises(ModelError, match="did not learn classes: mfimage train --classes"):
            ask()


def test_classes_as_typed(mfimage, sides, run):
    code, out, err = mfimage("sample", "-m", run, "-n", 3, "--label", "right", "-o", "out", "--device", "cpu")
    assert code == 0, err
    assert "3 samples and sheet.png in out of class right" in err
    assert [line.rsplit("/", 1)[1] for line in out.split()] == [f"class-1-0-0000{i}.png" for i in range(3)]
    fails(mfimage("sample", "-m", run, "--label", "top", "-o", "out"), 2, "top", "left, right")
    options = ("-o", "run", "--classes", "--steps", 2, "--dim", 2, "--noise", 0)
    code, _, err = mfimage("train", sides, *options[2:], "-o", "short", "--device", "cpu")
    assert code == 0, err
    assert "classes" in err
    fails(mfimage("train", sides, *options, "--algorithm", "af"), 2, "classes are not learned by af")
    fails(mfimage("train", sides / "left", *options), 3, "the class of each image is not known")


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([-1, 0], "class indices -1 … 0"),
        ([0, 0], "1 classes: 2 … 1,000"),
        ([0, 1000], "1001 classes: 2 … 1,000"),
    ],
)
def test_labels_that_are_no_classes(labels, said, tmp_path):
    np.savez(tmp_path / "x.npz", images=draw_bumps(60), labels=np.array(labels).repeat(30))
    with pytest.raises(DataError, match=said):
        learn(load(tmp_path / "x.npz", "all"), tmp_path / "run", replace(SHORT, classes=True))


def test_sources_that_know_their_classes_are_joined_by_name(sides, tmp_path):
    other = tmp_path / "other"
    for name in ("right", "top"):
        write_images(other / name, draw_bumps(20, seed=3))
    both = load([sides, other], "all")
    assert both.classes == ("left", "right", "top")
    expected = [both.classes.index(path.split("/")[-2]) for path in both.paths]
    assert both.labels.tolist() == expected
    np.save(tmp_path / "x.npy", draw_bumps(5))
    mixed = load([sides, tmp_path / "x.npy"], "all")
    assert mixed.labels is None
    assert mixed.classes == ()


def test_sets_that_are_read_in_place_know_their_classes(sides):
    stored, whole = load(sides, "all", memory=0), load(sides, "all")
    assert stored.classes == whole.classes == SIDES
    assert torch.equal(stored.labels, whole.labels)
    some = stored.subset([0, 299, 5])
    assert torch.equal(some.labels, whole.labels[[0, 299, 5]])
    assert torch.equal(some.in_memory().labels, some.labels)
    assert some.in_memory().classes == SIDES


def test_named_sets_know_their_classes():
    clothes = load("fashion-mini", "test", limit=5)
    assert [clothes.classes[i] for i in clothes.labels.tolist()] == [
        "ankle boot", "pullover", "trousers", "trousers", "shirt",
    ]  # fmt: skip
