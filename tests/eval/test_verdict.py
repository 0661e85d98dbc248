"""The verdict against principal components: what is said of known errors, and one definition of PCA."""

from dataclasses import asdict, replace

import pytest
import torch
from tiny import TINY, bump_images

from mfimage import build, denoise, evaluate, from_pretrained, load, train
from mfimage.config import ModelConfig
from mfimage.datasets import ImageSet
from mfimage.errors import ModelError
from mfimage.eval import PCA
from mfimage.eval.numbers import mean_interval, ratio_of_means
from mfimage.eval.verdict import RATIO, Verdict, judge, learned_of, verdict_of
from mfimage.training import hold_out, train_or_reuse

GOOD = Verdict(137.2, 167.3, (0.80, 0.84), 151, 48, 1349)


def test_less_is_said_where_it_is_beyond_chance():
    assert str(GOOD) == (
        "Reconstructs unseen images with 18 % less squared error than 48 principal components "
        "(137.2 against 167.3 an image, 151 images held out)."
    )
    chance = replace(GOOD, interval=(0.6, 1.04))
    assert str(chance).startswith("Not told from 48 principal components on unseen images (137.2 against")
    assert (chance.better, chance.worse) == (False, False)
    assert str(replace(GOOD, interval=None, n=1, dim=1)).startswith("Not told from 1 principal component on")
    assert "1 image held out" in str(replace(GOOD, n=1))


@pytest.mark.parametrize(("error", "better"), [(98.9, True), (99.1, False)])
def test_less_than_one_percent_is_no_better(error, better):
    found = Verdict(error, 100.0, (error / 100 - 1e-3, error / 100 + 1e-3), 9, 2, 50)
    assert found.better == better
    assert str(found).startswith("Reconstructs" if better else "No better than 2 principal components on")


@pytest.mark.parametrize(
    ("best", "passes", "words"),
    [
        ("", 0.0, "held out)."),
        (
            "middle",
            9.0,
            "are too few for this variety: add images, or fewer dimensions (mfimage train --dim).",
        ),
        ("end", 9.0, "still improving when training ended: train it for longer (mfimage train --time)."),
        ("start", 0.5, "has not seen every image once: train it for longer (mfimage train --time)."),
    ],
)
def test_no_better_says_what_would_help(best, passes, words):
    same = replace(GOOD, error=167.0, interval=(0.99, 1.01), best=best, passes=passes)
    assert str(same).endswith(words)
    assert str(same).startswith("Is its start" if best == "start" else "No better than")
    worse = replace(GOOD, error=200.0, interval=(1.1, 1.3), best=best, passes=passes)
    assert str(worse).startswith("Reconstructs unseen images with 20 % more squared error than")
    assert str(worse).endswith(words)


def test_the_interval_of_a_ratio_is_that_of_pairs():
    generator = torch.Generator().manual_seed(0)
    b = torch.rand(400, generator=generator) + 0.1
    value, low, high = ratio_of_means(0.8 * b, b)
    assert (value, low, high) == pytest.approx((0.8, 0.8, 0.8))
    noisy = 0.8 * b + 0.01 * torch.randn(400, generator=generator)
    value, low, high = ratio_of_means(noisy, b)
    half = 1.96 * 0.01 / 20 / float(b.mean())
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)
    alone = mean_interval(noisy)
    assert high - low < 0.1 * (alone.high - alone.low)
    assert ratio_of_means(torch.ones(1), torch.ones(1)).ends is None
    assert ratio_of_means(torch.ones(3), torch.zeros(3)).ends is None


def test_one_definition_of_principal_components(bumps, tiny_run, tmp_path):
    """The same number in training's verdict, in evaluate and by the run pca, on the same images."""
    model = from_pretrained(tiny_run)
    images = load(bumps, "train")
    training, held_out = hold_out(images, TINY)
    said = verdict_of(model)
    measured = evaluate(held_out, model, images, metrics=("reconstruction",))
    run = train_or_reuse(images, tmp_path / "pca", replace(TINY, algorithm="pca"), device="cpu")
    pca = evaluate(held_out, run, images, metrics=("reconstruction",))
    x = held_out.batch(slice(None)).double()
    truth = float((PCA.of(training, 2).project(x).clamp(0, 1) - x).square().sum((1, 2, 3)).mean())
    error = measured.numbers["squared_error"]
    assert error.beside["pca"] == pytest.approx(truth, rel=1e-6)
    assert said.pca == error.beside["pca"] == pca.numbers["squared_error"].beside["pca"]
    assert pca.numbers["squared_error"].value == pytest.approx(truth, rel=1e-5)
    assert said.error == error.value
    assert said.interval == measured.numbers[RATIO].interval
    assert measured.verdict == str(said)
    assert pca.verdict.startswith("Is 2 principal components: squared error 0.2")
    assert (said.n, said.learned, said.dim) == (19, len(training), 2)
    assert measured.model["learned"] == len(training) == len(images) - 19


def test_principal_components_are_those_of_images_as_they_are(bumps, tmp_path):
    flipped = replace(TINY, steps=4, density_steps=4, every=2, flip=True)
    model = train(bumps, tmp_path / "run", flipped, device="cpu")
    training, held_out = hold_out(load(bumps, "train"), flipped)
    assert verdict_of(model).pca == judge(model, PCA.of(training, 2), held_out, len(training)).pca
    assert verdict_of(from_pretrained(tmp_path / "run")) == verdict_of(model)


def test_other_training_images_are_taken_whole(model):
    other = ImageSet((255 * bump_images(90)).byte(), "other", "all", ())
    assert len(learned_of(other, model)) == 90
    assert len(learned_of(other, build(ModelConfig((1, 8, 8), 2)))) == 90


def test_a_damaged_verdict_is_named(model):
    assert verdict_of(model) == Verdict(**asdict(verdict_of(model)))
    model.measured["verdict"] = {"errors": 3}
    with pytest.raises(ModelError, match="verdict is damaged"):
        verdict_of(model)


@pytest.mark.parametrize("damaged", [[], "text", 3, None])
def test_what_is_kept_of_a_training_is_an_object_or_damaged(damaged):
    model = build(ModelConfig((1, 8, 8), 2, noise_aware=True, width=2, hidden=8, noise_width=2))
    model.measured["training"] = damaged
    for use in (
        lambda: denoise(torch.zeros(1, 1, 8, 8), model, noise="gaussian:0.1"),
        lambda: learned_of(None, model),
    ):
        with pytest.raises(ModelError, match="kept of the model's training is damaged"):
            use()
