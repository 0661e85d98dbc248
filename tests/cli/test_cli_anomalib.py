"""A folder laid out as for anomalib, through every verb: train, calibrate, score, evaluate."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from commands import fails
from tiny import TINY, draw_bumps, write_images


@pytest.fixture
def root(mfimage, tmp_path):
    """The name of a folder with train/good, test/good, test/square and ground_truth/square."""
    bad = draw_bumps(12, seed=6)
    masks = np.zeros_like(bad)
    bad[:, 5:8, :3], masks[:, 5:8, :3] = 230, 255
    write_images("bottle/train/good", draw_bumps(200))
    write_images("bottle/test/good", draw_bumps(12, seed=5))
    write_images("bottle/test/square", bad)
    write_images("bottle/ground_truth/square", masks)
    (tmp_path / "tiny.json").write_text(json.dumps(asdict(TINY)))
    return "bottle"


@pytest.fixture
def trained(mfimage, root):
    code, _, err = mfimage("train", root, "--config", "tiny.json", "-o", "run", "--device", "cpu", "-q")
    assert code == 0, err
    return "run"


def test_every_verb_understands_the_layout(mfimage, root, trained):
    about = json.loads(Path("run/data.json").read_text())
    assert (about["split"], about["count"]) == ("train", 200)

    code, out, err = mfimage("calibrate", root, "-m", trained, "--alpha", 0.1, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["images"] == 20  # those that watched the training, a tenth
    assert "calibrated on train, of it what watched the training" in err
    assert err.count("bottle/train/good/") >= 5  # the strangest of these are named

    code, out, err = mfimage("score", root, "-m", trained, "--json")
    assert code == 0, err
    rows = json.loads(out)["scores"]
    assert [row["path"].split("/")[1:3] for row in rows[:1] + rows[-1:]] == [
        ["test", "good"], ["test", "square"]
    ]  # fmt: skip
    assert {row["class"] for row in rows} == {"good", "square"}
    assert len(rows) == 24
    assert "  square: 12 of 12 strange" in err

    for arguments in ([trained, root], [trained], [trained, "--ood", root]):
        code, out, err = mfimage("evaluate", *arguments, "--json")
        assert code == 0, err
        report = json.loads(out)
        assert (report["n_good"], list(report["kinds"])) == (12, ["square"])
        assert report["kinds"]["square"]["pixel_auroc"]["value"] > 0.9


def test_a_model_of_other_images_calibrates_on_all_of_train(mfimage, root, tiny_run, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "other")
    code, out, err = mfimage("calibrate", root, "-m", "other", "--alpha", 0.1, "--json")
    assert code == 0, err
    assert json.loads(out)["images"] == 80  # 60 % go into the density
    assert "which the model has not learned from" in err


def test_a_validation_split_is_what_is_calibrated_on(mfimage, root, tiny_run, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "other")
    write_images("bottle/validation/good", draw_bumps(15, seed=8))
    code, out, err = mfimage("calibrate", root, "-m", "other", "--alpha", 0.1, "--json")
    assert code == 0, err
    assert json.loads(out)["images"] == 15
    assert "calibrated on valid" in err


def test_uncalibrated_models_and_chosen_metrics(mfimage, root, trained):
    assert fails(mfimage("evaluate", trained, root), 4, "calibrate the model first")
    assert fails(
        mfimage("calibrate", root, "-m", trained), 2,
        "20 held-out calibration images are too few for alpha = 0.01",
    )  # fmt: skip
    code, out, _ = mfimage("score", root, "-m", trained)
    assert code == 0
    assert out.splitlines()[0].endswith("good")
    code, out, err = mfimage("evaluate", trained, root, "--metrics", "reconstruction", "--json")
    assert code == 0, err
    assert json.loads(out)["numbers"]["mse"]["n"] == 24
