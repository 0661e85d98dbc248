import math

import numpy as np
import pytest
import torch
from scipy import stats
from tiny import bump_images

from mfimage.ood.statistics import (
    WORDS,
    anderson_darling,
    bands,
    cells,
    statistics_of,
    summary,
    zlib_bits,
)


def test_statistics_are_what_the_model_says(model):
    x = bump_images(50, 3)
    found = statistics_of(x, model, volume=True)
    with torch.no_grad():
        off = (x - model.project(x)).double()
        torch.testing.assert_close(found.squares, off.square().flatten(1).sum(1))
        torch.testing.assert_close(found.nll + found.volume, -model.log_prob(x), atol=1e-4, rtol=1e-5)
    assert found.pixels == 64
    assert statistics_of(x, model).volume.isnan().all()


def test_statistics_have_their_words(model):
    x = bump_images(4, 1)
    table = summary(x, x - 0.5, torch.zeros(4), zlib_bits(x), torch.randn(4, 3).double())
    assert table.shape == (4, len(WORDS))
    assert table[:, list(WORDS).index("brightness")].numpy() == pytest.approx(x.flatten(1).mean(1).numpy())


def test_codes_of_the_density_fit_it_and_others_do_not():
    z = torch.randn(50, 64, generator=torch.Generator().manual_seed(0)).double()
    for row, found in zip(z, anderson_darling(z), strict=True):
        known = -stats.goodness_of_fit(
            stats.norm, row.numpy(), known_params={"loc": 0, "scale": 1}, statistic="ad", n_mc_samples=1
        ).statistic
        assert found.exp() == pytest.approx(-known, abs=1e-5)
    assert anderson_darling(2 * z).min() > anderson_darling(z).median()
    assert anderson_darling(z / 2).min() > anderson_darling(z).median()
    assert anderson_darling(torch.tensor([[1e6, -1e6]]).double()).isfinite().all()


def test_energies_fall_with_the_contrast(model):
    x = bump_images(4, 1)
    change = statistics_of(0.5 + 0.5 * (x - 0.5), model).energies - statistics_of(x, model).energies
    assert (change[:, 2:] < 0.01).all()
    torch.testing.assert_close(change[:, 2], torch.full((4,), math.log(0.25)).double(), atol=0.05, rtol=0)


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
