import pytest
import torch
from tiny import bump_images

from mfimage.denoising import restorer as rooms
from mfimage.denoising.curve import NOISY
from mfimage.denoising.removal import remove_noise
from mfimage.denoising.restorer import Restorer
from mfimage.noise import parse_noise


def mixed_curve(model):
    """By which noise cut to [0, 1] is left, and whole noise projected off from σ = 0.1."""
    stored = model.measured["denoising"]
    count = len(stored["whole"]["sigmas"])
    rising = [-1.0 if sigma < 0.1 else 1.0 for sigma in stored["whole"]["sigmas"]]
    for part, values in (("whole", rising), ("cut", [-1.0] * count)):
        stored[part]["psnr"] = {NOISY: [0.0] * count, "projection": values}


@pytest.mark.parametrize("text", ["poisson:10", "gaussian:0.2", "salt-pepper:0.2", "gaussian:0.01"])
def test_all_tiles_go_by_the_method_that_suits_the_whole(model, monkeypatch, text, generator):
    """Whether tiles that are dark, or cut to [0, 1] by chance, are there or not."""
    mixed_curve(model)
    noise = parse_noise(text)
    x = torch.cat([0 * bump_images(3), bump_images(3)], 3).flatten(0, 1).view(1, 1, 24, 16)
    y = noise.add(x, generator)[0]
    if not text.startswith("salt"):
        y[..., :8, 8:] = y[..., :8, 8:].clamp(0, 1)
        y[..., -1, -1] = 1.3
    used = []

    def note(x, model, noise, method, batch_size):
        used.append(method)
        return remove_noise(x, model, noise, method, batch_size)

    monkeypatch.setattr(rooms, "remove_noise", note)
    done = Restorer(model, noise=noise, tiled=True, batch_size=1)(y)
    expected = "projection" if text in ("poisson:10", "gaussian:0.2") else NOISY
    assert done.methods == [expected]
    assert set(used) == ({expected} if expected != NOISY else set())
    assert done.noise == [noise]
    if text == "gaussian:0.01":
        assert torch.equal(done.after, y.clamp(0, 1))
    if text == "salt-pepper:0.2":
        assert (done.after - x).square().mean() < 0.3 * (y - x).square().mean()


def test_tiles_of_a_model_without_a_curve_go_by_its_first_method(model):
    model.measured.pop("denoising")
    y = bump_images(4).view(1, 1, 16, 16)
    assert Restorer(model, tiled=True)(y).methods == ["projection"]


def test_what_is_told_is_not_estimated(model):
    for options, expected in (
        ({}, True),
        ({"sigma": 0.1}, False),
        ({"noise": parse_noise("poisson:30")}, False),
        ({"missing": torch.zeros(8, 8, dtype=torch.bool)}, False),
        ({"factor": 2}, False),
    ):
        assert Restorer(model, **options).estimates == expected


@pytest.mark.parametrize("inverse", [False, True])
def test_of_images_that_had_colours_the_noise_is_that_of_luma(model, inverse, monkeypatch):
    told = []

    def fill(y, missing, model, sigma):
        told.extend([round(float(sigma), 4)] * len(y))
        return y

    monkeypatch.setattr(rooms, "fill", fill)
    missing = torch.zeros(8, 8, dtype=torch.bool) if inverse else None
    y = bump_images(3)
    done = Restorer(model, sigma=0.1, missing=missing)(y, [True, False, True])
    assert done.examination.sigma.tolist() == pytest.approx([0.0669, 0.1, 0.0669], abs=1e-4)
    if inverse:
        assert sorted(told) == [0.0669, 0.0669, 0.1]
        torch.testing.assert_close(done.after, y)
