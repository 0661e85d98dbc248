"""A metric that cannot be measured says why, and the others stand."""

import numpy as np
import pytest
import torch
from tiny import draw_bumps, image_set, initialised

from mfimage import evaluate
from mfimage.config import ModelConfig
from mfimage.errors import DataError
from mfimage.eval import read_evaluation

METRICS = ("reconstruction", "density", "geometry", "latent", "memorisation", "fd")


@pytest.fixture
def flow_and_training():
    training = image_set(draw_bumps(120), "training")
    return initialised(ModelConfig((1, 8, 8), 3, kind="linear"), training), training


@pytest.mark.usefixtures("few")
def test_one_metric_that_needs_more_images_leaves_the_others(flow_and_training, tmp_path):
    flow, training = flow_and_training
    test = image_set(draw_bumps(4, seed=1), "test")
    report = evaluate(test, flow, training, metrics=("reconstruction", "kid", "prdc"), cache=tmp_path)
    assert report.skipped == {"prdc": "5 neighbours need more than 5 images in each set"}
    x = test.batch(slice(None))
    with torch.no_grad():
        error = float((flow.project(x).clamp(0, 1) - x).square().mean())
    assert report.numbers["mse"].value == pytest.approx(error, rel=1e-5)
    assert "kid" in report.numbers
    assert "prdc: 5 neighbours need more than 5" in report.text()


def test_of_a_single_image_there_is_what_can_be_said(flow_and_training, tmp_path):
    flow, training = flow_and_training
    one = image_set(draw_bumps(1, seed=1), "one")
    report = evaluate(one, flow, training, metrics=METRICS, cache=tmp_path)
    assert set(report.skipped) == {"latent", "fd"}
    assert {"mse", "log_prob", "rank", "copies"} <= set(report.numbers)
    assert read_evaluation(report.save(tmp_path / "m.json")).skipped == report.skipped


def test_where_nothing_can_be_measured_it_is_an_error(flow_and_training, tmp_path):
    flow, training = flow_and_training
    with pytest.raises(DataError, match=r"latent cannot be measured: codes are \(N, d\), N at least 2"):
        evaluate(image_set(draw_bumps(1), "one"), flow, training, metrics=("latent",), cache=tmp_path)


def test_thin_images_have_no_structural_similarity_and_the_rest(tmp_path):
    training = image_set(draw_bumps(120, side=40)[:, 20:21], "strip")
    flow = initialised(ModelConfig((1, 1, 40), 2, kind="linear"), training)
    test = image_set(np.ascontiguousarray(draw_bumps(30, side=40, seed=1)[:, 20:21]), "test")
    report = evaluate(test, flow, training, metrics=("reconstruction", "latent"), cache=tmp_path)
    assert report.skipped == {"ssim": "needs 3 × 3 pixels, the images have 1 × 40"}
    assert {"mse", "psnr", "latent_radius"} <= set(report.numbers)
    assert "ssim" not in report.numbers
