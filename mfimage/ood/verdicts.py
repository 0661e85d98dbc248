"""What a detector says of each image, and of a set that has shifted though no image is strange."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mfimage.errors import UsageError
from mfimage.ood.calibration import DetectorCalibration, conformal_p_values
from mfimage.ood.evidence import SHARES
from mfimage.ood.places import Place
from mfimage.ood.statistics import UNSOUND, WORDS

ALPHAS = (0.05, 0.01, 0.001)  # rates of false alarms at which it is told how many strange images are found
LEAST = 5  # images, below which a set cannot be told from chance


@dataclass(frozen=True, eq=False)
class Verdicts:
    """What a detector says of each image of a batch.

    Attributes:
        scores: Shape (B,) float64, higher is stranger; ∞ where the model gives no finite numbers.
        p_values: Share of familiar images that are at least as strange, (B,) in (0, 1].
        is_ood: Whether the score is above the threshold, (B,) bool.
        statistics: Named statistics in standard deviations of familiar images, (B, 8).
        values: Named statistics themselves, (B, 8).
        ways: Of `auto` the p-values of being too far out and of being too ordinary, (B, 2); else (0, 2).
        places: Where each image is strange, if that was asked for, else none.
    """

    scores: Tensor
    p_values: Tensor
    is_ood: Tensor
    statistics: Tensor
    values: Tensor
    ways: Tensor
    places: Sequence[Place] = ()

    def subset(self, rows: Tensor) -> Verdicts:
        """What is said of some of the images, by their places in the batch, (n,) int64."""
        names = ("scores", "p_values", "is_ood", "statistics", "values")
        ways = self.ways[rows] if len(self.ways) else self.ways
        places = [self.places[i] for i in rows.tolist()] if self.places else ()
        return replace(self, **{n: getattr(self, n)[rows] for n in names}, ways=ways, places=places)

    @property
    def counted(self) -> str:
        """How many are strange, in words."""
        strange, ordinary = int(self.is_ood.sum()), int((self.is_ood & self.ordinary).sum())
        ways = f", {ordinary} of them too ordinary" if ordinary else ""
        return f"{strange} of {len(self.scores)} {'image is' if strange == 1 else 'images are'} strange{ways}"

    @property
    def ordinary(self) -> Tensor:
        """Whether being too ordinary says more against an image than being too far out, (B,) bool."""
        if not len(self.ways):
            return torch.zeros(len(self.scores), dtype=torch.bool)
        return (self.ways / torch.tensor(list(SHARES.values())).double()).argmin(1) == 1

    @property
    def reasons(self) -> list[str]:
        """Say in words in which way an image is strange, and which statistic is out most; else nothing."""
        found = []
        columns = self.statistics, self.is_ood.tolist(), self.scores, self.ordinary.tolist()
        for row, strange, score, ordinary in zip(*columns, strict=True):
            if not score.isfinite():
                found.append(UNSOUND)
                continue
            most = int(row.argmin() if ordinary else row.abs().argmax())
            low, high = list(WORDS.values())[most]
            what = (high if row[most] > 0 else low) if row[most].abs() > 2 else "an unusual combination"
            what = f"too ordinary: {low}" if ordinary else what
            found.append(what if strange else "")
        return found

    @property
    def sentences(self) -> list[str]:
        """Say the verdict on each image in a sentence: what it is, in which way, and how seldom that is."""
        columns = self.reasons, self.is_ood.tolist(), self.ordinary.tolist(), self.p_values.tolist()
        said = []
        for reason, strange, ordinary, p in zip(*columns, strict=True):
            if not strange:
                said.append(f"familiar: {how_many(p)} as strange")
            elif reason == UNSOUND:
                said.append(f"strange: {reason}")
            else:
                way = reason if ordinary else f"far out: {reason}"
                said.append(f"strange, {way}; {how_many(p, at_most=True)} as strange")
        return said


def how_many(p: float, at_most: bool = False) -> str:
    """Say a p-value in words: one familiar image in 500 is; of calibration images it counts one too many."""
    if p > 0.5:
        return "most familiar images are"
    return f"{'at most ' if at_most else ''}one familiar image in {round(1 / p):,} is"


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


def power(known: Tensor, scores: Tensor) -> dict[float, float | None]:
    """Find the share of scores (M,) called strange at each of `ALPHAS`; None where n is too small for it.

    Thresholds come from the scores of familiar images, known, ascending, (n,).
    """
    p, least = conformal_p_values(known, scores), 1 / (len(known) + 1)
    return {
        alpha: float((p <= alpha * (1 + 1e-9)).double().mean()) if alpha >= least else None
        for alpha in ALPHAS
    }
