import math

import pytest
import torch
from laws import jacobians, perturb
from nflows.nn.nets import ResidualNet
from nflows.transforms import (
    CompositeTransform,
    LULinear,
    PiecewiseRationalQuadraticCouplingTransform,
    RandomPermutation,
)
from nflows.utils import create_alternating_binary_mask

from mfimage.models import ManifoldFlow, Prescribed, Spherical, latent_density

NUMBERS = [1, 2, 3, 4, 5]


@pytest.fixture(autouse=True)
def _double():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def coordinates(n, count, centre=math.pi / 2):
    polar = 0.1 + (math.pi - 0.2) * torch.rand(count, n - 1)
    azimuth = centre + (2 * torch.rand(count, 1) - 1) * (math.pi - 0.01)
    return torch.cat([polar, azimuth, torch.rand(count, 1) - 0.5], 1)


def splines(features, context=None, steps=3):
    """Random permutations, dense linear maps and spline couplings, as nflows makes them."""

    def conditioner(inputs, outputs):
        return ResidualNet(inputs, outputs, 8, context_features=context, num_blocks=1)

    parts = []
    for step in range(steps):
        mask = create_alternating_binary_mask(features, even=step % 2 == 0)
        parts += [
            RandomPermutation(features),
            LULinear(features),
            PiecewiseRationalQuadraticCouplingTransform(
                mask, conditioner, num_bins=4, tails="linear", tail_bound=3.0
            ),
        ]
    return perturb(CompositeTransform(parts))


@pytest.mark.parametrize("n", NUMBERS)
def test_sphere_comes_back_both_ways(n):
    chart, x, z = Spherical(n), torch.randn(50, n + 1), coordinates(n, 50)
    there, ladj = chart(x)
    back, back_ladj = chart.inverse(there)
    torch.testing.assert_close(back, x, atol=1e-12, rtol=0)
    torch.testing.assert_close(back_ladj, -ladj, atol=1e-9, rtol=0)
    torch.testing.assert_close(chart(chart.inverse(z)[0])[0], z, atol=1e-12, rtol=0)
    torch.testing.assert_close(chart.inverse(z)[0].norm(dim=1), 1 + z[:, -1])
    torch.testing.assert_close(chart.codes(x), there[:, :n])


@pytest.mark.parametrize("n", NUMBERS)
def test_sphere_ladj_is_that_of_autograd_in_both_directions(n):
    chart, x = Spherical(n), torch.randn(8, n + 1)
    z, ladj = chart(x)
    forwards = jacobians(lambda v, c: chart(v)[0], x)
    torch.testing.assert_close(torch.linalg.slogdet(forwards).logabsdet, ladj, atol=1e-9, rtol=0)
    backwards = jacobians(lambda v, c: chart.inverse(v)[0], z)
    torch.testing.assert_close(
        torch.linalg.slogdet(backwards).logabsdet, chart.inverse(z)[1], atol=1e-9, rtol=0
    )


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("axis", [-1, -2])
def test_sphere_has_derivatives_where_a_coordinate_of_the_azimuth_is_zero(n, axis):
    chart, x = Spherical(n), torch.rand(4, n + 1) + 0.5
    x[:, axis] = 0
    j = jacobians(lambda v, c: chart(v)[0], x)
    torch.testing.assert_close(torch.linalg.slogdet(j).logabsdet, chart(x)[1], atol=1e-9, rtol=0)


@pytest.mark.parametrize("centre", [math.pi / 2, 0.0, math.pi, -2.5, 7.0])
@pytest.mark.parametrize("n", [1, 3])
def test_angles_lie_in_their_ranges(n, centre):
    chart, x = Spherical(n, centre), torch.randn(2000, n + 1)
    angles = chart.codes(x)
    polar, azimuth = angles[:, :-1], angles[:, -1]
    assert ((polar >= 0) & (polar <= math.pi)).all()
    assert ((azimuth >= centre - math.pi) & (azimuth < centre + math.pi)).all()
    assert azimuth.max() - azimuth.min() > 6.2
    z = coordinates(n, 50, centre)
    torch.testing.assert_close(chart(chart.inverse(z)[0])[0], z, atol=1e-12, rtol=0)


