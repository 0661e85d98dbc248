import io
import math

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from mfimage.errors import UsageError
from mfimage.eval.canvas import spread
from mfimage.experiments import figures
from mfimage.experiments.smoothing import mass_levels, smoothed

NAN = math.nan
BLUE, ORANGE, GREY = (0, 114, 178), (213, 94, 0), (168, 174, 181)


def pixels(png):
    picture = Image.open(io.BytesIO(png))
    picture.load()
    assert picture.format == "PNG"
    return np.asarray(picture.convert("RGB")).astype(int)


def ink(array, colour):
    """Where the picture has nearly this colour."""
    return np.abs(array - np.array(colour)).sum(-1) < 12


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


def everything(generator):
    points, values = sheet(12)
    path = lorenz(200)
    cloud = circle(100, generator)
    normal = torch.randn(300, 2, generator=generator)
    return {
        "plane": (figures.plane(cloud, cloud.sort(0)[0], cloud, None, "M-flow"), (700, 760)),
        "plane in colour": (figures.plane(cloud, None, cloud, cloud[:, 1]), (700, 760)),
        "space": (figures.space([("truth", points, values), ("M-flow", points, None)]), (1440, 645)),
        "mesh": (figures.mesh([(name, points, values) for name in "abcd"]), (1440, 1290)),
        "one mesh": (figures.mesh([("truth", points, None)]), (795, 645)),
        "trajectories": (figures.trajectories([(name, path, 0.9 * path) for name in "abc"]), (1440, 540)),
        "one": (figures.posterior(normal[:, :1], {"A": normal[:, 1:]}, torch.zeros(1)), (1440, 680)),
        "two": (figures.posterior(normal, dict.fromkeys("ABCD", normal), torch.zeros(2)), (1440, 980)),
        "scatter": (figures.scatter(normal[:, 0], normal[:, 1], ("true", "learned"), 0.1), (700, 700)),
    }


def test_every_picture_decodes_at_its_size_and_is_drawn_on_white(generator):
    for name, (png, (width, height)) in everything(generator).items():
        picture = pixels(png)
        assert picture.shape == (height, width, 3), name
        assert picture.std() > 8, name
        assert (picture[[0, -1]][:, [0, -1]] == 255).all(), name
        assert 0.5 < (picture.sum(-1) == 765).mean() < 0.99, name
        assert (np.ptp(picture, axis=-1) > 60).sum() > 500, name  # in colour


def test_pictures_repeat_and_leave_matplotlib_as_it_is(generator):
    cloud = circle(50, generator)
    before = dict(matplotlib.rcParams)
    assert figures.plane(cloud, None, cloud) == figures.plane(cloud, None, cloud)
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_any_tensor_is_drawn(generator, kind):
    cloud = circle(50, generator).to(kind).requires_grad_()
    assert pixels(figures.plane(cloud, cloud, cloud, cloud[:, 0])).std() > 8


def test_samples_stand_where_they_are(generator):
    data = torch.tensor([[-1.0, -1.0], [1.0, 1.0]])
    upper = pixels(figures.plane(data, None, torch.tensor([[0.9, 0.9]]).expand(9, 2)))[:600]
    rows, columns = np.nonzero(ink(upper, BLUE))
    assert rows.mean() < 300
    assert columns.mean() > 400
    curve = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
    line = ink(pixels(figures.plane(data, curve, data))[:600], ORANGE)
    assert np.ptp(np.nonzero(line)[0]) < 8  # level
    assert np.ptp(np.nonzero(line)[1]) > 250


def test_points_beyond_the_axes_do_not_squeeze_the_rest(generator):
    cloud = circle(200, generator)
    wild = torch.cat([cloud, torch.tensor([[1e9, 0.0], [NAN, 0.0], [0.0, math.inf]])])
    tame, odd = (pixels(figures.plane(cloud, None, samples))[:600] for samples in (cloud, wild))
    assert ink(odd, BLUE).sum() > 0.8 * ink(tame, BLUE).sum()
    assert (odd[:60] < 128).sum() > (tame[:60] < 128).sum()  # the title counts them
    points, values = sheet(12)
    for draw in (figures.space, figures.mesh):
        for broken in (points * 1e6, points * NAN):
            assert pixels(draw([("truth", points, values), ("diverged", broken, values * NAN)])).std() > 8
    path = lorenz(100)
    assert pixels(figures.trajectories([("truth", path, path), ("diverged", path, path * NAN)])).std() > 8


