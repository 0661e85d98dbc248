"""Plots of what was learned: points in the plane and in space, trajectories, densities and posteriors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mfimage.errors import UsageError
from mfimage.eval.figures import INK, LINE, PANEL, QUIET, SERIES, TEXT, TRUTH, canvas, furnish, spread

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
Panels = Mapping[str, "Figure"]  # by the name above each
DOTS, PALE = "#3a8fd9", "#949ba3"  # of clouds of points, which are the same in light and in dark


def float64_of(values: Tensor) -> Array:
    """Bring a tensor of any device and type to a float64 array."""
    return values.detach().cpu().double().numpy()


def points_of(values: Tensor, dim: int) -> Array:
    """Bring points (..., dim) to a float64 array (n, dim)."""
    if not values.numel() or values.shape[-1] != dim:
        raise UsageError(f"this figure shows points of {dim} coordinates; got shape {tuple(values.shape)}")
    return float64_of(values).reshape(-1, dim)


def _box(cloud: Array, margin: float) -> Array:
    """Low and high (2, dim) of the axes for points, some share of their range wider on either side."""
    low, high = np.array([spread(axis) for axis in cloud.T]).T
    wider = margin * (high - low)
    return np.stack([low - wider, high + wider])


def _inside(cloud: Array, box: Array) -> NDArray[np.bool_]:
    """Tell which points lie in the box; NaN does not."""
    return ((cloud >= box[0]) & (cloud <= box[1])).all(1)


def _counted(name: str, shown: NDArray[np.bool_]) -> str:
    """Say in a name how many points lie outside of the picture."""
    lost = int((~shown).sum())
    return f"{name} ({lost:,} of {len(shown):,} outside)".strip() if lost else name


def _look(colours: Array | None, scale: Array | None = None) -> dict[str, Any]:
    """How a cloud is drawn: in one colour, or by values on a scale without the outermost 2 % of its range."""
    look: dict[str, Any] = {"linewidths": 0, "rasterized": True}
    if colours is None:
        return {**look, "color": DOTS}
    import matplotlib
    from matplotlib.colors import LinearSegmentedColormap

    steps = matplotlib.colormaps["viridis"](np.linspace(0.3, 0.92, 9))  # what is seen on white and on black
    low, high = spread(colours if scale is None else scale, 0.02)
    cmap = LinearSegmentedColormap.from_list("seen", steps)
    return {**look, "c": colours, "cmap": cmap, "vmin": low, "vmax": high}


def plot_plane(data: Tensor, curve: Tensor | None, samples: Tensor) -> Panels:
    """Draw data (n, 2), samples (n, 2), and the learned manifold, (m, 2) in order along it, in the plane.

    The data alone set the axes; the name of the panel counts samples that lie beyond them.
    """
    truth, made = points_of(data, 2), points_of(samples, 2)
    box = _box(truth, 0.25)
    seen = _inside(made, box)
    figure = canvas(PANEL, PANEL)
    axes = figure.add_subplot()
    axes.scatter(truth[:, 0], truth[:, 1], s=7, label="data", **_look(None) | {"color": PALE})
    axes.scatter(made[seen, 0], made[seen, 1], s=7, label="samples", zorder=3, **_look(None))
    if curve is not None:
        axes.plot(*points_of(curve, 2).T, color=SERIES[1], lw=1.4, label="learned manifold", zorder=4)
    axes.set(xlim=box[:, 0], ylim=box[:, 1], aspect="equal")
    furnish(axes, "x₀", "x₁")
    return {_counted("", seen): figure}


def _space(box: Array, eye: tuple[float, float]) -> tuple[Figure, Any]:
    """Make axes in space, seen from an elevation and an azimuth in degrees."""
    from matplotlib.ticker import MaxNLocator

    figure = canvas(PANEL, 290)
    figure.set_layout_engine("none")
    axes: Any = figure.add_axes((0, -0.02, 0.98, 1.08), projection="3d")
    axes.set(xlim=box[:, 0], ylim=box[:, 1], zlim=box[:, 2])
    axes.view_init(*eye)
    axes.set_box_aspect((1, 1, 0.9), zoom=0.94)
    for name, axis in zip("₀₁₂", (axes.xaxis, axes.yaxis, axes.zaxis), strict=True):
        axis.set_label_text(f"x{name}", fontsize=TEXT, color=QUIET)
        axis.labelpad = 1
        axis.set_major_locator(MaxNLocator(4))
        axis.set_pane_color(INK, 0.03)
        axis.line.set_color(QUIET)
        axis._axinfo["grid"].update(color=LINE, linewidth=0.7)
    axes.tick_params(labelsize=TEXT - 2, pad=-1, color=QUIET, labelcolor=QUIET)
    return figure, axes


def plot_space(panels: Sequence[tuple[str, Tensor, Tensor | None]]) -> Panels:
    """Draw clouds in space side by side: a name, points (n, 3) and what colours them, (n,) or None, of each.

    The first sets the axes, the first that has colours their scale; points beyond are left out and counted.
    """
    clouds = [(name, points_of(x, 3), None if c is None else float64_of(c).ravel()) for name, x, c in panels]
    box, figures = _first_box([cloud for _, cloud, _ in clouds]), {}
    scale = next((colours for _, _, colours in clouds if colours is not None), None)
    for name, cloud, colours in clouds:
        seen = _inside(cloud, box)
        look = _look(None if colours is None else colours[seen], scale)
        label = None if colours is None else "log-density, nats"
        figure, axes = _space(box, (25.0, -60.0))
        axes.scatter(*cloud[seen].T, s=4, depthshade=False, label=label, **look)
        figures[_counted(name, seen)] = figure
    return figures


def plot_trajectories(panels: Sequence[tuple[str, Tensor, Tensor]]) -> Panels:
    """Draw paths in space side by side: a name, a path (n, 3) in order of time and its projection of each.

    The first path sets the axes; what lies beyond is left out, and counted in the name.
    """
    clouds = [(name, points_of(path, 3), points_of(to, 3)) for name, path, to in panels]
    box, figures = _first_box([path for _, path, _ in clouds]), {}
    for name, path, to in clouds:
        seen = _inside(to, box)
        figure, axes = _space(box, (15.0, -70.0))
        axes.plot(*path.T, color=TRUTH, lw=1.8, label="trajectory")
        shown = np.where(seen[:, None], to, np.nan)
        axes.plot(*shown.T, color=SERIES[0], lw=0.7, label="its projection")
        figures[_counted(name, seen)] = figure
    return figures


def _first_box(clouds: Sequence[Array]) -> Array:
    if not clouds:
        raise UsageError("there is nothing to draw: a figure in space needs a panel")
    return _box(clouds[0], 0.1)


def plot_scatter(x: Tensor, y: Tensor, labels: tuple[str, str], correlation: float) -> Panels:
    """Draw one quantity (n,) against another, the line on which they are equal, and their correlation."""
    both = np.stack([float64_of(x).ravel(), float64_of(y).ravel()], 1)
    finite = np.isfinite(both).all(1)
    low, high = spread(both[finite, 0])
    figure = canvas(PANEL, 330)
    axes = figure.add_subplot()
    axes.scatter(both[finite, 0], both[finite, 1], s=9, alpha=0.5, **_look(None))
    axes.plot([low, high], [low, high], color=SERIES[1], lw=1.4, label="equal")
    furnish(axes, *labels)
    lost = f" ({(~finite).sum():,} not finite, left out)" if not finite.all() else ""
    return {f"correlation {correlation:.4f}".replace("-", "−") + lost: figure}


# Posteriors


def plot_posterior(truth: Tensor, models: Mapping[str, Tensor], theta_true: Tensor) -> Panels:
    """Draw the posteriors of one or two parameters, as models see them, over the true one.

    One parameter gives a line a model, cut off where it is three times as high as the truth; two give a panel
    a model, with the regions that hold 68 % and 95 % of the mass. Samples are (n, P); those of a model that
    are not finite are left out and counted.
    """
    dim = theta_true.numel()
    if dim not in (1, 2):
        raise UsageError(f"posteriors are drawn of one or two parameters; got {dim}")
    at = float64_of(theta_true).ravel()
    clouds = {}
    for name, samples in models.items():
        cloud = points_of(samples, dim)
        finite = np.isfinite(cloud).all(1)
        lost = f" ({(~finite).sum():,} of {len(cloud):,} not finite)" if not finite.all() else ""
        clouds[name + lost] = cloud[finite]
    true = points_of(truth, dim)
    # The tails of a model that went astray would squeeze all others.
    ranges = [np.array([spread(axis, 0.002) for axis in cloud.T]).T for cloud in (true, *clouds.values())]
    box = np.stack([np.min([r[0] for r in ranges] + [at], 0), np.max([r[1] for r in ranges] + [at], 0)])
    if dim == 1:
        return {"": _lines(true, clouds, at, box)}
    return {name: _regions(true, cloud, at, box) for name, cloud in (clouds or {"": true}).items()}


def _lines(true: Array, clouds: Mapping[str, Array], at: Array, box: Array) -> Figure:
    figure, bins = canvas(), 200
    axes = figure.add_subplot()
    x = np.linspace(box[0, 0], box[1, 0], 2 * bins + 1)[1::2]
    expected = smoothed(true, box, bins)
    axes.fill_between(x, expected, color=TRUTH, alpha=0.5, lw=0, label="true posterior")
    for i, (name, cloud) in enumerate(clouds.items()):
        style = ("-", "--", ":")[i // len(SERIES) % 3]
        axes.plot(x, smoothed(cloud, box, bins), style, color=SERIES[i % len(SERIES)], lw=1.6, label=name)
    axes.axvline(at[0], color=INK, lw=1, ls=(0, (1, 2)), label="true θ")
    axes.set(xlim=box[:, 0], ylim=(0, min(axes.get_ylim()[1], 3 * expected.max() or 1)))
    furnish(axes, "θ", "density")
    return figure


def _regions(true: Array, cloud: Array, at: Array, box: Array) -> Figure:
    figure, bins = canvas(PANEL, 300), 60
    axes = figure.add_subplot()
    middles = [np.linspace(low, high, 2 * bins + 1)[1::2] for low, high in box.T]
    expected, found = smoothed(true, box, bins).T, smoothed(cloud, box, bins).T
    if levels := mass_levels(expected, (0.95, 0.68)):
        axes.contourf(*middles, expected, [*levels, np.inf], colors=(LINE, TRUTH))
    if levels := mass_levels(found, (0.95, 0.68)):
        axes.contour(*middles, found, levels, colors=SERIES[0], linewidths=1.2)
    axes.fill([], [], color=TRUTH, label="truth, 68 % and 95 %")
    axes.plot([], [], color=SERIES[0], label="model")
    axes.plot(*at, "*", color=SERIES[1], ms=9, ls="none", label="true θ")
    axes.set(xlim=box[:, 0], ylim=box[:, 1])
    furnish(axes, "θ₀", "θ₁")
    return figure


def smoothed(samples: Array, box: Array, bins: int) -> Array:
    """Estimate the density of samples at the middles of the cells of a grid, without a model of them.

    A histogram, smoothed by a Gaussian of Scott's width n^(−1/(P + 4)) std (at least one cell), which the
    borders of the grid reflect: no mass is lost at the limits of a prior. The grid has `bins` cells along
    each of P axes, low and high in `box` (2, P); samples (n, P) outside of it count but are not seen.
    """
    from scipy.ndimage import gaussian_filter

    n, dim = samples.shape
    cells = (box[1] - box[0]) / bins
    counts, _ = np.histogramdd(samples, [np.linspace(low, high, bins + 1) for low, high in box.T])
    if not n:
        return counts
    width = samples.std(0) * n ** (-1 / (dim + 4)) / cells
    density: Array = gaussian_filter(counts, np.clip(width, 1, bins / 4), mode="reflect") / (n * cells.prod())
    return density


def mass_levels(density: Array, shares: Sequence[float]) -> list[float]:
    """Return the density above which each share of the mass lies, rising; as many as are distinct."""
    falling = np.sort(density.ravel())[::-1]
    mass = np.cumsum(falling)
    if not mass[-1]:
        return []
    found = (falling[np.searchsorted(mass, share * mass[-1]).clip(max=len(mass) - 1)] for share in shares)
    return sorted({float(level) for level in found if level > 0})
