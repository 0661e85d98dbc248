import math

import pytest
import torch
from laws import log_normal, perturb
from nflows.transforms import CompositeTransform, Transform

from mfimage.models import PIE, AmbientFlow, VectorChart, latent_density
from mfimage.models.couplings import Parted
from mfimage.models.layers import ActNorm

PARAMETERS = 2


@pytest.fixture(autouse=True)
def _double():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def pie(features=5, dim=2, epsilon=0.3, given=0, bends=2):
    chart, h = VectorChart(features, dim, 16, bends, given), latent_density(dim, 2, 8, context=given)
    return perturb(PIE(chart, h, (features,), epsilon), 0.2)


def ambient(features=5, dim=2, given=0):
    parts = Parted(dim, latent_density(dim, 2, 8, context=given).transform, ActNorm(features - dim))
    chart = VectorChart(features, dim, 16, 2, given)
    return perturb(AmbientFlow(CompositeTransform([chart, parts]), (features,)), 0.2)


def gaussian(mean, deviation):
    """The flow that is exactly a normal distribution."""
    norm = ActNorm(len(mean))
    with torch.no_grad():
        norm.shift.copy_(mean)
        norm.log_scale.copy_(deviation.log())
    return AmbientFlow(norm, (len(mean),))


class Uniform(Transform):
    """z = Φ⁻¹(x): the flow whose density is one on the unit cube."""

    def forward(self, x, context=None):
        flat = x.flatten(1)
        z = math.sqrt(2) * torch.erfinv(2 * flat - 1)
        return z, -log_normal(z)


def mass_on_a_grid(model, samples, side=300, theta=None):
    """∫ p over a box in R² that holds the samples with room to spare, by the midpoint rule."""
    low, high = samples.min(0).values, samples.max(0).values
    low, high = low - 0.5 * (high - low), high + 0.5 * (high - low)
    steps = (torch.arange(side) + 0.5) / side
    x = torch.cartesian_prod(steps, steps) * (high - low) + low
    with torch.no_grad():
        theta = None if theta is None else theta.expand(len(x), -1)
        density = model.log_prob(x, theta).exp()
    return float(density.sum() * (high - low).prod() / side**2)


@pytest.mark.parametrize("given", [0, PARAMETERS], ids=["plain", "conditional"])
def test_pie_is_the_density_of_codes_and_a_narrow_normal(given):
    model, x = pie(given=given), torch.randn(6, 5)
    theta = torch.randn(6, given) if given else None
    z, ladj = model.chart(x, theta)
    off = torch.distributions.Normal(0.0, 0.3).log_prob(z[:, 2:]).sum(1)
    expected = model.density.log_prob(z[:, :2], theta) + off + ladj
    torch.testing.assert_close(model.log_prob(x, theta), expected, atol=1e-9, rtol=0)


def test_a_narrower_pie_is_higher_on_the_manifold_and_lower_off_it():
    wide = pie(epsilon=0.3)
    narrow = PIE(wide.chart, wide.density, wide.shape, 0.03)
    on = wide.decode(torch.randn(6, 2))
    rise = torch.full((6,), 3 * math.log(10))
    torch.testing.assert_close(narrow.log_prob(on) - wide.log_prob(on), rise, atol=1e-6, rtol=0)
    off = wide.chart.inverse(torch.randn(6, 5) + 1)[0]
    assert (narrow.log_prob(off) < wide.log_prob(off)).all()


@pytest.mark.parametrize("given", [0, PARAMETERS], ids=["plain", "conditional"])
def test_samples_of_pie_lie_on_its_manifold(given):
    model = pie(given=given)
    theta = torch.randn(50, given) if given else None
    x = model.sample(50, torch.Generator().manual_seed(0), context=theta)
    assert model.chart(x, theta)[0][:, 2:].abs().max() < 1e-8
    torch.testing.assert_close(model.project(x, theta), x, atol=1e-8, rtol=0)


@pytest.mark.parametrize("given", [0, PARAMETERS], ids=["plain", "conditional"])
def test_ambient_samples_of_pie_follow_its_density(given):
    model, count = pie(given=given), 4000
    theta = torch.randn(count, given) if given else None
    x = model.sample_ambient(count, torch.Generator().manual_seed(0), context=theta)
    z, _ = model.chart(x, theta)
    u, v = z[:, :2], z[:, 2:]
    torch.testing.assert_close(v.std(0), torch.full((3,), 0.3), atol=0.015, rtol=0)
    assert v.mean(0).abs().max() < 0.02
    noise = model.density.transform(u, theta)[0]
    torch.testing.assert_close(torch.cov(noise.T), torch.eye(2), atol=0.07, rtol=0)
    assert torch.corrcoef(torch.cat([noise, v], 1).T)[:2, 2:].abs().max() < 0.06


