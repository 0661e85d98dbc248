import json
import shutil

import numpy as np
import pytest
from commands import fails
from tiny import draw_bumps, write_images


@pytest.fixture
def run(mfimage, tiny_run, tmp_path):
    """A copy of the tiny run, beside a folder of 300 familiar images, the first ten of them strange."""
    shutil.copytree(tiny_run, tmp_path / "run")
    images = draw_bumps(300, seed=11)
    images[:10] = np.random.default_rng(0).integers(0, 255, (10, 8, 8), np.uint8)
    write_images(tmp_path / "own", images)
    return "run"


def calibrated(mfimage, run, *options):
    code, out, err = mfimage("calibrate", "own", "-m", run, "--split", "all", "--score", "reconstruction",
                             "--alpha", 0.05, "--json", *options)  # fmt: skip
    assert code == 0, err
    return json.loads(out), err


def test_the_strangest_are_named_and_dropped_on_request(mfimage, run):
    found, err = calibrated(mfimage, run)
    assert found["dropped"] == 0
    worst = [line.split(":")[0].strip() for line in err.splitlines() if line.startswith("  own/")]
    assert len(worst) == len(found["strangest"]) == 5
    assert set(worst[:2]) <= {f"own/{i}.png" for i in range(10)}  # of those that the density did not take
    counted, err = calibrated(mfimage, run, "--drop", 2)
    named, _ = calibrated(mfimage, run, "--drop", worst[0], "--drop", worst[1].removeprefix("own/"))
    for one in (counted, named):
        assert (one["images"], one["dropped"]) == (found["images"] - 2, 2)
    assert named["threshold"] == counted["threshold"] < found["threshold"]
    assert f"{worst[0]}: dropped: score" in err
    assert "2 calibration images dropped on request: if such are familiar too" in err
    assert fails(mfimage("calibrate", "own", "-m", run, "--drop", "none.png", "--split", "all"), 2,
                 "--drop none.png: no image is called so")  # fmt: skip


def test_new_familiar_images_join(mfimage, run, tmp_path):
    before, _ = calibrated(mfimage, run)
    write_images(tmp_path / "more", draw_bumps(50, seed=12))
    code, out, err = mfimage("calibrate", "more", "-m", run, "--update", "--json")
    assert code == 0, err
    assert json.loads(out)["images"] == before["images"] + 50
    assert f"50 images joined the {before['images']} that were there" in err
    assert "alpha 0.05" in err
    assert fails(mfimage("calibrate", "more", "-m", run, "--update", "--drop", 1), 2, "nothing is dropped")


def test_a_budget_is_a_share_of_the_images_of_a_day(mfimage, run):
    given = ("calibrate", "own", "-m", run, "--split", "all", "--score", "latent")
    code, _, err = mfimage(*given, "--budget", "5/day", "--per-day", 100)
    assert code == 0, err
    assert "alpha 0.05" in err
    assert fails(mfimage(*given, "--budget", "5/day"), 2, "--budget and --per-day belong together")
    assert fails(mfimage(*given, "--budget", "5/day", "--per-day", 100, "--alpha", 0.1), 2, "choose one")
    assert fails(mfimage(*given, "--budget", "1/week", "--per-day", 100), 2, "699 are needed")


def test_nothing_joins_what_is_not_there(mfimage, run):
    assert fails(mfimage("calibrate", "own", "-m", run, "--update"), 4, "no detector there")
