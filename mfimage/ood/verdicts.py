"""What a detector says of each image, and of a whole set that has shifted though no image is strange."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from mfimage.errors import UsageError
from mfimage.ood.calibration import DetectorCalibration
from mfimage.ood.statistics import WORDS

LEAST = 5  # images, below which a set cannot be told from chance


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
        found = []
        for row, strange in zip(self.statistics, self.is_ood.tolist(), strict=True):
            most = int(row.abs().argmax())
            low, high = list(WORDS.values())[most]
            unusual = (high if row[most] > 0 else low) if row[most].abs() > 2 else "an unusual combination"
            found.append(unusual if strange else "")
        return found


@dataclass(frozen=True)
class Drift:
    """Whether a set has shifted.

    Attributes:
        shifted: Whether any test rejects at `alpha`, all of them counted.
        alpha: Chance that a set which has not shifted is said to have.
        p_values: Of each test, after Holm's correction: "score" and the named statistics.
        changed: Names of those that reject, most significant first.
        is_ood: Share of the images that are strange one by one.
    """

    shifted: bool
    alpha: float
    p_values: dict[str, float]
    changed: tuple[str, ...]
    is_ood: float

    @property
    def outcome(self) -> str:
        """What came out, in words."""
        return f"shifted in {', '.join(self.changed)}" if self.shifted else "not shifted"


def drift_of(verdicts: Verdicts, calibration: DetectorCalibration, alpha: float = 0.01) -> Drift:
    """Test a set against the calibration images by Kolmogorov and Smirnov, with Holm's correction.

    Comparing scores with the calibration's scores is the test of conformal p-values for uniformity that also
    knows how few calibration images there were; the named statistics find shifts that the score averages out.

    Args:
        verdicts: Of the set's images.
        calibration: Of the detector.
        alpha: Chance of a false alarm, in (0, 1).

    Raises:
        UsageError: If there are fewer than 5 images.

    Reference:
        Rabanser, Günnemann, Lipton, Failing loudly: an empirical study of methods for detecting dataset
        shift, 2019, arXiv 1810.11953.
    """
    from scipy.stats import ks_2samp

    if len(verdicts.scores) < LEAST:
        raise UsageError(f"{len(verdicts.scores)} images are too few for a test of drift: give {LEAST}")
    if not 0 < alpha < 1:
        raise UsageError(f"alpha lies between 0 and 1, and is not {alpha}")
    new = [verdicts.scores, *verdicts.values.T]
    old = [calibration.scores, *calibration.values.T]
    tests = [ks_2samp(a.numpy(), b.numpy(), method="asymp") for a, b in zip(new, old, strict=True)]
    raw = {name: float(test.pvalue) for name, test in zip(("score", *WORDS), tests, strict=True)}
    p_values = _holm(raw)
    changed = tuple(sorted((n for n, p in p_values.items() if p <= alpha), key=lambda n: raw[n]))
    return Drift(bool(changed), alpha, p_values, changed, float(verdicts.is_ood.double().mean()))


def _holm(p_values: dict[str, float]) -> dict[str, float]:
    """Correct p-values for their number: the i-th smallest times (m − i), never below one before it."""
    names = sorted(p_values, key=lambda name: p_values[name])
    steps = [(len(names) - i) * p_values[name] for i, name in enumerate(names)]
    corrected = np.minimum(1, np.maximum.accumulate(steps))
    return dict(zip(names, corrected.tolist(), strict=True))
