"""What kind of noise images are found to have, and how that is said."""

import pytest
import torch
from tiny import bump_images, coloured

from mfimage.denoising.curve import Denoised
from mfimage.denoising.kinds import Evidence, assumed, estimate_noise, fixed_noise, structure
from mfimage.noise import parse_noise


@pytest.mark.parametrize("text", ["colour:0.05,0.1", "colour:0.1,0.3", "gaussian:0.1", "gaussian:0"])
def test_noise_in_colours_is_seen_where_it_is_more_than_that_in_brightness(noise_aware, text):
    found = estimate_noise(coloured(text)[1], noise_aware)
    assert [one.kind == "colour" for one in found] == [text.startswith("colour")] * 6
    if text.startswith("colour"):
        for one in found:
            expected = fixed_noise(text).ranges
            assert [low for low, _ in one.ranges] == pytest.approx([low for low, _ in expected], rel=0.1)


def test_large_images_tell_what_noise_they_have(noise_aware):
    x = torch.nn.functional.interpolate(bump_images(6), 48, mode="bicubic").clamp(0, 1)
    for text, kind, number in (("poisson:30", "poisson", 30), ("salt-pepper:0.1", "salt-pepper", 0.1)):
        y = parse_noise(text).add(x, torch.Generator().manual_seed(0))[0]
        found = estimate_noise(y, noise_aware)
        assert [one.kind for one in found] == [kind] * 6
        assert sum(one.ranges[0][0] for one in found) / 6 == pytest.approx(number, rel=0.25)


def test_colours_of_which_the_denoiser_takes_off_little_are_structure():
    noise, y = fixed_noise("colour:0.05,0.1"), torch.zeros(8, 3, 4, 4)
    sigma = noise.deviation(y)
    off = (torch.tensor([0.5, 0.8] * 4).sqrt() * sigma).view(-1, 1, 1, 1).expand_as(y)
    for count in (8, 2):
        done = Denoised(off[:count], sigma[:count], [], [noise] * count)
        assert structure(y[:count], done) == list(range(0, count, 2))


def test_a_line_of_variance_is_that_of_all_that_were_seen(noise_aware):
    y = coloured("poisson:30", 6)[1]
    seen = Evidence()
    estimate_noise(y[:5], noise_aware, seen)
    last = estimate_noise(y[5:], noise_aware, seen)
    assert last == estimate_noise(y, noise_aware)[5:]
    assert last != estimate_noise(y[5:], noise_aware)


def test_a_large_image_with_photons_is_judged_alone_where_few_have_such_noise():
    noise, y = [fixed_noise("poisson:20")] + [fixed_noise("gaussian:0.1")] * 4, torch.zeros(5, 3, 40, 40)
    sigma = torch.full((5,), 0.1)
    for off, wrong in ((0.1, []), (0.07, [0])):
        assert structure(y, Denoised(torch.full_like(y, off), sigma, [], noise)) == wrong
    small = torch.zeros(5, 1, 8, 8)
    assert structure(small, Denoised(small + 0.1, sigma, [], noise)) == [0]


def test_noise_is_said_in_a_line():
    assert assumed(["gaussian:0.1", "gaussian:0.2"]) == ""
    assert assumed(["poisson:30"] * 3) == "noise: poisson:30 in 3 images"
    several = ["poisson:30", "gaussian:0.1", "poisson:31"]
    assert assumed(several) == "noise: poisson in 2 images, gaussian:0.1 in 1 image"
