import pytest
import torch
from tiny import TINY, bump_images

from mfimage import Detector, score, train
from mfimage.errors import ModelError


@pytest.fixture(scope="module")
def aware(tmp_path_factory):
    """A model that learned to remove noise."""
    config = TINY.with_(steps=200, noise=(0.0, 0.3), every=100, model={**TINY.model, "noise_width": 8})
    return train(bump_images(400, seed=0), tmp_path_factory.mktemp("aware"), config, device="cpu")


def test_told_of_the_noise_a_detector_judges_images_as_if_they_were_clean(aware, generator):
    detector = Detector(aware, "reconstruction").calibrate(bump_images(300, seed=5), alpha=0.05)
    clean = bump_images(100, seed=6)
    noisy = (clean + 0.1 * torch.randn(clean.shape, generator=generator)).clamp(0, 1)
    untold, told = detector.score(noisy), detector.score(noisy, sigma=0.1)
    assert told.scores.mean() < 0.4 * untold.scores.mean()
    cleared = aware.clear(noisy, 0.1).clamp(0, 1)
    torch.testing.assert_close(told.scores, detector.score(cleared).scores)
    again = score(noisy, aware, sigma=0.1)
    torch.testing.assert_close(again.double(), told.scores, atol=1e-6, rtol=1e-4)


def test_noise_is_in_the_scale_of_the_images(aware):
    pixels = (255 * bump_images(3)[:, 0]).round().to(torch.uint8).numpy()[..., None]
    floats = pixels.astype("float32") / 255
    told = score(pixels, aware, sigma=25.5)
    assert told == pytest.approx(score(floats, aware, sigma=0.1))


def test_a_model_without_noise_cannot_be_told_of_it(model):
    with pytest.raises(ModelError, match="not trained with noise"):
        score(bump_images(2), model, sigma=0.1)
