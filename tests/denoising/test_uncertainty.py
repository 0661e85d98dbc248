import numpy as np
import pytest
import torch
from PIL import Image
from tiny import bump_images, draw_bumps

from mfimage import denoise
from mfimage.datasets import ImageSet
from mfimage.denoising.curve import calibrate_denoising, denoise_batch
from mfimage.denoising.uncertainty import (
    UNCERTAINTY,
    Collector,
    Spread,
    calibration_of,
    describe,
    fit_spread,
)
from mfimage.errors import ModelError

pytestmark = [  # a few images of noise are no familiar ones
    pytest.mark.filterwarnings("ignore::mfimage.errors.UnfamiliarWarning"),
    pytest.mark.filterwarnings("ignore::mfimage.errors.ChangedWarning"),
]

SIGMAS = (0.1, 0.2)


@pytest.fixture(scope="module")
def calibrated(tiny_run):
    """A model that knows of its errors from 100 images that it has not seen."""
    from mfimage import from_pretrained

    model = from_pretrained(tiny_run)
    calibrate_denoising(ImageSet(bump_images(100, seed=50), "bumps", "test", ("",) * 100), model)
    return model


def within(errors, deviation):
    """Shares of errors within one and two deviations."""
    return [float((errors.abs() <= k * deviation).double().mean()) for k in (1, 2)]


def gaussian_images(count, prior, generator):
    """Independent normal values: their deviation is `prior` on the left, a third of it on the right."""
    spread = torch.full((count, 1, 32, 32), prior)
    spread[..., 16:] /= 3
    return 0.5 + spread * torch.randn(spread.shape, generator=generator), spread


def test_of_a_gaussian_posterior_the_map_is_its_deviation(generator):
    """x ~ N(½, s²), y = x + σε: the mean is ½ + γ(y − ½), the deviation √γ σ, γ = s²/(s² + σ²)."""
    collector = Collector()

    def posterior(sigma):
        x, spread = gaussian_images(100, 0.06, generator)
        gain = spread**2 / (spread**2 + sigma**2)
        y = x + sigma * torch.randn(x.shape, generator=generator)
        return x, y, 0.5 + gain * (y - 0.5), gain.sqrt() * sigma

    for sigma in SIGMAS:
        x, y, mean, _ = posterior(sigma)
        collector("mean", sigma, y, mean, x)
    spread = collector.spreads()["mean"]
    for sigma in (*SIGMAS, 0.15):  # the last one is between those measured
        x, y, mean, deviation = posterior(sigma)
        found = spread(y, mean, torch.full((100,), sigma))
        for half in (slice(0, 15), slice(17, 32)):
            ratio = (found / deviation)[..., half]
            assert ratio.log().mean().exp() == pytest.approx(1, abs=0.05)
            assert ratio.std() < 0.2
        assert within(mean - x, found) == pytest.approx([0.6827, 0.9545], abs=0.015)


@pytest.mark.parametrize("sigma", [0.05, 0.1, 0.15, 0.3, 0.5])
@pytest.mark.parametrize("cut", [False, True])
def test_errors_on_unseen_images_are_within_as_often_as_promised(calibrated, sigma, cut, generator):
    x = bump_images(200, seed=77)
    y = x + sigma * torch.randn(x.shape, generator=generator)
    y = y.clamp(0, 1) if cut else y
    done = denoise_batch(y, calibrated, torch.full((200,), sigma))
    deviation = done.deviation(y, calibration_of(calibrated))
    error = (done.image.clamp(0, 1) - x).abs()
    one, two = within(error, deviation)
    assert one == pytest.approx(0.68, abs=0.08)  # 8 × 8 pixels, half of them exactly right
    assert two == pytest.approx(0.95, abs=0.06)
    order = torch.stack([deviation.flatten().argsort().argsort(), error.flatten().argsort().argsort()])
    assert torch.corrcoef(order.double())[0, 1] > 0.3  # where it is larger, errors are


def test_a_result_that_is_not_finite_has_the_deviation_of_the_image_as_it_is(calibrated):
    y, sigma = bump_images(3), torch.full((3,), 0.1)
    image = y.clone()
    image[1, 0, 2, 2] = torch.nan
    known, cut = calibration_of(calibrated), torch.ones(3, dtype=torch.bool)
    found = known(y, image, sigma, ["projection"] * 3, cut)
    expected = known(y, y, sigma, ["projection", "noisy", "projection"], cut)
    assert torch.equal(found, expected)
    assert found.isfinite().all()


def test_errors_of_two_sizes_are_told_apart(generator):
    """With a feature that tells large errors from small ones both get their own deviation."""
    large = torch.rand(20_000, generator=generator) < 0.5
    deviation = torch.where(large, 0.3, 0.01)
    errors = (deviation * torch.randn(20_000, generator=generator)).abs()
    features = torch.stack([torch.ones(20_000), large.float()], 1)
    found = (features @ fit_spread(features, errors).float()).exp()
    torch.testing.assert_close(found, deviation, rtol=0.06, atol=0)
    errors[::2] = 0  # half of them are exact: shares are then off in the ratio 4 to 3, of both signs
    one, two = within(errors, (features @ fit_spread(features, errors).float()).exp())
    assert (one - 0.6827) / 4 == pytest.approx((0.9545 - two) / 3, abs=0.01)


