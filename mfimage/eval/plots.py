"""The plots: curves of training, histograms of scores, ROC curves, error against dimension."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from mfimage.eval.figures import INK, PANEL, SERIES, Plot, canvas, draw_png, furnish, plot
from mfimage.eval.score_metrics import histogram

_POINTS = 150  # a curve of more is averaged down to at most so many


def curve_plot(
    title: str,
    unit: str,
    curve: tuple[Sequence[float], Sequence[float]],
    watched: Sequence[tuple[float, float]] = (),
    log: bool = False,
) -> Plot | None:
    """Plot a quantity in training, and (step, value) of its validation; None without a finite value."""
    pairs = [(x, y) for x, y in zip(*curve, strict=True) if math.isfinite(y)]
    together = math.ceil(len(pairs) / _POINTS) or 1
    groups = [np.mean(pairs[i : i + together], 0) for i in range(0, len(pairs), together)]
    dots = [(x, y) for x, y in watched if math.isfinite(y)]
    if not groups and not dots:
        return None
    figure = canvas(PANEL, 220)
    axes = figure.add_subplot()
    training = "training" if together == 1 else f"training (a point is the mean of {together})"
    if groups:
        axes.plot(*np.transpose(groups), color=SERIES[0], lw=1.5, label=training)
    if dots:
        axes.plot(*np.transpose(dots), "o-", color=SERIES[1], lw=1, ms=4.5, label="validation")
    log = log and min(y for _, y in [*groups, *dots]) > 0
    axes.set_yscale("log" if log else "linear")
    axes.margins(x=0, y=0.04)
    furnish(axes, "step", f"{unit}, log scale" if log else unit)
    return plot(title, {"": figure}, width=PANEL)


def lines_plot(title: str, x: str, y: str, lines: Mapping[str, tuple[Sequence[float], ...]]) -> Plot:
    """Plot lines (x, y) by name over common axes."""
    figure = canvas()
    axes = figure.add_subplot()
    for i, (name, line) in enumerate(lines.items()):
        axes.plot(*line, color=SERIES[i % len(SERIES)], lw=1.5, label=name)
    axes.margins(x=0, y=0.04)
    furnish(axes, x, y)
    return plot(title, {"": figure})


def histogram_plot(
    groups: Mapping[str, Tensor], what: str = "reconstruction error a pixel", mark: float | None = None
) -> Plot | None:
    """Plot scores (N,) of sets by name, the familiar one first, as outlines over one axis; None without any.

    A threshold is marked by an upright line.
    """
    finite = {name: v[v.isfinite()].double() for name, v in groups.items() if v.isfinite().any()}
    if not finite:
        return None
    low, high = (f(float(f(v)) for v in finite.values()) for f in (min, max))
    log = bool(low > 0 and high > 10 * low)
    bins = histogram({name: v.log10() if log else v for name, v in finite.items()}, bins=50)
    edges = 10.0 ** np.array(bins["edges"]) if log else np.array(bins["edges"])
    figure = canvas()
    axes = figure.add_subplot()
    axes.set_xscale("log" if log else "linear")
    for i, (name, shares) in enumerate(bins["shares"].items()):
        # Each to its own peak: a set whose scores hardly differ would flatten all others. Without the empty
        # bars at its ends, so that sets do not lie over each other on the axis.
        used = np.flatnonzero(shares)
        bars = np.array(shares)[used[0] : used[-1] + 1] / max(shares)
        place, colour = edges[used[0] : used[-1] + 2], SERIES[i % len(SERIES)]
        lost = int((~groups[name].isfinite()).sum())
        label = f"{name} ({lost:,} of {len(groups[name]):,} not finite, left out)" if lost else name
        if not i:
            axes.stairs(bars, place, fill=True, color=colour, alpha=0.28, label=label)
        axes.stairs(bars, place, color=colour, lw=1.5, label=label if i else None)
    if mark is not None and not (log and mark <= 0):
        axes.axvline(mark, color=INK, lw=1.2, ls=(0, (4, 3)), label="threshold")
    axes.margins(x=0)
    axes.set_ylim(0, 1.05)
    furnish(axes, f"{what}, log scale" if log else what, "share of the set, its highest bar = 1")
    return plot("", {"": figure})


def dimension_figure(
    errors: Sequence[float], pca: Sequence[float], span: tuple[float, float], elbow: int | None, dim: int
) -> bytes:
    """Draw held-out errors at d = 0, 1, 2, …, the neighbours' range and the recommendation, as a PNG."""
    figure = canvas(518.4, 288)
    axes = figure.add_subplot()
    least = 1e-7 * max(errors[0], 1e-30)  # of the variance: what float32 leaves of a perfect reconstruction
    dims = np.arange(len(errors))
    axes.axvspan(span[0] - 0.1, span[1] + 0.1, color=SERIES[0], alpha=0.15, lw=0, label="nearest neighbours")
    axes.plot(dims, np.maximum(pca, least), "--", color=SERIES[1], lw=1.4, label="principal components")
    axes.plot(dims, np.maximum(errors, least), ".-", color=SERIES[0], lw=1.4, label="nested codes")
    if elbow is not None:
        axes.plot(elbow, max(errors[elbow], least), "o", mfc="none", color=SERIES[0], ms=10, label="bend")
    axes.axvline(dim, color=INK, lw=1, ls=(0, (1, 2)), label=f"recommended: {dim}")
    axes.set(yscale="log", xlim=(0, max(len(errors) - 1, dim, span[1]) + 0.5))
    furnish(axes, "d", "squared error an image, held out")
    figure.legend(loc="outside right upper", frameon=False, labelcolor=INK)
    return draw_png(figure)
