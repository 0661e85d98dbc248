import math

import pytest
import torch

from mfimage.errors import UsageError
from mfimage.experiments.simulators.images import Rendered
from mfimage.experiments.simulators.simulator import nearest_point

SCENES = [(2, 32, 1), (2, 64, 3), (8, 32, 1), (8, 32, 3), (16, 32, 1), (64, 32, 1)]


@pytest.fixture(scope="module", autouse=True)
def small_bank():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rendered, "bank_size", 1500)
        yield


@pytest.fixture(scope="module")
def scene():
    """Scenes by (d, size, channels), each with its bank made once."""
    made = {}
    return lambda *key: made.setdefault(key, Rendered(*key))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("key", [*SCENES, (16, 64, 3), (64, 64, 3)])
def test_samples_are_images_of_their_latents(key, scene):
    simulator = scene(*key)
    points = simulator.sample(20, seeded())
    assert points.x.shape == (20, *simulator.shape)
    assert points.x.dtype == points.latents.dtype == torch.float32
    assert points.latents.shape == (20, simulator.dim)
    assert points.theta is points.score is None
    assert points.x.min() >= 0
    assert points.x.max() < 1
    torch.testing.assert_close(simulator.render(points.latents).float(), points.x, atol=0, rtol=0)
    torch.testing.assert_close(simulator.sample(20, seeded()).x, points.x, atol=0, rtol=0)
    assert (simulator.sample(20, seeded(1)).x != points.x).any()


def test_pixels_stay_in_range_for_any_latents(scene):
    for extreme in (-50.0, 50.0):
        x = scene(64, 32, 3).render(torch.full((1, 64), extreme))
        assert 0 <= x.min() < x.max() < 1


def test_no_images(scene):
    assert scene(2, 32, 1).sample(0, seeded()).x.shape == (0, 1, 32, 32)
    assert scene(2, 32, 1).distance(torch.zeros(0, 1, 32, 32)).shape == (0,)
    assert scene(2, 32, 1).log_prob_at(torch.zeros(0, 2)).shape == (0,)


@pytest.mark.parametrize("key", SCENES)
def test_the_jacobian_is_the_derivative_and_has_full_rank(key, scene):
    simulator = scene(*key)
    z = simulator.draw(3, seeded())
    j = simulator.jacobian(z)
    assert j.shape == (3, math.prod(simulator.shape), simulator.dim)
    autograd = torch.func.vmap(torch.func.jacfwd(lambda one: simulator.render(one[None]).flatten()))(z)
    torch.testing.assert_close(j, autograd)
    values = torch.linalg.svdvals(j)
    assert (values[:, 0] / values[:, -1]).max() < 1000


def test_the_density_of_latents_is_that_of_the_mixture():
    simulator = Rendered(2)
    mean = torch.tensor([0.7, -0.7], dtype=torch.float64)
    z = simulator.draw(50, seeded())
    expected = 0.0
    for weight, rho, sign in ((0.6, 0.5, 1), (0.4, -0.5, -1)):
        covariance = torch.tensor([[1, rho], [rho, 1]], dtype=torch.float64)
        expected += weight * torch.distributions.MultivariateNormal(sign * mean, covariance).log_prob(z).exp()
    torch.testing.assert_close(simulator.log_density(z), expected.log())


