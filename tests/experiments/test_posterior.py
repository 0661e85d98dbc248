"""Chains and discrepancies of posteriors, on distributions that are known in closed form."""

import math

import pytest
import torch

from mfimage.errors import DataError, ModelError, UsageError
from mfimage.experiments.posterior import log_posterior, metropolis, posterior_mmd

MEAN = torch.tensor([1.0, -2.0], dtype=torch.float64)
COVARIANCE = torch.tensor([[1.0, 0.6], [0.6, 0.5]], dtype=torch.float64)


def gaussian(theta):
    away = theta - MEAN
    return -0.5 * (away @ COVARIANCE.inverse() * away).sum(1)


def standard_errors(values):
    """Of the mean over all chains, judged by how their means differ; values (chains, steps, …)."""
    means = values.mean(1)
    return means.std(0) / len(means) ** 0.5


def test_chains_draw_from_a_correlated_gaussian(generator):
    samples, acceptance = metropolis(gaussian, torch.zeros(200, 2), 1000, 1.0, generator, burn_in=200)
    assert samples.shape == (200, 1000, 2)
    assert 0.3 < acceptance < 0.6
    away = samples - MEAN
    products = away[..., :, None] * away[..., None, :]
    for values, truth in ((away, torch.zeros(2)), (products, COVARIANCE)):
        error = standard_errors(values)
        assert error.max() < 0.02
        assert ((values.mean((0, 1)) - truth).abs() < 4 * error).all()


def test_chains_respect_where_the_density_ends(generator):
    """A standard normal below −½: its mean is −φ(½) / Φ(−½)."""

    def truncated(theta):
        return torch.where(theta[:, 0] < -0.5, -0.5 * theta[:, 0].square(), -torch.inf)

    samples, _ = metropolis(truncated, torch.full((200, 1), -1.0), 1000, 1.0, generator, 100)
    assert samples.max() < -0.5
    normal = torch.distributions.Normal(0.0, 1.0)
    half = torch.tensor(0.5)
    mean = -normal.log_prob(half).exp() / normal.cdf(-half)
    assert abs(samples.mean() - mean) < 4 * standard_errors(samples)


def test_the_share_of_accepted_proposals_is_kept(generator):
    flat, forbidden = torch.zeros_like, lambda theta: torch.where(theta == 0, 0.0, -torch.inf)
    start = torch.zeros(10, 1)
    assert metropolis(lambda theta: flat(theta[:, 0]), start, 50, 1.0, generator)[1] == 1
    samples, acceptance = metropolis(lambda theta: forbidden(theta[:, 0]), start, 50, 1.0, generator)
    assert acceptance == 0
    assert (samples == 0).all()


@pytest.mark.parametrize("step_size", [0.01, 100.0])
def test_a_bad_step_size_is_mended_during_burn_in(step_size, generator):
    start = MEAN.repeat(50, 1)
    _, acceptance = metropolis(gaussian, start, 200, step_size, generator, burn_in=1000, target=0.35)
    assert acceptance == pytest.approx(0.35, abs=0.07)
    _, acceptance = metropolis(gaussian, start, 200, step_size, generator, burn_in=1000)
    assert not 0.1 < acceptance < 0.9


def test_equal_seeds_draw_equally_and_start_stays():
    start = torch.ones(3, 2)
    first, second, third = (
        metropolis(gaussian, start, 20, 0.5, torch.Generator().manual_seed(seed))[0] for seed in (1, 1, 2)
    )
    torch.testing.assert_close(first, second, atol=0, rtol=0)
    assert (first != third).any()
    assert (start == 1).all()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_density_that_is_no_number_says_where(value, generator):
    def broken(theta):
        return torch.where(theta[:, 0] > 1, value, 0.0)

    with pytest.raises(ModelError, match=r"log p is (nan|inf) at θ = \[[1-9]"):
        metropolis(broken, torch.zeros(5, 1), 200, 1.0, generator)


@pytest.mark.parametrize(
    ("start", "steps", "size", "burn_in"),
    [((3,), 1, 1, 0), ((3, 2), 0, 1, 0), ((3, 2), 1, 0, 0), ((3, 2), 1, math.nan, 0), ((3, 2), 1, 1, -1)],
)
def test_misuse(start, steps, size, burn_in, generator):
    with pytest.raises(UsageError):
        metropolis(gaussian, torch.zeros(start), steps, size, generator, burn_in)


def test_impossible_starts_and_shapes(generator):
    with pytest.raises(UsageError, match="2 of 3 chains start where p = 0"):
        metropolis(lambda theta: theta[:, 0].log(), torch.tensor([[0.0], [1.0], [0.0]]), 1, 1.0, generator)
    with pytest.raises(UsageError, match="one value a chain"):
        metropolis(lambda theta: theta, torch.zeros(3, 2), 1, 1.0, generator)


