import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TINY, bump_images, draw_bumps

from mfimage import denoise, from_pretrained, train
from mfimage.config import Config
from mfimage.datasets import ImageSet
from mfimage.denoising import curve
from mfimage.denoising.curve import (
    CURVE,
    SIGMAS,
    DenoisingCurve,
    PsnrCurve,
    calibrate_denoising,
    curve_of,
    denoise_batch,
    measure_curve,
    taken_off,
)
from mfimage.denoising.familiarity import measure_familiarity
from mfimage.denoising.methods import is_cut, wavelet_sigma
from mfimage.errors import ModelError, UsageError

pytestmark = pytest.mark.filterwarnings("ignore::mfimage.errors.UnfamiliarWarning")  # of 19 images it knows
WHOLE = PsnrCurve(
    (0.01, 0.1, 1.0), {"noisy": (40.0, 20.0, 5.0), "projection": (22.0, 21.0, 10.0)}, (0.02, 0.12, 0.9)
)
CUT = PsnrCurve((0.01, 0.1, 1.0), {"noisy": (9.0,) * 3, "projection": (8.0, 8.0, 10.0)}, (0.01, 0.06, 0.3))
BOTH = DenoisingCurve(WHOLE, CUT)


def psnr(x, y):
    return float(-10 * (x - y).square().flatten(1).mean(1).log10().mean())


@pytest.fixture(scope="module")
def aware(tmp_path_factory):
    """A model that learned to remove noise, as training left it."""
    torch.set_num_threads(1)
    directory = tmp_path_factory.mktemp("aware")
    path = directory / "bumps.npy"
    np.save(path, draw_bumps(400))
    model = {**TINY.model, "noise_width": 8}
    settings = TINY.with_(steps=300, noise=(0.0, 0.5), every=100, lr=5e-3, batch_size=64, model=model)
    train(path, directory / "run", settings, device="cpu")
    return directory / "run"


@pytest.mark.parametrize(
    ("sigma", "best"),
    [(0.0, "noisy"), (0.01, "noisy"), (0.08, "noisy"), (0.1, "projection"), (7.0, "projection")],
)
def test_the_best_is_read_off_the_curve(sigma, best):
    assert WHOLE.best(sigma) == best


def test_between_its_points_the_curve_is_straight_in_the_logarithm():
    # noisy falls by 20 dB over a decade, projection by 1: they meet 18/19 of the way
    meets = 0.01 * 10 ** (18 / 19)
    assert WHOLE.best(0.999 * meets) == "noisy"
    assert WHOLE.best(1.001 * meets) == "projection"


def test_the_estimate_undoes_what_structure_and_cutting_change(generator):
    y = (0.5 + 0.12 * torch.randn(200, 1, 28, 28, generator=generator)).clamp(0, 1)
    y[:, :, 0, 0] = 1.5  # beyond white: not cut
    assert wavelet_sigma(y).mean() == pytest.approx(0.12, rel=0.02)
    assert BOTH.blind(y, None).mean() == pytest.approx(0.1, rel=0.02)
    y[:, :, 0, 0] = 1.0
    assert BOTH.blind(y, None).mean() == pytest.approx(0.1 + 0.9 * (0.12 - 0.06) / (0.3 - 0.06), rel=0.02)
    louder = 100 * y
    torch.testing.assert_close(BOTH.blind(louder, None), wavelet_sigma(louder) / 0.9)


def test_an_image_is_cut_if_nothing_lies_beyond():
    y = torch.full((4, 1, 2, 2), 0.5)
    y[1, 0, 0, 0], y[2, 0, 1, 1], y[3, 0, 0, 0] = -1e-3, 1.001, 0.0
    assert is_cut(y).tolist() == [True, False, False, True]


def test_what_suits_a_cut_image_is_read_off_a_line_of_its_own():
    y = torch.tensor([0.5, 1.5]).view(2, 1, 1, 1)
    assert BOTH.best(y, torch.tensor([0.2, 0.2])) == ["noisy", "projection"]


@pytest.mark.parametrize("part", ["whole", "cut"])
def test_the_curve_is_the_psnr_of_each_method(model, part):
    clean = bump_images(30)
    line = getattr(measure_curve(clean, model, seed=3), part)
    assert set(line.psnr) == {"noisy", "projection"}
    generator = torch.Generator().manual_seed(3)
    for i, sigma in enumerate(line.sigmas):
        y = clean + sigma * torch.randn(clean.shape, generator=generator)
        y = y.clamp(0, 1) if part == "cut" else y
        with torch.no_grad():
            projected = model.project(y).clamp(0, 1)
        assert line.psnr["projection"][i] == pytest.approx(psnr(projected, clean), abs=1e-3)
        assert line.psnr["noisy"][i] == pytest.approx(psnr(y.clamp(0, 1), clean), abs=1e-3)
        assert line.wavelet[i] == pytest.approx(float(wavelet_sigma(y).mean()), rel=1e-4)


