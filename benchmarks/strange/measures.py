"""How well scores tell strange images apart, how many are flagged, and what chance allows."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.stats import betabinom
from torch import Tensor

from mfimage.eval.numbers import bootstrap
from mfimage.eval.score_metrics import aupr, auroc, fpr_at_tpr
from mfimage.ood.calibration import conformal_rank
from mfimage.ood.verdicts import power

BINS = 50  # quantiles of familiar images' bits, within which both sides are of one number
FEWEST = 50  # images of each side that are left, below which nothing is told of them


def flagged(known: Tensor, scores: Tensor) -> dict[str, float | None]:
    """Find the share of scores that `power` calls strange, by α as text, of known ones in any order."""
    return {f"{alpha:g}": share for alpha, share in power(known.double().sort().values, scores).items()}


def cell_of(known: Tensor, fresh: Tensor, strange: Tensor, whole: bool = False) -> dict[str, Any]:
    """Measure one score on one strange set: AUROC against fresh familiar images, and the share flagged.

    With `whole` it has the interval of AUROC, AUPR and FPR at 95 % TPR too.
    """
    found: dict[str, Any] = {"auroc": auroc(fresh, strange), "flagged": flagged(known, strange)}
    if whole:
        _, low, high = bootstrap(auroc, fresh, strange).cut(0.0, 1.0)
        found |= {
            "auroc_interval": [low, high], "aupr": aupr(fresh, strange), "fpr95": fpr_at_tpr(fresh, strange),
        }  # fmt: skip
    return found


def matched(familiar: Tensor, strange: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Choose rows of both sides so that they are alike in a number, such as the bits that zlib needs.

    Between every two of `BINS` quantiles of the familiar ones, as many are drawn of each side as the smaller
    one has; what lies beyond all familiar ones is left out. Like coarsened exact matching: Iacus, King,
    Porro, 2012, Political Analysis 20.

    Args:
        familiar: The number of each familiar image, (N,).
        strange: Of each strange image, (M,).
        seed: Of the draws.

    Returns:
        Rows of the familiar and of the strange images, of one length, which may be 0.
    """
    a, b = (values.double().numpy() for values in (familiar, strange))
    edges = np.unique(np.quantile(a, np.linspace(0, 1, BINS + 1)))
    draw, rows = np.random.default_rng(seed), ([], [])
    places = [np.searchsorted(edges[1:-1], values, side="right") for values in (a, b)]
    places[1] = np.where((b < edges[0]) | (b > edges[-1]), -1, places[1])
    for bin_ in range(max(1, len(edges) - 1)):
        inside = [np.flatnonzero(place == bin_) for place in places]
        count = min(map(len, inside))
        for found, among in zip(rows, inside, strict=True):
            found.append(draw.permutation(among)[:count])
    first, second = (torch.from_numpy(np.concatenate(found)) for found in rows)
    return first, second


def matched_cell(
    scores: tuple[Tensor, Tensor], bits: tuple[Tensor, Tensor], known: Tensor
) -> dict[str, Any] | None:
    """Measure a score on familiar and strange images of the same bits; None if too few of them are.

    `bits_auroc` is what is left of the difference in bits itself, ½ if nothing is.
    """
    inside, outside = matched(*bits)
    if len(inside) < FEWEST:
        return None
    familiar, strange = scores[0][inside], scores[1][outside]
    cell = cell_of(known, familiar, strange)
    return {**cell, "bits_auroc": auroc(bits[0][inside], bits[1][outside]), "images": len(inside)}


def proves_nothing(ours: dict[str, Any], areas: dict[str, float]) -> dict[str, Any]:
    """Name the best of the rows that cost nothing, and whether it wins: is not below the interval of ours."""
    best = max(areas, key=lambda name: areas[name])
    low = min(ours["auroc"], *ours["auroc_interval"])
    return {"row": best, "auroc": areas[best], "wins": areas[best] >= low}


def expected_alarms(known: int, fresh: int, alpha: float) -> tuple[int, int]:
    """Give the 95 % interval of the count of fresh familiar images above a threshold that known ones set.

    With r the threshold's rank among the known ones, the share of all familiar images above it follows
    Beta(n + 1 − r, r), and the count among m fresh ones the Beta-binomial distribution of these: chance in
    the threshold is in it. Vovk, Conditional validity of inductive conformal predictors, 2013, prop. 2a.
    """
    rank = conformal_rank(known, alpha)
    law = betabinom(fresh, known + 1 - rank, rank)
    return int(law.ppf(0.025)), int(law.ppf(0.975))
