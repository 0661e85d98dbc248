import numpy as np
import pytest
import torch
from laws import perturb
from tiny import bump_images

from mfimage import ModelConfig, build
from mfimage.datasets import gaussian_noise
from mfimage.denoising.inverse import Posterior, agreed, map_denoise, most_probable, solve
from mfimage.denoising.kriging import predicted
from mfimage.denoising.operators import Downsample, LinearOperator, Mask
from mfimage.errors import ModelError, UsageError


class Blur(LinearOperator):
    """An operator of a user's own."""

    def forward(self, x):
        return 0.5 * x + 0.3 * x.roll(1, -1) + 0.2 * x.roll(1, -2)


OPERATORS = {
    "identity": LinearOperator(),
    "mask": Mask(torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(3)) < 0.3),
    "down": Downsample(2),
    "blur": Blur(),
}


@pytest.fixture(scope="module")
def bent():
    """A curved manifold with a density that is no Gaussian, neither of them trained, in float64."""
    model = build(ModelConfig((1, 8, 8), 3, width=2, hidden=8, density_steps=1))
    model.initialise(bump_images(60, seed=1))
    perturb(model.density, 0.3)
    perturb(model.chart, 0.1)
    return model.double()


@pytest.fixture(scope="module")
def straight():
    model = build(ModelConfig((1, 8, 8), 3, kind="linear"))
    model.initialise(bump_images(60, seed=1))
    return model.double().eval()


def posterior(model, operator, sigma=0.1):
    x = bump_images(6).double()
    deviation = torch.full((6,), sigma, dtype=torch.float64)
    return x, Posterior(operator.forward(x), operator, model, deviation)


@pytest.mark.parametrize("name", OPERATORS)
def test_the_gradient_is_autograds(bent, name):
    x, given = posterior(bent, OPERATORS[name])
    u = (bent.encode(x).detach() + 0.1).requires_grad_()
    misfit = (given.operator.forward(bent.decode(u)) - given.y).square().flatten(1).sum(1)
    value = misfit / (2 * 0.1**2) - bent.density.log_prob(u)
    (expected,) = torch.autograd.grad(value.sum(), u)
    gradient, curvature, prior = given.quadratic(u.detach())
    torch.testing.assert_close(gradient, expected)
    torch.testing.assert_close(given.value(u.detach()), value.detach())
    assert torch.linalg.eigvalsh(prior).min() > 0
    assert torch.linalg.eigvalsh(curvature - prior).min() > -1e-9 * curvature.abs().max()


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("sigma", [0.01, 1.0])
def test_no_step_makes_any_image_worse(bent, name, sigma):
    x, given = posterior(bent, OPERATORS[name], sigma)
    start = bent.encode(x).detach() + torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    found = most_probable(given, start, iterations=8)
    assert (found.history.diff(dim=0) <= 0).all()
    assert (found.history[-1] < found.history[0]).all()
    torch.testing.assert_close(found.value, given.value(found.u))


def test_the_gradient_vanishes_at_the_end(bent):
    x, given = posterior(bent, LinearOperator())
    found = most_probable(given, bent.encode(x).detach(), iterations=60, tolerance=0.0)
    before, after = (given.quadratic(u)[0].norm(dim=1) for u in (bent.encode(x).detach(), found.u))
    assert (after < 0.03 * before).all()  # it stops at a millionth of the objective


@pytest.mark.parametrize("name", OPERATORS)
def test_a_linear_model_gives_the_posterior_mean(straight, name):
    """Of a Gaussian on a subspace seen linearly: (JᵀJ/σ² + Σ⁻¹)⁻¹ (Jᵀ(y − A g(0))/σ² + Σ⁻¹ m)."""
    operator, sigma = OPERATORS[name], 0.2
    y = operator.forward(
        gaussian_noise(bump_images(6).double(), sigma, torch.Generator().manual_seed(0), clip=False)
    )
    found = solve(y, operator, straight, sigma, torch.zeros(6, 3, dtype=torch.float64))
    codes = straight.push_forward(torch.cat([torch.zeros(1, 3), torch.eye(3)]).double()).detach()
    m, root = codes[0], codes[1:] - codes[0]  # u = m + zᵀ root, z ~ N(0, I)
    precision = torch.linalg.inv(root.T @ root)
    for i in range(6):
        part = operator.rows(torch.tensor([i]))
        at = [
            part.forward(straight.decode(u[None])).flatten().detach()
            for u in torch.cat([torch.zeros(1, 3), torch.eye(3)]).double()
        ]
        j = torch.stack(at[1:], 1) - at[0][:, None]
        right = j.T @ (y[i].flatten() - at[0]) / sigma**2 + precision @ m
        expected = torch.linalg.solve(j.T @ j / sigma**2 + precision, right)
        drawn = straight.decode(expected[None]).detach()
        torch.testing.assert_close(found[i : i + 1], drawn, atol=2e-3, rtol=0)


