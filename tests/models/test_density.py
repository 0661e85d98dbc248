import pytest
import torch
from laws import perturb

from mfimage.models import latent_density

PARAMETERS = 2


pytestmark = pytest.mark.usefixtures("double")


def make(dim, given=PARAMETERS, scale=0.7):
    return perturb(latent_density(dim, 3, 16, 4, context=given), scale)


def codes(dim, count=20):
    """Inside the splines' range and outside it."""
    return 3 * torch.randn(count, dim)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_parameters_change_the_density(dim):
    density, u, theta = make(dim), codes(dim), torch.randn(20, PARAMETERS)
    found = density.log_prob(u, theta)
    for i in range(PARAMETERS):
        other = theta.clone()
        other[:, i] += 1
        assert (density.log_prob(u, other) - found).abs().max() > 1e-2
    torch.testing.assert_close(density.log_prob(u[5:], theta[5:]), found[5:], atol=1e-12, rtol=0)


@pytest.mark.parametrize("theta", [(0.0, 0.0), (2.0, -1.0), (-3.0, 3.0)])
def test_a_conditional_density_of_one_dimension_integrates_to_one(theta):
    density = make(1, scale=0.4)
    u = torch.linspace(-20, 20, 100001)[:, None]
    with torch.no_grad():
        p = density.log_prob(u, torch.tensor([theta]).expand(len(u), -1)).exp()
    assert abs(float(torch.trapezoid(p, u[:, 0])) - 1) < 1e-4


@pytest.mark.parametrize("theta", [(0.0, 0.0), (2.0, -1.0)])
def test_a_conditional_density_of_two_dimensions_integrates_to_one(theta):
    density = make(2)
    context = torch.tensor([theta])
    samples = density.push_forward(torch.randn(4000, 2), context.expand(4000, -1)).detach()
    low, high = samples.min(0).values - 2, samples.max(0).values + 2
    steps = (torch.arange(300) + 0.5) / 300
    u = torch.cartesian_prod(steps, steps) * (high - low) + low
    with torch.no_grad():
        p = density.log_prob(u, context.expand(len(u), -1)).exp()
    assert abs(float(p.sum() * (high - low).prod() / 300**2) - 1) < 1e-2


def test_samples_follow_the_conditional_density():
    """The share of samples below a point is the integral up to it."""
    density, theta = make(1, scale=0.4), torch.tensor([[1.0, -1.0]])
    samples = density.push_forward(torch.randn(20000, 1), theta.expand(20000, -1))[:, 0].detach()
    u = torch.linspace(-20, 20, 100001)[:, None]
    with torch.no_grad():
        p = density.log_prob(u, theta.expand(len(u), -1)).exp()
    below = torch.cumulative_trapezoid(p, u[:, 0])
    for share in (0.1, 0.5, 0.9):
        point = u[1:, 0][below >= share][0]
        assert abs(float((samples < point).double().mean()) - share) < 0.015


@pytest.mark.parametrize("given", [0, PARAMETERS])
def test_initialise_standardises_and_samples_follow(given):
    density = latent_density(3, 2, context=given)
    u = torch.randn(5000, 3) * torch.tensor([0.1, 1.0, 10.0]) + 3
    density.initialise(u)
    first = density.transform._transforms[0](u)[0]
    torch.testing.assert_close(first.std(0, unbiased=False), torch.ones(3))
    theta = torch.randn(5000, given) if given else None
    samples = density.push_forward(torch.randn(5000, 3), theta).detach()
    torch.testing.assert_close(samples.std(0), u.std(0), rtol=0.05, atol=0)


def test_without_splines_it_is_the_best_normal_without_correlations():
    density, u = latent_density(3, 0), torch.randn(500, 3) * torch.tensor([0.1, 1.0, 10.0]) + 3
    density.initialise(u)
    expected = torch.distributions.Normal(u.mean(0), u.std(0, unbiased=False)).log_prob(u).sum(1)
    torch.testing.assert_close(density.log_prob(u), expected, atol=1e-9, rtol=0)
