"""Images that come one after the other: a verdict on each, and whether they drift away from what is usual."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mfimage.inputs import AnyImages, Sigma
from mfimage.ood.calibration import DetectorCalibration
from mfimage.ood.detector import Detector
from mfimage.ood.martingale import Alarm, Bets, Numbers, Ranks
from mfimage.ood.rates import MOST, Allowance, Pace, budget_alpha, least_alpha, too_few
from mfimage.ood.statistics import WORDS
from mfimage.ood.verdicts import Verdicts

MONTHLY = 1 / 30  # false alarms of drift a day, where nothing is said
_SAID = {"score": ("less strange than familiar images", "stranger than familiar images"), **WORDS}
_GAP = 10  # images after an alarm, within which another belongs to the same drift


@dataclass(frozen=True)
class DriftAlarm:
    """Images of a stream are no longer like the calibration images and all that came before.

    Attributes:
        statistic: What has changed: "score", or a named statistic.
        words: In which way.
        since: The number of the image, from 1, with which it seems to have begun.
        path: Its name, if it has one.
        noticed: The number of the image at which it was noticed.
    """

    statistic: str
    words: str
    since: int
    path: str
    noticed: int

    def __str__(self) -> str:
        named = f" ({self.path})" if self.path else ""
        return f"{self.words} since about image {self.since:,}{named}, noticed at image {self.noticed:,}"


class DriftMonitor:
    """Tell when a stream drifts, with no more false alarms than are allowed, whatever is familiar.

    Score and named statistics are bet on each for itself, see `martingale.Bets`. While images are drawn like
    the calibration images, in the mean over calibration sets no more alarms come than were allowed. A drift
    is told once in each of its ways; images that stay as they have become are usual after a while. The
    memory that it needs does not grow.

    Args:
        known: A detector's calibration.
        seed: Of the random numbers that make p-values exactly uniform.
    """

    def __init__(self, known: DetectorCalibration, seed: int = 0) -> None:
        self.ranks = Ranks(np.column_stack([known.scores, known.values]), seed)
        self.bets = Bets(len(_SAID))
        self.before: dict[int, Alarm] = {}  # the last alarm of each column

    def add(self, verdicts: Verdicts, given: Numbers, paths: Sequence[str]) -> list[DriftAlarm]:
        """Take the next images; return what is noticed.

        Args:
            verdicts: On them, (B,).
            given: How many false alarms are allowed for each of them, (B,), whatever they are like.
            paths: Their names.
        """
        p = self.ranks(np.column_stack([verdicts.scores, verdicts.values]))
        return [_told(alarm) for alarm in self.bets(p, given, paths) if self._is_new(alarm)]

    def _is_new(self, alarm: Alarm) -> bool:
        last = self.before.get(alarm.column)
        self.before[alarm.column] = alarm
        return last is None or last.high != alarm.high or alarm.since > last.noticed + _GAP


def _told(alarm: Alarm) -> DriftAlarm:
    name = list(_SAID)[alarm.column]
    return DriftAlarm(name, _SAID[name][alarm.high], alarm.since, alarm.name, alarm.noticed)


class Judged(NamedTuple):
    """What is said of the next images of a stream."""

    verdicts: Verdicts
    drift: list[DriftAlarm]
    notes: list[str]  # what a user should know, a sentence each


class Stream:
    """Judge images as they come, and tell when they drift.

    Args:
        detector: Calibrated.
        drift: False alarms of drift a day that are allowed.
        budget: Strange verdicts a day that familiar images may give, which sets α in the place of that of
            the calibration; None: as calibrated.
        per_day: Images a day; None: as they come.
        sigma: Deviation of noise in the images, as for `Detector.score`.
        seed: Of the test of drift.
        clock: Seconds, monotonic.

    Raises:
        UsageError: If calibration images are too few for a budget of so many images a day; of a pace that is
            yet to be measured this is a note of `judge`.
    """

    def __init__(
        self,
        detector: Detector,
        drift: float = MONTHLY,
        budget: float | None = None,
        per_day: float | None = None,
        sigma: Sigma | None = None,
        seed: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.calibrated = known = detector.calibration
        if budget is not None and per_day is not None:
            detector = detector.with_alpha(budget_alpha(budget, per_day, known))
        self.detector, self.sigma = detector, sigma
        self.budget = budget if per_day is None else None  # which the pace is still to be found for
        self.monitor = DriftMonitor(known, seed)
        self.allowance, self.pace = Allowance(drift, per_day, clock), Pace(clock)
        self.warned = False

    def judge(self, images: AnyImages, paths: Sequence[str]) -> Judged:
        """Judge the next images, as `Detector.score` takes them; `paths` names each."""
        self.pace.add(len(paths))
        notes = [] if self.budget is None else self._keep_budget(self.budget)
        verdicts = self.detector.score(images, self.sigma)
        drift = self.monitor.add(verdicts, self.allowance.take(len(paths)), paths)
        return Judged(verdicts, drift, notes)

    def _keep_budget(self, budget: float) -> list[str]:
        """Set α by the pace so far; say, once, if that cannot be promised."""
        known, per_day = self.calibrated, self.pace.per_day
        alpha = min(budget / per_day, known.alpha if self.pace.young else MOST)
        self.detector = self.detector.with_alpha(max(alpha, least_alpha(known)))
        if alpha >= least_alpha(known) or self.warned:
            return []
        self.warned = True
        return [too_few(budget, per_day, known)]
