import re

import pytest
import torch
from tiny import bump_images

from mfimage import from_pretrained, save_pretrained
from mfimage.datasets import gaussian_noise
from mfimage.denoising.examination import (
    USUAL,
    examine,
    measure_misfit,
    strangeness,
    usual_misfit,
)
from mfimage.errors import ModelError
from mfimage.ood.scores import score

X = bump_images(40, 9)
STRANGE = {
    "inverted": 1 - X,
    "stripes": torch.arange(8).remainder(4).lt(2).float().expand(5, 1, 8, 8),
    "a corner": X.roll((4, 4), (2, 3)),
}


def report_of(y, model, sigma, usual=None):
    with torch.no_grad():
        return examine(y, model.project(y), model, sigma, usual)


def far(examination):
    return examination.strangeness > 1


def test_the_numbers_by_hand(model):
    y = torch.rand(3, 1, 8, 8)
    x_hat = y.flip(-1)
    report = examine(y, x_hat, model, torch.tensor([0.1, 0.2, 0.3]), 0.002)
    torch.testing.assert_close(report.score, score(y, model))
    torch.testing.assert_close(report.score_after, score(x_hat, model))
    torch.testing.assert_close(report.residual.square(), report.score)
    torch.testing.assert_close(report.distance, (x_hat - y).square().sum((1, 2, 3)).sqrt())
    assert report.sigma.tolist() == pytest.approx([0.1, 0.2, 0.3])


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("sigma", [0.0, 0.05, 0.1])
def test_familiar_images_are_not_far_and_strange_ones_are(model, sigma, known, generator):
    usual = measure_misfit(bump_images(200, 3), model)["coarse"] if known else None
    y = gaussian_noise(bump_images(400, 9), sigma, generator)
    assert far(report_of(y, model, sigma, usual)).float().mean() < 0.05
    for name, images in STRANGE.items():
        found = report_of(gaussian_noise(images, sigma, generator), model, sigma, usual)
        assert far(found).float().mean() > 0.9, name


def test_noise_alone_is_not_strange_if_it_is_known(model, generator):
    y = gaussian_noise(X, 0.3, generator)
    assert not far(report_of(y, model, 0.3)).any()
    assert far(report_of(y, model, 0.01)).all()


def test_noise_averages_out_in_blocks(generator):
    off = 0.2 * torch.randn(50, 1, 28, 28, generator=generator)
    y = torch.rand(50, 1, 28, 28, generator=generator)
    known, usual = torch.full((50,), 0.2), 1e-3
    assert (strangeness(y, off, known, (28, 28), usual) < 1).all()
    assert (strangeness(y, off + 0.1, known, (28, 28), usual) > 1).all()


def test_what_is_usual_is_measured_on_clean_images(model):
    x = bump_images(300, 4)
    usual = measure_misfit(x, model)
    assert usual["score"] == pytest.approx(float(score(x, model).mean()), rel=1e-4)
    assert far(report_of(x, model, 0.0, usual["coarse"])).sum() == 3  # one in a hundred


def test_a_large_image_is_judged_by_parts(model):
    """Light that changes over the whole image must not hide what is wrong in every part of it."""
    light = torch.linspace(0, 0.5, 6)[:, None, None, None]
    for images, strange in ((X[:6], False), ((1 - X[:6]) / 2 + light, True)):
        large = torch.cat(list(images), -1)[None].repeat(1, 1, 2, 1)[..., :15, :47]
        with torch.no_grad():
            projected = torch.cat(list(model.project(images)), -1)[None].repeat(1, 1, 2, 1)[..., :15, :47]
        report = examine(large, large, model, 0.0, project=lambda x, projected=projected: projected)
        assert far(report).tolist() == [strange]


def test_messages_name_the_images_that_are_far(model):
    report = report_of(torch.cat([X[:1], STRANGE["inverted"][:2]]), model, 0.0)
    messages = report.messages(["a.png", "b.png", "c.png"])
    assert [bool(message) for message in messages] == [False, True, True]
    assert re.match(r"b\.png: far from what .* \([\d.]+ times the limit\): .* may be invented", messages[1])


def test_a_projection_of_ones_own(model):
    y = torch.rand(2, 1, 8, 8)
    report = examine(y, y, model, 0.0, project=lambda images: images)
    assert report.score.tolist() == report.strangeness.tolist() == [0.0, 0.0]


def test_what_is_usual_is_kept_with_the_model(model, tmp_path):
    model.measured.pop(USUAL, None)
    assert usual_misfit(model) is None
    model.measured[USUAL] = {"score": 0.01, "coarse": 0.002}
    save_pretrained(model, tmp_path)
    assert usual_misfit(from_pretrained(tmp_path)) == 0.002


@pytest.mark.parametrize("stored", [{}, [], 3, {"score": 1, "coarse": "x"}])
def test_what_is_damaged_is_told(model, stored):
    model.measured[USUAL] = stored
    with pytest.raises(ModelError, match="usual for the model is damaged"):
        usual_misfit(model)
