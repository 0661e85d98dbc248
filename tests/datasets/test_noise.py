import numpy as np
import pytest
import torch

from mfimage.datasets import gaussian_noise, noise
from mfimage.errors import UsageError

RANDOM = {
    "gaussian": lambda x, g: noise.gaussian_noise(x, 0.5, g),
    "poisson": lambda x, g: noise.poisson_noise(x, 10.0, g),
    "speckle": lambda x, g: noise.speckle(x, 0.5, g),
    "salt and pepper": lambda x, g: noise.salt_and_pepper(x, 0.3, g),
    "missing": lambda x, g: noise.missing_pixels(x, 0.3, g)[0],
}
CERTAIN = {"blur": lambda x: noise.blur(x, 1.5), "jpeg": lambda x: noise.jpeg(x, 20)}


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def test_noise_has_the_stated_deviation():
    x = torch.full((4, 3, 64, 64), 0.5)
    noise = gaussian_noise(x, 0.3, seeded(0), clip=False) - x
    assert noise.std().item() == pytest.approx(0.3, rel=0.02)
    assert abs(noise.mean().item()) < 0.01


def test_clipping_is_all_that_clip_does():
    x = torch.rand(2, 1, 8, 8, generator=seeded(1))
    for add, level in ((noise.gaussian_noise, 0.5), (noise.speckle, 1.0), (noise.poisson_noise, 5.0)):
        free = add(x, level, seeded(7), clip=False)
        assert torch.equal(add(x, level, seeded(7)), free.clamp(0, 1))
        assert free.max() > 1
    assert torch.equal(gaussian_noise(x, 0.0, seeded(7)), x)


@pytest.mark.parametrize("kind", RANDOM)
def test_a_seed_gives_the_same_damage_and_leaves_the_image(kind):
    x = torch.rand(2, 3, 8, 9, generator=seeded(1))
    before = x.clone()
    first, again, other = (RANDOM[kind](x, seeded(seed)) for seed in (7, 7, 8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(x, before)
    assert (first.shape, first.dtype) == (x.shape, x.dtype)
    assert first.min() >= 0
    assert first.max() <= 1


@pytest.mark.parametrize("kind", CERTAIN)
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_certain_needs_no_seed(kind, channels):
    x = torch.rand(2, channels, 16, 17, generator=seeded(1))
    damaged = CERTAIN[kind](x)
    assert torch.equal(damaged, CERTAIN[kind](x))
    assert (damaged.shape, damaged.dtype) == (x.shape, x.dtype)
    assert 0.01 < (damaged - x).abs().mean() < 0.3


def test_photons_have_the_variance_of_their_number():
    x = torch.full((1, 1, 200, 200), 0.4)
    y = noise.poisson_noise(x, 20.0, seeded(0), clip=False)
    assert y.mean().item() == pytest.approx(0.4, rel=0.01)
    assert y.var().item() == pytest.approx(0.4 / 20, rel=0.05)
    assert torch.equal((20 * y).round(), 20 * y)
    assert torch.equal(noise.poisson_noise(0 * x, 20.0, seeded(0)), 0 * x)


def test_speckle_grows_with_the_light():
    x = torch.tensor([0.2, 0.4])[:, None, None, None].expand(2, 1, 150, 150)
    dark, bright = (noise.speckle(x, 0.3, seeded(0), clip=False) - x).flatten(1).std(1).tolist()
    assert dark == pytest.approx(0.3 * 0.2, rel=0.03)
    assert bright == pytest.approx(0.3 * 0.4, rel=0.03)


def test_salt_and_pepper_fall_in_equal_shares():
    y = noise.salt_and_pepper(torch.full((1, 3, 150, 150), 0.5), 0.2, seeded(0))
    assert (y == 0).float().mean().item() == pytest.approx(0.1, abs=0.01)
    assert (y == 1).float().mean().item() == pytest.approx(0.1, abs=0.01)
    assert (y == 0.5).float().mean().item() == pytest.approx(0.8, abs=0.02)


def test_the_mask_says_which_pixels_are_missing():
    x = torch.rand(3, 3, 40, 40, generator=seeded(1)) + 0.01
    y, mask = noise.missing_pixels(x, 0.25, seeded(0))
    assert (mask.shape, mask.dtype) == ((3, 1, 40, 40), torch.bool)
    assert torch.equal(y == 0, mask.expand_as(x))
    assert torch.equal(y[~mask.expand_as(x)], x[~mask.expand_as(x)])
    assert mask.float().mean().item() == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_none_and_all(share):
    x = torch.full((1, 1, 8, 8), 0.5)
    assert noise.missing_pixels(x, share, seeded(0))[1].float().mean() == share
    assert (noise.salt_and_pepper(x, share, seeded(0)) != x).float().mean() == share


@pytest.mark.parametrize("sigma", [0.5, 1.0, 3.0])
def test_blur_is_scikit_images(sigma):
    from skimage.filters import gaussian

    x = torch.rand(1, 1, 9, 14, generator=seeded(1), dtype=torch.float64)
    expected = gaussian(x[0, 0].numpy(), sigma, mode="nearest", truncate=4.0)
    np.testing.assert_allclose(noise.blur(x, sigma)[0, 0], expected, atol=1e-12)
    assert torch.equal(noise.blur(x, 0.0), x)


def test_jpeg_errs_less_at_higher_quality():
    rows, columns = torch.meshgrid(torch.linspace(0, 1, 32), torch.linspace(0, 1, 32), indexing="ij")
    x = torch.stack([rows, columns, rows * columns])[None]
    errors = [(noise.jpeg(x, quality) - x).square().mean() for quality in (5, 50, 100)]
    assert errors[0] > 3 * errors[1]
    assert errors[1] > errors[2]
    assert errors[2] < 1e-4


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x, g: noise.poisson_noise(x, 0.0, g),
        lambda x, g: noise.salt_and_pepper(x, 1.5, g),
        lambda x, g: noise.missing_pixels(x, -0.1, g),
        lambda x, g: noise.blur(x, -1.0),
        lambda x, g: noise.blur(x, float("nan")),
        lambda x, g: noise.jpeg(x, 0),
        lambda x, g: noise.jpeg(x[0], 50),
    ],
)
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(UsageError):
        wrong(torch.rand(1, 1, 8, 8), seeded(0))