@pytest.mark.parametrize("dim", [2, 8])
def test_latents_are_drawn_from_their_density(dim):
    """E[−log p] of draws is the entropy that importance sampling finds; both moments are the mixture's."""
    simulator = Rendered(dim)
    z = simulator.draw(20_000, seeded())
    broad = torch.distributions.Normal(torch.zeros(dim).double(), 1.8)
    w = 1.8 * torch.randn(200_000, dim, generator=seeded(1), dtype=torch.float64)
    weights = (simulator.log_density(w) - broad.log_prob(w).sum(1)).exp()
    assert weights.mean().item() == pytest.approx(1, abs=0.02)
    entropy = -(weights * simulator.log_density(w)).mean()
    assert -simulator.log_density(z).mean() == pytest.approx(float(entropy), abs=0.2)
    mean = torch.nn.functional.pad(torch.tensor([0.14, -0.14]), (0, dim - 2)).double()
    assert (z.mean(0) - mean).abs().max() < 0.05
    steps = (torch.arange(dim)[:, None] - torch.arange(dim)).abs()
    second = 0.6 * 0.5**steps + 0.4 * (-0.5) ** steps
    second[:2, :2] += 0.49 * torch.tensor([[1, -1], [-1, 1]])
    assert (z.T @ z / len(z) - second).abs().max() < 0.06


def test_the_density_on_the_manifold_is_normalised():
    """∫ p(x) dV over a grid of latents, dV measured between images a tiny step apart, is 1."""
    simulator = Rendered(2)
    axis = torch.linspace(-7, 7, 71, dtype=torch.float64)
    z, step = torch.cartesian_prod(axis, axis), 1e-4 * torch.eye(2, dtype=torch.float64)
    right, down = ((simulator.render(z + e) - simulator.render(z - e)).flatten(1) / 2e-4 for e in step)
    area = (right.square().sum(1) * down.square().sum(1) - (right * down).sum(1).square()).sqrt()
    total = (simulator.log_prob_at(z).exp() * area).sum() * 0.2**2
    assert float(total) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("key", SCENES[:-1])
def test_log_prob_of_images_is_that_of_their_latents(key, scene):
    simulator = scene(*key)
    points = simulator.sample(30, seeded(3))
    log_prob = simulator.log_prob(points.x)
    assert log_prob.dtype == torch.float64
    assert log_prob.std() > 0.3  # not trivial
    torch.testing.assert_close(log_prob, simulator.log_prob_at(points.latents), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("key", "count"), [*((key, 100) for key in SCENES[:-1]), (SCENES[-1], 20)])
def test_images_on_the_manifold_have_no_distance(key, count, scene):
    simulator = scene(*key)
    z = simulator.draw(count, seeded(4))
    found, distance = simulator.project(simulator.render(z))
    assert distance.max() < 1e-8
    torch.testing.assert_close(found, z, atol=1e-6, rtol=0)
    assert simulator.distance(simulator.render(z[:5]).float()).max() < 5e-6  # what rounding to float32 leaves


@pytest.mark.parametrize(("key", "count"), [*((key, 30) for key in SCENES[:-1]), (SCENES[-1], 10)])
def test_a_short_way_along_the_normal_is_the_distance(key, count, scene):
    simulator = scene(*key)
    z = simulator.draw(count, seeded(5))
    normal = torch.randn(count, math.prod(simulator.shape), generator=seeded(), dtype=torch.float64)
    basis = torch.linalg.qr(simulator.jacobian(z))[0]
    normal = normal - (basis @ (basis.mT @ normal[..., None]))[..., 0]
    normal = 0.03 * normal / normal.norm(dim=1, keepdim=True)
    found, distance = simulator.project(simulator.render(z) + normal.view(-1, *simulator.shape))
    assert ((distance - 0.03).abs() < 3e-9).double().mean() >= 0.9
    assert distance.max() < 0.03 + 1e-9
    assert ((found - z).abs().amax(1) < 1e-5).double().mean() >= 0.9


def test_distance_agrees_with_a_dense_grid(scene):
    simulator = scene(2, 32, 1)
    some = simulator.sample(20, seeded(6)).x
    noisy = some + 0.1 * torch.randn(some.shape, generator=seeded(7))
    x = torch.cat(
        [noisy, simulator.sample_ood(20, seeded(8)), torch.rand(20, 1, 32, 32, generator=seeded(9))]
    )
    axis = 2 * torch.linspace(-0.999, 0.999, 41, dtype=torch.float64).atanh()  # even steps of the blob
    grid = simulator.render(torch.cartesian_prod(axis, axis)).flatten(1)
    brute = torch.cdist(x.flatten(1).double(), grid).amin(1)
    distance = simulator.distance(x)
    assert (distance - brute).max() < 1e-3
    # Neighbours on the grid are at most 0.5 apart, so that the nearest of them is that close to the minimum.
    assert (brute.square() - distance.square()).max() < 0.35**2


