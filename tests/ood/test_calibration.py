"""The density of `auto`: against a mixture that is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from mfimage.ood import calibration
from mfimage.ood.calibration import fit_mixture

SIZE = 7
TRUTH = MixtureSameFamily(
    Categorical(torch.tensor([0.3, 0.7], dtype=torch.float64)),
    MultivariateNormal(
        torch.stack([torch.zeros(SIZE), torch.full((SIZE,), 4.0)]).double(),
        torch.stack([torch.eye(SIZE), torch.eye(SIZE) + 0.5]).double(),
    ),
)


def draw(count: int, seed: int) -> Tensor:
    """Samples of the truth."""
    torch.manual_seed(seed)
    return TRUTH.sample((count,))


@pytest.mark.parametrize(("part", "parts"), [(20_000, 1), (1000, 3)])
def test_a_fit_comes_near_the_entropy_of_a_known_mixture(
    part: int, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole, and as the mean of the mixtures of three parts, in units of the features."""
    monkeypatch.setattr(calibration, "_PART", part)
    found = fit_mixture(draw(3000, 0))
    assert len(found.weights) == 2 * parts
    assert found.weights.sum() == pytest.approx(1)
    fresh = draw(4000, 1)
    truth = float(-TRUTH.log_prob(fresh).mean())
    density = float(found.nll(fresh).mean() + found.scale.log().sum())
    assert truth - 0.02 < density < truth + 0.05
    one = MultivariateNormal(fresh.mean(0), fresh.T.cov())
    assert density < float(-one.log_prob(fresh).mean()) - 0.5


def test_few_examples_make_one_component_and_numbers_stay_finite() -> None:
    """Two examples are enough for a density, of any input."""
    for count in (2, 30):
        found = fit_mixture(draw(count, 0))
        assert len(found.weights) == 1
        far = torch.tensor([[math.inf] * SIZE, [math.nan] * SIZE, [-1e300] * SIZE])
        assert found.nll(far).isfinite().all()
