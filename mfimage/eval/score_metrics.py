"""How well scores tell strange images from familiar ones: higher is stranger, strange is positive.

Functions take `in_scores` (N,) of familiar images and `out_scores` (M,) of strange ones; a DataError says
where there are none, or NaN among them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mfimage.errors import DataError, UsageError
from mfimage.eval.numbers import bootstrap


def auroc(in_scores: Tensor, out_scores: Tensor) -> float:
    """Compute the area under the ROC curve, P(out > in) + ½ P(out = in).

    Returns:
        1 where every strange image scores above every familiar one, ½ for chance.
    """
    familiar, strange = _scores(in_scores, "in"), _scores(out_scores, "out")
    below = torch.searchsorted(familiar, strange, side="left")
    not_above = torch.searchsorted(familiar, strange, side="right")
    return float((below + not_above).double().mean() / (2 * len(familiar)))


def aupr(in_scores: Tensor, out_scores: Tensor) -> float:
    """Compute the average precision of finding strange images, M / (N + M) for chance."""
    from sklearn.metrics import average_precision_score

    familiar, strange = _scores(in_scores, "in"), _scores(out_scores, "out")
    truth = torch.cat([torch.zeros(len(familiar)), torch.ones(len(strange))])
    ranks = torch.cat([familiar, strange]).unique(return_inverse=True)[1]  # scores may be infinite
    return float(average_precision_score(truth.numpy(), ranks.numpy()))


def fpr_at_tpr(in_scores: Tensor, out_scores: Tensor, tpr: float = 0.95) -> float:
    """Compute the share of familiar images above the threshold that flags at least `tpr` of the strange ones.

    An image is flagged when its score is at or above the threshold.

    Args:
        in_scores: (N,) of familiar images.
        out_scores: (M,) of strange images.
        tpr: Share of strange images that must be flagged, in (0, 1].

    Returns:
        A share in [0, 1]; 0 is best.

    Raises:
        UsageError: `tpr` is outside (0, 1].
    """
    if not 0 < tpr <= 1:
        raise UsageError(f"tpr lies in (0, 1]; got {tpr}")
    familiar, strange = _scores(in_scores, "in"), _scores(out_scores, "out")
    # The slack keeps 0.95 · 20 = 19.000000000000004 from asking for a twentieth image.
    needed = max(1, math.ceil(tpr * len(strange) - 1e-9))
    threshold = strange[len(strange) - needed]
    return float((familiar >= threshold).double().mean())


def roc_curve(in_scores: Tensor, out_scores: Tensor, points: int = 200) -> tuple[list[float], list[float]]:
    """Trace the ROC curve: shares of familiar and of strange images at or above some thresholds."""
    familiar, strange = _scores(in_scores, "in"), _scores(out_scores, "out")
    pooled = torch.cat([familiar, strange]).unique()
    chosen = pooled[torch.linspace(len(pooled) - 1, 0, min(points, len(pooled))).round().long()]
    below, missed = (
        torch.searchsorted(x, chosen, side="left").double() / len(x) for x in (familiar, strange)
    )
    return [0.0, *(1 - below).tolist()], [0.0, *(1 - missed).tolist()]


def separation(in_scores: Tensor, out_scores: Tensor, seed: int = 0) -> dict[str, Any]:
    """Measure auroc, aupr and fpr95, each with NAME_interval, the ends of 95 %, in [0, 1]; n_in, n_out."""
    found: dict[str, Any] = {"n_in": len(in_scores), "n_out": len(out_scores)}
    for name, measure in (("auroc", auroc), ("aupr", aupr), ("fpr95", fpr_at_tpr)):
        value, *ends = bootstrap(measure, in_scores, out_scores, seed=seed).cut(0.0, 1.0)
        found[name], found[f"{name}_interval"] = value, ends
    return found


def histogram(groups: Mapping[str, Tensor], bins: int = 40) -> dict[str, Any]:
    """Bin several groups of finite scores, (N,) by the name of their group, on one axis.

    Returns:
        `edges` (bins + 1 values, equally spaced) and `shares`: by group, the share of its scores in each bin.

    Raises:
        DataError: No groups, an empty one, or a score that is not finite.
    """
    if not groups:
        raise DataError("a histogram needs at least one group of scores")
    scores = {name: _scores(values, name) for name, values in groups.items()}
    pooled = torch.cat(list(scores.values()))
    if not pooled.isfinite().all():
        raise DataError(f"{int((~pooled.isfinite()).sum())} of {len(pooled)} scores are infinite")
    low, high = float(pooled.min()), float(pooled.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = torch.linspace(low, high, bins + 1, dtype=torch.float64)
    shares = {name: (torch.histogram(v, edges).hist / len(v)).tolist() for name, v in scores.items()}
    return {"edges": edges.tolist(), "shares": shares}


def _scores(values: Tensor, name: str) -> Tensor:
    """Check scores and sort them, float64 on the CPU."""
    values = torch.as_tensor(values).detach().to("cpu", torch.float64)
    if values.ndim != 1 or not len(values):
        raise DataError(f"{name} scores are a vector of at least one value; got shape {tuple(values.shape)}")
    if values.isnan().any():
        raise DataError(f"{int(values.isnan().sum())} of {len(values)} {name} scores are NaN")
    return values.sort().values
