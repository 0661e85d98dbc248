import copy
import json
import re

import numpy as np
import pytest
import torch
from tiny import TINY, bump_images, draw_bumps, learn, write_array

from mfimage import UnfamiliarWarning, denoise, from_pretrained, save_pretrained
from mfimage.datasets import gaussian_noise
from mfimage.denoising import examination
from mfimage.denoising.curve import SIGMAS, Denoised, blind_sigma
from mfimage.denoising.examination import how_strange
from mfimage.denoising.familiarity import (
    FAMILIAR,
    Region,
    familiarity_of,
    features_of,
    measure_familiarity,
    region_of,
    strangeness,
)
from mfimage.denoising.methods import METHODS
from mfimage.denoising.removal import remove_noise
from mfimage.errors import ModelError
from mfimage.noise import parse_noise

X, SPREAD = bump_images(300, 9), 0.008  # the deviation of a share of 2 % among so many
STRANGE = {
    "inverted": 1 - X[:40],
    "stripes": torch.arange(8).remainder(4).lt(2).float().expand(5, 1, 8, 8),
    "a corner": X[:40].roll((4, 4), (2, 3)),
}


@pytest.fixture(scope="module")
def measured(tiny_run):
    """The tiny model, which saw what 150 images look like."""
    model = from_pretrained(tiny_run)
    model.measured[FAMILIAR] = measure_familiarity(
        bump_images(150, 3), model, SIGMAS, lambda y: blind_sigma(y, model)
    )
    return model


def far(y, model, sigma=None):
    """The share of images that is far at a given noise, or at the one that is estimated."""
    level = blind_sigma(y, model) if sigma is None else torch.full((len(y),), sigma)
    return float((strangeness(y, model, level) > 1).float().mean())


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("sigma", [0.01, 0.03, 0.1, 0.15, 0.3, 0.5])
def test_two_in_a_hundred_familiar_images_are_far_at_most_and_strange_ones_are(
    measured, sigma, clip, generator
):
    y = gaussian_noise(X, sigma, generator, clip)
    assert far(y, measured, sigma) <= 0.02 + SPREAD
    assert far(y, measured) <= 0.02 + SPREAD
    if sigma <= 0.1:
        for name, images in STRANGE.items():
            found = far(gaussian_noise(images, sigma, generator, clip), measured)
            assert found > (0.9 if sigma < 0.1 else 0.8), name


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("sigma", [0.0, 0.001, 0.003, 0.005])
def test_little_noise_that_is_told_makes_no_image_far(measured, sigma, clip, generator):
    assert far(gaussian_noise(X, sigma, generator, clip), measured, sigma) <= 0.02 + SPREAD
    assert far(gaussian_noise(1 - X[:40], sigma, generator, clip), measured, sigma) > 0.9


@pytest.fixture(scope="module")
def aware(tmp_path_factory):
    """A model that learned to remove noise, and saw what 100 images look like."""
    torch.set_num_threads(1)
    directory = tmp_path_factory.mktemp("aware")
    config = TINY.with_(
        steps=150, noise=(0.0, 0.5), every=50, lr=1e-2, model={**TINY.model, "noise_width": 8}
    )
    model = learn(write_array(directory / "bumps.npy", draw_bumps(400)), directory / "run", config)
    model.measured[FAMILIAR] = measure_familiarity(
        bump_images(100, 3), model, SIGMAS, lambda y: blind_sigma(y, model)
    )
    return model


def little_taken_off(images, model, kind, generator):
    """Images with a twentieth of the noise that belongs to their σ, and what is drawn of them."""
    y = gaussian_noise(images, 0.1, generator, False)
    sigma = torch.full((len(y),), 0.1)
    x_hat = METHODS["soft"](y, model, sigma)
    return x_hat + (y - x_hat) / 20, Denoised(x_hat, sigma, ["soft"] * len(y), [parse_noise(kind)] * len(y))


@pytest.mark.parametrize("kind", ["poisson:30", "poisson-gaussian:30,0.05", "correlated:0.1,1"])
def test_how_much_was_taken_off_does_not_count_with_noise_of_another_kind(aware, kind, generator):
    y, done = little_taken_off(X[:100], aware, kind, generator)
    found = how_strange(y, aware, done)
    assert (found > 1).sum() <= 5
    y, done = little_taken_off(1 - X[:40], aware, kind, generator)
    assert (how_strange(y, aware, done) > 1).float().mean() > 0.9


