"""How well a score tells strange images from familiar ones: higher is stranger, strange is positive."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mfimage.errors import DataError, UsageError


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
