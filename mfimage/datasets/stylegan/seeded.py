"""A StyleGAN2 that was never trained: weights from a seed, chosen so that images are smooth and varied."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mfimage.datasets.stylegan.generator import RESOLUTIONS, Architecture, Block, StyleGAN2
from mfimage.datasets.stylegan.layers import Convolution
from mfimage.errors import UsageError

SEEDED_CARD = (
    "This generator was never trained. It is StyleGAN2's architecture with random weights, drawn from a seed "
    "and damped towards fine detail, so that its images are smooth, coloured, abstract clouds. They show no "
    "objects, and what is measured on them says nothing about photographs. What they share with the images "
    "of a trained generator is that they form a smooth manifold whose coordinates are known."
)
_WIDEST = 64
_FEATURES = 2048  # a width is this over the resolution, at least 8
_DEPTH = 3
_DECAY = 0.8  # of the colours from one resolution to the next
_ROUGH = 4.0  # share of a kernel that is random from tap to tap, up to 8×8; halved with each doubling after
_TINT = 0.2  # how far styles move the colours
_BIAS = 0.1
_PROBES = 64  # draws up to 128 pixels, in proportion fewer above
_FEWEST = 8
_SHARE = 0.99  # of values that lie in [0, 1]
_PIXELS = 64  # pixels in each direction


@torch.no_grad()
def seeded_generator(resolution: int, seed: int, channels: int = 3, z_dim: int = 64) -> StyleGAN2:
    """Make a StyleGAN2 with random weights whose images are smooth, fill [0, 1], and differ from z to z.

        K_oi = m_oi [1, 2, 1]ᵀ[1, 2, 1] / 16 + 4/3 min(1, 8 / resolution) N_oi,   m, N ~ N(0, 1)
        colours of resolution 2^k have weights N(0, 0.8^(2k) / width)

    All weights are centred over their inputs: else the positive mean of a leaky ReLU grows from layer to
    layer, and all images become one. There is no noise. At last each channel is shifted and scaled so that,
    over 64 draws of z (fewer above 128 pixels), its mean is 0.5 and 1 % of its values are clipped
    (0.3 to 5 % in other draws of as many).

    Args:
        resolution: Height and width, a power of two from 4 to 1024.
        seed: Of all weights, ≥ 0. The same seed gives the same images on the same machine, and elsewhere the
            same up to rounding.
        channels: 1 or 3.
        z_dim: Length of z. Of n numbers that vary it should be 2 n to 4 n: images differ the more, the nearer
            n is to z_dim, but z is normalised, so that n numbers move them in n directions only if n < z_dim.

    Returns:
        The generator, float32, on the CPU, without gradients. `SEEDED_CARD` says what it is.
    """
    if resolution not in RESOLUTIONS or channels not in (1, 3) or z_dim < 1 or not 0 <= seed < 2**63:
        raise UsageError(
            "a seeded generator has a resolution that is a power of two from 4 to 1024, 1 or 3 channels, at "
            f"least one latent and a seed from 0; not {resolution}, {channels}, {z_dim} and {seed}"
        )
    widths = tuple(max(8, min(_WIDEST, _FEATURES // size)) for size in RESOLUTIONS if size <= resolution)
    architecture = Architecture(z_dim, _WIDEST, resolution, channels, widths, _DEPTH)
    generator = StyleGAN2(architecture, f"seeded-{resolution}-{seed}").eval().requires_grad_(False)
    random = torch.Generator().manual_seed(seed)
    _fill_mapping(generator, random)
    _normal(generator.synthesis.constant, 1, random)
    for k, block in enumerate(generator.synthesis.blocks):
        assert isinstance(block, Block)
        _fill_block(block, _DECAY**k, random)
    probes = max(_FEWEST, min(_PROBES, _PROBES * 128 // resolution))
    _level(generator, torch.randn(probes, z_dim, generator=random, dtype=torch.float32))
    return generator


def manifold_generator(dim: int, size: int) -> StyleGAN2:
    """Make the seeded generator for a manifold of `dim` latents and images of `size`: 2·dim + 4 latents."""
    return seeded_generator(1 << max(2, (size - 1).bit_length()), seed=0, z_dim=2 * dim + 4)


def _normal(tensor: Tensor, scale: float, random: torch.Generator) -> None:
    tensor.copy_(scale * torch.randn(tensor.shape, generator=random, dtype=torch.float32))


def _centred(shape: tuple[int, ...], scale: float, random: torch.Generator) -> Tensor:
    """Draw weights (outputs, inputs, …) whose mean over inputs is zero; of one input they stay as drawn."""
    drawn = scale * torch.randn(shape, generator=random, dtype=torch.float32)
    return drawn - drawn.mean(1, keepdim=True) if shape[1] > 1 else drawn


def _fill_mapping(generator: StyleGAN2, random: torch.Generator) -> None:
    for layer in generator.mapping.layers:
        assert isinstance(layer, nn.Linear)
        layer.weight.copy_(_centred(tuple(layer.weight.shape), layer.in_features**-0.5, random))
        _normal(layer.bias, _BIAS, random)


def _fill_block(block: Block, loudness: float, random: torch.Generator) -> None:
    for layer in (block.up, block.convolution):
        if layer is not None:
            _fill_convolution(layer, random)
    colour = block.colour
    _fill_style(colour.style, _TINT, random)
    shape = (colour.weight.shape[0], colour.weight.shape[1])
    colour.weight.copy_(_centred(shape, loudness * shape[1] ** -0.5, random))


def _fill_convolution(layer: Convolution, random: torch.Generator) -> None:
    _fill_style(layer.style, 1, random)
    outputs, inputs, size = layer.weight.shape[0], layer.weight.shape[1], layer.noise.shape[0]
    taps = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float32) / 4
    smooth = _centred((outputs, inputs), 1, random)[:, :, None, None] * torch.outer(taps, taps)
    rough = _ROUGH / 3 * min(1.0, 8 / size)
    layer.weight.copy_(smooth + _centred((outputs, inputs, 3, 3), rough, random))
    _normal(layer.bias, _BIAS, random)


def _fill_style(layer: nn.Linear, scale: float, random: torch.Generator) -> None:
    _normal(layer.weight, scale * layer.in_features**-0.5, random)
    layer.bias.fill_(1.0)


def _level(generator: StyleGAN2, z: Tensor) -> None:
    """Shift and scale every channel by its layers of colours, and set the mean of w."""
    w = generator.mapping(z)
    generator.mapping.mean.copy_(w[:, 0].mean(0))
    step = max(1, generator.shape[1] // _PIXELS)
    images = torch.cat([generator.synthesis.raw(part)[..., ::step, ::step] for part in w.split(8)])
    values = images.movedim(1, 0).flatten(1).double()
    mean = values.mean(1)
    reach = (values - mean[:, None]).abs().kthvalue(int(_SHARE * values.shape[1])).values
    blocks = [block for block in generator.synthesis.blocks if isinstance(block, Block)]
    for block in blocks:
        block.colour.weight.div_(reach[:, None])
    blocks[-1].colour.bias.copy_(-mean / reach)
