import math

import pytest
import torch
from torch.autograd.functional import jacobian

from mfimage.experiments.simulators import Surface
from mfimage.experiments.simulators.surface import _ROTATION, embed, height


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


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
