import doctest

import pytest
import torch

from mfimage.datasets import noise
from mfimage.datasets.noise import gaussian_noise, missing_pixels
from mfimage.errors import UsageError

X = torch.rand(2, 3, 8, 9, generator=torch.Generator().manual_seed(1))


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def test_examples():
    assert doctest.testmod(noise).attempted > 3
    assert not doctest.testmod(noise).failed


def test_noise_has_the_stated_deviation():
    x = torch.full((4, 3, 64, 64), 0.5)
    noise = gaussian_noise(x, 0.3, seeded(0), clip=False) - x
    assert noise.std().item() == pytest.approx(0.3, rel=0.02)
    assert abs(noise.mean().item()) < 0.01


def test_clipping_is_all_that_clip_does():
    free = gaussian_noise(X, 0.5, seeded(7), clip=False)
    assert torch.equal(gaussian_noise(X, 0.5, seeded(7)), free.clamp(0, 1))
    assert free.max() > 1
    assert torch.equal(gaussian_noise(X, 0.0, seeded(7)), X)


@pytest.mark.parametrize("damage", [gaussian_noise, lambda *given: missing_pixels(*given)[0]])
def test_a_seed_gives_the_same_damage_and_leaves_the_image(damage):
    before = X.clone()
    first, again, other = (damage(X, 0.4, seeded(seed)) for seed in (7, 7, 8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(X, before)
    assert (first.shape, first.dtype) == (X.shape, X.dtype)
    assert first.min() >= 0
    assert first.max() <= 1


def test_the_mask_says_which_pixels_are_missing():
    x = torch.rand(3, 3, 40, 40, generator=seeded(1)) + 0.01
    y, mask = missing_pixels(x, 0.25, seeded(0))
    assert (mask.shape, mask.dtype) == ((3, 1, 40, 40), torch.bool)
    assert torch.equal(y == 0, mask.expand_as(x))
    assert torch.equal(y[~mask.expand_as(x)], x[~mask.expand_as(x)])
    assert mask.float().mean().item() == pytest.approx(0.25, abs=0.03)
    for share in (0.0, 1.0):
        assert missing_pixels(x, share, seeded(0))[1].float().mean() == share


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_lies_between_0_and_1(share):
    with pytest.raises(UsageError):
        missing_pixels(X, share, seeded(0))