def test_circle_angles_by_hand():
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    expected = torch.tensor([0.0, 0.5, 1.0, -0.5]) * math.pi
    torch.testing.assert_close(Spherical(1).codes(x)[:, 0], expected)
    distant = Spherical(1)(3 * x)
    torch.testing.assert_close(distant[0][:, 1], torch.full((4,), 2.0))
    torch.testing.assert_close(distant[1], torch.full((4,), -math.log(3)))


@pytest.mark.parametrize("context", [None, 2])
@pytest.mark.parametrize(("features", "dim"), [(2, 1), (5, 2), (8, 7)])
def test_any_transform_of_nflows_is_a_chart(features, dim, context):
    chart = Prescribed(splines(features, context), dim, features)
    x = torch.randn(6, features)
    theta = None if context is None else torch.randn(6, context)
    z, ladj = chart(x, theta)
    back, back_ladj = chart.inverse(z, theta)
    torch.testing.assert_close(back, x, atol=1e-6, rtol=0)
    torch.testing.assert_close(back_ladj, -ladj, atol=1e-6, rtol=0)
    torch.testing.assert_close(chart.codes(x, theta), z[:, :dim])
    u = z[:, :dim]
    flat = torch.cat([u, torch.zeros(6, features - dim)], 1)
    torch.testing.assert_close(chart.decode(u, theta), chart.inverse(flat, theta)[0])
    torch.testing.assert_close(chart.codes(chart.decode(u, theta), theta), u, atol=1e-6, rtol=0)
    if context:
        assert (chart(x, theta + 1)[0] - z).abs().max() > 1e-3


def fom(n, seed=0):
    flow = ManifoldFlow(Spherical(n), latent_density(n, 2, 8), (n + 1,))
    perturb(flow, 0.5, seed)
    return flow


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("n", NUMBERS)
def test_samples_of_the_prescribed_manifold_lie_on_the_sphere(n, dtype, most):
    torch.set_default_dtype(dtype)
    x = fom(n).sample(2000, torch.Generator().manual_seed(1))
    assert x.dtype == dtype
    assert (x.double().norm(dim=1) - 1).abs().max() <= most
    assert x.std(0).min() > 0.05


def test_points_off_the_sphere_are_projected_radially():
    x = torch.randn(20, 3)
    torch.testing.assert_close(fom(2).project(x), x / x.norm(dim=1, keepdim=True), atol=1e-12, rtol=0)


def test_density_on_the_sphere_integrates_to_one():
    """Numerically over both angles; h is narrow enough to leave nothing outside their ranges."""
    flow = fom(2)
    flow.density.initialise(torch.randn(5000, 2) * 0.2 + math.pi / 2)
    side = 300
    polar = (torch.arange(side) + 0.5) * math.pi / side
    azimuth = -math.pi / 2 + (torch.arange(side) + 0.5) * 2 * math.pi / side
    p, a = torch.meshgrid(polar, azimuth, indexing="ij")
    x = torch.stack([p.cos(), p.sin() * a.cos(), p.sin() * a.sin()], 2).view(-1, 3)
    area = (p.sin() * math.pi / side * 2 * math.pi / side).flatten()
    with torch.no_grad():
        density = flow.log_prob(x).exp()
    assert abs(float(area.sum()) - 4 * math.pi) < 1e-3
    assert abs(float((density * area).sum()) - 1) < 1e-3


def test_density_on_the_sphere_is_h_over_the_area_element():
    flow, z = fom(2), coordinates(2, 20)
    z[:, 2] = 0
    expected = flow.density.log_prob(z[:, :2]) - z[:, 0].sin().log()
    torch.testing.assert_close(flow.log_prob(flow.chart.inverse(z)[0]), expected, atol=1e-9, rtol=0)
