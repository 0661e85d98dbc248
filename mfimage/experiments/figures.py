"""Pictures of what was learned, as PNGs of two pixels to a CSS pixel, on white: they suit dark pages too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from mfimage.errors import UsageError
from mfimage.eval.canvas import (
    COLOURS,
    INK,
    MAP,
    MARGIN,
    TRUTH,
    WIDE,
    Array,
    array,
    bar,
    canvas,
    counted,
    furnish,
    inside,
    label,
    legend,
    limits,
    png,
    points,
    rooms,
    spread,
)
from mfimage.experiments.smoothing import mass_levels, smoothed

Panel = tuple[str, Tensor, Tensor | None]
NATS = "log-density [nats]"


def plane(
    data: Tensor, curve: Tensor | None, samples: Tensor, colours: Tensor | None = None, title: str = ""
) -> bytes:
    """Draw data, learned manifold and samples in the plane.

    Args:
        data: (n, 2); it alone sets the axes, and the title counts samples that lie beyond them.
        curve: (m, 2) in order along the learned manifold, or None.
        samples: (n, 2).
        colours: (n,) log-density of the samples in nats, which then colours them.
        title: Above the picture.

    Returns:
        A PNG, 700 × 760 pixels.

    Raises:
        UsageError: Points are not of two coordinates.
    """
    figure = canvas(3.5, 3.8)
    axes = figure.add_subplot()
    truth, made = points(data, 2), points(samples, 2)
    box = limits(truth, 0.25)
    seen = inside(made, box)
    axes.scatter(truth[:, 0], truth[:, 1], s=5, color=TRUTH, linewidths=0, label="data")
    if curve is not None:
        axes.plot(*points(curve, 2).T, color=COLOURS[1], lw=1.4, label="learned manifold", zorder=4)
    look: dict[str, Any] = {"color": COLOURS[0]}
    if colours is not None:
        low, high = spread(array(colours)[seen], 0.02)
        look = {"c": array(colours)[seen], "cmap": MAP, "vmin": low, "vmax": high}
    drawn = axes.scatter(made[seen, 0], made[seen, 1], s=5, linewidths=0, label="samples", zorder=3, **look)
    if colours is not None:
        bar(figure, drawn, NATS, axes)
    axes.set(xlim=box[:, 0], ylim=box[:, 1], aspect="equal")
    label(axes, ("x₀", "x₁"), counted(title, seen))
    legend(figure, loc="outside lower center", ncols=3, markerscale=2)
    return png(figure)


def space(panels: Sequence[Panel], elev: float = 25.0, azim: float = -60.0, value: str = NATS) -> bytes:
    """Draw clouds of points in space side by side, on one scale of colours.

    Args:
        panels: Title, points (n, 3) and what colours them (n,), or None, of each. The first sets the axes,
            the first that has colours their scale; points beyond are left out and counted in the title.
        elev: Elevation of the eye in degrees.
        azim: Azimuth of the eye in degrees.
        value: What the colours are.

    Returns:
        A PNG 1,440 pixels wide, with two panels of 645 × 645 a row or three of 430 × 430; 795 × 645 for one.

    Raises:
        UsageError: Points are not of three coordinates, or there is no panel.
    """

    def draw(axes: Any, cloud: Array, colour: Array | None) -> None:
        look = {"color": COLOURS[0]} if colour is None else {"c": colour}
        axes.scatter(*cloud.T, s=3, linewidths=0, depthshade=False, **look)

    return _space(panels, (elev, azim), value, draw)


def mesh(panels: Sequence[Panel], elev: float = 25.0, azim: float = -60.0, value: str = NATS) -> bytes:
    """Draw surfaces in space side by side, on one scale of colours.

    Args:
        panels: Title, points (k², 3) of a k × k grid row by row, and what colours them (k²,), or None, of
            each. The first sets the axes, the first that has colours their scale; points beyond are left out
            and counted in the title.
        elev: Elevation of the eye in degrees.
        azim: Azimuth of the eye in degrees.
        value: What the colours are.

    Returns:
        A PNG 1,440 pixels wide, with two panels of 645 × 645 a row or three of 430 × 430; 795 × 645 for one.

    Raises:
        UsageError: Points are not of three coordinates or of a square grid, or there is no panel.
    """

    def draw(axes: Any, cloud: Array, colour: Array | None) -> None:
        k = round(len(cloud) ** 0.5)
        if k * k != len(cloud):
            raise UsageError(f"a mesh needs the points of a square grid; got {len(cloud)}")
        look = {"color": COLOURS[5]} if colour is None else {"facecolors": colour.reshape(k, k, 4)}
        x, y, z = cloud.T.reshape(3, k, k)
        surface = axes.plot_surface(x, y, z, rcount=k, ccount=k, lw=0.2, shade=False, **look)
        # The lines of the grid show the shape; shading would make the colours other than the bar's.
        surface.set_edgecolor((0, 0, 0, 0.2))

    return _space(panels, (elev, azim), value, draw)


def _space(
    panels: Sequence[Panel],
    eye: tuple[float, float],
    value: str,
    draw: Callable[[Any, Array, Array | None], None],
) -> bytes:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    clouds = [(title, points(p, 3), None if c is None else array(c).ravel()) for title, p, c in panels]
    coloured = [c for _, _, c in clouds if c is not None]
    scale = ScalarMappable(Normalize(*spread(coloured[0], 0.02)) if coloured else None, MAP)
    figure, grid = rooms(len(clouds), beside=MARGIN, below=0)
    box = limits(clouds[0][1], 0.1)
    for axes, (title, cloud, colour) in zip(grid, clouds, strict=True):
        seen = inside(cloud, box)
        shown = np.where(seen[:, None], cloud, np.nan)
        draw(axes, shown, None if colour is None else scale.to_rgba(colour))
        furnish(axes, box, counted(title, seen), eye)
    if coloured:
        width, height = figure.get_size_inches()
        place = figure.add_axes(((width - 0.62) / width, 0.5 - 0.8 / height, 0.1 / width, 1.6 / height))
        bar(figure, scale, value, place=place)
    return png(figure)


def trajectories(
    panels: Sequence[tuple[str, Tensor, Tensor]], elev: float = 15.0, azim: float = -70.0
) -> bytes:
    """Draw paths in space, and their projections onto learned manifolds, side by side.

    Args:
        panels: Title, path (n, 3) in order of time, and its projection (n, 3), of each. The first path sets
            the axes; what lies beyond is left out, and counted in the title.
        elev: Elevation of the eye in degrees.
        azim: Azimuth of the eye in degrees.

    Returns:
        A PNG 1,440 pixels wide, with two panels of 720 × 720 a row or three of 480 × 480, and 60 below them;
        720 × 780 for one.

    Raises:
        UsageError: Points are not of three coordinates, or there is no panel.
    """
    clouds = [(title, points(path, 3), points(to, 3)) for title, path, to in panels]
    figure, grid = rooms(len(clouds), beside=0, below=0.3)
    box = limits(clouds[0][1], 0.1)
    for axes, (title, path, to) in zip(grid, clouds, strict=True):
        seen = inside(to, box)
        axes.plot(*path.T, color=TRUTH, lw=1.6, label="trajectory")
        axes.plot(*np.where(seen[:, None], to, np.nan).T, color=COLOURS[0], lw=0.6, label="its projection")
        furnish(axes, box, counted(title, seen), (elev, azim))
    legend(figure, handles=grid[0].get_legend_handles_labels()[0], loc="lower center", ncols=2)
    return png(figure)


def scatter(x: Tensor, y: Tensor, labels: tuple[str, str], correlation: float) -> bytes:
    """Draw one quantity against another, and the line on which they are equal.

    Args:
        x: (n,) for instance the true log-density in nats.
        y: (n,) for instance the learned one.
        labels: Of the axes.
        correlation: Of x and y, as it was measured.

    Returns:
        A PNG, 700 × 700 pixels.
    """
    figure = canvas(3.5, 3.5)
    axes = figure.add_subplot()
    both = np.stack([array(x).ravel(), array(y).ravel()], 1)
    finite = np.isfinite(both).all(1)
    low, high = spread(both[finite, 0], 0.0)
    axes.scatter(both[finite, 0], both[finite, 1], s=6, color=COLOURS[0], alpha=0.4, linewidths=0)
    axes.plot([low, high], [low, high], color=COLOURS[1], lw=1.4, label="equal")
    lost = f" ({(~finite).sum():,} not finite, left out)" if not finite.all() else ""
    label(axes, labels, f"correlation {correlation:.4f}".replace("-", "−") + lost)
    legend(axes, loc="upper left")
    return png(figure)


def posterior(truth: Tensor, models: Mapping[str, Tensor], theta_true: Tensor) -> bytes:
    """Draw the posteriors of one or two parameters, as models see them, over the true one.

    One parameter gives a line a model, cut off where it is three times as high as the truth; two give a panel
    a model, with the regions that hold 68 % and 95 % of the mass.

    Args:
        truth: (n, P) samples of the true posterior, P = 1 or 2.
        models: Samples (n, P) by the name of their model; those that are not finite are left out and counted.
        theta_true: (P,) the parameters that made the observations.

    Returns:
        A PNG, 1,440 × 680 pixels for P = 1; for P = 2 at most three panels a row, each 480 × 460 pixels, and
        60 below them.

    Raises:
        UsageError: P is neither 1 nor 2, or a model has another.
    """
    dim = theta_true.numel()
    if dim not in (1, 2):
        raise UsageError(f"posteriors are drawn of one or two parameters; got {dim}")
    at = array(theta_true).ravel()
    clouds = {}
    for name, samples in models.items():
        cloud = points(samples, dim)
        finite = np.isfinite(cloud).all(1)
        lost = f" ({(~finite).sum():,} of {len(cloud):,} not finite)" if not finite.all() else ""
        clouds[name + lost] = cloud[finite]
    true = points(truth, dim)
    # The tails of a model that went astray would squeeze all others.
    ranges = [np.array([spread(axis, 0.002) for axis in cloud.T]).T for cloud in (true, *clouds.values())]
    box = np.stack([np.min([r[0] for r in ranges] + [at], 0), np.max([r[1] for r in ranges] + [at], 0)])
    return (_lines if dim == 1 else _regions)(true, clouds, at, box)


def _lines(true: Array, clouds: Mapping[str, Array], at: Array, box: Array) -> bytes:
    figure = canvas(WIDE, 3.4)
    axes = figure.add_subplot()
    bins = 200
    x = np.linspace(box[0, 0], box[1, 0], 2 * bins + 1)[1::2]
    expected = smoothed(true, box, bins)
    axes.fill_between(x, expected, color=TRUTH, alpha=0.5, lw=0, label="true posterior")
    for i, (name, cloud) in enumerate(clouds.items()):
        style = ("-", "--", ":")[i // len(COLOURS) % 3]
        axes.plot(x, smoothed(cloud, box, bins), style, color=COLOURS[i % len(COLOURS)], lw=1.6, label=name)
    axes.axvline(at[0], color=INK, lw=1, ls=(0, (1, 2)), label="true θ")
    axes.set(xlim=box[:, 0], ylim=(0, min(axes.get_ylim()[1], 3 * expected.max() or 1)))
    label(axes, ("θ", "density"), "")
    legend(figure, loc="outside right upper")
    return png(figure)


def _regions(true: Array, clouds: Mapping[str, Array], at: Array, box: Array) -> bytes:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    columns = min(len(clouds), 3) or 1
    rows = -(-len(clouds) // columns) or 1
    figure = canvas(columns * 2.4, rows * 2.3 + 0.3)
    bins = 60
    middles = [np.linspace(low, high, 2 * bins + 1)[1::2] for low, high in box.T]
    expected = smoothed(true, box, bins).T
    for i, (name, cloud) in enumerate((clouds or {"": true}).items()):
        axes = figure.add_subplot(rows, columns, i + 1)
        found = smoothed(cloud, box, bins).T
        if levels := mass_levels(expected, (0.95, 0.68)):
            axes.contourf(*middles, expected, [*levels, np.inf], colors=("#dcdfe3", TRUTH))
        if levels := mass_levels(found, (0.95, 0.68)):
            axes.contour(*middles, found, levels, colors=COLOURS[0], linewidths=1.2)
        (star,) = axes.plot(*at, "*", color=COLOURS[1], ms=9, ls="", label="true θ")
        axes.set(xlim=box[:, 0], ylim=box[:, 1])
        label(axes, ("θ₀", "θ₁"), name)
    line, area = (
        Line2D([], [], color=COLOURS[0], label="model"),
        Patch(color=TRUTH, label="truth, 68 % and 95 %"),
    )
    legend(figure, handles=[area, line, star], loc="outside lower center", ncols=3)
    return png(figure)
