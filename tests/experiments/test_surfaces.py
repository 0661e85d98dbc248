import math

import pytest
import torch
from torch.autograd.functional import jacobian

from mfimage.errors import UsageError
from mfimage.experiments.simulators import Sphere, Surface
from mfimage.experiments.simulators.surfaces import _ROTATION, direction, embed, height, spherical


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_angles_and_directions_undo_each_other(n):
    x = torch.randn(50, n + 1, generator=generator(), dtype=torch.float64)
    x = x / x.norm(dim=1, keepdim=True)
    torch.testing.assert_close(direction(spherical(x)), x, atol=1e-12, rtol=0)


def test_samples_have_the_distance_of_their_radial_noise():
    sphere = Sphere(1, 0.01)
    points = sphere.sample(50_000, generator())
    assert points.shape == (2,)
    assert points.latents.shape == (50_000, 1)
    mean = float(sphere.distance(points.x).mean())
    assert abs(mean - 0.01 * math.sqrt(2 / math.pi)) < 1e-4
    strange = sphere.distance(sphere.sample_ood(50_000, generator(1)))
    assert abs(float(strange.mean()) - 0.015) < 2e-4
    assert strange.max() < 0.03 + 1e-6


def test_circle_density_integrates_to_one():
    circle = Sphere(1, 0.05)
    angle = torch.linspace(-math.pi, math.pi, 801, dtype=torch.float64)[:-1]
    radius = torch.linspace(0.7, 1.3, 601, dtype=torch.float64)
    phi, r = torch.meshgrid(angle, radius, indexing="ij")
    x = torch.stack([r * phi.cos(), r * phi.sin()], -1).view(-1, 2)
    mass = (circle.log_prob(x).exp().view_as(r) * r).sum() * 2 * math.pi / 800 * 0.001
    assert abs(float(mass) - 1) < 1e-4


def test_density_is_finite_where_an_azimuth_is_zero():
    circle = Sphere(1, 0.01)
    near, at = circle.log_prob(torch.tensor([[1.0, 1e-6], [1.0, 0.0]]))
    assert abs(float(at - near)) < 1e-4
    opposite = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
    below, above = circle.log_prob(opposite)  # both two standard deviations from π/2
    assert abs(float(below - above)) < 1e-12
    assert Sphere(2).log_prob(torch.tensor([[0.0, 1.0, 0.0], [0.6, 0.8, 0.0]])).isfinite().all()


def shell(n, points):
    """Cell midpoints of all angles of the unit n-sphere, the volume of each cell, the mass it has."""
    sphere = Sphere(n, 0.01)
    polar = (torch.arange(points, dtype=torch.float64) + 0.5) * math.pi / points
    azimuth = (torch.arange(2 * points, dtype=torch.float64) + 0.5) * math.pi / points - math.pi
    grid = torch.meshgrid(*[polar] * (n - 1), azimuth, indexing="ij")
    angles = torch.stack([axis.flatten() for axis in grid], 1)
    at_one = sphere.log_prob(direction(angles)) + math.log(0.01 * math.sqrt(2 * math.pi))
    powers = torch.arange(n - 1, -1, -1, dtype=torch.float64)
    area = angles.sin().abs().pow(powers).prod(1) * (math.pi / points) ** n
    return angles, (at_one.exp() * area).view(grid[0].shape)


@pytest.mark.parametrize(("n", "points"), [(1, 200), (2, 200), (3, 40)])
def test_density_integrates_to_one_over_the_sphere(n, points):
    assert abs(float(shell(n, points)[1].sum()) - 1) < 1e-9


def test_density_is_the_histogram_of_samples():
    """χ² of 100 equal cells of both angles, from 400,000 samples: 100 ± 14 where the density is true."""
    mass = shell(2, 200)[1].view(10, 20, 10, 40).sum((1, 3))
    angles = spherical(Sphere(2, 0.01).sample(400_000, generator()).x.double())
    rows = (angles[:, 0] / math.pi * 10).long().clamp(0, 9)
    columns = ((angles[:, 1] + math.pi) / (2 * math.pi) * 10).long().clamp(0, 9)
    counts = torch.bincount(rows * 10 + columns, minlength=100).double().view(10, 10)
    expected = 400_000 * mass
    assert expected.min() > 20
    assert float(((counts - expected).square() / expected).sum()) < 170


