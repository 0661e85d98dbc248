"""What `auto` knows of familiar images: densities, tails, and two ways to be strange."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from mfimage.ood import evidence
from mfimage.ood.evidence import combined, fit_evidence, fit_mixture, fit_tail
from mfimage.ood.statistics import Statistics

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
    monkeypatch.setattr(evidence, "_PART", part)
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


@pytest.mark.parametrize("count", [8, 40, 20_000])
def test_a_tail_gives_the_log_of_the_share_above(count: int) -> None:
    """Of many exponential values it is the values themselves, far beyond all that were seen."""
    generator = torch.Generator().manual_seed(0)
    values = torch.distributions.Exponential(torch.tensor([1.0, 0.1])).icdf(
        torch.rand(count, 2, generator=generator)
    )
    found = fit_tail(values)
    at = torch.tensor([[0.05, 0.5], [1.0, 10.0], [4.0, 40.0], [20.0, 200.0]]).double()
    if count == 20_000:
        torch.testing.assert_close(found.surprise(at), at[:, :1].expand(-1, 2), atol=0.02, rtol=0.06)
    assert (found.surprise(at).diff(dim=0) > 0).all()
    assert (found.surprise(torch.full((1, 2), -9.0)) == 0).all()


def test_a_tail_of_equal_values_knows_what_is_above() -> None:
    """Such as the bits of black images."""
    found = fit_tail(torch.ones(100, 1)).surprise(torch.tensor([[0.0], [1.0], [2.0]]))
    assert found.isfinite().all()
    assert found[0] == 0
    assert found[2] > 100


def test_either_way_is_strange_by_its_share_of_false_alarms() -> None:
    """Four fifths of them are for what is far out."""
    found = combined(torch.tensor([[3.0, 0.0], [0.0, 3.0], [2.0, 3.0]]).double())
    expected = [3 + math.log(0.8), 3 + math.log(0.2), 2 + math.log(0.8)]
    assert found.tolist() == pytest.approx(expected)
    p = torch.rand(100_000, 2, generator=torch.Generator().manual_seed(0)).double()
    scores = combined(-p.log())
    for alpha in (0.05, 0.01):
        assert float((scores >= -math.log(alpha)).double().mean()) == pytest.approx(alpha, rel=0.1)


def made(count: int, seed: int, fallen: float = 0.0, out: float = 0.0) -> Statistics:
    """Statistics without a model: energies with a common part, which fall; a named one that goes out."""
    generator = torch.Generator().manual_seed(seed)
    values, energies = (torch.randn(count, k, generator=generator).double() for k in (8, 5))
    values[:, 3] += out
    energies = energies @ torch.diag(torch.tensor([1.0, 1, 3, 3, 3]).double()) + 2 * values[:, :1] - fallen
    none, empty = torch.zeros(count).double(), torch.zeros(count, 0).double()
    return Statistics(empty, none, 64, none, none, none, values, empty, energies, none == 0)


def test_far_out_and_ordinary_are_told_apart() -> None:
    """−log p of familiar images is exponential; either way is found, and is not taken for the other."""
    known = fit_evidence(made(20_000, 0))
    familiar, fallen, out = (known.surprises(made(4000, 1, *how)) for how in ((), (5.0,), (0.0, 6.0)))
    for way in familiar.T:
        for alpha in (0.5, 0.1, 0.02):
            share = float((way > -math.log(alpha)).double().mean())
            assert share == pytest.approx(alpha, rel=0.3)
    assert min(fallen[:, 1].median(), out[:, 0].median()) > 4
    torch.testing.assert_close(fallen[:, 0], familiar[:, 0])
    torch.testing.assert_close(out[:, 1], familiar[:, 1])
    # All energies but the two that vary least tell little of a common fall.
    assert known.weights.abs().argsort(descending=True)[:2].sort().values.tolist() == [0, 1]
