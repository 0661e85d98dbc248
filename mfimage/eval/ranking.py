"""How well a score tells strange images from familiar ones: higher is stranger, strange is positive."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mfimage.errors import DataError, UsageError
from mfimage.eval.numbers import bootstrap


def _scores(values: Tensor, name: str) -> Tensor:
    values = torch.as_tensor(values).detach().to("cpu", torch.float64)
    if values.ndim != 1 or not len(values):
        raise DataError(f"{name} scores are a vector of at least one value; got shape {tuple(values.shape)}")
    if values.isnan().any():
        raise DataError(f"{int(values.isnan().sum())} of {len(values)} {name} scores are NaN")
    return values.sort().values


def auroc(in_scores: Tensor, out_scores: Tensor) -> float:
    """Area under the ROC curve of a strangeness score.

        P(out > in) + ½ P(out = in)

    Args:
        in_scores: (N,) of familiar images.
        out_scores: (M,) of strange images.

    Returns:
        1 where every strange image scores above every familiar one, ½ for chance.

    Raises:
        DataError: no scores, or NaN among them.
    """
    familiar, strange = _scores(in_scores, "in"), _scores(out_scores, "out")
    below = torch.searchsorted(familiar, strange, side="left")
    not_above = torch.searchsorted(familiar, strange, side="right")
    return float((below + not_above).double().mean() / (2 * len(familiar)))


def aupr(in_scores: Tensor, out_scores: Tensor) -> float:
    """Area under the precision-recall curve of a strangeness score, as average precision.

    Args:
        in_scores: (N,) of familiar images.
        out_scores: (M,) of strange images, which are the ones to be found.

    Returns:
        1 where every strange image scores above every familiar one; M / (N + M) for chance.

    Raises:
        DataError: no scores, or NaN among them.
    """
    from sklearn.metrics import average_precision_score

    familiar, strange = _scores(in_scores, "in"), _scores(out_scores, "out")
    truth = torch.cat([torch.zeros(len(familiar)), torch.ones(len(strange))])
    return float(average_precision_score(truth.numpy(), torch.cat([familiar, strange]).numpy()))


def roc_curve(in_scores: Tensor, out_scores: Tensor, points: int = 200) -> tuple[list[float], list[float]]:
    """Trace the ROC curve of a strangeness score.

    Args:
        in_scores: (N,) of familiar images.
        out_scores: (M,) of strange images.
        points: at most so many thresholds.

    Returns:
        Shares of familiar and of strange images at or above each threshold, from (0, 0) to (1, 1).

    Raises:
        DataError: no scores, or NaN among them.
    """
    familiar, strange = _scores(in_scores, "in"), _scores(out_scores, "out")
    pooled = torch.cat([familiar, strange]).unique()
    chosen = pooled[torch.linspace(len(pooled) - 1, 0, min(points, len(pooled))).round().long()]
    shares = [
        1 - torch.searchsorted(scores, chosen, side="left").double() / len(scores)
        for scores in (familiar, strange)
    ]
    return [0.0, *shares[0].tolist()], [0.0, *shares[1].tolist()]


def separation(in_scores: Tensor, out_scores: Tensor, seed: int = 0) -> dict[str, Any]:
    """Measure how well scores separate: `auroc`, `aupr` and `fpr95`, each with a 95 % bootstrap interval.

    Args:
        in_scores: (N,) of familiar images.
        out_scores: (M,) of strange images.
        seed: of the bootstrap.

    Returns:
        By name the value, and as name_interval its two ends, cut to [0, 1]; `n_in` and `n_out`.

    Raises:
        DataError: no scores, or NaN among them.
    """
    found: dict[str, Any] = {"n_in": len(in_scores), "n_out": len(out_scores)}
    for name, measure in (("auroc", auroc), ("aupr", aupr), ("fpr95", fpr_at_tpr)):
        value, *ends = bootstrap(measure, in_scores, out_scores, seed=seed).cut(0.0, 1.0)
        found[name], found[f"{name}_interval"] = value, ends
    return found


def fpr_at_tpr(in_scores: Tensor, out_scores: Tensor, tpr: float = 0.95) -> float:
    """Share of familiar images flagged at the threshold that flags at least `tpr` of the strange ones.

    An image is flagged when its score is at or above the threshold.

    Args:
        in_scores: (N,) of familiar images.
        out_scores: (M,) of strange images.
        tpr: share of strange images that must be flagged, in (0, 1].

    Returns:
        A share in [0, 1]; 0 is best.

    Raises:
        DataError: no scores, or NaN among them.
        UsageError: `tpr` is outside (0, 1].
    """
    if not 0 < tpr <= 1:
        raise UsageError(f"tpr lies in (0, 1]; got {tpr}")
    familiar, strange = _scores(in_scores, "in"), _scores(out_scores, "out")
    # The slack keeps 0.95 · 20 = 19.000000000000004 from asking for a twentieth image.
    needed = max(1, math.ceil(tpr * len(strange) - 1e-9))
    threshold = strange[len(strange) - needed]
    return float((familiar >= threshold).double().mean())


def histogram(groups: Mapping[str, Tensor], bins: int = 40) -> dict[str, Any]:
    """Bin several groups of scores on one axis.

    Args:
        groups: scores (N,) by the name of their group, finite.
        bins: how many bins of equal width span all groups.

    Returns:
        `edges` (bins + 1 values) and `shares`: by group, the share of its scores in each bin, summing to 1.

    Raises:
        DataError: no groups, an empty one, or a score that is not finite.
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
