"""Conditioner networks of the couplings; each ends in zeros, so that a new coupling is the identity."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

NOISE_FEATURES = 4  # length of what `noise_features` gives
SILU_GAIN = 1.68  # 1/√E[SiLU(z)²] for z ~ N(0, 1): keeps the activations' variance from layer to layer


def _initialise(layers: nn.Sequential) -> nn.Sequential:
    linear = [m for m in layers if isinstance(m, nn.Linear | nn.Conv2d)]
    for layer in linear:
        nn.init.normal_(layer.weight, std=SILU_GAIN / math.sqrt(layer.weight[0].numel()))
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    nn.init.zeros_(linear[-1].weight)
    return layers


class ConvNet(nn.Module):
    """3×3 – 1×1 – 3×3 convolutions with SiLU, (B, in, H, W) to (B, out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, width: int) -> None:
        super().__init__()
        self.layers = _initialise(
            nn.Sequential(
                nn.Conv2d(in_channels, width, 3, padding=1),
                nn.SiLU(),
                nn.Conv2d(width, width, 1),
                nn.SiLU(),
                nn.Conv2d(width, out_channels, 3, padding=1),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Evaluate the network."""
        return self.layers(x)


class NoiseConvNet(nn.Module):
    """3×3 – 3×3 – 3×3 convolutions with SiLU that may be told how noisy their input is.

    The noise shifts both hidden layers by a linear map of its features, which are 0 where there is none: so
    without features this is the network of clean images.

    Args:
        in_channels: Of the input (B, in, H, W).
        out_channels: Of the output (B, out, H, W).
        width: Hidden channels.
    """

    def __init__(self, in_channels: int, out_channels: int, width: int) -> None:
        super().__init__()
        self.layers = _initialise(
            nn.Sequential(
                nn.Conv2d(in_channels, width, 3, padding=1),
                nn.SiLU(),
                nn.Conv2d(width, width, 3, padding=1),
                nn.SiLU(),
                nn.Conv2d(width, out_channels, 3, padding=1),
            )
        )
        shifts = [nn.Linear(NOISE_FEATURES, width, bias=False) for _ in range(2)]
        for shift in shifts:
            nn.init.normal_(shift.weight, std=0.3)
        self.shifts = nn.ModuleList(shifts)

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """Evaluate the network; noise: features (B, 4), see `noise_features`."""
        if noise is None:
            return self.layers(x)
        first, activation, second, _, last = self.layers
        for layer, shift in zip((first, second), self.shifts, strict=True):
            x = activation(layer(x) + shift(noise)[:, :, None, None])
        return last(x)


def noise_features(sigma: Tensor) -> Tensor:
    """Describe noise to networks: σ/(σ + c) for c = 0.03, 0.1, 0.3 and 1, (B,) to (B, 4); 0 without noise."""
    return torch.stack([sigma / (sigma + c) for c in (0.03, 0.1, 0.3, 1.0)], 1)


class MLP(nn.Module):
    """Linear layers with SiLU between, (B, in) to (B, out)."""

    def __init__(self, in_features: int, out_features: int, hidden: int, layers: int = 3) -> None:
        super().__init__()
        sizes = [in_features, *[hidden] * layers]
        inner = [m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), nn.SiLU())]
        self.layers = _initialise(nn.Sequential(*inner, nn.Linear(hidden, out_features)))

    def forward(self, x: Tensor) -> Tensor:
        """Evaluate the network."""
        return self.layers(x)


class Encoder(nn.Module):
    """Strided convolutions to a vector: (B, C, H, W) to (B, out).

    3×3 – 3×3 stride 2 – linear – linear, with SiLU between.
    """

    def __init__(self, shape: tuple[int, int, int], out_features: int, width: int, hidden: int) -> None:
        super().__init__()
        channels, height, width_px = shape
        self.layers = _initialise(
            nn.Sequential(
                nn.Conv2d(channels, 2 * width, 3, padding=1),
                nn.SiLU(),
                nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1),
                nn.SiLU(),
                nn.Flatten(),
                nn.Linear(4 * width * _half(height) * _half(width_px), hidden),
                nn.SiLU(),
                nn.Linear(hidden, out_features),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Evaluate the network."""
        return self.layers(x)


class Decoder(nn.Module):
    """A vector to an image at twice the inner resolution: (B, in) to (B, C, H, W).

    linear – linear – 3×3 – pixel shuffle – 3×3 – 3×3, with SiLU between; cropped where H or W is odd.
    """

    def __init__(self, in_features: int, shape: tuple[int, int, int], width: int, hidden: int) -> None:
        super().__init__()
        channels, self.height, self.width_px = shape
        inner = (4 * width, _half(self.height), _half(self.width_px))
        self.layers = _initialise(
            nn.Sequential(
                nn.Linear(in_features, hidden),
                nn.SiLU(),
                nn.Linear(hidden, math.prod(inner)),
                nn.SiLU(),
                nn.Unflatten(1, inner),
                nn.Conv2d(4 * width, 8 * width, 3, padding=1),
                nn.PixelShuffle(2),
                nn.SiLU(),
                nn.Conv2d(2 * width, 2 * width, 3, padding=1),
                nn.SiLU(),
                nn.Conv2d(2 * width, channels, 3, padding=1),
            )
        )

    def forward(self, u: Tensor) -> Tensor:
        """Evaluate the network."""
        return self.layers(u)[..., : self.height, : self.width_px]


def _half(size: int) -> int:
    return (size + 1) // 2
