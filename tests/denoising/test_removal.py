"""Noise of every kind, and how it is removed."""

from dataclasses import replace

import pytest
import torch
from tiny import bump_images, coloured

from mfimage import denoise
from mfimage.denoising import removal as rooms
from mfimage.denoising.curve import NOISY, blind_sigma, denoise_batch
from mfimage.denoising.familiarity import strangeness
from mfimage.denoising.kinds import Evidence, estimate_noise, fixed_noise
from mfimage.denoising.removal import remove_noise, without_lost
from mfimage.denoising.restorer import Restorer
from mfimage.denoising.told import is_left, outcome, rows_of
from mfimage.errors import UsageError
from mfimage.eval.image_metrics import psnr
from mfimage.noise import parse_noise


def noisy(text, count=60, seed=0):
    x = bump_images(count, seed=77)
    return x, parse_noise(text).add(x, torch.Generator().manual_seed(seed))[0]


def quality(x, done):
    return float(psnr(done.image.clamp(0, 1), x).mean())


def test_gaussian_noise_is_removed_as_ever(noise_aware):
    y = noisy("gaussian:0.1")[1]
    sigma = torch.full((60,), 0.1)
    expected = denoise_batch(y, noise_aware, sigma)
    done = remove_noise(y, noise_aware, [fixed_noise("0.1")] * 60)
    assert torch.equal(done.image, expected.image)
    assert done.methods == expected.methods
    assert torch.equal(denoise(y, noise_aware, 0.1), expected.image.clamp(0, 1))
    assert torch.equal(denoise(y, noise_aware, noise="gaussian:0.1"), expected.image.clamp(0, 1))


@pytest.mark.parametrize("level", [0.05, 0.2])
def test_gaussian_noise_is_taken_for_what_it_is(noise_aware, level):
    y = noisy(f"gaussian:{level}")[1]
    done = remove_noise(y, noise_aware)
    assert {one.kind for one in done.noise} == {"gaussian"}
    torch.testing.assert_close(done.sigma, blind_sigma(y, noise_aware))
    assert torch.equal(done.image, denoise_batch(y, noise_aware).image)


@pytest.mark.parametrize("text", ["poisson:10", "poisson-gaussian:20,0.03"])
def test_each_pixel_comes_from_the_image_denoised_at_its_own_noise(noise_aware, monkeypatch, text):
    """By a denoiser that finds the clean image first, and then draws the σ that it is told."""
    x = torch.linspace(0.01, 1, 64).view(1, 1, 8, 8)
    told = []

    def denoiser(y, model, sigma, method, batch_size):
        told.append(float(sigma))
        image = x if len(told) == 1 else sigma.view(-1, 1, 1, 1).expand_as(y)
        return rooms.Denoised(image, sigma, ["soft"], [])

    monkeypatch.setattr(rooms, "denoise_batch", denoiser)
    noise = fixed_noise(text)
    done = remove_noise(x, noise_aware, [noise])
    own = noise.variance(x).sqrt()
    own = own.clamp_min(float(own.max()) / 5)
    torch.testing.assert_close(done.image, own, rtol=0.05, atol=0)
    assert told[0] == pytest.approx(float(noise.deviation_seen(x)))
    assert (told[1], told[-1]) == pytest.approx((float(own.min()), float(own.max())))
    assert float(done.sigma) == pytest.approx(float(own.square().mean().sqrt()))


def test_noise_in_colours_is_removed_first_and_that_in_brightness_then(noise_aware, monkeypatch):
    """By a denoiser that gives at the first σ the clean image, and then what it gets."""
    x, y = coloured("colour:0.05,0.2", 2)
    told = []

    def denoiser(y, model, sigma, method, batch_size):
        told.append(sigma.tolist())
        if len(told) == 1:
            return rooms.Denoised(x.clone(), sigma, [NOISY] * len(y), [])
        return rooms.Denoised(y, sigma, ["soft"] * len(y), [])

    monkeypatch.setattr(rooms, "denoise_batch", denoiser)
    noise = [fixed_noise("colour:0.05,0.2"), fixed_noise("colour:0.2,0.05")]
    done = remove_noise(y, noise_aware, noise)
    torch.testing.assert_close(torch.tensor(told[0]), torch.tensor([0.0275, 0.015]).sqrt())
    torch.testing.assert_close(torch.tensor(told[1]), torch.tensor([0.05]))
    grey = y[:1].mean(1, keepdim=True)
    torch.testing.assert_close(done.image[:1], grey + x[:1] - x[:1].mean(1, keepdim=True))
    assert torch.equal(done.image[1], x[1])
    assert done.methods == ["soft", NOISY]
    torch.testing.assert_close(done.sigma, torch.tensor([0.0275, 0.015]).sqrt())


