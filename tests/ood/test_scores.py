import math
from dataclasses import replace

import pytest
import torch
from tiny import bump_images

from mfimage.ood.scores import SCORES, Reference, log_dimension, log_residual, reference_of
from mfimage.ood.statistics import Statistics, statistics_of


@pytest.fixture
def found(model):
    return statistics_of(bump_images(50, 3), model, volume=True)


@pytest.fixture
def usual(found):
    return reference_of(found)


def test_each_score_is_its_formula(found, usual):
    r = found.squares / 64
    expected = {
        "reconstruction": r,
        "two-sided": ((r + 1e-6).log() - usual.residual).abs(),
        "latent": found.nll,
        "density": found.nll + found.volume,
        "joint": found.nll
        + found.volume
        + found.squares / (2 * usual.sigma**2)
        + (64 - 2) * math.log(usual.sigma),
        "typicality": (found.nll - usual.entropy).abs(),
        "complexity": (found.bits - usual.bits).abs(),
    }
    for name, value in expected.items():
        torch.testing.assert_close(SCORES[name](found, usual), value)
    assert set(SCORES) - set(expected) == {"neighbours", "local-dimension"}


def test_what_is_usual_are_means_of_familiar_images(found, usual):
    assert usual.entropy == pytest.approx(float(found.nll.mean()))
    assert usual.residual == pytest.approx(float(log_residual(found).mean()))
    assert usual.sigma == pytest.approx(math.sqrt(float(found.squares.mean()) / 62))
    assert SCORES["typicality"](found, usual).min() >= 0


def at_codes(u):
    none = torch.zeros(len(u), dtype=torch.float64)
    empty = torch.zeros(len(u), 0)
    return Statistics(u.double(), none, 64, none, none, none, *[empty] * 3, none == 0)


def reference(codes):
    codes = codes.double()
    return Reference(0.0, 0.0, 1.0, 0.0, 0.0, codes, torch.ones(codes.shape[1], dtype=torch.float64))


def test_neighbours_are_the_tenth_nearest_and_never_itself():
    codes = torch.arange(100.0)[:, None]
    found = SCORES["neighbours"](at_codes(torch.tensor([[50.0], [50.25], [-7.0]])), reference(codes))
    # Beside 50: 49 and 51, 48 and 52, …, 45 and 55; beside 50.25 the tenth is 45 … 54.75 away from it.
    torch.testing.assert_close(found, torch.tensor([5.0, 4.75, 16.0], dtype=torch.float64))


@pytest.mark.parametrize("dim", [1, 3])
def test_local_dimension_is_that_of_the_codes(dim):
    generator = torch.Generator().manual_seed(0)
    codes = torch.cat([torch.rand(3000, dim, generator=generator), torch.zeros(3000, 5 - dim)], 1)
    inside = 0.3 + 0.4 * torch.rand(300, dim, generator=generator)
    queries = torch.cat([inside, torch.zeros(300, 5 - dim)], 1)
    found = log_dimension(queries.double(), codes.double(), torch.ones(5, dtype=torch.float64))
    # The mean of 1/m over points is unbiased; its inverse is the pooled estimate.
    assert 1 / float((-found).exp().mean()) == pytest.approx(dim, rel=0.08)


def test_far_codes_stay_finite():
    known = reference(torch.randn(30, 3, generator=torch.Generator().manual_seed(0)))
    for name in ("neighbours", "local-dimension"):
        assert SCORES[name](at_codes(torch.full((2, 3), 1e6)), known).isfinite().all()
        few = replace(known, codes=known.codes[:2])
        assert SCORES[name](at_codes(torch.zeros(2, 3)), few).isfinite().all()
