"""Plots of what was learned: points in the plane and in space, trajectories, one density against another."""

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
NATS = "log-density, nats"


def float64_of(values: Tensor) -> Array:
    """Take a tensor of any device and type as float64."""
    return values.detach().cpu().double().numpy()


def points_of(values: Tensor, dim: int) -> Array:
    """Take points (..., dim) as float64 (n, dim)."""
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
    """Draw data, learned manifold and samples in the plane.

    Args:
        data: (n, 2); it alone sets the axes, and the name of the panel counts samples that lie beyond them.
        curve: (m, 2) in order along the learned manifold, or None.
        samples: (n, 2).

    Raises:
        UsageError: Points are not of two coordinates.
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
    """Draw clouds of points in space side by side, on one scale of colours.

    Args:
        panels: Name, points (n, 3) and what colours them (n,), or None, of each. The first sets the axes,
            the first that has colours their scale; points beyond are left out and counted in the name.

    Raises:
        UsageError: Points are not of three coordinates, or there is no panel.
    """
    clouds = [(name, points_of(x, 3), None if c is None else float64_of(c).ravel()) for name, x, c in panels]
    box, figures = _first_box([cloud for _, cloud, _ in clouds]), {}
    scale = next((colours for _, _, colours in clouds if colours is not None), None)
    for name, cloud, colours in clouds:
        seen = _inside(cloud, box)
        look = _look(None if colours is None else colours[seen], scale)
        figure, axes = _space(box, (25.0, -60.0))
        label = None if colours is None else NATS
        axes.scatter(*cloud[seen].T, s=4, depthshade=False, label=label, **look)
        figures[_counted(name, seen)] = figure
    return figures


def plot_trajectories(panels: Sequence[tuple[str, Tensor, Tensor]]) -> Panels:
    """Draw paths in space, and their projections onto learned manifolds, side by side.

    Args:
        panels: Name, path (n, 3) in order of time, and its projection (n, 3), of each. The first path sets
            the axes; what lies beyond is left out, and counted in the name.

    Raises:
        UsageError: Points are not of three coordinates, or there is no panel.
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
    """Draw one quantity against another, and the line on which they are equal.

    Args:
        x: (n,) for instance the true log-density in nats.
        y: (n,) for instance the learned one.
        labels: Of the axes.
        correlation: Of x and y, as it was measured.
    """
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