@pytest.mark.parametrize("text", ["salt-pepper:0.05", "salt-pepper:0.2"])
def test_lost_values_are_filled_in_before(noise_aware, text):
    x, y = noisy(text)
    done = remove_noise(y, noise_aware, [fixed_noise(text)] * 60)
    assert quality(x, done) > quality(x, denoise_batch(y, noise_aware)) + 3


def test_an_image_that_is_only_filled_in_is_told_so_and_is_not_strange_for_it(noise_aware, monkeypatch):
    text = "salt-pepper:0.2"
    x, y = noisy(text, 4)

    def leave(y, model, sigma, method, batch_size):
        return rooms.Denoised(y, sigma, [NOISY] * len(y), [])

    monkeypatch.setattr(rooms, "denoise_batch", leave)
    done = Restorer(noise_aware, noise=fixed_noise(text))(y)
    rows = rows_of(done, list("abcd"), [255.0] * 4, list("abcd"), x)
    assert {row["method"] for row in rows} == {"lost values filled in"}
    assert not any(map(is_left, rows))
    assert outcome(rows[0]).startswith("lost values filled in: changed by 0.")
    assert all(row["psnr"] > row["psnr_before"] + 3 for row in rows)
    filled = without_lost(y, done.noise)
    torch.testing.assert_close(done.after, filled)
    expected = strangeness(filled, noise_aware, done.examination.sigma, filled)
    torch.testing.assert_close(done.examination.strangeness, expected)
    assert (expected < strangeness(y, noise_aware, done.examination.sigma, y)).all()


def test_what_the_denoiser_leaves_is_structure(monkeypatch, noise_aware):
    monkeypatch.setattr(rooms, "estimate_noise", lambda y, model, seen: [fixed_noise("poisson:10")] * len(y))
    many, clean = noisy("poisson:10")[1], bump_images(60)
    assert {one.kind for one in remove_noise(many, noise_aware).noise} == {"poisson"}
    for y in (clean, clean[:1], many[:1]):  # and small images alone do not tell
        done = remove_noise(y, noise_aware)
        assert {one.kind for one in done.noise} == {"gaussian"}
        assert torch.equal(done.image, denoise_batch(y, noise_aware).image)


def test_a_few_among_many_do_not_make_the_noise_that_of_photons(monkeypatch, noise_aware):
    y, text = noisy("poisson:10", 12)[1], ["poisson:10"] * 5 + ["gaussian:0.1"] * 7
    monkeypatch.setattr(rooms, "estimate_noise", lambda y, model, seen: [fixed_noise(one) for one in text])
    assert {one.kind for one in remove_noise(y, noise_aware).noise} == {"gaussian"}


def test_a_model_that_only_projects_needs_no_more_than_sigma(model):
    y = noisy("poisson:10")[1]
    assert {one.kind for one in estimate_noise(y, model)} == {"gaussian"}
    assert torch.equal(remove_noise(y, model).image, denoise_batch(y, model).image)
    known = remove_noise(y, model, [fixed_noise("poisson:10")] * 60)
    assert set(known.methods) == {"projection"}


def test_a_model_gets_the_noise_that_it_has_learned_as_it_is(noise_aware, monkeypatch):
    y = noisy("poisson:10")[1]
    monkeypatch.setitem(noise_aware.measured["training"], "noise", "poisson:5-50")
    noise = fixed_noise("poisson:10")
    done = remove_noise(y, noise_aware, [noise] * 60)
    sigma = torch.cat([noise.deviation_seen(one[None]) for one in y])
    assert torch.equal(done.image, denoise_batch(y, noise_aware, sigma, done.methods[0]).image)
    assert len(set(done.methods)) == 1


def test_each_image_of_a_batch_has_its_own_noise(noise_aware):
    texts = ["gaussian:0.1", "poisson:10", "gaussian:0.1", "salt-pepper:0.1"]
    noise = [fixed_noise(text) for text in texts]
    y = torch.cat([noisy(text, 4)[1][i : i + 1] for i, text in enumerate(texts)])
    done = remove_noise(y, noise_aware, noise)
    for i, one in enumerate(noise):
        alone = remove_noise(y[i : i + 1], noise_aware, [one])
        torch.testing.assert_close(done.image[i : i + 1], alone.image, atol=1e-5, rtol=0)
        assert done.methods[i] == alone.methods[0]