def test_what_is_far_more_than_the_noise_that_was_told_is_far(aware, generator):
    noise = [parse_noise("poisson:300")] * 40
    y = torch.rand(40, 1, 8, 8, generator=generator)
    assert (how_strange(y, aware, remove_noise(y, aware, noise)) > 1).all()


def test_a_result_that_another_method_drew_is_drawn_again_of_each_part(aware, monkeypatch, generator):
    y = parse_noise("poisson:30").add(X[:2].repeat(1, 1, 2, 3), generator)[0]
    noise, seen = [parse_noise("poisson:30")] * 2, []

    def draw(parts, model, noise, method):
        seen.append((tuple(parts.shape), method))
        return Denoised(parts, parts[:, 0, 0, 0], ["soft"] * len(parts), noise)

    monkeypatch.setattr(examination, "remove_noise", draw)
    done = Denoised(y, torch.tensor([0.1, 0.1]), ["projection"] * 2, noise)
    assert how_strange(y, aware, done).shape == (2,)
    assert seen == [((6, 1, 8, 8), "soft")] * 2


def test_a_large_image_with_noise_of_another_kind_is_judged_by_parts(aware, generator):
    for images, strange in ((X[:6], False), (1 - X[:6], True)):
        y, done = little_taken_off(images, aware, "poisson:30", generator)
        wide, drawn = (torch.cat(list(one), -1)[None] for one in (y, done.image))
        found = how_strange(wide, aware, Denoised(drawn, done.sigma[:1], ["soft"], done.noise[:1]))
        assert bool(found > 1) == strange


def test_of_each_image_of_a_batch_its_own_noise_counts(aware, generator):
    texts = ["gaussian:0.1", "poisson:30", "gaussian:0.2", "salt-pepper:0.1"]
    noise = [parse_noise(text) for text in texts]
    y = torch.cat([one.add(X[i : i + 1], generator)[0] for i, one in enumerate(noise)])
    together = how_strange(y, aware, remove_noise(y, aware, noise))
    for i, one in enumerate(noise):
        alone = how_strange(y[i : i + 1], aware, remove_noise(y[i : i + 1], aware, [one]))
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-3, atol=1e-4)


def test_a_model_that_does_not_know_noise_does_not_judge_other_noise(measured, generator):
    y, noise = parse_noise("poisson:30").add(1 - X[:4], generator)[0], [parse_noise("poisson:30")] * 4
    assert how_strange(y, measured, remove_noise(y, measured, noise)) is None


def test_a_model_that_measured_it_before_does_not_judge_other_noise(aware, generator):
    model = copy.deepcopy(aware)
    model.measured[FAMILIAR].pop("others")
    y, noise = parse_noise("poisson:30").add(1 - X[:4], generator)[0], [parse_noise("poisson:30")] * 4
    assert how_strange(y, model, remove_noise(y, model, noise)) is None
    mixed = [*noise[:3], parse_noise("gaussian:0.1")]
    found = how_strange(y, model, remove_noise(y, model, mixed))
    assert found[:3].tolist() == [0, 0, 0]
    assert found[3] > 1


def test_clean_images_are_not_far(measured):
    assert far(X, measured) <= 0.02
    assert far(1 - X, measured) == 1


def test_noise_that_was_not_told_is_far(measured, generator):
    y = gaussian_noise(X[:40], 0.3, generator)
    assert far(y, measured, 0.01) == 1


def test_few_images_are_enough_not_to_cry_wolf(tiny_run, generator):
    model = from_pretrained(tiny_run)  # which measured it on 19 images
    for sigma in (0.01, 0.1, 0.3):
        assert far(gaussian_noise(X, sigma, generator), model) <= 0.03
    assert far(1 - X, model) > 0.9
    assert measure_familiarity(X[:9], model, SIGMAS, lambda y: blind_sigma(y, model)) == {}


def test_the_features_by_hand(model):
    y, sigma = X[:3], torch.tensor([0.1, 0.2, 0.3])
    with torch.no_grad():
        u = model.encode(y)
        off = (y - model.decode(u)).square().flatten(1).mean(1)
        found = features_of(y, model, sigma)
        torch.testing.assert_close(found[:, 0], off.log())
        torch.testing.assert_close(found[:, 1], off.log())  # blocks are of one pixel
        torch.testing.assert_close(found[:, 2], y.flatten(1).var(1, unbiased=False).log())
        torch.testing.assert_close(found[:, 3], -model.density.log_prob(u) / 2)


