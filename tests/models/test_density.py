import pytest
import torch
from laws import jacobians, perturb

from mfimage.models import latent_density
from mfimage.models.density import AutoregressiveSplines, Density
from mfimage.models.duals import Dual, by_jvp
from mfimage.models.layers import CompositeTransform, Transform
from mfimage.models.linear import LULinear

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
    density = latent_density(3, 2, bins=8, context=given)
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


def test_lu_linear_starts_as_the_identity():
    linear, x = LULinear(4), torch.randn(7, 4)
    for y, ladj in (linear(x), linear.inverse(x)):
        torch.testing.assert_close(y, x)
        torch.testing.assert_close(ladj, torch.zeros(7), atol=1e-6, rtol=0)


@pytest.mark.parametrize("features", [1, 2, 5])
def test_lu_linear_is_inverted_and_its_ladj_is_the_determinants(features):
    linear, x = perturb(LULinear(features), 0.5), torch.randn(7, features)
    y, ladj = linear(x)
    j = jacobians(lambda v, _: linear(v)[0], x)
    torch.testing.assert_close(ladj, torch.linalg.slogdet(j).logabsdet)
    back, inverse_ladj = linear.inverse(y)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(inverse_ladj, -ladj)
    torch.testing.assert_close(linear.turn(x), y - linear.bias)


@pytest.mark.parametrize("autoregressive", [False, True])
@pytest.mark.parametrize(("dim", "steps"), [(1, 2), (2, 1), (3, 3), (4, 0)])
def test_what_is_pushed_by_hand_is_what_forward_mode_pushes(dim, steps, autoregressive):
    density = perturb(latent_density(dim, steps, 16, 4, autoregressive=autoregressive), 0.7)
    u = codes(dim)
    u[0] = 100.0  # outside of all splines
    given = Dual(u, torch.randn(20, 3, dim))
    found, expected = density.push(given), by_jvp(lambda v: density.transform(v)[0], given)
    torch.testing.assert_close(found.value, expected.value)
    torch.testing.assert_close(found.tangent, expected.tangent, atol=1e-9, rtol=1e-9)
    alone = density.push(Dual(u[:1], given.tangent[:1]))
    torch.testing.assert_close(alone.tangent, expected.tangent[:1], atol=1e-9, rtol=1e-9)


def test_autoregressive_splines_see_what_lies_before_them_alone_and_invert_as_nflows_does():
    splines, u = perturb(AutoregressiveSplines(4, 16, 2, 4, 5.0, 2), 0.7), codes(4)
    theta, last = torch.randn(20, 2), u.clone()
    last[:, 2] += 1
    z, other = splines(u, theta)[0], splines(last, theta)[0]
    torch.testing.assert_close(z[:, :2], other[:, :2], atol=0, rtol=0)
    assert (z[:, 2:] - other[:, 2:]).abs().amin(0).max() > 1e-3
    found, expected = splines.inverse(z, theta), super(AutoregressiveSplines, splines).inverse(z, theta)
    torch.testing.assert_close(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1])


def test_any_other_transform_is_pushed_by_forward_mode():
    class Bend(Transform):
        def forward(self, x, context=None):
            return x.sinh(), x.cosh().log().sum(1)

    density = Density(CompositeTransform([Bend(), perturb(LULinear(2))]), 2)
    given = Dual(codes(2), torch.randn(20, 3, 2))
    expected = by_jvp(lambda v: density.transform(v)[0], given)
    torch.testing.assert_close(density.push(given).tangent, expected.tangent)
