"""Damage images at random, to see how well it is undone: noise and missing pixels.

>>> import torch
>>> from mfimage.datasets.noise import gaussian_noise, missing_pixels
>>> x, generator = torch.full((1, 1, 28, 28), 0.5), torch.Generator().manual_seed(0)
>>> noisy = gaussian_noise(x, 0.1, generator)  # for denoise(noisy, model, sigma=0.1)
>>> holed, mask = missing_pixels(x, 0.3, generator)  # for inpaint(holed, mask, model)
>>> f"{(noisy - x).std():.2f} {mask.float().mean():.2f}"
'0.10 0.30'
"""

from __future__ import annotations

import torch
from torch import Tensor

from mfimage.errors import UsageError


def gaussian_noise(x: Tensor, sigma: float, generator: torch.Generator, clip: bool = True) -> Tensor:
    """Add independent normal noise to every value.

    y = x + σ ε,   ε ~ N(0, 1)

    Args:
        x: Images of any shape, floats in [0, 1].
        sigma: Standard deviation σ ≥ 0 on the scale of [0, 1].
        generator: Draws the noise on its own device, so that a CPU generator gives the same on any.
        clip: Clip the result to [0, 1], as a camera would; without it the noise stays exactly Gaussian.

    Returns:
        The shape, type and device of x.
    """
    noise = torch.randn(x.shape, generator=generator, device=generator.device, dtype=x.dtype)
    noisy = x + sigma * noise.to(x.device)
    return noisy.clamp(0, 1) if clip else noisy


def missing_pixels(x: Tensor, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Lose pixels, in all channels at once.

    y = 0 where the mask m is True, else x;   m ~ Bernoulli(share)

    Args:
        x: Images (B, C, H, W), floats in [0, 1].
        share: Of the pixels that are lost, in [0, 1].
        generator: Draws which.

    Returns:
        y, like x, and the mask (B, 1, H, W), bool, True where a pixel is missing, as scikit-image has it.

    Raises:
        UsageError: If the share lies outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise UsageError(f"share: between 0 and 1, not {share}")
    size = (x.shape[0], 1, *x.shape[2:])
    drawn = torch.rand(size, generator=generator, device=generator.device, dtype=x.dtype)
    mask = (drawn < share).to(x.device)
    return x.masked_fill(mask, 0.0), mask
