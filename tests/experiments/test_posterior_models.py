"""Posteriors of models, beside those of their simulator."""

import pytest
import torch
from tiny import VECTORS

import mfimage.experiments.posterior as module
from mfimage import build
from mfimage.experiments import EXPERIMENTS
from mfimage.experiments.posterior import likelihood, posterior_metrics, posterior_mmd, posterior_samples
from mfimage.experiments.simulators import Surface


@pytest.fixture(scope="module")
def observed():
    """Data of the surface at θ = 0."""
    return Surface().sample(100, torch.Generator().manual_seed(1), torch.zeros(1, 1))


@pytest.fixture
def short_chains(monkeypatch):
    for name, value in {"CHAINS": 40, "BURN_IN": 50, "STEPS": 50, "SETS": 2}.items():
        monkeypatch.setattr(module, name, value)


def untrained(kind, parameters=1, **settings):
    config = VECTORS.with_(dim=2, model=VECTORS.model | settings)
    return build(config.model_config((3,), kind, parameters)).eval()


def conditional(kind, data):
    """A model of the surface, untrained, whose density depends on θ."""
    flow = untrained(kind)
    flow.initialise(data.x)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return flow


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
    flow = untrained("manifold-flow", chart_context=True)
    flow.chart.initialise(observed.x)
    function, known = likelihood(flow, observed.x)
    theta = torch.linspace(-1, 1, 100)[:, None]
    with torch.no_grad():
        torch.testing.assert_close(function(known, theta.double()), flow.log_prob(observed.x, theta))


def test_the_true_posterior_is_itself(observed, generator, short_chains):
    x = observed.x[: module.OBSERVED]
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
    for kind in ("manifold-flow", "linear"):
        assert posterior_metrics(untrained(kind, 0), Surface(), observed, generator) == {}


def test_what_is_measured_of_a_model(observed, generator, short_chains):
    model = conditional("manifold-flow", observed)
    found = EXPERIMENTS["surface"]().measure(model, Surface(), observed, generator)
    assert {"distance", "reconstruction", "mmd", "auc"} <= set(found)
    assert all(type(value) is float for value in found.values())
    with torch.no_grad():
        error = (model.project(observed.x, torch.zeros(100, 1)) - observed.x).norm(dim=1).mean()
    assert found["reconstruction"] == pytest.approx(float(error), rel=1e-5)
    assert 0 <= found["auc"] <= 1
