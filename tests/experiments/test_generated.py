"""The manifold of a generator's first latents, on a generator whose manifold is known in closed form."""

import math

import pytest
import torch

from mfimage.datasets.stylegan import Custom, seeded_generator
from mfimage.errors import UsageError
from mfimage.experiments.simulators.image_manifold import area_weights
from mfimage.experiments.simulators.images import Generated

SIDE = 8


def ramp(w):
    """Images linear in the first three latents as far as they are not clipped: 0.5 + 0.05 w·basis."""
    rows = torch.arange(SIDE) / SIDE - 0.5
    basis = torch.stack([rows[:, None].expand(SIDE, SIDE), rows.expand(SIDE, SIDE), torch.outer(rows, rows)])
    return (0.5 + 0.05 * torch.einsum("nk,khw->nhw", w[:, :3], basis))[:, None].clamp(0, 1)


@pytest.fixture
def scene():
    return Generated(Custom(ramp, z_dim=5), dim=2, size=SIDE)


def test_areas_average_what_a_pixel_covers():
    torch.testing.assert_close(
        area_weights(4, 2), torch.tensor([[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]).double()
    )
    torch.testing.assert_close(area_weights(3, 2), torch.tensor([[2, 1, 0], [0, 1, 2]]).double() / 3)
    torch.testing.assert_close(area_weights(64, 7).sum(1), torch.ones(7, dtype=torch.float64))
    torch.testing.assert_close(area_weights(5, 5), torch.eye(5, dtype=torch.float64))


def test_samples_are_the_images_of_their_latents_and_follow_the_seed(scene):
    drawn = scene.sample(20, torch.Generator().manual_seed(3))
    again = scene.sample(20, torch.Generator().manual_seed(3))
    torch.testing.assert_close(drawn.x, again.x, rtol=0, atol=0)
    torch.testing.assert_close(scene.render(drawn.latents), drawn.x)
    assert drawn.x.shape == (20, 1, SIDE, SIDE)
    assert drawn.theta is None
    other = Generated(Custom(ramp, z_dim=5), 2, SIDE, seed=1)
    assert (other.render(drawn.latents) - drawn.x).abs().max() > 1e-3  # another third latent is fixed


def test_the_jacobian_is_that_of_the_linear_map(scene):
    z = torch.randn(3, 2)
    expected = torch.stack([(ramp(torch.eye(3)[k : k + 1]) - 0.5).flatten() for k in range(2)], 1)
    found = scene.jacobian(z)
    torch.testing.assert_close(found, expected.double().expand(3, -1, -1), atol=1e-6, rtol=0)


def test_a_generator_without_derivatives_is_differenced(scene):
    blind = Generated(Custom(lambda w: ramp(w.detach()), z_dim=5), 2, SIDE)
    z = torch.randn(3, 2)
    torch.testing.assert_close(blind.jacobian(z), scene.jacobian(z), atol=1e-5, rtol=0)


def test_the_density_is_that_of_the_linear_map(scene):
    z = torch.randn(4, 2)
    j = scene.jacobian(z[:1])[0]
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(z.double()).sum(1)
    expected = normal - 0.5 * torch.logdet(j.T @ j)
    torch.testing.assert_close(scene.log_prob_at(z), expected)
    torch.testing.assert_close(scene.log_prob(scene.render(z)), expected, atol=1e-4, rtol=0)


def test_projection_finds_the_latents_and_the_distance(scene):
    z = torch.randn(6, 2)
    x = scene.render(z)
    torch.manual_seed(1)
    off = torch.randn(6, SIDE * SIDE).double()
    j = scene.jacobian(z[:1])[0]
    off = off - off @ torch.linalg.qr(j).Q @ torch.linalg.qr(j).Q.T  # orthogonal to the manifold
    found, distance = scene.project(x + 0.01 * off.view_as(x))
    torch.testing.assert_close(found, z.double(), atol=1e-3, rtol=0)
    torch.testing.assert_close(distance, 0.01 * off.norm(dim=1), rtol=1e-4, atol=0)
    assert scene.distance(x).max() < 1e-5


def test_strangers_vary_what_is_fixed(scene):
    strange = scene.sample_ood(50, torch.Generator().manual_seed(0))
    assert scene.distance(strange).median() > 0.01


def test_parameters_shift_the_latents_along_their_diagonal():
    scene = Generated(Custom(ramp, z_dim=5), 2, SIDE, conditional=True)
    theta = torch.tensor([[3.0]])
    drawn = scene.sample(4000, torch.Generator().manual_seed(0), theta)
    assert drawn.theta.shape == (4000, 1)
    torch.testing.assert_close(drawn.latents.mean(0), torch.full((2,), 3 / math.sqrt(2)), atol=0.06, rtol=0)
    torch.testing.assert_close(drawn.latents.std(0), torch.ones(2), atol=0.05, rtol=0)
    assert scene.sample(5, torch.Generator().manual_seed(0)).theta.std() > 0.1
    assert scene.log_prior(torch.zeros(1, 1)).item() == pytest.approx(-0.5 * math.log(2 * math.pi))
    z = torch.randn(2, 2)
    shifted = scene.log_prob_at(z + 1 / math.sqrt(2), torch.ones(2, 1))
    torch.testing.assert_close(shifted, scene.log_prob_at(z), atol=1e-4, rtol=0)


def test_what_cannot_be_is_refused(scene):
    with pytest.raises(UsageError, match="5 latents"):
        Generated(Custom(ramp, z_dim=5), 6, SIDE)
    with pytest.raises(UsageError, match="16 × 16"):
        Generated(Custom(ramp, z_dim=5), 2, 16)
    with pytest.raises(UsageError, match="no parameters"):
        scene.sample(2, torch.Generator(), torch.zeros(1, 1))
    with pytest.raises(UsageError, match="no parameters"):
        scene.prior(2, torch.Generator())
    with pytest.raises(UsageError, match="no parameters"):
        scene.log_prior(torch.zeros(1, 1))


def test_a_seeded_stylegan_has_a_smooth_manifold():
    scene = Generated(seeded_generator(16, seed=0, z_dim=8), dim=2, size=16)
    z = torch.randn(3, 2)
    step = 1e-2 * torch.randn(3, 2)
    moved = (scene.render(z + step) - scene.render(z - step)).flatten(1).double() / 2
    linear = (scene.jacobian(z) @ step[..., None].double())[..., 0]
    assert (moved - linear).norm() < 0.1 * linear.norm()  # its activations have kinks
    assert torch.linalg.svdvals(scene.jacobian(z)).min() > 0.05