def test_panels_share_one_scale_of_colours(generator):
    points, values = sheet(12)
    same = pixels(figures.mesh([("a", points, values), ("a", points, values)]))
    lower = pixels(figures.mesh([("a", points, values), ("a", points, values - 99)]))
    left, right = slice(0, 600), slice(660, 1260)
    np.testing.assert_array_equal(same[:, left], lower[:, left])
    dark = ink(lower[:, right], (68, 1, 84)).sum()
    assert dark > 10 * ink(same[:, right], (68, 1, 84)).sum()


def test_a_mesh_needs_a_square_grid():
    points, values = sheet(4)
    with pytest.raises(UsageError, match="square grid"):
        figures.mesh([("a", points[:-1], values[:-1])])
    stacked = figures.mesh([("a", points.reshape(4, 4, 3), values.reshape(4, 4))])
    assert stacked == figures.mesh([("a", points, values)])


@pytest.mark.parametrize("bad", [torch.zeros(5, 2), torch.zeros(0, 3)])
def test_points_of_another_space_are_an_error(bad):
    with pytest.raises(UsageError, match=r"3 coordinates; got shape"):
        figures.space([("a", bad, None)])


@pytest.mark.parametrize("draw", [figures.space, figures.mesh, figures.trajectories])
def test_nothing_to_draw_is_an_error(draw):
    with pytest.raises(UsageError, match="needs a panel"):
        draw([])


def test_the_posterior_of_a_broken_chain_is_drawn(generator):
    for dim in (1, 2):
        truth = torch.randn(400, dim, generator=generator)
        models = {"stuck": torch.zeros(400, dim), "lost": torch.full((9, dim), NAN), "far": truth * 1e4}
        assert pixels(figures.posterior(truth, models, torch.zeros(dim))).std() > 8
        assert pixels(figures.posterior(truth, {}, torch.zeros(dim))).std() > 5
    with pytest.raises(UsageError, match="one or two parameters; got 3"):
        figures.posterior(torch.zeros(4, 3), {}, torch.zeros(3))
    with pytest.raises(UsageError, match="2 coordinates"):
        figures.posterior(torch.zeros(4, 2), {"a": torch.zeros(4, 1)}, torch.zeros(2))


def test_a_stuck_chain_does_not_flatten_the_truth(generator):
    truth = torch.rand(5000, 1, generator=generator) * 2 - 1
    picture = pixels(figures.posterior(truth, {"stuck": torch.zeros(100, 1)}, torch.zeros(1)))
    filled = ink(picture[:, 100:900], (211, 214, 218))  # the grey, half transparent
    assert np.ptp(np.nonzero(filled)[0]) > 150  # a third of the height, where the spike has fifty times it


def test_the_line_of_equality_spans_the_true_values(generator):
    x = torch.linspace(-10, 10, 400)
    equal = pixels(figures.scatter(x, x, ("true", "learned"), 1.0))
    flat = pixels(figures.scatter(x, 0 * x, ("true", "learned"), NAN))
    assert ink(equal[120:600, 120:], ORANGE).any()
    assert np.ptp(np.nonzero(ink(flat[120:, 120:], ORANGE))[1]) > 450
    broken = torch.cat([x, torch.tensor([NAN, math.inf])])
    assert pixels(figures.scatter(broken, broken, ("true", "learned"), 1.0)).std() > 8


# What lies under the pictures


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


@pytest.mark.parametrize(
    "values", [[], [NAN], [3.0], [3.0, 3.0], [0.0, 1e-20], [1e30, 1e30], [-math.inf, 1.0]]
)
def test_a_range_is_never_empty(values):
    low, high = spread(values, 0.0)
    assert math.isfinite(low)
    assert low < high < math.inf
