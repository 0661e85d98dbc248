import pytest
import torch

from mfimage.models.denoiser import Gains, UNet, Wiener

SPREAD = torch.tensor([0.01, 0.1, 0.3, 1.0, 3.0, 9.0])


def wiener(sigma):
    return SPREAD**2 / (SPREAD**2 + sigma[:, None] ** 2)


@pytest.fixture
def gains():
    gains = Gains(6)
    gains.level.copy_(2 * SPREAD.log())
    return gains


def test_the_filter_of_wiener_is_one_of_them(gains):
    exact = Wiener(6)
    exact.power.copy_(SPREAD**2)
    sigma = torch.tensor([0.05, 0.2, 0.5])
    torch.testing.assert_close(exact(torch.ones(3, 6), sigma), wiener(sigma))
    torch.testing.assert_close(gains(torch.ones(3, 6), sigma), wiener(sigma), rtol=0.03, atol=0)


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


def test_fitted_gains_are_the_best_ones_where_these_have_the_form(gains):
    sigmas = torch.tensor([0.02, 0.1, 0.5])
    level, slope = torch.linspace(-2, 2, 6), torch.linspace(0.3, 2.5, 6)
    gains.fit(torch.sigmoid(level - slope * sigmas.log()[:, None]), sigmas)
    inside = (level - slope * sigmas.log()[:, None]).abs().amax(0) < 6  # others are cut
    torch.testing.assert_close(gains.level[inside], level[inside], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(gains.log_slope.exp()[inside], slope[inside], atol=1e-4, rtol=1e-4)
    assert inside.sum() > 2


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (8, 12), (3, 33)])
def test_a_unet_takes_any_size_and_scales_with_its_input(size):
    torch.manual_seed(1)
    net, x = UNet(3, 2, (4, 6, 8)).double(), torch.randn(2, 3, *size, dtype=torch.double)
    assert (net(x) == 0).all()  # before training
    torch.nn.init.normal_(net.last.weight)
    y = net(x)
    assert y.shape == (2, 2, *size)
    assert y.abs().max() > 1e-3
    torch.testing.assert_close(net(3.7 * x), 3.7 * y)


def test_a_unet_sees_far():
    torch.manual_seed(2)
    net, x = UNet(1, 1, (4, 6, 8)).double(), torch.randn(1, 1, 96, 32, dtype=torch.double)
    torch.nn.init.normal_(net.last.weight)
    moved = x.clone()
    moved[..., 48, 16] += 1
    reached = (net(moved) - net(x)).abs()[0, 0] > 1e-12
    assert reached[48, 4]
    assert reached[36, 16]
    assert not reached[0].any()
