import pytest
import torch
from laws import flow_log_prob, perturb

from mfimage.models import ManifoldFlow, VectorChart, latent_density

PARAMETERS = 2


@pytest.fixture(autouse=True)
def _double():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def make(dim, given=PARAMETERS, scale=0.7):
    return perturb(latent_density(dim, 3, 16, 4, context=given), scale)


def codes(dim, count=20):
    """Inside the splines' range and outside it."""
    return 3 * torch.randn(count, dim)


def seeded():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("given", [0, PARAMETERS], ids=["plain", "conditional"])
@pytest.mark.parametrize("dim", [1, 2, 3, 8])
def test_pushing_noise_forward_undoes_the_density(dim, given):
    density, u = make(dim, given), codes(dim)
    theta = torch.randn(20, given) if given else None
    noise = density.transform(u, theta)[0]
    torch.testing.assert_close(density.push_forward(noise, theta), u, atol=1e-6, rtol=0)
    assert (noise - u).abs().max() > 0.1


@pytest.mark.parametrize("given", [0, PARAMETERS], ids=["plain", "conditional"])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_log_prob_is_the_change_of_variables(dim, given):
    density, u = make(dim, given), codes(dim)
    theta = torch.randn(20, given) if given else None
    expected = flow_log_prob(density.transform, u, theta)
    torch.testing.assert_close(density.log_prob(u, theta), expected, atol=1e-9, rtol=0)


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


def conditional_flow(dim, chart_too):
    chart = VectorChart(dim + 2, dim, 16, 1, PARAMETERS * chart_too)
    flow = ManifoldFlow(chart, latent_density(dim, 2, 16, context=PARAMETERS), (dim + 2,))
    return perturb(flow, 0.3)


@pytest.mark.parametrize("chart_too", [False, True])
@pytest.mark.parametrize("dim", [1, 2])
def test_one_parameter_for_all_samples_is_that_of_each(dim, chart_too):
    flow, theta = conditional_flow(dim, chart_too), torch.randn(1, PARAMETERS)
    one = flow.sample(7, seeded(), context=theta)
    torch.testing.assert_close(flow.sample(7, seeded(), context=theta.expand(7, -1)), one)
    assert (flow.sample(7, seeded(), context=theta + 1) - one).abs().max() > 1e-3


@pytest.mark.parametrize("chart_too", [False, True])
@pytest.mark.parametrize("dim", [1, 2])
def test_conditional_samples_do_not_depend_on_the_batch_size(dim, chart_too):
    flow, theta = conditional_flow(dim, chart_too), torch.randn(7, PARAMETERS)
    whole = flow.sample(7, seeded(), 7, theta)
    for size in (1, 3, 100):
        torch.testing.assert_close(flow.sample(7, seeded(), size, theta), whole, atol=1e-9, rtol=0)
    torch.testing.assert_close(
        flow.sample(7, seeded(), 7, theta[:1])[0], flow.sample(7, seeded(), 3, theta)[0], atol=1e-9, rtol=0
    )
    assert flow.sample(0, seeded(), context=theta[:0]).shape == (0, dim + 2)


def test_initialise_standardises_conditional_codes_too():
    density = latent_density(3, 2, 8, context=PARAMETERS)
    u = torch.randn(500, 3) * torch.tensor([0.1, 1.0, 10.0]) + 3
    density.initialise(u)
    first = density.transform._transforms[0](u)[0]
    torch.testing.assert_close(first.std(0, unbiased=False), torch.ones(3))


def test_without_splines_it_is_the_best_normal_without_correlations():
    density, u = latent_density(3, 0), torch.randn(500, 3) * torch.tensor([0.1, 1.0, 10.0]) + 3
    density.initialise(u)
    expected = torch.distributions.Normal(u.mean(0), u.std(0, unbiased=False)).log_prob(u).sum(1)
    torch.testing.assert_close(density.log_prob(u), expected, atol=1e-9, rtol=0)
