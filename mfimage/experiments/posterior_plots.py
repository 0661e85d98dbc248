"""Plots of posteriors, and the densities of samples on a grid that they show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from mfimage.errors import UsageError
from mfimage.eval.figures import INK, LINE, PANEL, SERIES, TRUTH, canvas, furnish, spread
from mfimage.experiments.point_plots import Array, Panels, float64_of, points_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_posterior(truth: Tensor, models: Mapping[str, Tensor], theta_true: Tensor) -> Panels:
    """Draw the posteriors of one or two parameters, as models see them, over the true one.

    One parameter gives a line a model, cut off where it is three times as high as the truth; two give a panel
    a model, with the regions that hold 68 % and 95 % of the mass.

    Args:
        truth: (n, P) samples of the true posterior, P = 1 or 2.
        models: Samples (n, P) by the name of their model; those that are not finite are left out and counted.
        theta_true: (P,) the parameters that made the observations.

    Raises:
        UsageError: P is neither 1 nor 2, or a model has another.
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
    borders of the grid reflect: no mass is lost at the limits of a prior.

    Args:
        samples: (n, P); those outside of the grid count as samples but are not seen.
        box: (2, P) low and high of the grid.
        bins: Cells along each axis.

    Returns:
        (bins, …) P axes, the density; zero without samples.
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
