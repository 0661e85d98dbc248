from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import bump_images

from mfimage import Detector
from mfimage.errors import UsageError
from mfimage.ood import Stream
from mfimage.ood.rates import DAY
from mfimage.ood.stream import DriftMonitor


@pytest.fixture
def detector(model):
    return Detector(model).calibrate(bump_images(240, 11), 0.02, bump_images(200, 12))


@pytest.fixture
def verdicts(detector):
    """Verdicts with scores and statistics as they are drawn from the calibration's own."""
    known, found = detector.calibration, detector.score(bump_images(1, 5))

    def draw(count, seed, shift=0.0):
        rows = torch.from_numpy(np.random.default_rng(seed).integers(0, len(known.scores), count))
        return replace(found, scores=known.scores[rows], values=known.values[rows] + shift)

    return draw


def names(begin, end):
    return [f"{i}.png" for i in range(begin, end)]


def test_familiar_images_do_not_drift_and_darker_ones_do(detector):
    stream = Stream(detector, per_day=1000)
    verdicts, drift, notes = stream.judge(bump_images(150, 5), names(0, 150))
    assert (drift, notes) == ([], [])
    assert torch.equal(verdicts.scores, detector.score(bump_images(150, 5)).scores)
    _, drift, _ = stream.judge(0.9 * bump_images(60, 6), names(150, 210))
    darker = next(alarm for alarm in drift if alarm.statistic == "brightness")
    assert darker.words == "darker than familiar images"
    assert 130 < darker.since <= darker.noticed <= 200
    assert darker.path == f"{darker.since - 1}.png"
    assert str(darker) == (
        f"darker than familiar images since about image {darker.since} ({darker.path}), noticed at image "
        f"{darker.noticed}"
    )
    assert len({(alarm.statistic, alarm.words) for alarm in drift}) == len(drift)  # each is told once


def test_the_same_seed_tells_the_same(detector, verdicts):
    def told(seed):
        monitor = DriftMonitor(detector.calibration, seed)
        return monitor.add(verdicts(300, 1, 0.2), np.full(300, 1e-3), names(0, 300))

    assert told(1) == told(1)


def test_what_is_kept_does_not_grow(detector, verdicts):
    """After any number of images there are as many numbers and names as after the first hundred."""
    monitor = DriftMonitor(detector.calibration)
    bets, ranks = monitor.bets, monitor.ranks

    def kept():
        assert set(vars(monitor)) == {"ranks", "bets", "before"}
        arrays = [one for part in (bets, ranks) for one in vars(part).values() if isinstance(one, np.ndarray)]
        assert len(arrays) == len(vars(bets)) + len(vars(ranks)) - 2  # a counter and the random state
        return sum(array.nbytes for array in arrays)

    monitor.add(verdicts(100, 0), np.full(100, 1e-6), names(0, 100))
    before, drawn = kept(), verdicts(2000, 1)
    for _ in range(10):
        monitor.add(drawn, np.full(2000, 1e-6), names(0, 2000))
    assert kept() == before
    assert len(monitor.before) <= 9
    assert bets.seen == 20_100
    assert ranks.counts.sum() == 9 * (241 + 20_100)


def test_a_budget_sets_the_threshold(detector):
    stream = Stream(detector, budget=4, per_day=400)
    assert stream.detector.threshold_ == detector.with_alpha(0.01).threshold_
    assert detector.calibration.alpha == 0.02
    with pytest.raises(UsageError, match="240 calibration images cannot promise 4 strange verdicts a day"):
        Stream(detector, budget=4, per_day=4000)


def test_a_budget_follows_the_pace_of_the_stream(detector):
    now = [0.0]
    stream = Stream(detector, budget=2, clock=lambda: now[0])
    alphas, notes = [], []
    for hour, count in enumerate([4] * 48 + [60] * 24):
        now[0] = (hour + 1) * DAY / 24
        notes += stream.judge(bump_images(1, 5).expand(count, -1, -1, -1), names(0, count)).notes
        alphas.append(stream.detector.calibration.alpha)
    assert alphas[47] == pytest.approx(2 / 96, rel=0.05)
    assert alphas[-1] == 1 / 241  # the least that can be promised
    (said,) = notes
    assert "240 calibration images cannot promise 2 strange verdicts a day" in said


def test_a_detector_must_be_calibrated(model):
    with pytest.raises(UsageError, match="not calibrated"):
        Stream(Detector(model))