def test_training_stores_the_curve_with_the_model(aware, tiny_run):
    assert set(curve_of(from_pretrained(tiny_run)).cut.psnr) == {"noisy", "projection"}
    assert set(curve_of(from_pretrained(aware)).whole.psnr) == {
        "noisy",
        "projection",
        "refined",
        "soft",
    }


def test_a_model_saved_before_there_were_curves_projects(tiny_run, tmp_path):
    old = tmp_path / "old"
    old.mkdir()
    config = json.loads((tiny_run / "model" / "config.json").read_text())
    del config["noise_aware"]
    (old / "config.json").write_text(json.dumps(config))
    (old / "model.safetensors").write_bytes((tiny_run / "model" / "model.safetensors").read_bytes())
    model = from_pretrained(old)
    assert curve_of(model) is None
    y = bump_images(4)
    done = denoise_batch(y, model)
    assert done.methods == ["projection"] * 4
    torch.testing.assert_close(done.sigma, wavelet_sigma(y))


@pytest.mark.parametrize(
    "line",
    [
        3,
        {},
        {"sigmas": [0.1], "wavelet": [0.1], "psnr": {"noisy": ["x"]}},
        {"sigmas": [0.1], "wavelet": [0.1, 0.2], "psnr": {"noisy": [1.0]}},
        {"sigmas": [0.1], "wavelet": [0.1], "psnr": {"soft": [1.0]}},
        {"sigmas": [0.1], "wavelet": [0.1], "removed": [0.1, 0.2], "psnr": {"noisy": [1.0]}},
        {"sigmas": [0.1], "wavelet": [0.1], "psnr": {}},
    ],
)
def test_a_damaged_curve_is_an_error(model, line):
    model.measured[CURVE] = asdict(BOTH)
    assert curve_of(model) == BOTH
    for damaged in (3, {}, {**model.measured["denoising"], "cut": line}):
        model.measured["denoising"] = damaged
        with pytest.raises(ModelError, match="curve of denoising is damaged"):
            curve_of(model)


@pytest.mark.parametrize("sigma", [0.02, 0.05, 0.1, 0.2, 0.3, 0.5])
def test_auto_is_never_below_the_noisy_image(aware, sigma, generator):
    model, clean = from_pretrained(aware), bump_images(100, seed=77)
    y = clean + sigma * torch.randn(clean.shape, generator=generator)
    known = psnr(denoise(y, model, sigma), clean)
    assert known >= psnr(y.clamp(0, 1), clean) - 0.05
    if sigma >= 0.1:
        assert known > psnr(y.clamp(0, 1), clean) + 2
        assert psnr(denoise(y, model), clean) > known - 1


@pytest.mark.parametrize("sigma", [0.03, 0.2])
def test_what_knows_the_noise_beats_the_noisy_image_wiener_and_a_projection_that_does_not(
    aware, generator, sigma
):
    model, clean = from_pretrained(aware), bump_images(100, seed=77)
    y = clean + sigma * torch.randn(clean.shape, generator=generator)
    training = bump_images(400, seed=0).flatten(1)
    mean, (values, basis) = training.mean(0), torch.linalg.eigh(training.T.cov())
    wiener = ((y.flatten(1) - mean) @ basis * (values / (values + sigma**2))) @ basis.T + mean
    filtered = psnr(wiener.view_as(y).clamp(0, 1), clean)
    with torch.no_grad():
        untold = psnr(model.project(y).clamp(0, 1), clean)
    for method in ("refined", "soft"):
        assert psnr(denoise(y, model, sigma, method), clean) > max(filtered, psnr(y.clamp(0, 1), clean))
    assert psnr(denoise(y, model, sigma, "projection"), clean) > untold or sigma < 0.1


def test_what_is_taken_off_tells_the_noise_better_than_the_finest_details(aware, generator):
    model, clean = from_pretrained(aware), bump_images(200, seed=78)
    line = curve_of(model).whole
    first = replace(line, removed=())
    y = clean + 0.1 * torch.randn(clean.shape, generator=generator)
    told = taken_off(y, model, first.blind(y, model))
    expected = np.interp(told.numpy(), np.maximum.accumulate(line.removed), line.sigmas)
    torch.testing.assert_close(line.blind(y, model), torch.from_numpy(expected).float())
    errors = [float((one.blind(y, model) - 0.1).square().mean().sqrt()) for one in (line, first)]
    assert errors[0] < 0.8 * errors[1]


