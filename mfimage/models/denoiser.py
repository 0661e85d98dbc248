"""What removes noise: networks that see it, and gains of the coordinates that they leave."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mfimage.models.nets import ConvNet
from mfimage.models.wavelets import Wavelets

NOISE_FEATURES = 4  # length of what `noise_features` gives
LEAST_NOISE = 1e-4  # σ below which all is kept as at σ


def noise_features(sigma: Tensor) -> Tensor:
    """Describe noise to networks: σ/(σ + c) for c = 0.03, 0.1, 0.3 and 1, (B,) to (B, 4); 0 without noise."""
    return torch.stack([sigma / (sigma + c) for c in (0.03, 0.1, 0.3, 1.0)], 1)


class NoiseConvNet(ConvNet):
    """3×3 – 3×3 – 3×3 convolutions whose hidden layers `noise_features`, (B, 4), shift; 0 without noise."""

    def __init__(self, in_channels: int, out_channels: int, width: int) -> None:
        super().__init__(in_channels, out_channels, width, inner=3)
        shifts = [nn.Linear(NOISE_FEATURES, width, bias=False) for _ in range(2)]
        for shift in shifts:
            nn.init.normal_(shift.weight, std=0.3)
        self.shifts = nn.ModuleList(shifts)

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:  # type: ignore[override]
        first, activation, second, _, last = self.layers
        for layer, shift in zip((first, second), self.shifts, strict=True):
            x = activation(layer(x) + shift(noise)[:, :, None, None])
        return last(x) * noise[:, :1, None, None]


class Gains(nn.Module):
    """A gain for each coordinate, falling with the noise: ẑ = z·sigmoid(a − b·log σ), b > 0.

    It starts as Wiener's filter, z·s²/(s² + σ²), that is a = log s² and b = 2, with s² the coordinate's mean
    square on clean data: noise that reaches an orthonormal coordinate keeps its σ. Training moves both. At
    σ → 0 every coordinate is kept, at σ → ∞ none. Donoho, Johnstone, Ideal spatial adaptation by wavelet
    shrinkage, 1994, Biometrika 81 (this oracle); Liu et al., 2021, arXiv 2104.10546 (learned end to end).
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.zeros(features))
        self.log_slope = nn.Parameter(nn.init.constant_(torch.empty(features), math.log(2.0)))

    @torch.no_grad()
    def initialise(self, z: Tensor) -> None:
        """Start as Wiener's filter of clean coordinates z, shape (N, D)."""
        self.level.copy_(z.square().mean(0).clamp_min(1e-6).log())
        self.log_slope.fill_(math.log(2.0))

    def forward(self, z: Tensor, sigma: Tensor) -> Tensor:
        """Shrink coordinates (B, D) of images with noise σ, shape (B,), in units of the data."""
        log_sigma = sigma.clamp_min(LEAST_NOISE).log()[:, None]
        return z * torch.sigmoid(self.level - self.log_slope.exp() * log_sigma)


class Denoiser(nn.Module):
    """What a chart needs to `shrink` noise: networks that clear images of it, and gains γ(σ).

    The networks work on wavelet levels from the coarsest to the finest. What is coarse and cleared already is
    seen where finer details are judged: with y the averages and details of a level, y ← y·exp(s) + t, and s
    and t see y and σ. Without noise nothing changes. No gradients are computed but in the training of its
    own, which turns them on.

    Args:
        wavelets: The levels.
        nets: Of each level, the finest first: (B, 4C, h, w) and noise features to (B, 8C, h, w).
        gains: γ.
    """

    def __init__(self, wavelets: Wavelets, nets: Sequence[nn.Module], gains: Gains) -> None:
        super().__init__()
        self.wavelets, self.nets, self.gains = wavelets, nn.ModuleList(nets), gains
        self.requires_grad_(False)

    def clear(self, y: Tensor, sigma: Tensor) -> Tensor:
        """Clear images (B, C, H, W) of noise of σ, (B,)."""
        noise, channels = noise_features(sigma), y.shape[1]
        low, details = self.wavelets.unpack(self.wavelets.analysis(y))
        for level in reversed(range(len(details))):
            both = torch.cat([low, details[level]], 1)
            scale, shift = self.nets[level](both, noise).to(y).chunk(2, 1)
            both = torch.addcmul(shift, both, torch.exp(torch.tanh(scale)))
            low = self.wavelets.join(both[:, :channels], both[:, channels:], level)
        return low
