"""The joint score of a simulator, as an objective and in training."""

import math
from dataclasses import replace

import pytest
import torch
from laws import COUNT, DIM, PARAMETERS, agrees_with_finite_differences, batch, flow, pie
from nflows.transforms import Transform
from tiny import VECTORS, learn
from torch import nn

from mfimage import losses
from mfimage.errors import UsageError
from mfimage.models import Density
from mfimage.pretrained import weights_hash

CIRCLE = replace(VECTORS, noise=0.05)
DOUBLE = pytest.mark.usefixtures("double")


class Location(Transform):
    """u ~ N(W θ, 1)."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x, context=None):
        return x - context @ self.weight.T, x.new_zeros(len(x))


@DOUBLE
def test_scandal_of_a_normal_location_family_by_hand():
    weight = torch.randn(DIM, PARAMETERS)
    density = Density(Location(weight), DIM)
    u, theta, score = torch.randn(COUNT, DIM), torch.randn(COUNT, PARAMETERS), torch.randn(COUNT, PARAMETERS)
    off = u - theta @ weight.T
    likelihood = (0.5 * off.square().sum(1) + DIM / 2 * math.log(2 * math.pi)).mean()
    error = (off @ weight - score).square().sum(1).mean()
    torch.testing.assert_close(losses.scandal(density, u, theta, score, 2.0), likelihood + 2 * error)
    exact = losses.scandal(density, u, theta, off @ weight, 2.0)
    torch.testing.assert_close(exact, likelihood)
    assert not theta.requires_grad


@DOUBLE
def test_scandal_gradients_are_those_of_finite_differences():
    """Twice through the splines."""
    density = flow(PARAMETERS).density
    u, theta, score = torch.randn(COUNT, DIM), torch.randn(COUNT, PARAMETERS), torch.randn(COUNT, PARAMETERS)
    seen = agrees_with_finite_differences(lambda: losses.scandal(density, u, theta, score, 2.0), density)
    assert seen > 8


@DOUBLE
@pytest.mark.parametrize("make", [flow, pie])
def test_scandal_takes_whole_models_too(make):
    model, (x, theta) = make(PARAMETERS), batch(PARAMETERS)
    score, h = torch.randn(COUNT, PARAMETERS), 1e-5
    found = []
    for i in range(PARAMETERS):
        step = h * torch.eye(PARAMETERS)[i]
        found.append((model.log_prob(x, theta + step) - model.log_prob(x, theta - step)) / (2 * h))
    error = (torch.stack(found, 1) - score).square().sum(1).mean()
    expected = -model.log_prob(x, theta).mean() + 2 * error
    value = losses.scandal(model, x, theta, score, 2.0)
    torch.testing.assert_close(value, expected, atol=1e-6, rtol=1e-6)
    value.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert sum(p.grad is not None and bool(p.grad.any()) for p in model.chart.parameters()) > 3


@DOUBLE
def test_scandal_works_where_gradients_are_off():
    density = flow(PARAMETERS).density
    arguments = torch.randn(COUNT, DIM), torch.randn(COUNT, PARAMETERS), torch.randn(COUNT, PARAMETERS), 2.0
    with torch.no_grad():
        off = losses.scandal(density, *arguments)
    torch.testing.assert_close(off, losses.scandal(density, *arguments))


def test_scandal_changes_the_density_phase_where_there_are_scores(scored, tmp_path):
    settings = replace(CIRCLE, every=6)
    plain = learn(scored, tmp_path / "plain", settings)
    with_score = learn(scored, tmp_path / "scored", replace(settings, scandal=2.0))
    assert weights_hash(plain.chart) == weights_hash(with_score.chart)
    assert weights_hash(plain.density) != weights_hash(with_score.density)


def test_scandal_learns_the_score(scored, tmp_path):
    settings = replace(CIRCLE, steps=0, density_steps=100, every=100, density_lr=1e-2, warmup=10)
    errors = []
    for weight in (0.0, 10.0):
        model = learn(scored, tmp_path / f"{weight}", replace(settings, scandal=weight))
        theta = scored.theta.clone().requires_grad_()
        codes = model.encode(scored.x).detach()
        (score,) = torch.autograd.grad(model.density.log_prob(codes, theta).sum(), theta)
        errors.append(float((score - scored.score).square().mean()))
    assert errors[1] < 0.7 * errors[0]
    assert errors[1] < 0.5  # that of no score at all is 1


@pytest.mark.parametrize("without", [{"score": None}, {"score": None, "theta": None}])
def test_scandal_without_scores_is_refused(scored, tmp_path, without):
    with pytest.raises(UsageError, match="joint score of a simulator"):
        learn(replace(scored, **without), tmp_path / "run", replace(CIRCLE, scandal=2.0))


@pytest.mark.parametrize("algorithm", ["m-flow-a", "denoising", "pca"])
def test_an_objective_that_does_not_know_the_score_says_so(scored, tmp_path, algorithm):
    with pytest.raises(UsageError, match="does not know the score"):
        learn(scored, tmp_path / "run", replace(CIRCLE, scandal=2.0), algorithm)
