import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import draw_bumps

from mfimage.ood.scores import SCORES, Seen, Usual, log_dimension, log_residual
from mfimage.ood.seeing import see, usual_of
from mfimage.ood.statistics import WORDS, bands, cells, summary, zlib_bits


def bump_images(count, seed):
    return torch.from_numpy(draw_bumps(count, seed=seed))[:, None].float() / 255


@pytest.fixture
def seen(model):
    return see(bump_images(50, 3), model, volume=True)


@pytest.fixture
def usual(seen):
    return usual_of(seen)


def test_what_is_seen_is_what_the_model_says(model, seen):
    x = bump_images(50, 3)
    with torch.no_grad():
        off = (x - model.project(x)).double()
        torch.testing.assert_close(seen.squares, off.square().flatten(1).sum(1))
        torch.testing.assert_close(seen.nll + seen.volume, -model.log_prob(x), atol=1e-4, rtol=1e-5)
    assert seen.pixels == 64
    assert see(x, model).volume.isnan().all()


def test_each_score_is_its_formula(seen, usual):
    r = seen.squares / 64
    expected = {
        "reconstruction": r,
        "two-sided": ((r + 1e-6).log() - usual.residual).abs(),
        "latent": seen.nll,
        "density": seen.nll + seen.volume,
        "joint": seen.nll
        + seen.volume
        + seen.squares / (2 * usual.sigma**2)
        + (64 - 2) * math.log(usual.sigma),
        "typicality": (seen.nll - usual.entropy).abs(),
        "complexity": (seen.bits - usual.bits).abs(),
    }
    for name, value in expected.items():
        torch.testing.assert_close(SCORES[name](seen, usual), value)
    assert set(SCORES) - set(expected) == {"neighbours", "local-dimension"}


def test_what_is_usual_are_means_of_familiar_images(seen, usual):
    assert usual.entropy == pytest.approx(float(seen.nll.mean()))
    assert usual.residual == pytest.approx(float(log_residual(seen).mean()))
    assert usual.sigma == pytest.approx(math.sqrt(float(seen.squares.mean()) / 62))
    assert SCORES["typicality"](seen, usual).min() >= 0


def seen_at(u):
    none = torch.zeros(len(u), dtype=torch.float64)
    empty = torch.zeros(len(u), 0)
    return Seen(u.double(), none, 64, none, none, none, empty, empty, empty)


def reference(codes):
    codes = codes.double()
    return Usual(0.0, 0.0, 1.0, 0.0, 0.0, codes, torch.ones(codes.shape[1], dtype=torch.float64))


def test_neighbours_are_the_tenth_nearest_and_never_itself():
    codes = torch.arange(100.0)[:, None]
    found = SCORES["neighbours"](seen_at(torch.tensor([[50.0], [50.25], [-7.0]])), reference(codes))
    # Beside 50: 49 and 51, 48 and 52, …, 45 and 55; beside 50.25 the tenth is 45 … 54.75 away from it.
    torch.testing.assert_close(found, torch.tensor([5.0, 4.75, 16.0], dtype=torch.float64))


@pytest.mark.parametrize("dim", [1, 3])
def test_local_dimension_is_that_of_the_codes(dim):
    generator = torch.Generator().manual_seed(0)
    codes = torch.cat([torch.rand(3000, dim, generator=generator), torch.zeros(3000, 5 - dim)], 1)
    inside = 0.3 + 0.4 * torch.rand(300, dim, generator=generator)
    queries = torch.cat([inside, torch.zeros(300, 5 - dim)], 1)
    found = log_dimension(queries.double(), reference(codes))
    # The mean of 1/m over points is unbiased; its inverse is the pooled estimate.
    assert 1 / float((-found).exp().mean()) == pytest.approx(dim, rel=0.08)


def test_far_codes_stay_finite():
    known = reference(torch.randn(30, 3, generator=torch.Generator().manual_seed(0)))
    for name in ("neighbours", "local-dimension"):
        assert SCORES[name](seen_at(torch.full((2, 3), 1e6)), known).isfinite().all()
        few = replace(known, codes=known.codes[:2])
        assert SCORES[name](seen_at(torch.zeros(2, 3)), few).isfinite().all()


def test_statistics_have_their_words(model):
    x = bump_images(4, 1)
    table = summary(x, x - 0.5, torch.zeros(4), zlib_bits(x))
    assert table.shape == (4, len(WORDS))
    assert table[:, list(WORDS).index("brightness")].numpy() == pytest.approx(x.flatten(1).mean(1).numpy())


def test_bands_tell_across_from_down():
    stripes = torch.zeros(1, 1, 8, 8)
    stripes[..., ::2] = 1  # changes across, never down
    found = bands(stripes)[0]
    assert found[0] == pytest.approx(math.log(1 + 1e-6))
    assert found[1] == pytest.approx(math.log(1e-6))
    torch.testing.assert_close(bands(stripes.mT)[0, :2], found[:2].flip(0))


def test_cells_are_where_the_energy_is():
    x = torch.zeros(1, 1, 8, 8)
    x[..., :4, 4:] = 2
    expected = np.log(np.array([0, 4, 0, 0]) + 1e-6)
    assert cells(x, 2)[0].numpy() == pytest.approx(expected)


def test_zlib_needs_more_for_noise_than_for_nothing():
    noise = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    assert zlib_bits(noise) > 8 > 1 > zlib_bits(torch.zeros(1, 1, 16, 16))
