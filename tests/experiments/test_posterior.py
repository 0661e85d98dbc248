import math

import pytest
import torch

import mfimage.experiments.posterior as module
from mfimage import Config, build
from mfimage.errors import DataError, ModelError, UsageError
from mfimage.experiments import EXPERIMENTS
from mfimage.experiments.posterior import (
    OBSERVED,
    likelihood,
    log_posterior,
    metropolis,
    posterior_metrics,
    posterior_mmd,
    posterior_samples,
)
from mfimage.experiments.simulators import Surface

MEAN = torch.tensor([1.0, -2.0], dtype=torch.float64)
COVARIANCE = torch.tensor([[1.0, 0.6], [0.6, 0.5]], dtype=torch.float64)
MODEL = {"hidden": 8, "density_steps": 1, "density_width": 8}


@pytest.fixture(scope="module")
def observed():
    """Data of the surface at θ = 0."""
    return Surface().sample(100, torch.Generator().manual_seed(1), torch.zeros(1, 1))


def conditional(kind, data):
    """A model of the surface, untrained, whose density depends on θ."""
    flow = build(Config(dim=2, model=MODEL).model_config((3,), kind, 1)).eval()
    flow.initialise(data.x)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return flow


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


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
    ("start", "steps", "step_size", "burn_in"),
    [
        ((3,), 1, 1.0, 0),
        ((3, 2), 0, 1.0, 0),
        ((3, 2), 1, 0.0, 0),
        ((3, 2), 1, math.nan, 0),
        ((3, 2), 1, 1.0, -1),
    ],
)
def test_misuse(start, steps, step_size, burn_in, generator):
    with pytest.raises(UsageError):
        metropolis(gaussian, torch.zeros(start), steps, step_size, generator, burn_in)


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


@pytest.fixture
def short_chains(monkeypatch):
    monkeypatch.setattr(module, "CHAINS", 40)
    monkeypatch.setattr(module, "BURN_IN", 50)
    monkeypatch.setattr(module, "STEPS", 50)
    monkeypatch.setattr(module, "SETS", 2)


@pytest.mark.parametrize("kind", ["manifold-flow", "encoder-flow", "pie", "ambient-flow", "autoencoder"])
def test_the_likelihood_is_log_prob_up_to_a_constant(observed, kind):
    flow = conditional(kind, observed)
    function, known = likelihood(flow, observed.x)
    first, second = torch.full((100, 1), -0.7), torch.linspace(-1, 1, 100)[:, None]
    found = function(known, second.double()) - function(known, first.double())
    with torch.no_grad():
        expected = flow.log_prob(observed.x, second) - flow.log_prob(observed.x, first)
    assert expected.abs().max() > 0.01
    torch.testing.assert_close(found.float(), expected.float(), atol=1e-4, rtol=1e-3)


def test_the_likelihood_of_a_chart_that_sees_the_parameters_is_log_prob(observed):
    config = Config(dim=2, model={**MODEL, "chart_context": True})
    flow = build(config.model_config((3,), "manifold-flow", 1)).eval()
    flow.chart.initialise(observed.x)
    function, known = likelihood(flow, observed.x)
    theta = torch.linspace(-1, 1, 100)[:, None]
    with torch.no_grad():
        torch.testing.assert_close(function(known, theta.double()), flow.log_prob(observed.x, theta))


def test_the_true_posterior_is_itself(observed, generator, short_chains):
    x = observed.x[:OBSERVED]
    first, second = (posterior_samples(Surface().log_prob, x, Surface(), generator) for _ in range(2))
    assert first.shape == (40 * 50 // module.THIN, 1)
    assert first.abs().max() <= 1
    assert abs(posterior_mmd(first, second)) < 0.05
    prior = Surface().prior(200, generator).double()
    assert posterior_mmd(prior, second) > 0.05


def test_the_posterior_of_a_model_that_knows_the_truth_is_the_true_one(
    observed, generator, short_chains, monkeypatch
):
    model = conditional("manifold-flow", observed)
    monkeypatch.setattr(module, "likelihood", lambda model, x: (Surface().log_prob, x))
    found = posterior_metrics(model, Surface(), observed, generator)
    assert set(found) == {"mmd", "log_posterior", "true_log_posterior"}
    assert abs(found["mmd"]) < 0.05
    assert found["log_posterior"] == pytest.approx(found["true_log_posterior"], abs=0.3)


def test_a_model_without_parameters_has_no_posterior(observed, generator):
    for kind, context in (("manifold-flow", 0), ("linear", 0)):
        flow = build(Config(dim=2, model=MODEL).model_config((3,), kind, context))
        assert posterior_metrics(flow, Surface(), observed, generator) == {}


def test_what_is_measured_of_a_model(observed, generator, short_chains):
    model = conditional("manifold-flow", observed)
    found = EXPERIMENTS["surface"]().measure(model, Surface(), observed, generator)
    assert {"distance", "reconstruction", "mmd", "auc"} <= set(found)
    assert all(type(value) is float for value in found.values())
    with torch.no_grad():
        error = (model.project(observed.x, torch.zeros(100, 1)) - observed.x).norm(dim=1).mean()
    assert found["reconstruction"] == pytest.approx(float(error), rel=1e-5)
    assert 0 <= found["auc"] <= 1