def test_what_is_around_a_value_is_described():
    x_hat = torch.full((1, 1, 9, 9), 0.25)
    x_hat[..., 4, 4] = -0.2
    y = x_hat + 0.1
    found = describe(y, x_hat, torch.tensor([0.1]))
    black, flat = found[0, 0, 4, 4], found[0, 0, 0, 0]
    cut = torch.tensor([0.25] * 8 + [0.0])
    removed = np.log(0.1**2 + 0.001**2)
    expected = [
        1,
        -2,
        0.5,
        np.log(0.01),
        np.log(1.01),
        np.log(float(cut.var(unbiased=False)) + 1e-5),
        removed,
        removed,
    ]
    torch.testing.assert_close(black, torch.tensor(expected, dtype=torch.float32))
    expected = [1, 0.5, 0.5, np.log(0.26), np.log(0.76), np.log(1e-5), removed, removed]
    torch.testing.assert_close(flat, torch.tensor(expected, dtype=torch.float32), rtol=1e-4, atol=1e-3)


def test_between_two_levels_the_logarithm_is_in_between_and_beyond_that_of_the_end():
    spread = Spread((0.01, 1.0), ((np.log(0.02), *[0.0] * 7), (np.log(0.5), *[0.0] * 7)), (1.0, 0.4))
    y = torch.rand(4, 1, 3, 3)
    found = spread(y, y, torch.tensor([0.001, 0.01, 0.1, 3.0]))[:, 0, 0, 0]
    torch.testing.assert_close(found, torch.tensor([0.02, 0.02, 0.1, 0.4]))


@pytest.mark.parametrize(
    "kind", ["grey bytes", "floats", "colour bytes", "tensor", "alpha", "picture", "path"]
)
def test_a_map_has_the_dimensions_and_the_scale_of_the_image(calibrated, tmp_path, kind):
    grey = draw_bumps(1, seed=4)[0]
    colour, alpha = np.stack([grey] * 3, -1), np.stack([grey, np.full_like(grey, 255)], -1)
    Image.fromarray(grey).save(tmp_path / "a.png")
    image, dimensions, white = {
        "grey bytes": (grey, (8, 8), 255),
        "floats": (grey / 255, (8, 8), 1),
        "colour bytes": (colour, (8, 8, 3), 255),
        "tensor": (torch.from_numpy(grey)[None], (1, 8, 8), 255),
        "alpha": (alpha, (8, 8, 2), 255),
        "picture": (Image.fromarray(colour), (8, 8, 3), 255),
        "path": (tmp_path / "a.png", (8, 8), 255),
    }[kind]
    plain = denoise(image, calibrated, 0.2 * white)
    result, deviation = denoise(image, calibrated, 0.2 * white, uncertainty=True)
    assert np.array_equal(np.asarray(result), np.asarray(plain))
    assert type(result) is type(plain)
    assert tuple(deviation.shape) == dimensions
    y = torch.from_numpy(grey)[None, None] / 255
    expected = denoise_batch(y, calibrated, torch.tensor([0.2])).deviation(y, calibration_of(calibrated))
    values = np.asarray(deviation, dtype=np.float64)
    assert values.dtype.kind == "f"
    if kind == "alpha":
        assert not values[..., 1].any()
    found = values.reshape(8, 8, -1)[..., 0] if kind != "tensor" else values[0]
    np.testing.assert_allclose(found, white * expected[0, 0].numpy(), rtol=1e-5)


def test_what_was_not_measured_is_refused_before_anything_is_done(calibrated, model, monkeypatch):
    y = bump_images(2)
    with pytest.raises(ModelError, match="choose from auto, projection"):
        denoise(y, calibrated, 0.1, "map", uncertainty=True)
    monkeypatch.setattr("mfimage.denoising.restoring.remove_noise", None)
    model.measured.pop(UNCERTAINTY, None)
    with pytest.raises(ModelError, match="not measured at the end of its training"):
        denoise(y, model, 0.1, uncertainty=True)


@pytest.mark.parametrize(
    "damaged",
    [
        3,
        {"whole": {}},
        {"whole": {}, "cut": {"soft": {"sigmas": [0.1], "weights": [], "most": [1]}}},
        {"whole": {}, "cut": {"soft": {"sigmas": [0.1], "weights": [[1.0] * 7], "most": [1]}}},
        {"whole": {}, "cut": {"soft": {"sigmas": [0.1], "weights": [[1.0] * 8], "most": [0]}}},
        {"whole": {}, "cut": {"soft": {"sigmas": [-0.1], "weights": [[1.0] * 8], "most": [1]}}},
        {"whole": {}, "cut": {"soft": {"sigmas": [0.1], "weights": [[float("nan")] * 8], "most": [1]}}},
    ],
)
def test_a_damaged_one_is_an_error(model, damaged):
    model.measured[UNCERTAINTY] = damaged
    with pytest.raises(ModelError, match="uncertainty is damaged"):
        calibration_of(model)


def test_a_diverged_result_spoils_no_calibration(generator):
    """A method that fails at some noise has deviations all the same."""
    x = bump_images(20)
    y = x + 0.1 * torch.randn(x.shape, generator=generator)
    bad = y.clone()
    bad[0] = 1e30
    collector = Collector()
    collector("bad", 0.1, y, bad, x)
    spread = collector.spreads()["bad"]
    assert np.isfinite(spread.weights).all()
    assert 0 < spread.most[0] <= 1