def test_one_parameter_for_all_ambient_samples_is_that_of_each():
    model, theta = pie(given=PARAMETERS), torch.randn(1, PARAMETERS)

    def draw(context):
        return model.sample_ambient(5, torch.Generator().manual_seed(0), context=context)

    torch.testing.assert_close(draw(theta), draw(theta.expand(5, -1)))
    assert (draw(theta) - draw(theta + 1)).abs().max() > 1e-3


@pytest.mark.parametrize("given", [0, PARAMETERS], ids=["plain", "conditional"])
def test_everything_is_its_own_projection_under_an_ambient_flow(given):
    model, x = ambient(given=given), torch.randn(6, 5)
    theta = torch.randn(6, given) if given else None
    torch.testing.assert_close(model.project(x, theta), x, atol=1e-7, rtol=0)
    assert model.encode(x, theta).shape == (6, 5)
    assert model.dim == 5
    assert model.sample(3, torch.Generator().manual_seed(0), context=theta[:1] if given else None).shape == (
        3,
        5,
    )


def test_ambient_flow_initialise_standardises_what_reaches_each_part():
    x = torch.randn(3000, 5) * torch.tensor([3.0, 2.0, 1.0, 0.1, 0.01]) + 4
    parts = Parted(2, latent_density(2, 2, 8).transform, ActNorm(3))
    model = AmbientFlow(CompositeTransform([VectorChart(5, 2, 16, 2), parts]), (5,))
    model.initialise(x)
    chart, parts = model.transform._transforms
    z = parts.tail(chart(x)[0][:, 2:])[0]
    torch.testing.assert_close(z.std(0, unbiased=False), torch.ones(3))
    u = parts.head._transforms[0](chart(x)[0][:, :2])[0]
    torch.testing.assert_close(u.std(0, unbiased=False), torch.ones(2))


def test_bits_per_dim_of_a_normal_by_hand():
    deviation = torch.tensor([0.5, 2.0, 1.0])
    model, x = gaussian(torch.zeros(3), deviation), torch.rand(4, 3)
    nats = 0.5 * (x / deviation).square().sum(1) + deviation.log().sum() + 1.5 * math.log(2 * math.pi)
    torch.testing.assert_close(model.bits_per_dim(x), 8 + nats / (3 * math.log(2)))


@pytest.mark.parametrize("shape", [(7,), (1, 2, 3)])
def test_the_uniform_density_costs_eight_bits(shape):
    x = (torch.randint(256, (5, *shape)) + torch.rand(5, *shape)) / 256
    model = AmbientFlow(Uniform(), shape)
    torch.testing.assert_close(model.bits_per_dim(x), torch.full((5,), 8.0), atol=1e-9, rtol=0)


@pytest.mark.parametrize("sigma", [0.1, 1.0])
def test_tweedie_is_the_posterior_mean_of_a_normal(sigma):
    mean, deviation = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.3, 1.0, 2.0])
    model, y = gaussian(mean, (deviation.square() + sigma**2).sqrt()), torch.randn(6, 3)
    shrink = deviation.square() / (deviation.square() + sigma**2)
    with torch.no_grad():
        found = model.tweedie(y, sigma)
    torch.testing.assert_close(found, mean + shrink * (y - mean))
    assert not found.requires_grad


@pytest.mark.parametrize("given", [0, PARAMETERS], ids=["plain", "conditional"])
def test_tweedie_climbs_the_density(given):
    model, y = ambient(given=given), torch.randn(6, 5)
    theta = torch.randn(6, given) if given else None
    step = (model.tweedie(y, 1e-3, theta) - y) / 1e-6
    along, h = torch.randn(6, 5), 1e-6
    slope = (model.log_prob(y + h * along, theta) - model.log_prob(y - h * along, theta)) / (2 * h)
    torch.testing.assert_close((step * along).sum(1), slope, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("given", [0, PARAMETERS], ids=["plain", "conditional"])
def test_ambient_density_integrates_to_one(given):
    model = ambient(2, 1, given)
    theta = torch.randn(1, given) if given else None
    samples = model.sample(2000, torch.Generator().manual_seed(0), context=theta)
    assert abs(mass_on_a_grid(model, samples, theta=theta) - 1) < 3e-3


def test_pie_integrates_to_one():
    model = pie(2, 1, 0.5, bends=1)
    samples = model.sample_ambient(2000, torch.Generator().manual_seed(0))
    assert abs(mass_on_a_grid(model, samples) - 1) < 3e-3
