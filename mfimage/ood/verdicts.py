"""What a detector says of each image."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mfimage.ood.statistics import WORDS


@dataclass(frozen=True, eq=False)
class Verdicts:
    """What a detector says of each image of a batch.

    Attributes:
        scores: Shape (B,) float64, higher is stranger.
        p_values: Share of familiar images that are at least as strange, (B,) in (0, 1].
        is_ood: Whether the score is above the threshold, (B,) bool.
        statistics: Named statistics in standard deviations of familiar images, (B, 7).
        values: Named statistics themselves, (B, 7).
        heatmaps: Where images differ from their projections, (B, 1, H, W) in [0, 1]: squared residuals, mean
            over 3 × 3 pixels, 1 where they reach what one in a thousand pixels of familiar images does.
    """

    scores: Tensor
    p_values: Tensor
    is_ood: Tensor
    statistics: Tensor
    values: Tensor
    heatmaps: Tensor

    @property
    def reasons(self) -> list[str]:
        """Say in words which statistic is out most; empty for familiar images."""
        words = list(WORDS.values())
        found = []
        for row, strange in zip(self.statistics, self.is_ood.tolist(), strict=True):
            most = int(row.abs().argmax())
            low, high = words[most]
            unusual = (high if row[most] > 0 else low) if row[most].abs() > 2 else "an unusual combination"
            found.append(unusual if strange else "")
        return found
