"""What removes noise: a network that sees images and their noise, and gains of the coordinates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfimage.models.duals import Dual, push

LEAST_NOISE = 1e-4  # σ below which all is kept as at σ
SIGMAS = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5)  # where gains are measured
_EVEN = 0.15  # σ at which the network starts half from the linear estimate
_REACH = 5.0  # how far a value may be moved, in σ


class ResidualBlock(nn.Module):
    """x + conv(ReLU(conv(x))), 3 × 3, without biases."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.last = (nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.last(F.relu(self.first(x)))


class UNet(nn.Module):
    """A U-Net without biases, (B, in, H, W) to (B, out, H, W) of any size; it gives 0 before training.

    A residual block at each size on the way down and up, two at the smallest; 2 × 2 convolutions halve and
    double. Without biases f(k·x) = k·f(x), k > 0: what is learned at one contrast and noise holds at others.
    Mohan, Kadkhodaie, Simoncelli, Fernandez-Granda, Robust and interpretable blind image denoising via
    bias-free convolutional neural networks, 2020, arXiv 1906.05478; Zhang et al., Plug-and-play image
    restoration with deep denoiser prior, 2021, arXiv 2008.13751 (the U-Net).

    Args:
        in_channels: Of the input.
        out_channels: Of the output.
        widths: Channels at full size, half of it and so on.
    """

    def __init__(self, in_channels: int, out_channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        steps = list(pairwise(widths))
        self.first: Any = nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False)
        self.down: Any = nn.ModuleList(ResidualBlock(width) for width in widths[:-1])
        self.halving = nn.ModuleList(nn.Conv2d(fine, coarse, 2, 2, bias=False) for fine, coarse in steps)
        self.middle = nn.Sequential(ResidualBlock(widths[-1]), ResidualBlock(widths[-1]))
        self.doubling: Any = nn.ModuleList(
            nn.ConvTranspose2d(coarse, fine, 2, 2, bias=False) for fine, coarse in steps
        )
        self.up: Any = nn.ModuleList(ResidualBlock(width) for width in widths[:-1])
        self.last: Any = nn.Conv2d(widths[0], out_channels, 3, padding=1, bias=False)
        nn.init.zeros_(self.last.weight)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        quicker = torch.channels_last  # by a fifth on CPUs
        x = self.first(self._padded(x).contiguous(memory_format=quicker))
        kept = []
        for block, halve in zip(self.down, self.halving, strict=True):
            x = block(x)
            kept.append(x)
            x = halve(x)
        x = self.middle(x)
        for block, double in zip(reversed(self.up), reversed(self.doubling), strict=True):
            x = block(double(x) + kept.pop())
        return self.last(x)[..., :height, :width].contiguous()

    def push(self, x: Dual) -> Dual:
        height, width = x.value.shape[-2:]
        x = push(self.first, x.linear(self._padded))
        kept = []
        for block, halve in zip(self.down, self.halving, strict=True):
            kept.append(x := push(block, x))
            x = push(halve, x)
        x = push(self.middle, x)
        for block, double in zip(reversed(self.up), reversed(self.doubling), strict=True):
            x = push(block, push(double, x).plus(kept.pop()))
        return push(self.last, x).both(lambda image: image[..., :height, :width])

    def _padded(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        least = 2 ** len(self.halving)
        return F.pad(x, (0, -width % least, 0, -height % least), "replicate")


class Wiener(nn.Module):
    """Wiener's filter of coordinates with noise σ: z ↦ z·s²/(s² + σ²), s² their mean square without it."""

    power: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("power", torch.ones(features))

    def forward(self, z: Tensor, sigma: Tensor) -> Tensor:
        """Shrink coordinates (B, features) of images with noise σ, shape (B,)."""
        return z * (self.power / (self.power + sigma.square()[:, None]))


class Gains(nn.Module):
    """A gain for each coordinate, falling with the noise: ẑ = z·sigmoid(a − b·log σ), b > 0.

    At σ → 0 every coordinate is kept, at σ → ∞ none. For a = log s² and b = 2 it is Wiener's filter,
    s²/(s² + σ²); `fit` makes it that of what a network has left of noise, and all is kept before that.
    Donoho, Johnstone, Ideal spatial adaptation by wavelet shrinkage, 1994, Biometrika 81 (this oracle).
    """

    level: Tensor
    log_slope: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("level", torch.full((features,), 20.0))
        self.register_buffer("log_slope", torch.full((features,), math.log(2.0)))

    @torch.no_grad()
    def fit(self, gains: Tensor, sigmas: Tensor) -> None:
        """Take the curves nearest to the best gains (K, D) at K ≥ 2 deviations σ, by least squares of logits.

        The best gain of a coordinate is E[z·z′]/E[z′²] with z of clean images and z′ of cleared ones.
        """
        logits, x = torch.logit(gains.double().clamp(1e-3, 1 - 1e-3)), sigmas.double().log()[:, None]
        x_mean, mean = x.mean(0), logits.mean(0)
        slope = -((x - x_mean) * (logits - mean)).sum(0) / (x - x_mean).square().sum(0)
        slope = slope.clamp_min(0.1)
        self.log_slope.copy_(slope.log())
        self.level.copy_(mean + slope * x_mean)

    def forward(self, z: Tensor, sigma: Tensor) -> Tensor:
        """Shrink coordinates (B, D) of images with noise σ, shape (B,), in units of the data."""
        log_sigma = sigma.clamp_min(LEAST_NOISE).log()[:, None]
        return z * torch.sigmoid(self.level - self.log_slope.exp() * log_sigma)


class Denoiser(nn.Module):
    """What a chart needs to remove noise: a network N that clears images of it, and gains γ(σ).

    c_σ(y) = y − 5σ·tanh(r/5σ),  r = w(σ)·(y − x̂) + N(y − x̂, x̂ − m, σ),  w = σ²/(σ² + 0.15²)

    x̂ is the best linear estimate, which sees all of an image where convolutions see a part; the more noise,
    the more it is what N starts from. m is the mean of each colour of x̂: with it in N's input, most rectified
    units of N die in training. Nothing is moved by much more than noise is, and c₀(y) = y. No gradients are
    computed but in the training of its own, which turns them on.

    Args:
        principal: Wiener's filter of principal coordinates.
        rest: The same of what they leave, in wavelets.
        net: (B, 2C + 1, H, W), y − x̂, x̂ − m and a plane of σ, to (B, C, H, W).
        gains: γ.
    """

    def __init__(self, principal: Wiener, rest: Wiener, net: nn.Module, gains: Gains) -> None:
        super().__init__()
        self.principal, self.rest, self.net, self.gains = principal, rest, net, gains
        self.requires_grad_(False)

    def clear(self, y: Tensor, estimate: Tensor, sigma: Tensor, mean: Tensor) -> Tensor:
        """Clear images y, (B, C, H, W), given x̂ of the same shape, σ of each place, (B, 1, H, W), and m."""
        share, most = sigma.square() / (sigma.square() + _EVEN**2), _REACH * sigma
        residual = y - estimate
        found = share * residual + self.net(torch.cat([residual, estimate - mean, sigma], 1)).to(y)
        return y - most * torch.tanh(found / most.clamp_min(1e-6))
