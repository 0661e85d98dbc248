"""The denoiser of deepinv, and one plug-and-play deblurring of deepinv's own."""

import pytest
import torch
from tiny import bump_images, smooth_pictures

from mfimage._torchvision import import_torchvision
from mfimage.denoising.removal import remove_noise
from mfimage.errors import DataError, ModelError
from mfimage.eval import psnr
from mfimage.noise import Gaussian

import_torchvision()
deepinv = pytest.importorskip("deepinv")

from mfimage.plugs.deepinv import Denoiser  # noqa: E402


@pytest.fixture
def noisy():
    """Four bumps, and with noise of σ = 0.2."""
    x = bump_images(4)
    return x, x + 0.2 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))


def mean_psnr(x, y):
    return float(psnr(x, y).mean())


def test_it_is_a_denoiser_of_deepinv(noise_aware, noisy):
    x, y = noisy
    denoiser = Denoiser(noise_aware)
    assert isinstance(denoiser, deepinv.models.Denoiser)
    found = denoiser(y, 0.2)
    assert mean_psnr(found, x) > mean_psnr(y, x) + 8
    torch.testing.assert_close(found, remove_noise(y, noise_aware, [Gaussian((0.2, 0.2))] * 4).image)
    for sigma in (torch.full((4,), 0.2), torch.tensor(0.2), [0.2] * 4, torch.full((4, 1, 1, 1), 0.2)):
        torch.testing.assert_close(denoiser(y, sigma), found)
    assert mean_psnr(denoiser(y), x) > mean_psnr(y, x) + 8  # blind
    assert denoiser(y.double(), 0.2).dtype == torch.float64


def test_each_image_has_its_own_noise(noise_aware, noisy):
    _, y = noisy
    denoiser = Denoiser(noise_aware, method="refined")
    found = denoiser(y, torch.tensor([0.2, 0.05, 0.2, 0.05]))
    torch.testing.assert_close(found[1::2], denoiser(y[1::2], 0.05))
    assert (found[1] - denoiser(y, 0.2)[1]).abs().max() > 1e-3


def test_larger_images_are_denoised_in_tiles(noise_aware, noisy):
    x, y = (torch.cat([torch.cat([z, z], 2)] * 3, 3) for z in noisy)
    found = Denoiser(noise_aware, method="refined")(y, 0.2)
    assert found.shape == (4, 1, 16, 24)
    assert mean_psnr(found, x) > mean_psnr(y, x) + 1


def test_plug_and_play_deblurring(noise_aware):
    x = bump_images(4)
    kernel = deepinv.physics.functional.blur.gaussian_blur(sigma=1.0)
    physics = deepinv.physics.BlurFFT(
        x.shape[1:], filter=kernel, noise_model=deepinv.physics.GaussianNoise(
            0.02, rng=torch.Generator().manual_seed(0)
        )
    )  # fmt: skip
    y = physics(x)
    solve = deepinv.optim.HQS(
        data_fidelity=deepinv.optim.L2(), prior=deepinv.optim.PnP(Denoiser(noise_aware)),
        sigma_denoiser=0.05, stepsize=10.0, max_iter=10,
    )  # fmt: skip
    found = solve(y, physics)
    assert mean_psnr(found, x) > mean_psnr(y, x) + 10
    assert mean_psnr(found, x) > mean_psnr(physics.A_dagger(y), x) + 10


def test_images_that_do_not_fit(noise_aware, model):
    denoiser = Denoiser(noise_aware)
    for x in (smooth_pictures(1), torch.zeros(1, 1, 7, 8), torch.zeros(1, 8, 8)):
        with pytest.raises(DataError, match=r"the model takes \(B, 1, H, W\), H at least 8"):
            denoiser(x, 0.1)
    with pytest.raises(ModelError):
        Denoiser(model, method="refined")(torch.zeros(1, 1, 8, 8), 0.1)  # was not trained with noise
