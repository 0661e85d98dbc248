"""What is said of a training while it goes on."""

from dataclasses import replace

import pytest
import torch
from tiny import TINY, bump_images

from mfimage import console
from mfimage.account import Account, found, linear_error
from mfimage.algorithms import ALGORITHMS
from mfimage.datasets import ImageSet, Points
from mfimage.eval import PCA
from mfimage.schedule import Progress, Schedule

_, MANIFOLD, *_, DENSITY, _, _ = ALGORITHMS[
    "m-flow"
].phases  # the first sees principal coordinates, no images
PHASES = [MANIFOLD, DENSITY]


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def tell(account, phase, schedule, records, clock, seconds=6.0):
    """Report (step, {loss[, validation]}), so many seconds a step apart."""
    with account.phase(phase, schedule, 50) as report:
        for step, record in records:
            clock[0] += seconds
            report(Progress(step=step, seconds=clock[0], watched=0.5), record)


def test_by_the_clock_the_rest_is_what_was_given(clock, capsys):
    config = replace(TINY, steps=None, density_steps=None, time=600.0)
    account = Account(config, PHASES, quiet=False, linear=100.0, clock=lambda: clock[0])
    account.open(["found"])
    schedule = Schedule(None, 1e-3, seconds=480.0)
    records = [(1, {"loss": 120.0}), (2, {"loss": 100.0, "validation": 82.0}), (4, {"loss": 95.0})]
    tell(account, MANIFOLD, schedule, records, clock, 60.0)
    said = capsys.readouterr().err.splitlines()
    assert said[:2] == ["found", "training for 10 min; mfimage train --time sets how long"]
    assert said[2].startswith("manifold   13 %  step 1  error 120  9 min left of 10 min")
    assert said[3].startswith("manifold   25 %  step 2  error 110 (held out 82, 0.82 of PCA's)  8 min left")
    assert said[4].startswith("manifold   38 %  step 4  error 105 (held out 82, 0.82 of PCA's)  7 min left")


def test_by_steps_the_rest_is_measured_on_the_first_steps(clock, capsys):
    config = replace(TINY, steps=100, density_steps=200)
    account = Account(config, PHASES, quiet=False, linear=100.0, clock=lambda: clock[0])
    account.paces = {"density": 0.5}
    tell(account, MANIFOLD, Schedule(100, 1e-3), [(10, {"loss": 1.0, "validation": 2.0})], clock, 20.5)
    line = capsys.readouterr().err.splitlines()[-1]
    left = 90 * 2.0 + 200 * 0.5 + 0.5 * (72 + 1) + 2  # measuring projects the images 72 times, and once
    assert f"{left / 60:.0f} min left of {(left + 20.5) / 60:.0f} min" in line
    tell(account, DENSITY, Schedule(200, 1e-3), [(100, {"loss": 1.0})], clock, 29.5)
    assert "loss 1  88 s left of 2 min" in capsys.readouterr().err  # 100 steps of 0.495 s, and 38.5 s


def test_a_quiet_account_says_nothing(clock, capsys):
    account = Account(TINY, PHASES)
    account.open(["found"])
    tell(account, MANIFOLD, Schedule(60, 1e-3), [(1, {"loss": 1.0}), (60, {"loss": 1.0})], clock, 60.0)
    assert capsys.readouterr().err == ""


def test_without_principal_components_nothing_stands_beside(clock, capsys):
    account = Account(TINY, PHASES, quiet=False)
    tell(account, MANIFOLD, Schedule(60, 1e-3), [(60, {"loss": 1.0, "validation": 2.0})], clock)
    assert "error 1 (held out 2)  " in capsys.readouterr().err


def test_what_was_found_is_said():
    images = ImageSet((255 * bump_images(21)).byte(), "bumps", "train", ("a",) * 21)
    few, one = images.subset(slice(20)), images.subset([20])
    assert found(few, one) == "20 images to learn from, 1 held out, 8×8 grey"
    assert found(images.subset([0]), images).startswith("1 image to learn from, 21 held out")
    points = Points(torch.zeros(9, 3), "points")
    assert found(points, points) == "9 vectors to learn from, 9 held out, of length 3"


def test_the_error_of_principal_components_is_the_mean_over_images():
    images = ImageSet((255 * bump_images(300)).byte(), "bumps", "train", ())
    pca, x = PCA.of(images, 2), images.batch(slice(None))
    truth = float((pca.project(x) - x).square().sum((1, 2, 3)).mean())
    assert linear_error(pca, images) == pytest.approx(truth, rel=1e-5)
