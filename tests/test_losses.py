"""The objectives, each beside the formula of its docstring."""

import math

import pytest
import torch
from laws import (
    COUNT,
    DIM,
    PARAMETERS,
    agrees_with_finite_differences,
    batch,
    close,
    encoder_flow,
    flow,
    gradients,
    jacobians,
    perturb,
    pie,
)
from torch import nn

from mfimage import ModelConfig, build, losses
from mfimage.models import AmbientFlow, Density, Manifold
from mfimage.models.layers import ActNorm

pytestmark = pytest.mark.usefixtures("double")
PLAIN_AND_CONDITIONAL = pytest.mark.parametrize("given", [0, PARAMETERS], ids=["plain", "conditional"])


# Reconstruction and likelihood


def test_reconstruction_sums_pixels_and_averages_examples():
    class Half(Manifold):
        def codes(self, x, context=None):
            return x.flatten(1)

        def decode(self, u, context=None):
            return u.view(-1, 1, 2, 2) / 2 + (0 if context is None else context.view(-1, 1, 1, 1))

    x = torch.tensor([[1.0, 1, 1, 1], [2.0, 0, 0, 0]]).view(2, 1, 2, 2)
    assert losses.reconstruction(Half(), x).item() == 1.0
    assert losses.reconstruction(Half(), x, torch.tensor([[0.5], [0.0]])).item() == 0.5


def test_noise_aware_by_hand():
    class Shifted(Manifold):
        def clear(self, y, sigma, window=None):
            rows, columns = window or (slice(None), slice(None))
            return (y - sigma.view(-1, 1, 1, 1))[..., rows, columns]

    clean = torch.rand(8, 1, 2, 2)
    noisy, sigma = clean + 2.0, torch.tensor([2.0, 1.0, *[2.0] * 6])  # cleared right, but for the second
    expected = (math.log(4 + 4e-4) + 7 * math.log(4e-4)) / 8
    assert losses.noise_aware(Shifted(), noisy, clean, sigma).item() == pytest.approx(expected)
    window, expected = (slice(0, 2), slice(1, 2)), (math.log(2 + 2e-4) + 7 * math.log(2e-4)) / 8
    assert losses.noise_aware(Shifted(), noisy, clean, sigma, window).item() == pytest.approx(expected)


def test_noise_aware_gradients_are_those_of_finite_differences():
    small = {"width": 2, "noise_width": 2, "hidden": 4, "near": 4}
    model = perturb(build(ModelConfig((1, 5, 4), 2, noise_aware=True, **small)).double(), 0.3)
    clean, sigma = torch.rand(COUNT, 1, 5, 4), torch.linspace(0.05, 0.5, COUNT)
    noisy = clean + sigma.view(-1, 1, 1, 1) * torch.randn(clean.shape)

    def loss():
        return losses.noise_aware(model.chart, noisy, clean, sigma)

    assert agrees_with_finite_differences(loss, model.chart.denoiser.net.requires_grad_()) == 12


def test_negative_log_likelihood_of_a_normal_by_hand():
    x = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
    expected = 1.0 + math.log(2 * math.pi)  # the mean of 0 and 2, and the constant of two dimensions
    for module in (AmbientFlow(ActNorm(2), (2,)), Density(ActNorm(2), 2)):
        torch.testing.assert_close(losses.negative_log_likelihood(module, x).item(), expected)


def test_negative_log_likelihood_depends_on_the_parameters_of_each_example():
    density, u, theta = flow(PARAMETERS).density, torch.randn(COUNT, DIM), torch.randn(COUNT, PARAMETERS)
    found = losses.negative_log_likelihood(density, u, theta)
    torch.testing.assert_close(found, -density.log_prob(u, theta).mean())
    assert abs(found - losses.negative_log_likelihood(density, u, theta.flip(0))) > 1e-4


# Alternating and simultaneous


@PLAIN_AND_CONDITIONAL
def test_alternating_has_no_gradient_across(given):
    model, (x, theta) = flow(given), batch(given)
    value = losses.alternating(model, x, theta)
    error = losses.reconstruction(model.chart, x, theta)
    likelihood = losses.negative_log_likelihood(model.density, model.encode(x, theta).detach(), theta)
    torch.testing.assert_close(value, error + likelihood)
    assert close(gradients(value, model.chart), gradients(error, model.chart))
    assert close(gradients(value, model.density), gradients(likelihood, model.density))
    leak = gradients(
        losses.negative_log_likelihood(model.density, model.encode(x, theta), theta), model.chart
    )
    assert max(g.abs().max() for g in leak.values()) > 1e-2  # what is kept out


