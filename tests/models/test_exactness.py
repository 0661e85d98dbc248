"""The log-density of every model of vectors is the change of variables, by brute force with autograd."""

import math

import pytest
import torch
from laws import flow_log_prob, jacobians, log_normal, perturb
from nflows.nn.nets import ResidualNet
from nflows.transforms import (
    CompositeTransform,
    LULinear,
    PiecewiseRationalQuadraticCouplingTransform,
    RandomPermutation,
)
from nflows.utils import create_alternating_binary_mask

from mfimage.models import (
    PIE,
    AmbientFlow,
    EncodedChart,
    ManifoldFlow,
    Prescribed,
    ProbabilisticAutoencoder,
    Spherical,
    VectorChart,
    latent_density,
)
from mfimage.models.couplings import Parted
from mfimage.models.encoders import vector_net
from mfimage.models.layers import ActNorm

SIZES = [(2, 1), (3, 2), (10, 4), (40, 14)]
GIVEN = [0, 2]
EXACT = {"atol": 1e-6, "rtol": 0}
EPSILON = 0.3
SCALE = 0.3


@pytest.fixture(autouse=True)
def _double():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def bent(features, dim, given):
    chart = VectorChart(features, dim, 16, 2, given)
    chart.initialise(torch.randn(100, features) * torch.linspace(2, 0.3, features) + 1)
    return chart


def permuted(features, dim, given):
    """Splines on randomly permuted features: no coordinate of the manifold keeps its place."""

    def conditioner(inputs, outputs):
        return ResidualNet(inputs, outputs, 8, context_features=given or None, num_blocks=1)

    parts = []
    for step in range(2):
        mask = create_alternating_binary_mask(features, even=step % 2 == 0)
        spline = PiecewiseRationalQuadraticCouplingTransform(
            mask, conditioner, num_bins=4, tails="linear", tail_bound=3.0
        )
        parts += [RandomPermutation(features), LULinear(features), spline]
    return Prescribed(CompositeTransform(parts), dim, features)


CHARTS = {"bent": bent, "permuted": permuted}


def density(dim, given):
    return latent_density(dim, 1, 8, 4, context=given)


def rows(features, given, count=2):
    x = torch.randn(count, features) + 1
    return x, torch.randn(count, given) if given else None


def log_h(model, u, theta):
    """log p_h(u) by the Jacobian of the density's own flow."""
    return flow_log_prob(model.density.transform, u, theta)


def half_log_det(j):
    return torch.linalg.svdvals(j).log().sum(1)


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # nflows' gate has no batching rule
@pytest.mark.parametrize("given", GIVEN, ids=["plain", "conditional"])
@pytest.mark.parametrize(("features", "dim"), SIZES)
@pytest.mark.parametrize("chart", CHARTS)
def test_manifold_flow(chart, features, dim, given):
    model = perturb(ManifoldFlow(CHARTS[chart](features, dim, given), density(dim, given), (features,)), 0.5)
    x, theta = rows(features, given)
    z, _ = model.chart(x, theta)
    z = torch.cat([z[:, :dim], torch.zeros(2, features - dim)], 1)
    j = jacobians(lambda v, c: model.chart.inverse(v, c)[0], z, theta)[:, :, :dim]
    expected = log_h(model, z[:, :dim], theta) - half_log_det(j)
    found = model.log_prob(x, theta)
    torch.testing.assert_close(found, expected, **EXACT)
    assert half_log_det(j).abs().min() > 1e-3
    if given:
        assert (model.log_prob(x, theta + 1) - found).abs().min() > 1e-6