def test_steps_are_no_longer_than_the_limit(straight):
    x, given = posterior(straight, LinearOperator(), 0.01)
    start = straight.encode(x) + 100
    noise = straight.density.transform(start)[0]
    found = most_probable(given, start, iterations=1, step=0.5)
    moved = (straight.density.transform(found.u)[0] - noise).norm(dim=1)
    torch.testing.assert_close(moved, torch.full_like(moved, 0.5 * 3**0.5))


def test_images_do_not_see_each_other(bent):
    x, given = posterior(bent, OPERATORS["mask"])
    start = bent.encode(x).detach()
    alone = most_probable(given.rows(torch.tensor([4])), start[4:5])
    torch.testing.assert_close(most_probable(given, start).u[4:5], alone.u)


def test_a_deviation_an_image(model, generator):
    y = gaussian_noise(bump_images(6), 0.2, generator)
    both = map_denoise(y, model, torch.tensor([0.05, 0.1, 0.2, 0.3, 0.4, 0.5]))
    torch.testing.assert_close(both[2:3], map_denoise(y[2:3], model, 0.2), atol=1e-4, rtol=0)
    assert not torch.allclose(both[5:], map_denoise(y[5:], model, 0.05), atol=1e-3)


def test_it_is_nearer_to_the_clean_than_the_projection(model, generator):
    clean = bump_images(60)
    y = gaussian_noise(clean, 0.3, generator)
    with torch.no_grad():
        projected = (model.project(y) - clean).square().mean()
    assert (map_denoise(y, model, 0.3) - clean).square().mean() < 0.9 * projected


def test_without_noise_it_is_the_nearest_point(model):
    x = bump_images(10)
    with torch.no_grad():
        projected = (model.project(x) - x).square().sum((1, 2, 3))
    assert ((map_denoise(x, model, 1e-3) - x).square().sum((1, 2, 3)) <= projected + 1e-6).all()


def test_a_density_that_sees_parameters_is_refused(model):
    flow = build(ModelConfig((1, 8, 8), 2, width=2, hidden=8, density_steps=1, context=1))
    with pytest.raises(ModelError, match="without parameters"):
        map_denoise(bump_images(1), flow, 0.1)


WIDE = {
    "identity": LinearOperator(),
    "mask": Mask(torch.rand(3, 1, 12, 8, generator=torch.Generator().manual_seed(0)) < 0.4),
    "down 2": Downsample(2),
    "down 4": Downsample(4),
}


def images():
    return torch.rand(3, 2, 12, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("name", WIDE)
def test_it_is_linear_and_takes_parts(name):
    operator, x = WIDE[name], images()
    torch.testing.assert_close(
        operator.forward(2 * x - x.flip(1)), 2 * operator.forward(x) - operator.forward(x.flip(1))
    )
    rows = torch.tensor([2, 0])
    torch.testing.assert_close(operator.rows(rows).forward(x[rows]), operator.forward(x)[rows])


@pytest.mark.parametrize("factor", [2, 4])
def test_scaling_down_is_scikit_images(factor):
    from skimage.transform import downscale_local_mean

    x = images()
    expected = downscale_local_mean(x.numpy(), (1, 1, factor, factor))
    np.testing.assert_allclose(Downsample(factor).forward(x), expected, atol=1e-12)


@pytest.mark.parametrize("name", ["mask", "down 2", "down 4"])
def test_completion_agrees_with_what_is_seen_and_moves_least(name):
    operator, x = WIDE[name], images()
    truth = images().flip(0)
    y = operator.forward(truth)
    completed = operator.completed(x, y)
    torch.testing.assert_close(operator.forward(completed), y)
    off = completed - x  # orthogonal to the null space: a projection never moves away from the truth
    assert abs(float((off * (truth - completed)).sum())) < 1e-10
    assert (completed - truth).norm() < (x - truth).norm()


def test_what_does_not_divide_is_refused():
    with pytest.raises(UsageError, match="12 × 8 pixels cannot be scaled by 1/5"):
        Downsample(5).forward(images())
    with pytest.raises(UsageError, match="factor"):
        Downsample(0)


@pytest.mark.parametrize("operator", ["mask", "blocks"])
def test_what_is_seen_and_the_rest_are_made_to_agree(operator, generator):
    x = torch.rand(3, 1, 8, 8, generator=generator)
    missing = torch.rand(3, 1, 8, 8, generator=generator) < 0.5
    seeing = Mask(missing) if operator == "mask" else Downsample(2)
    y = seeing.forward(x)
    sigmas = []

    class Knows:  # a prior that halves the distance to what is true
        noise_aware = True

        def clear(self, given, sigma):
            sigmas.append(sigma)
            return (given + x) / 2

    start = torch.full_like(x, 0.5)
    found = agreed(start, y, seeing, Knows())
    torch.testing.assert_close(seeing.forward(found), y)
    assert (found - x).abs().max() <= 2**-5 + 1e-6
    assert sigmas == sorted(set(sigmas), reverse=True)
    Knows.noise_aware = False
    more = predicted(y - seeing.forward(start), seeing)
    assert torch.equal(agreed(start, y, seeing, Knows()), seeing.completed(start + more, y))
