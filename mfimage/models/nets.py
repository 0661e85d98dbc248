"""Networks of charts and encoders, whose output is zero before training; and gains against noise."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from mfimage.models.duals import Dual, push
from mfimage.models.layers import full_precision

NOISE_FEATURES = 4  # length of what `noise_features` gives
LEAST_NOISE = 1e-4  # σ below which all is kept as at σ
SILU_GAIN = 1.68  # 1/√E[SiLU(z)²] for z ~ N(0, 1): keeps the activations' variance from layer to layer


class _Net(nn.Module):
    """A sequence of layers, whose output is zero at first."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        linear = [m for m in layers if isinstance(m, nn.Linear | nn.Conv2d)]
        for layer in linear:
            nn.init.normal_(layer.weight, std=SILU_GAIN / math.sqrt(layer.weight[0].numel()))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        nn.init.zeros_(linear[-1].weight)
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)

    def push(self, x: Dual) -> Dual:
        return push(self.layers, x)


class ConvNet(_Net):
    """3×3 – 1×1 – 3×3 convolutions with SiLU, (B, in, H, W) to (B, out, H, W).

    With `noise` 3×3 – 3×3 – 3×3, whose hidden layers `noise_features`, (B, 4), can shift. They are 0 where
    there is no noise: without them this is the network of clean images.
    """

    def __init__(self, in_channels: int, out_channels: int, width: int, noise: bool = False) -> None:
        super().__init__(
            nn.Conv2d(in_channels, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1) if noise else nn.Conv2d(width, width, 1),
            nn.SiLU(),
            nn.Conv2d(width, out_channels, 3, padding=1),
        )
        shifts = [nn.Linear(NOISE_FEATURES, width, bias=False) for _ in range(2 if noise else 0)]
        for shift in shifts:
            nn.init.normal_(shift.weight, std=0.3)
        self.shifts = nn.ModuleList(shifts)

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        if noise is None:
            return self.layers(x)
        first, activation, second, _, last = self.layers
        for layer, shift in zip((first, second), self.shifts, strict=True):
            x = activation(layer(x) + shift(noise)[:, :, None, None])
        return last(x)


def noise_features(sigma: Tensor) -> Tensor:
    """Describe noise to networks: σ/(σ + c) for c = 0.03, 0.1, 0.3 and 1, (B,) to (B, 4); 0 without noise."""
    return torch.stack([sigma / (sigma + c) for c in (0.03, 0.1, 0.3, 1.0)], 1)


class MLP(_Net):
    """Linear layers with SiLU between, (B, in) to (B, out)."""

    def __init__(self, in_features: int, out_features: int, hidden: int, layers: int = 3) -> None:
        sizes = [in_features, *[hidden] * layers]
        inner = [m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), nn.SiLU())]
        super().__init__(*inner, nn.Linear(hidden, out_features))


class Encoder(_Net):
    """3×3 – 3×3 stride 2 – linear – linear, with SiLU between: images (B, C, H, W) to vectors (B, out)."""

    def __init__(self, shape: tuple[int, int, int], out_features: int, width: int, hidden: int) -> None:
        channels, height, width_px = shape
        super().__init__(
            nn.Conv2d(channels, 2 * width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(4 * width * ((height + 1) // 2) * ((width_px + 1) // 2), hidden),
            nn.SiLU(),
            nn.Linear(hidden, out_features),
        )


class Decoder(_Net):
    """A vector to an image at twice the inner resolution: (B, in) to (B, C, H, W).

    linear – linear – 3×3 – pixel shuffle – 3×3 – 3×3, with SiLU between; cropped where H or W is odd.
    """

    def __init__(self, in_features: int, shape: tuple[int, int, int], width: int, hidden: int) -> None:
        channels, height, width_px = shape
        inner = (4 * width, (height + 1) // 2, (width_px + 1) // 2)
        super().__init__(
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
        self.height, self.width_px = height, width_px

    def _crop(self, x: Tensor) -> Tensor:
        return x[..., : self.height, : self.width_px]

    def forward(self, x: Tensor) -> Tensor:
        return self._crop(self.layers(x))

    def push(self, x: Dual) -> Dual:
        return push(self.layers, x).both(self._crop)


class LinearPlus(nn.Module):
    """A linear map of flattened input and a network that starts at zero: x ↦ W x + b + s·net((x − m)/σ).

    m and σ are the mean of the input and its deviation (a feature for codes, one number for data), s that of
    the output that W x + b leaves.
    """

    mean: Tensor
    scale: Tensor
    out_scale: Tensor

    def __init__(self, features: int, out_features: int, net: nn.Module) -> None:
        super().__init__()
        self.linear, self.net = nn.Linear(features, out_features), net
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.register_buffer("out_scale", torch.ones(out_features))

    @torch.no_grad()
    def initialise(self, weight: Tensor, bias: Tensor, x: Tensor) -> None:
        """Start at W, b, and measure the scales on inputs x, shape (N, …)."""
        self.linear.weight.copy_(weight)
        self.linear.bias.copy_(bias)
        rows = x.flatten(1)
        self.mean.copy_(rows.mean(0))
        spread = rows.std(0, unbiased=False)
        common = spread.square().mean().sqrt() if len(weight) < rows.shape[1] else spread
        self.scale.copy_(common.clamp_min(1e-6).expand_as(spread))
        out = torch.cat([self.linear(part) for part in rows.split(4096)]).std(0, unbiased=False)
        common = out.square().mean().sqrt() if len(weight) > rows.shape[1] else out
        self.out_scale.copy_(common.clamp_min(1e-6).expand_as(out))

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(1)
        bent = self.net(((rows - self.mean) / self.scale).view_as(x)).flatten(1).to(rows)
        with full_precision(x):
            return self.linear(rows) + self.out_scale * bent

    def push(self, x: Dual) -> Dual:
        """ẋ ↦ W ẋ + s·net′((x − m)/σ) ẋ/σ."""
        rows = x.flat()
        scaled = Dual((rows.value - self.mean) / self.scale, rows.tangent / self.scale)
        bent = push(self.net, scaled.view(x.value.shape[1:])).flat()
        return push(self.linear, rows).plus(bent.times(self.out_scale))


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
        self.log_slope = nn.Parameter(torch.full((features,), math.log(2.0)))

    @torch.no_grad()
    def initialise(self, z: Tensor) -> None:
        """Start as Wiener's filter of clean coordinates z, shape (N, D)."""
        self.level.copy_(z.square().mean(0).clamp_min(1e-6).log())
        self.log_slope.fill_(math.log(2.0))

    def forward(self, z: Tensor, sigma: Tensor) -> Tensor:
        """Shrink coordinates (B, D) of images with noise σ, shape (B,), in units of the data."""
        log_sigma = sigma.clamp_min(LEAST_NOISE).log()[:, None]
        return z * torch.sigmoid(self.level - self.log_slope.exp() * log_sigma)
