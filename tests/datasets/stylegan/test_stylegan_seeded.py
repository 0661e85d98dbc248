import pytest
import torch

from mfimage.datasets.stylegan import SEEDED_CARD, Generator, seeded_generator
from mfimage.errors import UsageError


def images(generator, z):
    return torch.cat([generator.synthesis(generator.mapping(some)) for some in z.split(16)])


def neighbours(x):
    """Correlation of each pixel with its right neighbour, after the image's own mean is taken away."""
    x = x - x.mean((2, 3), keepdim=True)
    return (x[..., 1:] * x[..., :-1]).mean() / (
        x[..., 1:].square().mean() * x[..., :-1].square().mean()
    ).sqrt()


@pytest.mark.parametrize(
    ("resolution", "channels", "smoothness"), [(32, 1, 0.97), (32, 3, 0.97), (64, 3, 0.98)]
)
def test_images_are_smooth_fill_the_range_and_differ(resolution, channels, smoothness, generator):
    x = images(seeded_generator(resolution, 0, channels), torch.randn(32, 64, generator=generator))
    assert x.shape == (32, channels, resolution, resolution)
    assert neighbours(x) > smoothness
    assert 0.42 < x.mean() < 0.58
    assert 0.1 < x.std() < 0.3
    assert ((x == 0) | (x == 1)).float().mean() < 0.08
    distances = torch.pdist(x.flatten(1)) / x[0].numel() ** 0.5
    assert distances.mean() > 0.1
    assert distances.min() > 0.03


def test_noise_weights_would_not_be_smooth(generator):
    """The measure of smoothness can fail."""
    rough = seeded_generator(32, 0)
    for block in rough.synthesis.blocks:
        block.colour.weight.copy_(torch.randn(block.colour.weight.shape, generator=generator))
        block.convolution.weight.copy_(torch.randn(block.convolution.weight.shape, generator=generator))
    assert neighbours(images(rough, torch.randn(8, 64, generator=generator))) < 0.95


def test_two_latents_of_eight_move_the_image_in_two_directions():
    generator = seeded_generator(16, 3, z_dim=8).double()
    fixed = torch.randn(8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def image(u):
        return generator.synthesis.raw(generator.mapping(torch.cat([u, fixed[2:]])[None]))[0]

    for u in torch.randn(5, 2, dtype=torch.float64):
        jacobian = torch.func.jacfwd(image)(u).flatten(0, 2)
        large, small = torch.linalg.svdvals(jacobian)
        assert small > 0.05 * large
        step = torch.tensor([1e-6, -2e-6], dtype=torch.float64)
        assert torch.allclose(image(u + step) - image(u), (jacobian @ step).view(3, 16, 16), atol=1e-9)


def test_the_seed_decides(generator):
    z = torch.randn(1, 64, generator=generator)
    state = torch.get_rng_state()
    first, again, other = (seeded_generator(8, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()
    assert torch.equal(first(z), again(z))
    assert (first(z) - other(z)).abs().max() > 0.1
    assert isinstance(first, Generator)
    assert not any(parameter.requires_grad for parameter in first.parameters())


def test_truncation_to_nothing_gives_one_image(generator):
    seeded = seeded_generator(8, 0)
    w = seeded.mapping(torch.randn(4, 64, generator=generator), psi=0.0)
    assert torch.allclose(w, seeded.mapping.mean.expand_as(w))
    drawn = seeded.mapping(torch.randn(2000, 64, generator=generator))[:, 0]
    assert (drawn.mean(0) - seeded.mapping.mean).abs().max() < 0.6 * drawn.std(0).max()


@pytest.mark.parametrize("bad", [(48, 0), (2, 0), (2048, 0), (8, -1), (8, 0, 2), (8, 0, 3, 0)])
def test_what_cannot_be_made_is_an_error(bad):
    with pytest.raises(UsageError, match="a power of two from 4 to 1024"):
        seeded_generator(*bad)


def test_the_card_is_honest():
    assert "never trained" in SEEDED_CARD
