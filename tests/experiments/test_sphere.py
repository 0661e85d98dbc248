import math

import pytest
import torch

from mfimage.errors import UsageError
from mfimage.experiments.simulators import Sphere
from mfimage.experiments.simulators.sphere import direction, spherical


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
