"""Plots of posteriors: where regions stand; the densities of samples below them."""

import math

import numpy as np
import pytest
import torch
from pages import Drawing

from mfimage.errors import UsageError
from mfimage.eval.figures import plot
from mfimage.experiments.posterior_plots import mass_levels, plot_posterior, smoothed

NAN = math.nan


def drawings(panels):
    return [Drawing(svg) for _, svg, _ in plot("", panels).panels]


def test_posteriors_of_two_parameters_stand_around_the_true_ones(generator):
    truth = torch.randn(3000, 2, generator=generator)
    panels = plot_posterior(truth, {"near": truth, "right": truth + torch.tensor([3.0, 0.0])}, torch.zeros(2))
    near, right = drawings(panels)
    assert [*panels] == ["near", "right"]
    assert [key.label for key in plot("", panels).keys] == ["truth, 68 % and 95 %", "model", "true θ"]
    x, y = near.paths("s1")[0].mean(0)
    assert x == pytest.approx(near.ticks("x")["0"], abs=1)
    assert y == pytest.approx(near.ticks("y")["0"], abs=6)
    middles = [np.concatenate(d.paths("s0")).mean(0) for d in (near, right)]
    assert middles[0] == pytest.approx((x, y), abs=6)
    unit = (near.ticks("x")["2"] - near.ticks("x")["−2"]) / 4
    assert middles[1][0] - middles[0][0] == pytest.approx(3 * unit, abs=8)


def test_the_posterior_of_a_broken_chain_is_drawn(generator):
    for dim in (1, 2):
        truth = torch.randn(400, dim, generator=generator)
        models = {"stuck": torch.zeros(400, dim), "lost": torch.full((9, dim), NAN), "far": truth * 1e4}
        panels = plot_posterior(truth, models, torch.zeros(dim))
        assert len(drawings(panels)) == (1 if dim == 1 else 3)
        told = [key.label for key in plot("", panels).keys] if dim == 1 else [*panels]
        assert "lost (9 of 9 not finite)" in told
        assert len(drawings(plot_posterior(truth, {}, torch.zeros(dim)))) == 1
    with pytest.raises(UsageError, match="one or two parameters; got 3"):
        plot_posterior(torch.zeros(4, 3), {}, torch.zeros(3))
    with pytest.raises(UsageError, match="2 coordinates"):
        plot_posterior(torch.zeros(4, 2), {"a": torch.zeros(4, 1)}, torch.zeros(2))


def test_a_stuck_chain_does_not_flatten_the_truth(generator):
    truth = torch.rand(5000, 1, generator=generator) * 2 - 1
    (drawn,) = drawings(plot_posterior(truth, {"stuck": torch.zeros(100, 1)}, torch.zeros(1)))
    (filled,) = drawn.paths("truth", "fill")
    assert np.ptp(filled[:, 1]) > 0.25 * drawn.size[1]  # where the spike has fifty times its height


def test_a_smoothed_density_is_a_density(generator):
    box = np.array([[-1.0, -2.0], [1.0, 2.0]])
    samples = torch.rand(20_000, 2, generator=generator).numpy() * np.array([2.0, 4.0]) - np.array([1.0, 2.0])
    density = smoothed(samples, box, 40)
    assert density.sum() * (2 / 40) * (4 / 40) == pytest.approx(1)
    assert density == pytest.approx(np.full((40, 40), 1 / 8), rel=0.2)  # also at the limits
    assert not smoothed(samples[:0], box, 40).any()


def test_a_smoothed_normal_density_is_normal(generator):
    samples = torch.randn(50_000, 1, generator=generator, dtype=torch.float64).numpy()
    x = np.linspace(-4, 4, 201)[1::2]
    density = smoothed(samples, np.array([[-4.0], [4.0]]), 100)
    assert density == pytest.approx(np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi), abs=0.02)


def test_regions_hold_their_mass():
    x = np.linspace(-5, 5, 401)
    density = np.exp(-(x[:, None] ** 2 + x[None] ** 2) / 2)
    outer, inner = mass_levels(density, (0.95, 0.68))
    assert outer == pytest.approx(0.05, rel=0.02)  # exp(−r²/2) is the mass outside of r
    assert inner == pytest.approx(0.32, rel=0.02)
    assert mass_levels(0 * density, (0.95, 0.68)) == []
    assert len(mass_levels(np.ones((4, 4)), (0.95, 0.68))) == 1