def test_the_search_never_ends_further_off_than_it_began(scene):
    simulator = scene(8, 32, 1)
    x = torch.rand(20, 1024, generator=seeded(), dtype=torch.float64)
    start = simulator.draw(20, seeded(1))
    before = (x - simulator.render(start).flatten(1)).square().sum(1)
    for iterations in (0, 1, 3, 10):
        z, squared = nearest_point(simulator._flat, simulator.jacobian, x, start, 8.0, iterations=iterations)
        assert (squared <= before).all()
        torch.testing.assert_close((x - simulator.render(z).flatten(1)).square().sum(1), squared)
        before = squared


def test_rows_do_not_disturb_each_other(scene):
    simulator = scene(8, 32, 1)
    x = simulator.sample_ood(6, seeded())
    alone = torch.cat([simulator.distance(one[None]) for one in x])
    torch.testing.assert_close(simulator.distance(x), alone)


def test_a_search_that_meets_the_bound_goes_on_along_it(scene):
    """Half the search's usual steps are enough for blobs that would like to leave their cells."""
    simulator = scene(8, 32, 1)
    z = simulator.draw(30, seeded()).clamp(-1.8, 1.8)
    z[:, ::3] = 4.0
    x = simulator.render(z).flatten(1)
    start = simulator.draw(30, seeded(1)) / 4
    few, many = (
        nearest_point(simulator._flat, simulator.jacobian, x, start, 2.0, iterations=n) for n in (50, 1000)
    )
    assert few[0].abs().max() == 2
    torch.testing.assert_close(few[1], many[1], atol=0, rtol=1e-9)


def test_images_that_are_not_finite_have_no_distance(scene):
    simulator = scene(2, 32, 1)
    x = simulator.sample(3, seeded()).x
    x[1, 0, 4, 4] = torch.nan
    for values in (simulator.distance(x), simulator.log_prob(x), simulator.project(x)[0][:, 0]):
        assert values.isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("key", SCENES)
def test_strange_images_lie_off_the_manifold(key, scene):
    simulator = scene(*key)
    x = simulator.sample_ood(10, seeded(2))
    assert x.shape == (10, *simulator.shape)
    assert x.dtype == torch.float32
    assert x.min() >= 0
    assert x.max() <= 1
    assert simulator.distance(x).min() > 0.05


def test_the_manifold_is_curved(scene):
    """As many principal components as coordinates miss much of the images."""
    simulator = scene(8, 32, 1)
    x = simulator.sample(1000, seeded()).x.flatten(1).double()
    values = torch.linalg.svdvals(x - x.mean(0)).square()
    assert values[8:].sum() / values.sum() > 0.15


def test_there_are_no_parameters(scene):
    simulator = scene(2, 32, 1)
    for call in (
        lambda: simulator.prior(1, seeded()),
        lambda: simulator.log_prior(torch.zeros(1, 0)),
        lambda: simulator.sample(1, seeded(), torch.zeros(1, 1)),
    ):
        with pytest.raises(UsageError, match="rendered has no parameters"):
            call()


@pytest.mark.parametrize("key", [(3, 32, 1), (2, 16, 1), (2, 40, 1), (2, 32, 2)])
def test_scenes_that_do_not_exist(key):
    with pytest.raises(UsageError, match="images are rendered with d = 2, 8, 16, 64"):
        Rendered(*key)


def test_images_of_another_shape(scene):
    with pytest.raises(UsageError, match=r"shape \(1, 32, 32\) are expected, not \(3, 32, 32\)"):
        scene(2, 32, 1).distance(torch.zeros(2, 3, 32, 32))
