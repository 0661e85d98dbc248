"""Densities of the models in closed form, and what only some of them have."""

import math

import pytest
import torch
from laws import flow_log_prob, jacobians, log_normal, perturb
from nflows.transforms import CompositeTransform, Transform

from mfimage.config import ModelConfig
from mfimage.models import (
    PIE,
    AmbientFlow,
    ManifoldFlow,
    ProbabilisticAutoencoder,
    VectorChart,
    bits_per_dim,
    image_chart,
    latent_density,
    tweedie,
)
from mfimage.models.build import build
from mfimage.models.density import Parted
from mfimage.models.layers import ActNorm

pytestmark = pytest.mark.usefixtures("double")
PARAMETERS = 2


def test_log_prob_of_a_linear_gaussian_manifold_in_closed_form():
    flow, x = build(ModelConfig((1, 8, 8), 3, kind="linear")).double(), torch.rand(500, 1, 8, 8)
    flow.initialise(x)
    u = flow.encode(x)
    *_, linear = flow.density.transform._transforms  # made in float32, it is the identity to rounding
    mean, std = u.mean(0), u.std(0, unbiased=False) / torch.diag(linear.turn(torch.eye(3)))
    tangent = jacobians(lambda v, c: flow.decode(v), u[:1])[0]
    covariance = tangent @ torch.diag(std**2) @ tangent.T
    values = torch.linalg.eigvalsh(covariance)[-3:]
    mahalanobis = ((u - mean) / std).square().sum(1)
    expected = -0.5 * (mahalanobis + values.log().sum() + 3 * math.log(2 * math.pi))
    torch.testing.assert_close(flow.log_prob(x), expected, atol=1e-9, rtol=0)


def test_density_integrates_to_one_on_a_curve():
    chart = image_chart(ModelConfig((1, 2, 2), 1, steps=0, hidden=8))
    flow = perturb(ManifoldFlow(chart, latent_density(1, 2, 8), (1, 2, 2)), 0.3)
    with torch.no_grad():
        u = torch.linspace(-12, 12, 4001)[:, None]
        points = flow.decode(u)
        density = flow.log_prob(points).exp()
    length = (points[1:] - points[:-1]).flatten(1).norm(dim=1)
    assert abs(float(((density[1:] + density[:-1]) / 2 * length).sum()) - 1) < 1e-3


def test_an_isometry_leaves_the_density_of_the_codes():
    """A straight subspace has no volume, so three models agree on its density up to the normal off it."""
    chart, h = VectorChart(6, 3, 16, 0), perturb(latent_density(3, 1, 8, 4), 0.3)
    chart.initialise(torch.randn(100, 6))
    x, flow = torch.randn(2, 6) + 1, ManifoldFlow(chart, h, (6,))
    expected = flow_log_prob(h.transform, chart.codes(x))
    torch.testing.assert_close(flow.log_prob(x), expected)
    torch.testing.assert_close(ProbabilisticAutoencoder(chart, h, (6,)).log_prob(x), expected)
    off = 3 * (0.5 * math.log(2 * math.pi) + math.log(0.3))
    torch.testing.assert_close(PIE(chart, h, (6,), 0.3).log_prob(flow.project(x)), expected - off)


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


def test_a_narrower_pie_is_higher_on_the_manifold_and_lower_off_it():
    wide = pie(epsilon=0.3)
    narrow = PIE(wide.chart, wide.density, wide.shape, 0.03)
    on = wide.decode(torch.randn(6, 2))
    rise = torch.full((6,), 3 * math.log(10))
    torch.testing.assert_close(narrow.log_prob(on) - wide.log_prob(on), rise, atol=1e-6, rtol=0)
    off = wide.chart.inverse(torch.randn(6, 5) + 1)[0]
    assert (narrow.log_prob(off) < wide.log_prob(off)).all()


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
    torch.testing.assert_close(bits_per_dim(model.log_prob(x), 3), 8 + nats / (3 * math.log(2)))


@pytest.mark.parametrize("sigma", [0.1, 1.0])
def test_tweedie_is_the_posterior_mean_of_a_normal(sigma):
    mean, deviation = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.3, 1.0, 2.0])
    model, y = gaussian(mean, (deviation.square() + sigma**2).sqrt()), torch.randn(6, 3)
    shrink = deviation.square() / (deviation.square() + sigma**2)
    with torch.no_grad():
        found = tweedie(y, model, sigma)
    torch.testing.assert_close(found, mean + shrink * (y - mean))
    assert not found.requires_grad


@pytest.mark.parametrize("given", [0, PARAMETERS], ids=["plain", "conditional"])
def test_tweedie_climbs_the_density(given):
    model, y = ambient(given=given), torch.randn(6, 5)
    theta = torch.randn(6, given) if given else None
    step = (tweedie(y, model, 1e-3, theta) - y) / 1e-6
    along, h = torch.randn(6, 5), 1e-6
    slope = (model.log_prob(y + h * along, theta) - model.log_prob(y - h * along, theta)) / (2 * h)
    torch.testing.assert_close((step * along).sum(1), slope, atol=1e-5, rtol=1e-5)


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
def test_ambient_density_integrates_to_one(given):
    model = ambient(2, 1, given)
    theta = torch.randn(1, given) if given else None
    samples = model.sample(2000, torch.Generator().manual_seed(0), context=theta)
    assert abs(mass_on_a_grid(model, samples, theta=theta) - 1) < 3e-3


def test_pie_integrates_to_one():
    model = pie(2, 1, 0.5, bends=1)
    off = model.epsilon * torch.randn(2000, 1)
    samples = model.chart.inverse(torch.cat([model.push_forward(torch.randn(2000, 1)), off], 1))[0].detach()
    assert abs(mass_on_a_grid(model, samples) - 1) < 3e-3


class Uniform(Transform):
    """z = Φ⁻¹(x): the flow whose density is one on the unit cube."""

    def forward(self, x, context=None):
        flat = x.flatten(1)
        z = math.sqrt(2) * torch.erfinv(2 * flat - 1)
        return z, -log_normal(z)


@pytest.mark.parametrize("shape", [(7,), (1, 2, 3)])
def test_the_uniform_density_costs_eight_bits(shape):
    x = (torch.randint(256, (5, *shape)) + torch.rand(5, *shape)) / 256
    model = AmbientFlow(Uniform(), shape)
    torch.testing.assert_close(
        bits_per_dim(model.log_prob(x), x[0].numel()), torch.full((5,), 8.0), atol=1e-9, rtol=0
    )