@PLAIN_AND_CONDITIONAL
def test_simultaneous_is_what_it_says(given):
    model, (x, theta) = flow(given), batch(given)
    u = model.encode(x, theta)
    volume = torch.linalg.svdvals(jacobians(model.decode, u, theta)).log().sum(1)
    error = (model.decode(u, theta) - x).square().sum(1)
    expected = (3 * error - model.density.log_prob(u, theta) + volume).mean()
    torch.testing.assert_close(losses.simultaneous(model, x, theta, 3.0), expected)


@pytest.mark.parametrize(("make", "given"), [(flow, PARAMETERS), (encoder_flow, 0)])
def test_simultaneous_gradients_are_those_of_finite_differences(make, given):
    model, (x, theta) = make(given), batch(given)
    seen = agrees_with_finite_differences(lambda: losses.simultaneous(model, x, theta, 3.0), model)
    assert seen > 15


# Denoising


@PLAIN_AND_CONDITIONAL
def test_denoising_by_hand(given):
    model, (clean, theta) = pie(given), batch(given)
    noisy = clean + 0.1 * torch.randn_like(clean)
    u = model.chart.codes(noisy, theta)
    error = (model.chart.decode(u, theta) - clean).square().sum(1).mean()
    expected = 3 * error - model.log_prob(noisy, theta).mean()
    torch.testing.assert_close(losses.denoising(model, noisy, clean, theta, 3.0), expected)


def test_denoising_gradients_are_those_of_finite_differences():
    model, (clean, _) = pie(), batch()
    noisy = clean + 0.1 * torch.randn_like(clean)
    seen = agrees_with_finite_differences(lambda: losses.denoising(model, noisy, clean, None, 3.0), model)
    assert seen > 15


# Optimal transport


def cloud(noise, samples):
    """A model whose samples for this noise are these."""

    class Cloud(nn.Module):
        def push_forward(self, z, context=None):
            return z

        def decode(self, u, context=None):
            assert torch.equal(u, noise)
            return samples

    return Cloud()


def test_sinkhorn_is_zero_for_equal_clouds_in_any_order():
    x, noise = torch.rand(40, 1, 2, 2), torch.randn(40, DIM)
    assert losses.sinkhorn(cloud(noise, x), x, noise).abs() < 1e-9
    assert losses.sinkhorn(cloud(noise, x.flip(0)), x, noise).abs() < 1e-9


def test_sinkhorn_of_a_shift_is_half_its_square():
    x, noise = torch.rand(40, 3), torch.randn(40, DIM)
    shift = torch.tensor([3.0, 4.0, 0.0])
    found = losses.sinkhorn(cloud(noise, x + shift), x, noise)
    torch.testing.assert_close(found.item(), 12.5, rtol=1e-3, atol=0)


def test_sinkhorn_compares_pairs_where_there_are_parameters():
    x, noise, theta = torch.rand(40, 3), torch.randn(40, DIM), torch.linspace(-2, 2, 40)[:, None]
    permuted = cloud(noise, x.flip(0))
    assert losses.sinkhorn(permuted, x, noise).abs() < 1e-9
    assert losses.sinkhorn(permuted, x, noise, theta) > 1e-2
    assert losses.sinkhorn(cloud(noise, x), x, noise, theta).abs() < 1e-9


@PLAIN_AND_CONDITIONAL
def test_sinkhorn_descends(given):
    model, (x, theta) = flow(given), batch(given)
    noise = torch.randn(COUNT, DIM)
    value = losses.sinkhorn(model, x, noise, theta)
    assert value > 0
    found = gradients(value, model)
    assert min(g.abs().max() for n, g in found.items() if g.numel() and "encoders" not in n) > 0
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.sub_(1e-5 * found[name])
    slope = sum(g.square().sum() for g in found.values())
    fall = value - losses.sinkhorn(model, x, noise, theta)
    assert 0.5 < fall / (1e-5 * slope) < 2  # iterations that stop early have no better gradient


# Dequantisation


def test_dequantised_levels_fill_the_unit_interval():
    levels = torch.arange(256.0) / 255
    torch.testing.assert_close(losses.dequantise(levels, torch.zeros(256)), torch.arange(256.0) / 256)
    u = torch.rand(256)
    x = losses.dequantise(levels, u)
    torch.testing.assert_close(x, (torch.arange(256) + u) / 256)
    assert ((x >= 0) & (x < 1)).all()
    torch.testing.assert_close((256 * x).floor(), torch.arange(256.0), atol=0, rtol=0)
