import re

import pytest
import torch
from tiny import bump_images

from mfimage.denoising.examination import examine
from mfimage.denoising.familiarity import FAMILIAR
from mfimage.ood.scores import score

X = bump_images(40, 9)


def test_the_numbers_by_hand(model):
    y = torch.rand(3, 1, 8, 8)
    x_hat = y.flip(-1)
    report = examine(y, x_hat, model, torch.tensor([0.1, 0.2, 0.3]))
    torch.testing.assert_close(report.score, score(y, model))
    torch.testing.assert_close(report.score_after, score(x_hat, model))
    torch.testing.assert_close(report.residual.square(), report.score)
    torch.testing.assert_close(report.distance, (x_hat - y).square().sum((1, 2, 3)).sqrt())
    assert report.sigma.tolist() == pytest.approx([0.1, 0.2, 0.3])


def test_messages_name_the_images_that_are_far(model):
    y = torch.cat([X[:1], 1 - X[:2]])
    report = examine(y, y, model, 0.01)
    messages = report.messages(["a.png", "b.png", "c.png"])
    assert [bool(message) for message in messages] == [False, True, True]
    assert re.match(r"b\.png: far from what .* \([\d.]+ times the limit\): .* may be invented", messages[1])


def test_a_projection_of_ones_own(model):
    y = torch.rand(2, 1, 8, 8)
    report = examine(y, y, model, 0.0, project=lambda images: images, judged=False)
    assert report.score.tolist() == report.strangeness.tolist() == [0.0, 0.0]


def test_without_the_measurement_none_is_far(model):
    model.measured.pop(FAMILIAR)
    assert examine(1 - X, X, model, 0.01).strangeness.tolist() == [0.0] * 40
