import numpy as np
import pytest
from scipy.stats import kstest

from mfimage.ood.martingale import Bets, Ranks

NAMES = [""] * 400


def stream(seed, count=400, known=60, columns=3, change=lambda x: x):
    """P-values of a stream against a calibration set that is drawn anew with each seed."""
    random = np.random.default_rng(seed)
    ranks = Ranks(random.normal(size=(known, columns)), seed)
    parts = change(random.normal(size=(count, columns))).reshape(4, -1, columns)
    return np.concatenate([ranks(part) for part in parts])


def test_p_values_are_uniform_and_know_nothing_of_one_another():
    p = np.stack([stream(seed, 40)[:, 0] for seed in range(400)])
    assert kstest(p.ravel(), "uniform").pvalue > 0.01
    assert kstest(p[:, -1], "uniform").pvalue > 0.01
    follows = np.corrcoef(p[:, :-1].ravel(), p[:, 1:].ravel())[0, 1]
    assert abs(follows) < 4 / p.size**0.5
    means = p.mean(1)  # of dependent ones, as against the calibration alone, the means would vary more
    assert means.var() == pytest.approx(1 / 12 / 40, rel=0.25)


def test_a_batch_has_the_p_values_of_its_images_one_by_one():
    random = np.random.default_rng(0)
    known, values = random.normal(size=(30, 2)), random.normal(size=(50, 2))
    ranks = Ranks(known, 1)
    before = np.concatenate([known, values])
    together = ranks(values)
    for row, p in enumerate(together):
        higher = (before[: 30 + row] > values[row]).sum(0)
        # The urn knows of the stream in which gap each lies: the rank is right to within one gap.
        assert (abs(p - higher / (31 + row)) <= 30 / (31 + row)).all()
    counts = [[(np.searchsorted(np.sort(k), v) == gap).sum() for gap in range(31)] for k, v in
              zip(known.T, values.T, strict=True)]  # fmt: skip
    assert (ranks.counts - 1 == counts).all()


def test_values_that_are_equal_have_uniform_p_values_too():
    random = np.random.default_rng(0)
    p = [
        Ranks(random.integers(0, 3, (40, 1)).astype(float), seed)(
            random.integers(0, 3, (20, 1)).astype(float)
        )
        for seed in range(150)
    ]
    assert kstest(np.concatenate(p).ravel(), "uniform").pvalue > 0.01


def test_there_are_no_more_false_alarms_than_are_allowed():
    """E #alarms ≤ what was given, in the mean over streams and calibration sets: here 1 in 400 images."""
    counts = [len(Bets(3)(stream(seed), np.full(400, 1 / 400), NAMES)) for seed in range(150)]
    assert np.mean(counts) < 1 - 2 * np.std(counts) / 150**0.5
    assert np.mean(counts) > 0.05  # it is not a test that never tells


def test_comparing_with_the_calibration_alone_would_not_hold_that():
    """The reason for the urn: chance deviations of a small calibration set pass for drift."""
    alarms = 0
    for seed in range(20):
        random = np.random.default_rng(seed)
        known, new = np.sort(random.normal(size=60)), random.normal(size=(2000, 1))
        p = (1 + 60 - np.searchsorted(known, new) - random.random(new.shape)) / 61
        alarms += len(Bets(1)(p, np.full(2000, 1e-3 / 2000), [""] * 2000))
    assert alarms > 20 * 1e-3 * 20


@pytest.mark.parametrize(
    ("change", "high", "column"),
    [(lambda x: x + np.array([0, 1.5, 0]), True, 1), (lambda x: x - np.array([0, 0, 1.5]), False, 2)],
)
def test_a_shift_is_noticed_soon_with_its_way_and_beginning(change, high, column):
    begins = []
    for seed in range(5):
        shifted = lambda x: np.concatenate([x[:200], change(x[200:])])  # noqa: E731
        alarms = Bets(3)(stream(seed, change=shifted), np.full(400, 1e-5), [str(i) for i in range(400)])
        assert (alarms[0].column, alarms[0].high) == (column, high)
        assert 200 < alarms[0].noticed < 280
        assert alarms[0].name == str(alarms[0].since - 1)
        begins.append(alarms[0].since)
    assert abs(np.median(begins) - 201) < 15


def test_a_few_images_far_out_are_noticed():
    far = np.arange(400) % 10 == 0
    shifted = lambda x: x + 6 * (far & (np.arange(400) >= 100))[:, None]  # noqa: E731
    alarms = Bets(3)(stream(0, known=1000, change=shifted), np.full(400, 1e-5), NAMES)
    assert alarms[0].high
    assert 100 < alarms[0].noticed < 300
