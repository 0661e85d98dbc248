"""Where the curve of reconstruction error against d bends, and which d that and the neighbours recommend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mfimage.eval.canvas import COLOURS, INK, WIDE, canvas, label, legend, png

_FLOOR = 1e-7  # of the variance: what float32 leaves of a perfect reconstruction
_SHARPER = 3.0  # times as well as by a power law must a bent line fit
_FLATTER = 4.0  # times as steep before the bend as after it
_ROUND_UP = 0.25  # a fraction above it is rounded up: a dimension too many costs less than one too few
_AGREE = 0.25  # of the larger


@dataclass(frozen=True)
class Verdict:
    """A recommendation.

    Attributes:
        dim: d.
        agree: Whether the neighbours and the curve say the same; None if the curve has no bend.
        reason: In words.
    """

    dim: int
    agree: bool | None
    reason: str


def find_elbow(errors: Sequence[float]) -> int | None:
    """Find the d at which the error stops falling fast.

    Two lines are fitted to log error against d, joined at d; the best d is taken if they fit three times as
    well as a power law, log error against log d, and the first is four times as steep as the second.

    Args:
        errors: Squared error at d = 0, 1, 2, …; that at 0 is the variance.

    Returns:
        d ≥ 1; None where the error falls without a bend, or the curve has fewer than five points.
    """
    falling = np.minimum.accumulate(np.asarray(errors, np.float64))
    if len(falling) < 5 or not falling[0] > 0:
        return None
    logs = np.log(np.maximum(falling / falling[0], _FLOOR))
    dims = np.arange(len(logs), dtype=np.float64)
    fits = [_least_squares(_hinge(dims, bend), logs) for bend in range(1, len(logs) - 1)]
    best = min(range(len(fits)), key=lambda i: fits[i][1])
    (_, before, after), residue = fits[best]
    power = _least_squares(np.stack([np.ones(len(dims) - 1), np.log(dims[1:])], 1), logs[1:])[1]
    sharp = residue * _SHARPER < power and before < min(0.0, _FLATTER * after)
    return best + 1 if sharp else None


def _hinge(dims: np.ndarray, bend: int) -> np.ndarray:
    return np.stack([np.ones_like(dims), np.minimum(dims - bend, 0), np.maximum(dims - bend, 0)], 1)


def _least_squares(terms: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, float]:
    weights = np.linalg.lstsq(terms, values, rcond=None)[0]
    return weights, float(np.square(terms @ weights - values).mean())


def recommend(plain: float, equalised: float, elbow: int | None, errors: Sequence[float]) -> Verdict:
    """Choose d from the neighbours' two estimates, which span a range, and the bend of the error curve.

    Args:
        plain: Dimension by the neighbours as the data lie; it decides where the curve has no bend.
        equalised: The same with equalised directions.
        elbow: Where the curve bends, or None.
        errors: Squared error at d = 0, 1, 2, ….
    """
    low, high = sorted((plain, equalised))
    span = f"{low:.1f}" if high - low < 0.15 else f"{low:.1f} to {high:.1f}"
    said = f"Nearest neighbours estimate {span} dimensions"
    if elbow is None:
        return Verdict(_rounded(plain), None, f"{said}; {_without_bend(_rounded(plain), errors)}")
    within = min(max(float(elbow), low), high)
    if abs(within - elbow) <= max(1.0, _AGREE * max(within, elbow)):
        bends = f", and the held-out error bends at {elbow}: they agree."
        return Verdict(_rounded(within), True, said + bends)
    if elbow > high:
        dim, why = elbow, (
            f"the held-out error still falls fast up to {elbow}. Neighbours fall short where some directions "
            "are far narrower than others or images are few, and a dimension too few loses more than one too "
            "many: the curve decides."
        )  # fmt: skip
    else:
        dim, why = _below(elbow, low, errors)
    return Verdict(dim, False, f"{said}, but {why} They disagree, so try a d on either side too.")


def _below(elbow: int, low: float, errors: Sequence[float]) -> tuple[int, str]:
    """What to say where the curve bends before the neighbours' range: noise, or details a fit draws late."""
    there = min(_rounded(low), len(errors) - 1)
    gain = 1 - errors[there] / errors[elbow]
    bends = f"the held-out error bends at {elbow} already, and from there to {there} falls by {gain:.0%}"
    if gain < 0.1:
        return elbow, f"{bends}: further dimensions look like noise, and the curve decides."
    return _rounded(low), f"{bends}: there is more to draw, and the neighbours decide."


def _without_bend(dim: int, errors: Sequence[float]) -> str:
    last = len(errors) - 1
    at = min(dim, last)
    return (
        "the held-out error falls without a bend, as that of photographs does, so that they alone decide and "
        f"d is a choice of fidelity: {errors[at] / errors[0]:.1%} of the variance are left at {at}, "
        f"{min(errors) / errors[0]:.1%} at best up to {last}."
    )


def _rounded(dimension: float) -> int:
    return max(1, math.ceil(dimension - _ROUND_UP))


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
