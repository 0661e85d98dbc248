"""The denoiser in the style of scikit-image, alone and calibrated by scikit-image."""

import doctest
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from skimage.restoration import calibrate_denoiser
from tiny import SMALL_MODEL, bump_images

from mfimage import build, denoise
from mfimage.errors import DataError, UnfamiliarWarning, UsageError
from mfimage.model_config import ModelConfig
from mfimage.plugs import skimage
from mfimage.plugs.skimage import denoise_mflow


@pytest.fixture
def noisy():
    """A bump (8, 8), and with noise of σ = 0.2."""
    x = bump_images(1)[0, 0]
    y = x + 0.2 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    return x.double().numpy(), y.double().numpy()


def error(x, y):
    return float(((x - y) ** 2).mean())


def test_it_denoises_as_mfimage_does(noise_aware, noisy):
    x, y = noisy
    found = denoise_mflow(y, noise_aware, 0.2)
    np.testing.assert_allclose(found, denoise(y, noise_aware, 0.2), atol=1e-6)
    assert found.dtype == np.float64
    assert error(found, x) < error(y, x) / 8
    assert error(denoise_mflow(y, noise_aware), x) < error(y, x) / 8  # blind
    assert denoise_mflow(y.astype(np.float32), noise_aware).dtype == np.float32


def test_sigma_is_in_the_scale_of_the_image_and_the_result_in_floats(noise_aware, noisy):
    whole = np.rint(255 * noisy[1].clip(0, 1)).astype(np.uint8)
    found = denoise_mflow(whole, noise_aware, 51)
    np.testing.assert_allclose(found, denoise_mflow(whole / 255, noise_aware, 0.2), atol=1e-6)
    assert found.max() <= 1


def test_channels_where_they_are_said_to_be(noise_aware, noisy):
    y = noisy[1]
    found = denoise_mflow(y, noise_aware, 0.2)
    for axis in (0, -1, 1):
        shaped = denoise_mflow(np.expand_dims(y, axis), noise_aware, 0.2, channel_axis=axis)
        np.testing.assert_array_equal(shaped, np.expand_dims(found, axis))
    colours = build(ModelConfig((3, 8, 8), 2, width=2, hidden=8), seed=0)
    picture = np.stack([y.clip(0, 1)] * 3)
    assert denoise_mflow(picture, colours, 0.1, channel_axis=0).shape == (3, 8, 8)


def test_larger_images_are_denoised_in_tiles(noise_aware, noisy):
    x, y = (np.tile(z, (2, 3)) for z in noisy)
    found = denoise_mflow(y, noise_aware, 0.2, method="refined")
    assert found.shape == (16, 24)
    assert error(found, x) < error(y, x)


def test_an_image_that_the_model_does_not_know_is_told(noise_aware):
    stripes = np.tile([0.0, 1.0], (8, 4))
    with pytest.warns(UnfamiliarWarning, match="image far from what the model was trained on"):
        denoise_mflow(stripes, noise_aware, 0.05)


def test_scikit_image_calibrates_it(noise_aware, noisy):
    x, y = noisy
    sigmas = [0.02, 0.2]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnfamiliarWarning)  # of the wrong σ, which are tried too
        best, (tried, losses) = calibrate_denoiser(
            y, partial(denoise_mflow, model=noise_aware), {"sigma": sigmas}, approximate_loss=False,
            extra_output=True,
        )  # fmt: skip
        found = best(y)
    assert [one["sigma"] for one in tried] == sigmas
    assert best.keywords["denoiser_kwargs"] == {"sigma": 0.2}
    assert losses[1] < losses[0]
    assert error(found, x) < error(y, x) / 8


def test_images_that_do_not_fit(noise_aware, noisy):
    y = noisy[1]
    for image, axis in ((y[:7], None), (np.stack([y] * 3), 0), (y[..., None], None)):
        with pytest.raises(DataError, match="takes images of 1 channels and at least 8 × 8"):
            denoise_mflow(image, noise_aware, channel_axis=axis)
    with pytest.raises(DataError, match="not finite"):
        denoise_mflow(np.where(y > 0.5, np.nan, y), noise_aware)
    with pytest.raises(UsageError, match="sigma -1"):
        denoise_mflow(y, noise_aware, -1)


def test_its_example():
    assert doctest.testmod(skimage, extraglobs={"model": build(SMALL_MODEL)}).failed == 0
