"""Damage images on purpose: noise and lost pixels at random; blur and compression, which are certain.

Random ones draw on the generator's own device, so that a CPU generator gives the same on any.
"""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mfimage.errors import UsageError


def gaussian_noise(x: Tensor, sigma: float, generator: torch.Generator, clip: bool = True) -> Tensor:
    """Add independent normal noise to every value.

    y = x + σ ε,   ε ~ N(0, 1)

    Args:
        x: Images of any shape, floats in [0, 1].
        sigma: Standard deviation σ ≥ 0 on the scale of [0, 1].
        generator: Draws the noise, on its own device, so that a CPU generator gives the same on any.
        clip: Clip the result to [0, 1], as a camera would; without it the noise stays exactly Gaussian.

    Returns:
        The shape, type and device of x.
    """
    noise = torch.randn(x.shape, generator=generator, device=generator.device, dtype=x.dtype)
    noisy = x + sigma * noise.to(x.device)
    return noisy.clamp(0, 1) if clip else noisy


def poisson_noise(x: Tensor, peak: float, generator: torch.Generator, clip: bool = True) -> Tensor:
    """Count photons.

    y = n / peak,   n ~ Poisson(peak · x),   of variance x / peak

    Args:
        x: Images of any shape, floats in [0, 1].
        peak: Photons, on average, that make white; fewer are noisier.
        generator: Draws the counts.
        clip: Clip the result to [0, 1].

    Returns:
        The shape, type and device of x.

    Raises:
        UsageError: If peak is not positive.
    """
    if not peak > 0:
        raise UsageError(f"peak: a positive number of photons is needed, not {peak}")
    counts = torch.poisson((peak * x).to(generator.device), generator=generator)
    noisy = counts.to(x.device) / peak
    return noisy.clamp(0, 1) if clip else noisy


def speckle(x: Tensor, sigma: float, generator: torch.Generator, clip: bool = True) -> Tensor:
    """Multiply every value by noise, as coherent light does; bright areas suffer most.

    y = x (1 + σ ε),   ε ~ N(0, 1)

    Args:
        x: Images of any shape, floats in [0, 1].
        sigma: Standard deviation σ ≥ 0, relative to the value.
        generator: Draws the noise.
        clip: Clip the result to [0, 1].

    Returns:
        The shape, type and device of x.
    """
    noise = torch.randn(x.shape, generator=generator, device=generator.device, dtype=x.dtype)
    noisy = x * (1 + sigma * noise.to(x.device))
    return noisy.clamp(0, 1) if clip else noisy


def salt_and_pepper(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Turn single values white or black, with equal chance, each on its own.

    y = x with probability 1 − share, 0 with share/2, 1 with share/2

    Args:
        x: Images of any shape, floats in [0, 1].
        share: Of the values that are lost, in [0, 1].
        generator: Draws which.

    Returns:
        The shape, type and device of x.

    Raises:
        UsageError: If the share is none.
    """
    _check_share(share)
    drawn = torch.rand(x.shape, generator=generator, device=generator.device, dtype=x.dtype).to(x.device)
    return torch.where(drawn < share, (drawn < share / 2).to(x), x)


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
        UsageError: If the share is none.
    """
    _check_share(share)
    size = (x.shape[0], 1, *x.shape[2:])
    drawn = torch.rand(size, generator=generator, device=generator.device, dtype=x.dtype)
    mask = (drawn < share).to(x.device)
    return x.masked_fill(mask, 0.0), mask


def blur(x: Tensor, sigma: float) -> Tensor:
    """Blur with a Gaussian, as `skimage.filters.gaussian` does.

    y = K_H x K_Wᵀ,   K the matrices of `blur_matrix`

    Args:
        x: Images (…, H, W), floats in [0, 1].
        sigma: Standard deviation in pixels, ≥ 0.

    Returns:
        The shape, type and device of x.
    """
    return blur_matrix(x.shape[-2], sigma).to(x) @ x @ blur_matrix(x.shape[-1], sigma).to(x).T


def blur_matrix(length: int, sigma: float) -> Tensor:
    """Make the matrix that blurs a line of pixels.

    K[i, j] = Σ_k w_k over the k with clip(i + k, 0, n − 1) = j,   w_k ∝ exp(−k²/2σ²),  |k| ≤ 4σ,  Σ w = 1

    Args:
        length: n, pixels; those beyond an end count as the last one.
        sigma: Standard deviation in pixels, ≥ 0.

    Returns:
        Shape (n, n), float64, rows that sum to 1.

    Raises:
        UsageError: If sigma is negative or not finite.
    """
    if not 0 <= sigma < float("inf"):
        raise UsageError(f"sigma: a blur's width is a number of pixels from 0 up, not {sigma}")
    radius = int(4 * sigma + 0.5)
    shifts = torch.arange(-radius, radius + 1)
    weights = torch.exp(-0.5 * (shifts.double() / (sigma or 1)).square())
    weights = weights / weights.sum()
    columns = (torch.arange(length)[:, None] + shifts).clamp(0, length - 1)
    matrix = torch.zeros(length, length, dtype=torch.float64)
    return matrix.scatter_add_(1, columns, weights.expand(length, -1))


def jpeg(x: Tensor, quality: int) -> Tensor:
    """Compress and decompress, by Pillow.

    y = decode(encode(round(255 x), quality)) / 255

    Args:
        x: Images (B, C, H, W), C = 1 or 3, floats in [0, 1].
        quality: 1 (worst) … 100; colour is subsampled as Pillow does by itself.

    Returns:
        The shape, type and device of x.

    Raises:
        UsageError: If the quality, or the number of channels, is none.
    """
    if not 1 <= quality <= 100 or x.ndim != 4 or x.shape[1] not in (1, 3):
        raise UsageError(
            f"jpeg: a quality from 1 to 100 and images (B, 1 or 3, H, W) are needed, not {quality} and "
            f"{tuple(x.shape)}"
        )
    pixels = x.detach().cpu().clamp(0, 1).mul(255).round().byte().movedim(1, -1).numpy()
    out = np.stack([_compressed(image, quality) for image in pixels]) if len(x) else pixels
    return (torch.from_numpy(out).movedim(-1, 1).to(x.dtype) / 255).to(x.device)


def _compressed(image: np.ndarray, quality: int) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(stream, "JPEG", quality=quality)
    with Image.open(stream) as picture:
        return np.asarray(picture).reshape(image.shape)


def _check_share(share: float) -> None:
    if not 0 <= share <= 1:
        raise UsageError(f"share: between 0 and 1, not {share}")