@pytest.mark.parametrize("given", GIVEN, ids=["plain", "conditional"])
@pytest.mark.parametrize(("features", "dim"), SIZES)
def test_flow_with_an_encoder(features, dim, given):
    chart = EncodedChart(vector_net(features, dim, 16), VectorChart(features, dim, 16, 2))
    chart.initialise(torch.randn(100, features))
    model = perturb(ManifoldFlow(chart, density(dim, given), (features,)), SCALE)
    x, theta = rows(features, given)
    u = chart.encoder(x)
    flat = torch.cat([u, torch.zeros(2, features - dim)], 1)
    j = jacobians(lambda v, c: chart.chart.inverse(v)[0], flat)[:, :, :dim]
    expected = log_h(model, u, theta) - half_log_det(j)
    torch.testing.assert_close(model.log_prob(x, theta), expected, **EXACT)
    assert (chart.codes(x) - chart.chart.codes(x)).abs().max() > 1e-3


@pytest.mark.parametrize("given", GIVEN, ids=["plain", "conditional"])
@pytest.mark.parametrize("n", [1, 2, 3, 9])
def test_flow_on_the_prescribed_sphere(n, given):
    model = perturb(ManifoldFlow(Spherical(n), density(n, given), (n + 1,)), SCALE)
    x, theta = rows(n + 1, given)
    u = model.encode(x, theta)
    expected = log_h(model, u, theta) - half_log_det(jacobians(model.decode, u, theta))
    torch.testing.assert_close(model.log_prob(x, theta), expected, **EXACT)


@pytest.mark.parametrize("given", GIVEN, ids=["plain", "conditional"])
@pytest.mark.parametrize(("features", "dim"), SIZES)
@pytest.mark.parametrize("chart", CHARTS)
def test_pie(chart, features, dim, given):
    model = PIE(CHARTS[chart](features, dim, given), density(dim, given), (features,), EPSILON)
    perturb(model, SCALE)
    x, theta = rows(features, given)
    z, _ = model.chart(x, theta)
    u, v = z[:, :dim], z[:, dim:]
    off = torch.distributions.Normal(0.0, EPSILON).log_prob(v).sum(1)
    j = jacobians(lambda y, c: model.chart(y, c)[0], x, theta)
    expected = log_h(model, u, theta) + off + torch.linalg.slogdet(j).logabsdet
    torch.testing.assert_close(model.log_prob(x, theta), expected, **EXACT)


@pytest.mark.parametrize("given", GIVEN, ids=["plain", "conditional"])
@pytest.mark.parametrize(("features", "dim"), SIZES)
@pytest.mark.parametrize("chart", CHARTS)
def test_ambient_flow(chart, features, dim, given):
    parts = Parted(dim, density(dim, given).transform, ActNorm(features - dim))
    model = AmbientFlow(CompositeTransform([CHARTS[chart](features, dim, given), parts]), (features,))
    perturb(model, SCALE)
    x, theta = rows(features, given)
    expected = flow_log_prob(model.transform, x, theta)
    torch.testing.assert_close(model.log_prob(x, theta), expected, **EXACT)
    z = model.encode(x, theta)
    backwards = torch.linalg.slogdet(jacobians(model.decode, z, theta)).logabsdet
    torch.testing.assert_close(model.log_prob(x, theta), log_normal(z) - backwards, **EXACT)


@pytest.mark.parametrize(("features", "dim"), SIZES)
def test_an_isometry_leaves_the_density_of_the_codes(features, dim):
    """A straight subspace has no volume, so three models agree on its density up to the normal off it."""
    chart = VectorChart(features, dim, 16, 0)
    h = density(dim, 0)
    chart.initialise(torch.randn(100, features))
    perturb(h, SCALE)
    x, _ = rows(features, 0)
    expected = log_h(ManifoldFlow(chart, h, (features,)), chart.codes(x), None)
    torch.testing.assert_close(ManifoldFlow(chart, h, (features,)).log_prob(x), expected, **EXACT)
    score = ProbabilisticAutoencoder(chart, h, (features,)).log_prob(x)
    torch.testing.assert_close(score, expected, **EXACT)
    on = ManifoldFlow(chart, h, (features,)).project(x)
    off = (features - dim) * (0.5 * math.log(2 * math.pi) + math.log(EPSILON))
    torch.testing.assert_close(PIE(chart, h, (features,), EPSILON).log_prob(on), expected - off, **EXACT)
