"""How often in a day something may happen on familiar images, and what that is for each of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np

from mfimage.console import counted
from mfimage.errors import UsageError
from mfimage.ood.calibration import DetectorCalibration
from mfimage.ood.martingale import Numbers
from mfimage.settings import check_number

DAY = 86400.0  # seconds
_BEGINNING = 3600.0  # seconds, in which a pace is not yet known, and taken to be slow
_PART = 0.01  # of what has come together, that the next image is given
MOST = 0.5  # a larger share of familiar images is not called strange


def budget_alpha(budget: float, per_day: float, known: DetectorCalibration | None = None) -> float:
    """Return α = budget / images a day, the share of familiar images that may be called strange.

    Args:
        budget: Strange verdicts a day that familiar images may give.
        per_day: Images a day.
        known: The calibration that is to hold it, if there is one.

    Raises:
        UsageError: If not all images could be strange, or the calibration images are too few.
    """
    alpha = check_number("budget", budget, positive=True) / check_number("per_day", per_day, positive=True)
    if alpha > MOST:
        raise UsageError(
            f"a budget of {budget:g} a day is more than half of {per_day:,.6g} images a day: give a smaller"
        )
    if known is not None and alpha < (least := least_alpha(known)):
        raise UsageError(f"{too_few(budget, per_day, known)}, or give a budget of {least * per_day:.3g}/day")
    return alpha


def least_alpha(known: DetectorCalibration) -> float:
    """Return the smallest α that calibration images can promise, 1 / (n + 1)."""
    return 1 / (len(known.scores) + 1)


def too_few(budget: float, per_day: float, known: DetectorCalibration) -> str:
    """Say that calibration images are too few for a budget, and how many are needed."""
    images, needed = counted(len(known.scores), "calibration image"), math.ceil(per_day / budget - 1e-9) - 1
    return (
        f"{images} cannot promise {budget:g} strange verdicts a day of {per_day:,.6g} familiar images: the "
        f"least is {least_alpha(known) * per_day:.3g} a day. Calibrate on {needed:,} images or more"
    )


class Pace:
    """Images a day of a stream: a mean over the last day, in which an image counts the less the older it is.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock, self.began, self.last, self._sum = clock, clock(), clock(), 0.0

    def add(self, count: int) -> None:
        """Note that so many images have come."""
        now = self.clock()
        self._sum = self._sum * math.exp((self.last - now) / DAY) + count
        self.last = now

    @property
    def young(self) -> bool:
        """Whether the stream has not yet lasted an hour, and its pace counts as if it had."""
        return self.clock() - self.began < _BEGINNING

    @property
    def per_day(self) -> float:
        """Images a day, at least one."""
        now = self.clock()
        lasted = max(now - self.began, _BEGINNING)
        return max(1.0, self._sum * math.exp((self.last - now) / DAY) / -math.expm1(-lasted / DAY))


class Allowance:
    """What each image is given to bet, so that in a day no more than `rate` is.

    With `per_day` each gets rate / per_day. Without, it comes with the time, and the next image is given a
    hundredth of what has come together: images that come at once share, and nothing depends on the pace.

    Args:
        rate: False alarms a day.
        per_day: Images a day, if known.
        clock: Seconds, monotonic.
    """

    def __init__(
        self, rate: float, per_day: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.rate = check_number("drift", rate, positive=True)
        self.per_day = None if per_day is None else check_number("per_day", per_day, positive=True)
        self.clock, self.last, self.saved = clock, clock(), 0.0

    def take(self, count: int) -> Numbers:
        """Return what each of the next images is given, (count,)."""
        if self.per_day is not None:
            return np.full(count, self.rate / self.per_day)
        now = self.clock()
        self.saved += self.rate * (now - self.last) / DAY
        self.last = now
        given = np.float64(self.saved * _PART) * np.power(1 - _PART, np.arange(count, dtype=np.float64))
        self.saved -= float(given.sum())
        return given
