"""Whether what restores images works on a device: by tensors that only claim to be elsewhere, as on a GPU."""

import copy

import pytest
import torch
from elsewhere import elsewhere
from tiny import bump_images

from mfimage.denoising.restorer import Restorer
from mfimage.denoising.restoring import denoise, inpaint, super_resolve
from mfimage.noise import parse_noise

pytestmark = [
    pytest.mark.filterwarnings("ignore::mfimage.errors.UnfamiliarWarning"),
]


@pytest.mark.parametrize("text", [None, "gaussian:0.1", "poisson:30", "salt-pepper:0.1", "correlated:0.1,1"])
@pytest.mark.parametrize("tiled", [False, True])
def test_images_are_denoised_where_the_model_is(model, text, tiled):
    noise = None if text is None else parse_noise(text)
    y = bump_images(4).view(1, 1, 16, 16) if tiled else bump_images(3)
    with elsewhere(copy.deepcopy(model)) as away:
        found = Restorer(away, noise=noise, tiled=tiled, uncertain=True)(y.to(away.device))
    for one in (found.before, found.after, found.deviation, found.examination.strangeness):
        assert type(one) is torch.Tensor  # on the CPU


def test_any_image_is_taken_to_the_model(model):
    x, hole = bump_images(2), torch.eye(8, dtype=torch.bool)
    calls = (
        lambda model: denoise(x, model, 0.1),
        lambda model: inpaint(x, hole, model),
        lambda model: super_resolve(x[..., ::2, ::2], 2, model),
    )
    for call in calls:
        with elsewhere(copy.deepcopy(model)) as away:
            assert call(away).shape == x.shape
