"""Numbers as users have them: of numpy and torch, in lists, and what is none."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from tiny import bump_images, draw_bumps

from mfimage import Config, Detector, ModelConfig, Reading, denoise, load, score, super_resolve
from mfimage.denoising.operators import Downsample
from mfimage.errors import UsageError
from mfimage.settings import check_number, check_range, plain, whole_number

WHOLE = [np.int64(4), np.uint8(4), np.array(4), torch.tensor(4)]


def test_scalars_become_plain_wherever_they_stand():
    given = {"a": [np.int64(1), (np.float32(0.5), "x")], "b": torch.tensor(True), "c": None}
    assert plain(given) == {"a": (1, (0.5, "x")), "b": True, "c": None}
    assert [type(one) for one in plain((np.int64(1), np.float32(0.5), np.bool_(True)))] == [int, float, bool]
    array = np.arange(3)
    assert plain(array) is array


@pytest.mark.parametrize("four", WHOLE)
def test_settings_take_scalars_of_numpy_and_torch(four):
    config = Config(dim=four, noise=[np.float64(0), np.float32(0.5)], model={"width": four})
    assert config == Config(dim=4, noise=(0.0, 0.5), model={"width": 4})
    assert json.loads(json.dumps(asdict(config)))["dim"] == 4
    assert Config(lr=np.float32(0.25), flip=np.bool_(True)) == Config(lr=0.25, flip=True)
    shape = torch.zeros(1, 8, 8).shape
    assert ModelConfig([np.int64(1), four, four], 2) == ModelConfig((1, 4, 4), 2)
    assert type(ModelConfig(shape, 2).shape) is tuple
    assert Reading(max_pixels=four, value_range=[0, four]) == Reading(max_pixels=4, value_range=(0, 4))


@pytest.mark.parametrize("channels", [True, 1.0, "1", 2])
def test_a_choice_of_numbers_takes_nothing_that_is_merely_equal(channels):
    with pytest.raises(UsageError, match="channels must be"):
        Config(channels=channels)


@pytest.mark.parametrize("four", WHOLE)
def test_functions_take_scalars_of_numpy_and_torch(four, model):
    assert load("fashion-mini", "test", size=four, limit=four).batch(slice(None)).shape == (4, 1, 4, 4)
    assert load("fashion-mini", "test", size=[four, 5], limit=four).shape == (1, 4, 5)
    x = bump_images(5)
    torch.testing.assert_close(score(x, model, batch_size=four), score(x, model), atol=1e-6, rtol=0)
    torch.testing.assert_close(denoise(x, model, batch_size=four), denoise(x, model), atol=1e-6, rtol=0)
    assert Downsample(four) == Downsample(4)
    assert super_resolve(x[0, :, :2, :2], four, model).shape == (1, 8, 8)


@pytest.mark.parametrize("one", [np.int64(1), torch.tensor(1)])
def test_a_calibration_takes_scalars_and_can_be_kept(one, model, tmp_path):
    images = draw_bumps(100, seed=7)[..., None]
    alpha = np.float32(0.125)
    ours, plainly = (
        Detector(model, "reconstruction", batch_size=size).calibrate(images, alpha=a, seed=seed)
        for size, a, seed in ((np.int64(64), alpha, one), (64, 0.125, 1))
    )
    assert ours.threshold_ == plainly.threshold_
    ours.save(tmp_path)
    assert Detector.load(tmp_path, model).threshold_ == ours.threshold_


@pytest.mark.parametrize(
    "wrong", [-1, 0, 1.5, np.float64(2), True, np.bool_(True), "3", None, [3], np.arange(2)]
)
def test_what_is_no_whole_number_is_refused(wrong, model):
    with pytest.raises(UsageError, match="count must be a whole number from 1, not"):
        whole_number("count", wrong, 1)
    with pytest.raises(UsageError, match="batch_size must be a whole number from 1"):
        score(bump_images(2), model, batch_size=wrong)


@pytest.mark.parametrize("wrong", [-1.0, float("nan"), float("inf"), 10**400, True, "1", None, [1.0]])
def test_what_is_no_number_is_refused(wrong):
    with pytest.raises(UsageError, match="lr must be a number from 0"):
        check_number("lr", wrong)


@pytest.mark.parametrize(
    "wrong",
    [(1, 0), (0, 0), (0,), (0, 1, 2), 3, "01", (0, float("nan")), (0, 10**400), (-1e308, 1e308), (True, 2)],
)
def test_what_is_no_range_is_refused(wrong):
    with pytest.raises(
        UsageError, match=r"value range .*: two numbers are needed, the first below the second"
    ):
        check_range(wrong)
    with pytest.raises(UsageError, match="value range"):
        Reading(value_range=wrong)


@pytest.mark.parametrize("wrong", [0, -3, 2.5, "8", True, (8,), (8, 0), (8, 8, 8), np.arange(3), (2.0, 4)])
def test_what_is_no_size_is_refused(wrong):
    with pytest.raises(
        UsageError, match=r"size .*: height and width are whole numbers of pixels, and at least 1"
    ):
        load("fashion-mini", "test", size=wrong)
