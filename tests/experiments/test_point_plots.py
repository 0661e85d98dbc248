"""Plots of points: they stand where they are, and what lies outside is counted."""

import math
import re

import numpy as np
import pytest
import torch
from pages import Drawing

from mfimage.errors import UsageError
from mfimage.eval.figures import plot
from mfimage.experiments import point_plots

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
    (drawn,) = drawings(point_plots.plot_plane(data, curve, torch.tensor([[0.5, 1.0]]).expand(9, 2)))
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
    tame, odd = point_plots.plot_plane(cloud, None, cloud), point_plots.plot_plane(cloud, None, wild)
    assert list(odd) == ["(3 of 203 outside)"]
    assert [*map(inked, (layer for _, layer in drawings(odd)[0].layers()))] == [
        *map(inked, (layer for _, layer in drawings(tame)[0].layers()))
    ]
    points, values = sheet(12)
    for broken in (points * 1e6, points * NAN):
        panels = point_plots.plot_space([("truth", points, values), ("far", broken, values * NAN)])
        assert re.fullmatch(r"far \(14\d of 144 outside\)", [*panels][1])
        assert len(drawings(panels)[0].layers()) == 1
    path = lorenz(100)
    lost = point_plots.plot_trajectories([("truth", path, path), ("lost", path, path * NAN)])
    assert [*lost] == ["truth", "lost (100 of 100 outside)"]
    assert [len(d.root.findall(".//path")) > 20 for d in drawings(lost)] == [True, True]


def test_panels_share_one_scale_of_colours():
    points, values = sheet(12)
    same = drawings(
        point_plots.plot_space([("a", points, values), ("b", points, values), ("c", points, None)])
    )
    lower = point_plots.plot_space([("a", points, values), ("b", points, values - 99)])
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
        first, second = (plot("", point_plots.plot_plane(cloud, cloud, cloud)) for _ in range(2))
        assert first == second


def test_what_cannot_be_drawn_is_an_error():
    for bad in (torch.zeros(5, 2), torch.zeros(0, 3)):
        with pytest.raises(UsageError, match=r"3 coordinates; got shape"):
            point_plots.plot_space([("a", bad, None)])
    for draw in (point_plots.plot_space, point_plots.plot_trajectories):
        with pytest.raises(UsageError, match="needs a panel"):
            draw([])


def test_the_line_of_equality_spans_the_true_values():
    x = torch.linspace(-10, 10, 400)
    broken = torch.cat([x, torch.tensor([NAN, math.inf])])
    panels = point_plots.plot_scatter(broken, 0 * broken, ("true", "learned"), -0.5)
    assert [*panels] == ["correlation −0.5000 (2 not finite, left out)"]
    (drawn,) = drawings(panels)
    ((x0, _), (x1, _)), *_ = drawn.paths("s1")
    assert {"true", "learned"} <= drawn.texts()
    assert (x0, x1) == pytest.approx((drawn.ticks("x")["−10"], drawn.ticks("x")["10"]), abs=0.1)