def test_where_the_image_is_best_left_it_is_left_and_told_so(noise_aware, monkeypatch):
    """By a denoiser that leaves the first image and moves the second."""
    x, text = bump_images(2) * 0.5 + 0.25, "poisson:200"
    asked = []

    def denoiser(y, model, sigma, method, batch_size):
        asked.append(method)
        names = [NOISY, "soft"] if method == "auto" else [method] * len(y)
        moved = torch.tensor([name != NOISY for name in names]).view(-1, 1, 1, 1)
        return rooms.Denoised(y + 0.1 * moved, sigma, names, [])

    monkeypatch.setattr(rooms, "denoise_batch", denoiser)
    done = Restorer(noise_aware, noise=fixed_noise(text))(x)
    assert torch.equal(done.after[0], x[0])
    torch.testing.assert_close(done.after[1], x[1] + 0.1)
    assert done.methods == [NOISY, "soft"]
    assert set(asked[1:]) == {"soft"}
    rows = rows_of(done, list("ab"), [255.0] * 2, list("ab"), None)
    assert [row["method"] for row in rows] == [NOISY, "soft"]


def test_photons_that_make_hardly_any_noise_move_nothing_further(noise_aware):
    x = bump_images(4)
    for method in ("auto", "refined"):
        noise = fixed_noise("poisson:1e9")
        sigma = torch.cat([noise.deviation_seen(one[None]) for one in x])
        done = remove_noise(x, noise_aware, [noise] * 4, method)
        assert torch.equal(done.image, denoise_batch(x, noise_aware, sigma, method).image)


def test_what_was_not_filled_in_is_not_called_so(noise_aware, monkeypatch):
    """Nor is a result of photons that differs, though no method was used."""
    x = bump_images(2)

    def leave(y, model, sigma, method, batch_size):
        return rooms.Denoised(y, sigma, [NOISY] * len(y), [])

    monkeypatch.setattr(rooms, "denoise_batch", leave)
    done = Restorer(noise_aware, noise=fixed_noise("poisson:10"))(x)
    other = replace(done, after=done.after.flip(-1))
    assert {row["method"] for row in rows_of(other, list("ab"), [255.0] * 2, list("ab"), x)} == {NOISY}


@pytest.mark.parametrize(
    ("learned", "told", "meant"),
    [
        ("poisson-gaussian:5-50,0-0.1", "poisson:10", "poisson-gaussian:10,0"),
        ("poisson:5-50", "poisson-gaussian:10,0", "poisson:10"),
    ],
)
def test_a_case_of_the_noise_that_was_learned_goes_to_the_network_too(
    noise_aware, monkeypatch, learned, told, meant
):
    y = noisy("poisson:10", 6)[1]
    monkeypatch.setitem(noise_aware.measured["training"], "noise", learned)
    done, expected = (remove_noise(y, noise_aware, [fixed_noise(text)] * 6) for text in (told, meant))
    assert torch.equal(done.image, expected.image)
    assert torch.equal(done.image, denoise_batch(y, noise_aware, done.sigma, "refined").image)
    assert {str(one) for one in done.noise} == {told}
    gaussian = remove_noise(y, noise_aware, [fixed_noise("gaussian:0.1")] * 6)
    assert torch.equal(gaussian.image, denoise_batch(y, noise_aware, torch.full((6,), 0.1)).image)


def test_what_was_seen_before_helps_to_judge_small_images(monkeypatch, noise_aware):
    """A last image alone gets the noise of those before it, a lone one stays Gaussian."""
    found = [fixed_noise("poisson:10")]
    monkeypatch.setattr(rooms, "estimate_noise", lambda y, model, seen: found * len(y))
    y, seen = noisy("poisson:10", 21)[1], Evidence()
    kinds = [{one.kind for one in remove_noise(part, noise_aware, seen=seen).noise} for part in y.split(20)]
    assert kinds == [{"poisson"}, {"poisson"}]
    assert seen.images == len(seen.taken) == 21
    assert remove_noise(y[20:], noise_aware).noise[0].kind == "gaussian"
    clean, seen = bump_images(21), Evidence()
    kinds = [
        {one.kind for one in remove_noise(part, noise_aware, seen=seen).noise} for part in clean.split(20)
    ]
    assert kinds == [{"gaussian"}, {"gaussian"}]


@pytest.mark.parametrize("text", ["poisson:10", "salt-pepper:0.1", None])
def test_tiles_have_the_noise_of_the_whole_image(noise_aware, text):
    y = torch.rand(1, 1, 16, 24, generator=torch.Generator().manual_seed(0))
    steps = []
    restorer = Restorer(noise_aware, tiled=True, noise=text and fixed_noise(text), advance=steps.append)
    done = restorer(y)
    assert done.after.shape == y.shape
    assert len(done.noise) == len(done.methods) == 1
    assert text is None or str(done.noise[0]) == text
    assert sum(steps) == restorer.steps(16, 24)


def test_what_is_asked_of_noise_must_make_sense(noise_aware):
    y = bump_images(2)
    for noise, sigma, words in (
        ("poisson:10-100", None, "one number is needed"),
        ("poisson:30", 0.1, "choose one"),
        ("snow:1", None, "there is no noise 'snow'"),
    ):
        with pytest.raises(UsageError, match=words):
            denoise(y, noise_aware, sigma, noise=noise)
