"""Densities of samples on a grid, for pictures: they need no model of the samples and forgive equal ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def smoothed(samples: Array, box: Array, bins: int) -> Array:
    """Estimate the density of samples at the middles of the cells of a grid.

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
