import pytest
import torch

from mfimage.models.denoiser import Gains


@pytest.fixture
def gains():
    torch.manual_seed(0)
    gains = Gains(6)
    gains.initialise(torch.randn(20000, 6) * torch.tensor([0.01, 0.1, 0.3, 1.0, 3.0, 9.0]))
    return gains


def test_it_starts_as_the_filter_of_wiener(gains):
    spread, sigma = torch.tensor([0.01, 0.1, 0.3, 1.0, 3.0, 9.0]), torch.tensor([0.05, 0.2, 0.5])
    wiener = spread**2 / (spread**2 + sigma[:, None] ** 2)
    torch.testing.assert_close(gains(torch.ones(3, 6), sigma), wiener, rtol=0.03, atol=0)


def test_less_is_kept_at_more_noise_also_after_training(gains):
    with torch.no_grad():
        gains.log_slope.add_(torch.randn(6, generator=torch.Generator().manual_seed(1)))
    kept = gains(torch.ones(9, 6), torch.linspace(1e-3, 2, 9))
    assert (kept.diff(dim=0) <= 0).all()
    assert (kept.diff(dim=0) < 0).any()


def test_the_ends_are_all_and_nothing(gains):
    z = torch.randn(2, 6)
    kept = gains(z, torch.tensor([0.0, 1e6]))
    torch.testing.assert_close(kept[0, 1:], z[0, 1:], rtol=1e-4, atol=0)
    assert kept[1].abs().max() < 1e-6


def test_each_image_has_its_own_noise(gains):
    z, sigma = torch.randn(4, 6), torch.tensor([0.0, 0.1, 0.3, 0.5])
    alone = torch.cat([gains(z[i : i + 1], sigma[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(gains(z, sigma), alone)
