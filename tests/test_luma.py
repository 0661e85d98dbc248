"""Noise of colours, as it is in their luma."""

import numpy as np
import pytest
import torch
from PIL import Image

from mfimage.luma import WEIGHTS, becomes_luma, in_luma, unscaled
from mfimage.noise import KINDS, parse_noise

EXACT = ["gaussian:0.1", "correlated:0.1,1", "colour:0.05,0.2", "colour:0.2,0.02"]
OF_PHOTONS = ["poisson:30", "poisson-gaussian:30,0.1"]


@pytest.mark.parametrize("text", EXACT + OF_PHOTONS)
def test_its_deviation_is_that_which_is_measured(text):
    x = torch.linspace(0.2, 0.9, 40000).view(4, 1, 100, 100).expand(-1, 3, -1, -1)
    noise = parse_noise(text)
    weights = torch.tensor(WEIGHTS).view(3, 1, 1)
    y = (noise.add(x, torch.Generator().manual_seed(0))[0] * weights).sum(1, keepdim=True)
    found = (y - x[:, :1]).square().flatten(1).mean(1).sqrt()
    torch.testing.assert_close(in_luma(noise).deviation(x[:, :1]), found, rtol=0.03, atol=0)
    assert bool(unscaled(noise)) == (text in OF_PHOTONS)


def test_of_every_kind_it_is_known_what_luma_tells():
    assert {text.partition(":")[0] for text in EXACT + OF_PHOTONS} | {"salt-pepper"} == set(KINDS)
    lost = parse_noise("salt-pepper:0.1")
    assert in_luma(lost) == lost
    assert "single colours" in unscaled(lost)


def test_an_image_of_equal_channels_has_no_noise_of_its_own_in_them(tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)
    alike, colour = np.stack([grey] * 3, -1), np.stack([grey, grey, grey // 2], -1)
    for image, expected in ((grey, False), (alike, False), (colour, True)):
        path = tmp_path / "a.png"
        Image.fromarray(image).save(path)
        for given in (image, Image.fromarray(image), path):
            assert becomes_luma(given, 1).tolist() == [expected]
    batch = torch.from_numpy(np.stack([alike, colour])).movedim(-1, 1)
    assert becomes_luma(batch, 2).tolist() == [False, True]
