"""The chart of held-out error against d."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mfimage.eval.canvas import COLOURS, INK, WIDE, canvas, label, legend, png

_FLOOR = 1e-7  # of the variance: what float32 leaves of a perfect reconstruction


def curve_figure(
    errors: Sequence[float], pca: Sequence[float], span: tuple[float, float], elbow: int | None, dim: int
) -> bytes:
    """Draw held-out error against d beside that of PCA, the neighbours' range and the recommendation.

    Args:
        errors: Squared error an image at d = 0, 1, 2, ….
        pca: The same for principal components.
        span: Lowest and highest estimate of the neighbours.
        elbow: Where the curve bends, or None.
        dim: The recommended d.

    Returns:
        A PNG, 1,440 × 800 pixels.
    """
    figure = canvas(WIDE, 4.0)
    axes = figure.add_subplot()
    least = max(errors[0], 1e-30) * _FLOOR
    dims = np.arange(len(errors))
    axes.axvspan(span[0] - 0.1, span[1] + 0.1, color=COLOURS[5], alpha=0.25, lw=0, label="nearest neighbours")
    axes.plot(dims, np.maximum(pca, least), "--", color=COLOURS[1], lw=1.4, label="principal components")
    axes.plot(dims, np.maximum(errors, least), ".-", color=COLOURS[0], lw=1.4, label="nested codes")
    if elbow is not None:
        axes.plot(elbow, max(errors[elbow], least), "o", mfc="none", color=COLOURS[0], ms=10, label="bend")
    axes.axvline(dim, color=INK, lw=1, ls=(0, (1, 2)), label=f"recommended: {dim}")
    axes.set(yscale="log", xlim=(0, max(len(errors) - 1, dim, span[1]) + 0.5))
    label(axes, ("d", "squared error an image, held out"), "")
    legend(figure, loc="outside right upper")
    return png(figure)
