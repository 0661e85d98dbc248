"""The strangest of the images that a detector is calibrated on, which a user may leave out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mfimage.errors import UsageError
from mfimage.ood.verdicts import Verdicts, how_many
from mfimage.settings import plain, whole_number

SHOWN = 5  # of the strangest images that are always told


@dataclass(frozen=True)
class Outlier:
    """One of the strangest calibration images.

    Attributes:
        row: Its position among the images given.
        score: How strange it is; higher is stranger.
        p_value: (1 + #{others with a score as high}) / n, of n images in all.
        reason: In which way it is strange, in words.
        dropped: Whether it was left out on request.
    """

    row: int
    score: float
    p_value: float
    reason: str
    dropped: bool

    def __str__(self) -> str:
        left = "dropped: " if self.dropped else ""
        return f"{left}score {self.score:.6g}, {self.reason}; {how_many(self.p_value)} as strange"


def outliers(verdicts: Verdicts, rows: Sequence[int], count: int, dropped: int) -> list[Outlier]:
    """Tell of the strangest of `count` images, strangest first, of which the first `dropped` are left out."""
    reasons = replace(verdicts, is_ood=torch.ones_like(verdicts.is_ood)).reasons
    scores = verdicts.scores.tolist()
    return [
        Outlier(row, score, sum(other >= score for other in scores) / count, reason, place < dropped)
        for place, (row, score, reason) in enumerate(zip(rows, scores, reasons, strict=True))
    ]


def to_drop(drop: int | Sequence[int], count: int) -> tuple[int, Tensor]:
    """Read what is to be left out of `count` images: so many of the strangest, or rows; UsageError else."""
    if not isinstance(drop := plain(drop), tuple):
        return whole_number("drop", drop), torch.zeros(0, dtype=torch.long)
    rows = sorted({whole_number("a row of drop", row) for row in drop})
    if rows and max(rows) >= count:
        raise UsageError(f"drop: there is no row {max(rows)} of {count} images")
    return 0, torch.tensor(rows, dtype=torch.long)
