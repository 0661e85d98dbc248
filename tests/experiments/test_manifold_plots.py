"""Plots: points and regions stand where they are, and what lies outside is counted."""

import math
import re

import numpy as np
import pytest
import torch
from pages import Drawing

from mfimage.errors import UsageError
from mfimage.eval.figures import plot
from mfimage.experiments.manifold_plots import (
    mass_levels,
    plot_plane,
    plot_posterior,
    plot_scatter,
    plot_space,
    plot_trajectories,
    smoothed,
)

NAN = math.nan


def drawings(panels):
    return [Drawing(svg) for _, svg, _ in plot("", panels).panels]


def circle(n, generator, noise=0.01):
    angles = math.pi / 2 + torch.randn(n, generator=generator)
    radius = 1 + noise * torch.randn(n, generator=generator)
    return torch.stack([radius * angles.cos(), radius * angles.sin()], 1)


def sheet(k):
    u = torch.cartesian_prod(torch.linspace(-1, 1, k), torch.linspace(-1, 1, k))
    return torch.cat([u, u[:, :1] * u[:, 1:]], 1), -u.square().sum(1)


def lorenz(n):
    x, path = torch.tensor([1.0, 1.0, 25.0]), []
    for _ in range(n):
        a, b, c = x.unbind()
        x = x + 0.01 * torch.stack([10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c])
        path.append(x)
    return torch.stack(path)


def inked(layer):
    return int((layer[..., 3] > 0).sum())


def test_points_and_curves_stand_where_they_are():
    data = torch.tensor([[-1.0, -1.0], [1.0, 1.0]])
    curve = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
    (drawn,) = drawings(plot_plane(data, curve, torch.tensor([[0.5, 1.0]]).expand(9, 2)))
    ((left, y), (right, end)), *_ = drawn.paths("s1")
    ticks = drawn.ticks("x")
    assert (left, right) == pytest.approx((ticks["−1"], ticks["1"]), abs=0.1)
    assert y == end == pytest.approx(drawn.ticks("y")["0"], abs=6)
    (whole, _), (sample, _) = drawn.layers()  # of the data and of the samples
    x, y, width, height = sample
    assert x + width / 2 == pytest.approx(left + 0.75 * (right - left), abs=1)
    assert y + height / 2 == pytest.approx(end - 0.5 * (right - left), abs=1)
    assert width < 12
    assert whole[0] + whole[2] / 2 == pytest.approx((left + right) / 2, abs=1)


def test_points_beyond_the_axes_are_counted_and_do_not_squeeze_the_rest(generator):
    cloud = circle(200, generator)
    wild = torch.cat([cloud, torch.tensor([[1e9, 0.0], [NAN, 0.0], [0.0, math.inf]])])
    tame, odd = plot_plane(cloud, None, cloud), plot_plane(cloud, None, wild)
    assert list(odd) == ["(3 of 203 outside)"]
    assert [*map(inked, (layer for _, layer in drawings(odd)[0].layers()))] == [
        *map(inked, (layer for _, layer in drawings(tame)[0].layers()))
    ]
    points, values = sheet(12)
    for broken in (points * 1e6, points * NAN):
        panels = plot_space([("truth", points, values), ("far", broken, values * NAN)])
        assert re.fullmatch(r"far \(14\d of 144 outside\)", [*panels][1])
        assert len(drawings(panels)[0].layers()) == 1
    path = lorenz(100)
    lost = plot_trajectories([("truth", path, path), ("lost", path, path * NAN)])
    assert [*lost] == ["truth", "lost (100 of 100 outside)"]
    assert [len(d.root.findall(".//path")) > 20 for d in drawings(lost)] == [True, True]


def test_panels_share_one_scale_of_colours():
    points, values = sheet(12)
    same = drawings(plot_space([("a", points, values), ("b", points, values), ("c", points, None)]))
    lower = plot_space([("a", points, values), ("b", points, values - 99)])
    layers = [d.layers()[0][1] for d in [*same, *drawings(lower)]]
    np.testing.assert_array_equal(layers[0], layers[1])
    np.testing.assert_array_equal(layers[0], layers[3])
    assert len(np.unique(layers[0].reshape(-1, 4), axis=0)) > 50
    assert len(np.unique(layers[4][layers[4][..., 3] == 255], axis=0)) < 10  # all below the scale
    (key,) = plot("", lower).keys
    assert key.label == "log-density, nats: −2.00 to −0.0165"
    assert key.shape == "scale"


def test_any_tensor_is_drawn_and_drawings_repeat(generator):
    for kind in (torch.float16, torch.bfloat16, torch.float64):
        cloud = circle(50, generator).to(kind).requires_grad_()
        first, second = (plot("", plot_plane(cloud, cloud, cloud)) for _ in range(2))
        assert first == second


def test_what_cannot_be_drawn_is_an_error():
    for bad in (torch.zeros(5, 2), torch.zeros(0, 3)):
        with pytest.raises(UsageError, match=r"3 coordinates; got shape"):
            plot_space([("a", bad, None)])
    for draw in (plot_space, plot_trajectories):
        with pytest.raises(UsageError, match="needs a panel"):
            draw([])


def test_the_line_of_equality_spans_the_true_values():
    x = torch.linspace(-10, 10, 400)
    broken = torch.cat([x, torch.tensor([NAN, math.inf])])
    panels = plot_scatter(broken, 0 * broken, ("true", "learned"), -0.5)
    assert [*panels] == ["correlation −0.5000 (2 not finite, left out)"]
    (drawn,) = drawings(panels)
    ((x0, _), (x1, _)), *_ = drawn.paths("s1")
    assert {"true", "learned"} <= drawn.texts()
    assert (x0, x1) == pytest.approx((drawn.ticks("x")["−10"], drawn.ticks("x")["10"]), abs=0.1)


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
