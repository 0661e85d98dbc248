import math

import pytest
import torch
from laws import jacobians, pca, perturb

from mfimage.errors import DataError
from mfimage.models import ManifoldFlow, Spherical, VectorChart, latent_density

pytestmark = pytest.mark.usefixtures("double")
SIZES = [(2, 1), (3, 2), (9, 4)]
PARAMETERS = 2
NUMBERS = [1, 2, 3, 4, 5]


def make(features, dim, bends=2, context=0):
    """A bent chart whose scales of u and v are not one."""
    chart = VectorChart(features, dim, 16, bends, context)
    chart.rest_scale.fill_(0.4)
    chart.code_scale.copy_(torch.linspace(0.5, 2, dim))
    return perturb(chart, 0.3)


def data(features, count=200):
    curve = torch.randn(count, 1) * torch.linspace(3, 0.1, features)
    return curve.sin() + torch.randn(count, features) * torch.linspace(2, 0.1, features) + 3


@pytest.mark.parametrize(("features", "dim"), SIZES)
@pytest.mark.parametrize("bends", [0, 1, 3])
def test_training_starts_at_the_principal_components(features, dim, bends):
    chart, x = VectorChart(features, dim, 16, bends), data(features)
    chart.initialise(x)
    torch.testing.assert_close(chart.decode(chart.codes(x)), pca(x, dim), atol=1e-9, rtol=0)
    assert (x - pca(x, dim)).abs().max() > 0.05


def test_a_conditional_chart_starts_there_for_every_parameter():
    chart, x = VectorChart(9, 4, 16, 2, PARAMETERS), data(9)
    chart.initialise(x)
    theta = torch.randn(len(x), PARAMETERS)
    torch.testing.assert_close(chart.decode(chart.codes(x, theta), theta), pca(x, 4), atol=1e-9, rtol=0)


def test_initialise_measures_the_scales_of_both_sides():
    chart, x = VectorChart(9, 4, 16, 1), data(9)
    chart.initialise(x)
    values = torch.linalg.eigvalsh(torch.cov(x.T, correction=0)).flip(0)
    torch.testing.assert_close(chart.code_scale, values[:4].sqrt())
    torch.testing.assert_close(chart.rest_scale, values[4:].mean().sqrt())


def test_the_networks_see_what_has_scale_one():
    """Data in other units make the same chart in those units."""
    x, unit = data(6), 1e3
    small, large = VectorChart(6, 2, 16, 2), VectorChart(6, 2, 16, 2)
    large.load_state_dict(small.state_dict())
    for chart, rows in ((small, x), (large, unit * x)):
        chart.initialise(rows)
        networks = torch.nn.ModuleList([chart.encoders, chart.decoders])
        perturb(networks)
    torch.testing.assert_close(large(unit * x)[0], unit * small(x)[0], rtol=1e-7, atol=1e-7)
    assert (small(x)[0] - small.rotation(x)[0]).abs().max() > 0.1


def test_without_bends_it_is_linear():
    chart, x, y = make(6, 3, 0), torch.randn(4, 6), torch.randn(4, 6)
    z, ladj = chart(0.3 * x + 0.7 * y)
    torch.testing.assert_close(z, 0.3 * chart(x)[0] + 0.7 * chart(y)[0])
    assert not ladj.any()
    bent = make(6, 3, 1)
    assert not torch.allclose(bent(0.3 * x + 0.7 * y)[0], 0.3 * bent(x)[0] + 0.7 * bent(y)[0], atol=1e-2)


def test_parameters_move_a_conditional_chart_alone():
    x, theta = torch.randn(4, 6), torch.randn(4, PARAMETERS)
    conditional, plain = make(6, 3, 1, PARAMETERS), make(6, 3, 1)
    assert (conditional(x, theta)[0] - conditional(x, theta + 1)[0]).abs().max() > 0.01
    assert torch.equal(plain(x, theta)[0], plain(x)[0])
    torch.testing.assert_close(
        conditional(x, theta)[0][2:], conditional(x[2:], theta[2:])[0], atol=1e-12, rtol=0
    )


def test_scales_are_bounded():
    chart = VectorChart(3, 2, 4, 1, bound=0.5)
    with torch.no_grad():
        for parameter in [*chart.encoders.parameters(), *chart.decoders.parameters()]:
            parameter.fill_(100.0)
    assert 1.0 < chart(torch.ones(1, 3))[1].abs().item() <= 3 * 0.5


def test_it_comes_back_in_single_precision():
    chart, x = make(40, 14, 2).float(), torch.randn(50, 40, dtype=torch.float32)
    torch.testing.assert_close(chart.inverse(chart(x)[0])[0], x, atol=1e-3, rtol=0)


def test_too_few_vectors_say_so():
    with pytest.raises(DataError, match="cannot span 5"):
        VectorChart(20, 5).initialise(torch.rand(5, 20))


def coordinates(n, count, centre=math.pi / 2):
    polar = 0.1 + (math.pi - 0.2) * torch.rand(count, n - 1)
    azimuth = centre + (2 * torch.rand(count, 1) - 1) * (math.pi - 0.01)
    return torch.cat([polar, azimuth, torch.rand(count, 1) - 0.5], 1)


@pytest.mark.parametrize("n", NUMBERS)
def test_sphere_comes_back_both_ways(n):
    chart, x, z = Spherical(n), torch.randn(50, n + 1), coordinates(n, 50)
    torch.testing.assert_close(chart.inverse(chart(x)[0])[0], x, atol=1e-12, rtol=0)
    torch.testing.assert_close(chart(chart.inverse(z)[0])[0], z, atol=1e-12, rtol=0)
    torch.testing.assert_close(chart.inverse(z)[0].norm(dim=1), 1 + z[:, -1])


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