def test_a_region_is_an_ellipse_that_changes_with_the_noise(generator):
    drawn = torch.randn(2000, 2, generator=generator, dtype=torch.float64)
    region = region_of((0.1, 0.4), [drawn * torch.tensor([1.0, 2.0]), 5 + drawn])
    assert region.means[1] == pytest.approx((5, 5), abs=0.1)
    assert region.covariances[0][1][1] == pytest.approx(4, rel=0.1)
    assert 9.2 < min(region.limits) < max(region.limits) < 25  # of 2000 normal ones the farthest
    at = torch.tensor([[4.0, 0.0], [0.0, 4.0], [5.0, 9.0], [2.5, 2.5]])
    found = region.strangeness(at, torch.tensor([0.1, 0.01, 0.4, 0.2]))
    expected = [16 / region.limits[0], 4 / region.limits[0], 16 / region.limits[1], 0]
    assert found.tolist() == pytest.approx(expected, rel=0.15, abs=0.01)
    few = region_of((0.1,), [drawn[:12]])
    assert few.limits[0] >= 2 * 143 / (12 * 10) * 7.559 - 0.01  # F of 2 and 10 degrees, 99 %


def test_a_large_image_is_judged_by_parts(measured):
    """Light that changes over the whole image must not hide what is wrong in every part of it."""
    for images, strange in ((X[:6], False), (1 - X[:6], True)):
        large = torch.cat(list(images), -1)[None].repeat(1, 1, 2, 1)[..., :15, :47]
        assert far(large, measured, 0.005) == strange
    huge = X[0].repeat(1, 30, 30)[None]
    assert far(huge, measured, 0.005) == 0


def test_python_warns_of_unfamiliar_images(measured):
    few = X[:2]
    denoise(few, measured)
    with pytest.warns(UnfamiliarWarning, match=r"^2 of 4 images \(2, 3\): far from what .* times the limit"):
        denoise(torch.cat([few, 1 - few]), measured)
    with pytest.warns(UnfamiliarWarning, match="^far from what the model was trained on") as caught:
        denoise(1 - few[0], measured)
    assert caught[0].filename == __file__


def test_what_is_familiar_is_kept_with_the_model(measured, tmp_path):
    save_pretrained(measured, tmp_path)
    again = from_pretrained(tmp_path)
    assert familiarity_of(again) == familiarity_of(measured)
    assert isinstance(familiarity_of(again).cut, Region)
    assert re.match("{", json.dumps(again.measured[FAMILIAR]))


@pytest.mark.parametrize("stored", [None, {}, {"score": 0.01, "coarse": 0.002}])
def test_models_that_did_not_measure_it_warn_of_nothing(model, stored):
    model.measured[FAMILIAR] = stored
    assert familiarity_of(model) is None
    assert strangeness(1 - X, model, torch.full((300,), 0.1)) is None
    denoise(1 - X[0], model)


@pytest.mark.parametrize(
    "change", [{"limits": [1.0]}, {"sigmas": 3}, {"means": "x"}, {"limits": [-1.0] * 9}, {}]
)
def test_what_is_damaged_is_told(model, change):
    stored = model.measured[FAMILIAR]
    model.measured[FAMILIAR] = {**stored, "cut": {**stored["cut"], **change}} if change else 1
    with pytest.raises(ModelError, match="usual for the model is damaged"):
        familiarity_of(model)


def test_a_few_images_at_each_of_many_levels_are_enough():
    """Of others less than 2 % are called far, though 24 images of a level alone tell too little for that."""
    random = np.random.default_rng(0)

    def drawn(count):
        return torch.from_numpy(random.standard_t(6, (count, 5)))

    sigmas, unseen, shares = [0.01 * 2**level for level in range(9)], drawn(20_000), []
    for _ in range(20):
        region = region_of(sigmas, [drawn(24) for _ in sigmas])
        for sigma in sigmas:
            found = region.strangeness(unseen, torch.full((len(unseen),), sigma))
            shares.append(float((found > 1).float().mean()))
    assert np.mean(shares) < 0.01
    assert np.mean(np.array(shares) > 0.02) < 0.1
    level = torch.full((len(unseen),), 0.1)
    alone = [region_of([0.1], [drawn(24)]).strangeness(unseen, level) > 1 for _ in range(20)]
    assert np.mean([float(found.float().mean()) for found in alone]) > 0.015
