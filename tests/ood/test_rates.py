from types import SimpleNamespace

import numpy as np
import pytest

from mfimage.errors import UsageError
from mfimage.ood.rates import DAY, Allowance, Pace, budget_alpha

KNOWN = SimpleNamespace(scores=range(240))


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def test_a_budget_is_a_share_of_the_images_of_a_day():
    assert budget_alpha(3, 300, KNOWN) == pytest.approx(0.01)
    with pytest.raises(UsageError) as refused:
        budget_alpha(3, 10_000, KNOWN)
    assert str(refused.value) == (
        "240 calibration images cannot promise 3 strange verdicts a day of 10,000 familiar images: the least "
        "is 41.5 a day. Calibrate on 3,333 images or more, or give a budget of 41.5/day"
    )
    with pytest.raises(UsageError, match="more than half of 4 images a day"):
        budget_alpha(3, 4)
    with pytest.raises(UsageError, match="per_day must be a positive number"):
        budget_alpha(3, 0)


def test_a_budget_that_is_just_reached_is_kept():
    assert budget_alpha(1, 241, KNOWN) == pytest.approx(1 / 241)


def test_the_pace_is_that_of_the_last_day():
    clock = Clock()
    pace = Pace(clock)
    for _ in range(3 * 24):
        clock.now += DAY / 24
        pace.add(10)
    assert pace.per_day == pytest.approx(240, rel=0.03)
    assert not pace.young
    for _ in range(3 * 24):
        clock.now += DAY / 24
        pace.add(20)
    assert pace.per_day == pytest.approx(480, rel=0.08)


def test_the_first_images_count_as_those_of_an_hour():
    clock = Clock()
    pace = Pace(clock)
    clock.now += 1
    pace.add(10)
    assert pace.young
    assert pace.per_day == pytest.approx(240, rel=0.05)


def test_no_more_is_given_than_the_time_allows():
    clock = Clock()
    allowance = Allowance(5, None, clock)
    assert allowance.take(3).sum() == 0
    total, random = 0.0, np.random.default_rng(0)
    for _ in range(500):
        clock.now += DAY / 250
        total += allowance.take(int(random.poisson(3))).sum()
    assert 0.8 * 10 < total <= 10  # two days at five a day
    assert (Allowance(5, 1000, clock).take(4) == 0.005).all()
    with pytest.raises(UsageError, match="drift must be a positive number"):
        Allowance(0)