def test_log_posterior_sums_over_the_observed():
    observed = torch.tensor([[0.5], [1.5], [-1.0]])
    asked = []

    def log_likelihood(x, theta):
        asked.append(len(x))
        return -(x - theta).square().sum(1).float()

    def log_prior(theta):
        return torch.where(theta[:, 0].abs() < 2, -math.log(4), -torch.inf)

    theta = torch.tensor([[0.0], [3.0], [1.0]], dtype=torch.float64)
    values = log_posterior(log_likelihood, log_prior, observed)(theta)
    expected = torch.tensor([-3.5, -torch.inf, -4.5], dtype=torch.float64) - math.log(4)
    torch.testing.assert_close(values, expected)
    assert asked == [6]  # not where the prior forbids
    assert log_posterior(log_likelihood, log_prior, observed)(theta[1:2]).isneginf().all()
    assert asked == [6]


def test_log_posterior_takes_images():
    values = log_posterior(
        lambda x, theta: x.sum((1, 2, 3)) * theta[:, 0], lambda t: t[:, 0], torch.ones(2, 1, 3, 3)
    )
    torch.testing.assert_close(values(torch.tensor([[1.0], [2.0]])), torch.tensor([19.0, 38.0]).double())


def test_posterior_of_a_gaussian_mean(generator):
    """x_i ~ N(θ, 1), θ ~ N(0, 1): the posterior is N(Σx / (n + 1), 1 / (n + 1))."""
    observed = 0.7 + torch.randn(20, 1, generator=generator)
    posterior = log_posterior(
        lambda x, theta: -0.5 * (x - theta).square().sum(1), lambda t: -0.5 * t[:, 0].square(), observed
    )
    samples, _ = metropolis(posterior, torch.zeros(100, 1), 1000, 0.4, generator, 100)
    assert abs(samples.mean() - observed.sum() / 21) < 4 * standard_errors(samples)
    assert samples.var().item() == pytest.approx(1 / 21, rel=0.05)


def test_posterior_mmd_equals_the_plain_formula(generator, monkeypatch):
    monkeypatch.setattr("mfimage.eval.set_metrics._ROWS", 7)
    both = torch.randn(71, 2, generator=generator, dtype=torch.float64)
    x, y = both[:30], both[30:] + 1

    def distances(a, b, skip):
        return [(p - q).norm() for i, p in enumerate(a) for j, q in enumerate(b) if not (skip and i == j)]

    scale = torch.stack(distances(y, y, True)).quantile(0.5)
    kxx, kyy, kxy = (
        torch.stack(d).div(scale).square().mul(-0.5).exp().mean()
        for d in (distances(x, x, True), distances(y, y, True), distances(x, y, False))
    )
    assert posterior_mmd(x, y) == pytest.approx(float(kxx + kyy - 2 * kxy), abs=1e-12)


def test_posterior_mmd_of_two_gaussians(generator):
    """E k(a, b) = s^P / √det(s²I + C) · exp(−½ δᵀ (s²I + C)⁻¹ δ) for a − b ~ N(δ, C)."""
    factor, scale = torch.linalg.cholesky(COVARIANCE), 0.8
    x = MEAN + torch.randn(4000, 2, generator=generator, dtype=torch.float64) @ factor.T
    y = torch.randn(4000, 2, generator=generator, dtype=torch.float64)

    def expected(delta, covariance):
        total = scale**2 * torch.eye(2, dtype=torch.float64) + covariance
        return scale**2 / total.det().sqrt() * torch.exp(-0.5 * delta @ total.inverse() @ delta)

    zero, eye = torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    truth = expected(zero, 2 * COVARIANCE) + expected(zero, 2 * eye) - 2 * expected(MEAN, COVARIANCE + eye)
    assert posterior_mmd(x, y, scale) == pytest.approx(float(truth), abs=0.02)


def test_posterior_mmd_is_unbiased_and_vanishes_for_equal_distributions(generator):
    values = torch.tensor(
        [posterior_mmd(*torch.randn(2, 40, 1, generator=generator), scale=1.0) for _ in range(400)]
    )
    assert abs(values.mean()) < 4 * values.std() / 20
    assert values.min() < 0  # as an unbiased estimate of zero must be at times
    assert abs(posterior_mmd(*torch.randn(2, 5000, 1, generator=generator))) < 1e-3


def test_posterior_mmd_sees_a_small_shift_far_from_the_origin(generator):
    x, y = torch.randn(2, 500, 1, generator=generator, dtype=torch.float64)
    near, far = posterior_mmd(x + 0.5, y), posterior_mmd(x + 0.5 + 1e6, y + 1e6)
    assert far == pytest.approx(near, rel=1e-6)


def test_discrepancies_that_do_not_exist():
    good = torch.rand(5, 2)
    for x, y in ((good[:1], good), (good, torch.rand(5, 3)), (good[0], good)):
        with pytest.raises(UsageError):
            posterior_mmd(x, y)
    with pytest.raises(DataError, match="not finite"):
        posterior_mmd(good.clone().fill_(torch.nan), good)
    with pytest.raises(DataError, match="scale above 0"):
        posterior_mmd(good, torch.ones(5, 2))
