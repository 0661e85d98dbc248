"""Damage images on purpose, to see how well it is undone: noise, missing pixels, blur.

Random ones draw on the generator's own device, so that a CPU generator gives the same on any.

>>> import torch
>>> from mfimage.datasets.noise import blur, gaussian_noise, missing_pixels
>>> x, generator = torch.full((1, 1, 28, 28), 0.5), torch.Generator().manual_seed(0)
>>> noisy = gaussian_noise(x, 0.1, generator)  # for denoise(noisy, model, sigma=0.1)
>>> holed, mask = missing_pixels(x, 0.3, generator)  # for inpaint(holed, mask, model)
>>> f"{(noisy - x).std():.2f} {mask.float().mean():.2f} {(blur(x, 2.0) - x).abs().max():.2f}"
'0.10 0.30 0.00'
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
        generator: Draws the noise.
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


def blur(x: Tensor, sigma: float) -> Tensor:
    """Blur with a Gaussian, as `skimage.filters.gaussian` does.

    y = K_H x K_Wᵀ,   K[i, j] = Σ_k w_k over the k with clip(i + k, 0, n − 1) = j,
    w_k ∝ exp(−k²/2σ²),  |k| ≤ 4σ,  Σ w = 1: pixels beyond an end count as the last one

    Args:
        x: Images (…, H, W), floats in [0, 1].
        sigma: Standard deviation in pixels, ≥ 0.

    Returns:
        The shape, type and device of x.

    Raises:
        UsageError: If sigma is negative or not finite.
    """
    if not 0 <= sigma < float("inf"):
        raise UsageError(f"sigma: a blur's width is a number of pixels from 0 up, not {sigma}")
    rows, columns = (_blur_matrix(length, sigma).to(x) for length in x.shape[-2:])
    return rows @ x @ columns.T


def _blur_matrix(length: int, sigma: float) -> Tensor:
    radius = int(4 * sigma + 0.5)
    shifts = torch.arange(-radius, radius + 1)
    weights = torch.exp(-0.5 * (shifts.double() / (sigma or 1)).square())
    weights = weights / weights.sum()
    columns = (torch.arange(length)[:, None] + shifts).clamp(0, length - 1)
    matrix = torch.zeros(length, length, dtype=torch.float64)
    return matrix.scatter_add_(1, columns, weights.expand(length, -1))
