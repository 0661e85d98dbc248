"""Damage images on purpose."""

from __future__ import annotations

import torch
from torch import Tensor


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
