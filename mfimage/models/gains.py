"""How much of each coordinate of a noisy image is kept."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_FLOOR = 1e-4  # σ below which all is kept as at σ


class Gains(nn.Module):
    """A gain for each coordinate, falling with the noise: ẑ = z·sigmoid(a − b·log σ), b > 0.

    It starts as Wiener's filter, z·s²/(s² + σ²), that is a = log s² and b = 2, with s² the coordinate's mean
    square on clean data: noise that reaches an orthonormal coordinate keeps its σ. Training moves both. At
    σ → 0 every coordinate is kept, at σ → ∞ none.

    Args:
        features: Number of coordinates D.

    Reference:
        Donoho, Johnstone, Ideal spatial adaptation by wavelet shrinkage, 1994, Biometrika 81 (the oracle
        that this gain is); learned end to end with the transform, as in Liu et al., Invertible denoising
        network, 2021, arXiv 2104.10546.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.zeros(features))
        self.log_slope = nn.Parameter(torch.full((features,), math.log(2.0)))

    @torch.no_grad()
    def initialise(self, z: Tensor) -> None:
        """Start as Wiener's filter of clean coordinates z, shape (N, D)."""
        self.level.copy_(z.square().mean(0).clamp_min(1e-6).log())
        self.log_slope.fill_(math.log(2.0))

    def forward(self, z: Tensor, sigma: Tensor) -> Tensor:
        """Shrink coordinates (B, D) of images with noise σ, shape (B,), in units of the data."""
        log_sigma = sigma.clamp_min(_FLOOR).log()[:, None]
        return z * torch.sigmoid(self.level - self.log_slope.exp() * log_sigma)