@pytest.mark.parametrize("n", [2, 3])
def test_sphere_density_is_that_of_its_samples(n):
    """The mean of f under samples equals the integral of f·p, for f of a few directions."""
    sphere = Sphere(n, 0.01)
    x = sphere.sample(200_000, generator()).x.double()
    uniform = torch.randn(200_000, n + 1, generator=generator(1), dtype=torch.float64)
    uniform = uniform / uniform.norm(dim=1, keepdim=True)
    area = 2 * math.pi ** ((n + 1) / 2) / math.gamma((n + 1) / 2)
    at_one = sphere.log_prob(uniform) + math.log(0.01 * math.sqrt(2 * math.pi))  # without the radial factor
    weight = at_one.exp() * area
    assert abs(float(weight.mean()) - 1) < 0.02
    for i in range(n + 1):
        expected = float((weight * uniform[:, i]).mean())
        assert abs(float(x[:, i].mean()) - expected) < 0.02
        octant = (uniform[:, i] > 0).double()
        assert abs(float((x[:, i] > 0).double().mean()) - float((weight * octant).mean())) < 0.02


def test_nonsense_and_parameters_are_refused():
    with pytest.raises(UsageError, match="dimension from 1"):
        Sphere(0)
    with pytest.raises(UsageError, match="circle has no parameters"):
        Sphere(1).prior(3, generator())


def test_the_polynomial_has_the_published_coefficients():
    z = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    first = -1.216858660351
    second = (first + 1.522218505808 + 0.05650828779249 - 0.05568486624474 + 0.01371356976614) * math.exp(
        -0.1
    )
    second += -0.008323193992395 * math.exp(-0.1)
    third = first - 2 * 1.213718477452 - 4 * 0.046679008635 - 8 * 0.0516948423201 + 16 * 0.003330502571865
    third = (third + 32 * 0.01211570437965) * math.exp(-0.4)
    torch.testing.assert_close(
        height(z), torch.tensor([first, second, third], dtype=torch.float64), atol=1e-9, rtol=0
    )


def height_above(x):
    """|x₃′ − height|, x′ = R⁻¹x: what the paper's code measures."""
    back = torch.linalg.solve(_ROTATION, x.double().T).T
    return (back[:, 2] - height(back[:, :2])).abs()


@pytest.mark.parametrize("theta", [-1.0, 0.3])
def test_coordinates_have_a_normalised_density(theta):
    line = torch.linspace(-14, 14, 1401, dtype=torch.float64)
    z = torch.cartesian_prod(line, line)
    assert abs(float(Surface().log_density(z, torch.tensor([[theta]])).exp().sum()) * 0.02**2 - 1) < 1e-6


def test_log_prob_is_the_change_of_variables_by_autograd():
    surface = Surface()
    points = surface.sample(5, generator())
    for x, z, theta in zip(points.x, points.latents.double(), points.theta, strict=True):
        j = jacobian(lambda v: embed(v[None])[0], z)
        expected = (
            surface.log_density(z[None], theta[None])[0] - 0.5 * torch.linalg.slogdet(j.T @ j).logabsdet
        )
        torch.testing.assert_close(surface.log_prob(x[None], theta[None])[0], expected, atol=1e-5, rtol=0)


def test_samples_lie_on_the_surface_and_depend_on_theta():
    surface = Surface()
    wide, narrow = (surface.sample(20_000, generator(), torch.tensor([[t]])) for t in (1.0, -1.0))
    assert height_above(wide.x).max() < 1e-5
    near = [
        ((p.latents - torch.tensor([-1.0, 1.0])).norm(dim=1) < 0.5).double().mean() for p in (wide, narrow)
    ]
    assert near[1] > 0.35 > 0.15 > near[0]
    drawn = surface.sample(1000, generator()).theta
    assert drawn.min() < -0.9
    assert drawn.max() > 0.9
    assert surface.log_prior(torch.tensor([[0.5], [1.5]])).tolist() == [
        pytest.approx(-math.log(2)),
        -math.inf,
    ]


def test_distance_is_the_shortest_of_a_dense_grid():
    surface = Surface()
    x = surface.sample_ood(20, generator())
    line = torch.linspace(-7, 7, 701, dtype=torch.float64)
    dense = embed(torch.cartesian_prod(line, line))
    brute = torch.stack([(dense - one.double()).norm(dim=1).min() for one in x])
    found = surface.distance(x)
    assert (found <= height_above(x) + 1e-12).all()
    inside = (x.abs() < 4).all(1)
    assert (found - brute)[inside].abs().max() < 0.01
    assert surface.distance(surface.sample(100, generator()).x).max() < 1e-5