def test_each_image_gets_the_method_that_suits_its_noise(model, generator):
    model.measured[CURVE] = asdict(BOTH)
    y = 2 * torch.rand(5, 1, 8, 8, generator=generator)
    sigma = torch.tensor([0.5, 0.01, 0.3, 0.02, 0.2])
    done = denoise_batch(y, model, sigma, batch_size=2)
    assert done.methods == ["projection", "noisy", "projection", "noisy", "projection"]
    with torch.no_grad():
        expected = torch.where((sigma > 0.1).view(-1, 1, 1, 1), model.project(y), y)
    torch.testing.assert_close(done.image, expected)
    torch.testing.assert_close(done.sigma, sigma)


def test_the_method_that_is_named_is_taken(model):
    model.measured[CURVE] = asdict(BOTH)
    y = bump_images(3)
    assert denoise_batch(y, model, torch.full((3,), 1e-3), "projection").methods == ["projection"] * 3
    with torch.no_grad():
        torch.testing.assert_close(denoise(y, model, 1e-3, "projection"), model.project(y).clamp(0, 1))


def test_noise_is_in_the_scale_of_the_image(aware):
    model = from_pretrained(aware)
    image = draw_bumps(1, seed=4)[0]
    found = denoise(image, model, sigma=51.0)
    assert found.dtype == np.uint8
    same = denoise((image / 255).astype(np.float32), model, sigma=0.2)
    assert np.abs(found / 255 - same).max() <= 0.5 / 255 + 1e-6
    assert np.array_equal(np.asarray(denoise(Image.fromarray(image), model, sigma=51)), found)
    assert np.abs(denoise(image, model, sigma=5.0).astype(int) - found).max() > 0


def test_what_noise_carries_beyond_black_and_white_is_not_cut_off_first(aware, generator):
    model = from_pretrained(aware)
    y = bump_images(8) + 0.3 * torch.randn(8, 1, 8, 8, generator=generator)
    assert y.min() < 0
    expected = denoise_batch(y, model, torch.full((8,), 0.3)).image.clamp(0, 1)
    torch.testing.assert_close(denoise(y, model, 0.3), expected)
    assert np.allclose(
        denoise(y.movedim(1, -1).numpy(), model, 0.3), expected.movedim(1, -1).numpy(), atol=1e-6
    )


def test_no_such_method(model):
    with pytest.raises(UsageError, match="choose from auto, projection, map, refined, soft, tweedie"):
        denoise(bump_images(1), model, method="magic")


def test_projection_is_taken_only_where_there_is_no_soft():
    psnr = {"noisy": (40.0, 5.0), "projection": (21.0, 20.0), "refined": (30.0, 10.0)}
    assert PsnrCurve((0.01, 1.0), psnr, (0.01, 1.0)).best(1.0) == "projection"
    assert PsnrCurve((0.01, 1.0), psnr | {"soft": (29.0, 12.0)}, (0.01, 1.0)).best(1.0) == "soft"


@pytest.mark.parametrize("changes", [{"noise": (0.5, 0.1)}, {"noise": (0.1,)}, {"noise": (0.0, math.inf)}])
def test_a_range_of_noise_is_two_rising_numbers(changes):
    with pytest.raises(UsageError, match="a range 0 ≤ low < high"):
        Config(**changes)


@pytest.mark.parametrize(("seconds", "count"), [(None, 14), (7.5, 12), (0.5, 11), (99.0, 14)])
def test_as_many_images_make_a_curve_as_are_enough_and_time_allows(model, monkeypatch, seconds, count):
    monkeypatch.setattr(curve, "ENOUGH", 14)
    monkeypatch.setattr(curve, "FEWEST", 11)
    monkeypatch.setattr(curve, "_WORK", 6)
    monkeypatch.setattr(curve, "_pace", lambda x, model: 0.1)
    calibrate_denoising(ImageSet(bump_images(15), "bumps", "test", ("",) * 15), model, seconds)
    assert curve_of(model) == measure_curve(bump_images(15)[:count], model)

    def blind(y):
        return curve_of(model).blind(y, model)

    measured = measure_familiarity(bump_images(15), model, SIGMAS, blind, count=count)
    assert model.measured["familiar"] == measured
