"""Networks of charts and encoders, whose output is zero before training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfimage.models.duals import Dual, push
from mfimage.models.layers import full_precision
from mfimage.modes import DRAWS

Shape = tuple[int, int, int]

SILU_GAIN = 1.68  # 1/√E[SiLU(z)²] for z ~ N(0, 1): keeps the activations' variance from layer to layer


class _Net(nn.Module):
    """A sequence of layers, whose output is zero at first."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        for layer in layers[:-1]:
            _start(layer)
        _start(layers[-1], 0.0)
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)

    def push(self, x: Dual) -> Dual:
        return push(self.layers, x)


def _start(layer: nn.Module, gain: float = SILU_GAIN) -> None:
    """Give a linear layer its first weights, of deviation gain/√fan-in, and no bias."""
    if isinstance(layer, nn.Linear | nn.Conv2d):
        layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # thrice as quick on CPUs
        nn.init.normal_(layer.weight, std=gain / math.sqrt(layer.weight[0].numel()))
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


class Dropout(nn.Module):
    """Drop features at a rate in training, as nn.Dropout does, by the random numbers of `modes.drawing`.

    x ↦ x · k / (1 − p),   k ~ Bernoulli(1 − p);   the tangents of a dual number are dropped with its value
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return x * self._kept(x) if self.training and self.p else x

    def push(self, x: Dual) -> Dual:
        if not (self.training and self.p):
            return x
        kept = self._kept(x.value)
        return Dual(x.value * kept, x.tangent * kept[:, None])

    def _kept(self, x: Tensor) -> Tensor:
        share = 1 - self.p
        return torch.empty_like(x).bernoulli_(share, generator=DRAWS.get()).div_(share or 1)


class ConvNet(_Net):
    """3×3 – 1×1 (or `inner`) – 3×3 convolutions with SiLU between, (B, in, H, W) to (B, out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, width: int, inner: int = 1) -> None:
        super().__init__(
            nn.Conv2d(in_channels, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, width, inner, padding=inner // 2),
            nn.SiLU(),
            nn.Conv2d(width, out_channels, 3, padding=1),
        )


class MLP(_Net):
    """Linear layers with SiLU between, (B, in) to (B, out); each hidden feature is dropped at a rate."""

    def __init__(
        self, in_features: int, out_features: int, hidden: int, layers: int = 3, dropout: float = 0.0
    ) -> None:
        sizes = [in_features, *[hidden] * layers]
        inner = [m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), nn.SiLU(), Dropout(dropout))]
        super().__init__(*inner, nn.Linear(hidden, out_features))


class Encoder(_Net):
    """See an image at full size: strided 3×3 convolutions with SiLU, then a linear layer, to (B, out).

    Args:
        shape: (C, H, W).
        out_features: Length of what it gives.
        channels: At full size; twice as many after each halving, up to eight times.
        halvings: How often it halves the resolution.
    """

    def __init__(self, shape: Shape, out_features: int, channels: int, halvings: int) -> None:
        widths = _widths(channels, halvings)
        layers: list[nn.Module] = [nn.Conv2d(shape[0], channels, 3, padding=1), nn.SiLU()]
        for narrow, wide in pairwise(widths):
            layers += [nn.Conv2d(narrow, wide, 3, stride=2, padding=1), nn.SiLU()]
        pixels = math.prod(halved(shape[1:], halvings)[-1])
        super().__init__(*layers, nn.Flatten(), nn.Linear(widths[-1] * pixels, out_features))


class Decoder(nn.Module):
    """Draw an image at full size, as a sum over resolutions: (B, in) to (B, C, H, W).

    Two linear layers make a small image of many channels; stages of a 3×3 convolution, a pixel shuffle and
    SiLU double its sides. At each resolution a 3×3 head draws C channels, y ← bilinear(y) + head(features):
    what is coarse need not pass the shuffles, which draw lattices. Karras et al., Analyzing and improving the
    image quality of StyleGAN, 2019, arXiv 1912.04958, §4.1 (output skips).

    Args:
        in_features: Length of the codes.
        shape: (C, H, W), any size.
        channels: At full size; twice as many at each coarser resolution, up to eight times.
        halvings: How often H and W are halved for the small image.
        hidden: Features of the first linear layer.
        dropout: Rate at which they are dropped.
    """

    def __init__(
        self, in_features: int, shape: Shape, channels: int, halvings: int, hidden: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.sizes, widths = halved(shape[1:], halvings)[::-1], _widths(channels, halvings)[::-1]
        small = (widths[0], *self.sizes[0])
        self.trunk = nn.Sequential(
            *(nn.Linear(in_features, hidden), nn.SiLU(), Dropout(dropout)),
            *(nn.Linear(hidden, math.prod(small)), nn.SiLU(), nn.Unflatten(1, small)),
        )
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(wide, 4 * narrow, 3, padding=1), nn.PixelShuffle(2), TopLeft(*size), nn.SiLU()
            )
            for (wide, narrow), size in zip(pairwise(widths), self.sizes[1:], strict=True)
        )
        self.heads = nn.ModuleList(nn.Conv2d(width, shape[0], 3, padding=1) for width in widths)
        for layer in (*self.trunk, *(layer for stage in self.stages for layer in stage.children())):
            _start(layer)
        for head in self.heads:
            _start(head, 0.0)

    def forward(self, u: Tensor) -> Tensor:
        x = self.trunk(u)
        image = self.heads[0](x)
        for stage, head, size in zip(self.stages, self.heads[1:], self.sizes[1:], strict=True):
            x = stage(x)
            image = _enlarged(image, size) + head(x)
        return image

    def push(self, u: Dual) -> Dual:
        x = push(self.trunk, u)
        image = push(self.heads[0], x)
        for stage, head, size in zip(self.stages, self.heads[1:], self.sizes[1:], strict=True):
            x = push(stage, x)
            image = image.linear(partial(_enlarged, size=size)).plus(push(head, x))
        return image


class TopLeft(nn.Module):
    """Keep the first rows and columns, so many, of images."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.height, self.width = height, width

    def forward(self, x: Tensor) -> Tensor:
        return x[..., : self.height, : self.width]

    def push(self, x: Dual) -> Dual:
        return x.both(self)


def _enlarged(image: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(image, size, mode="bilinear", align_corners=False)


def _widths(channels: int, halvings: int) -> list[int]:
    """Channels at full size and after each halving."""
    return [channels * min(2**i, 8) for i in range(halvings + 1)]


def halved(size: Sequence[int], times: int) -> list[tuple[int, int]]:
    """Sizes (height, width) from the whole to the one that so many halvings leave, odd sides rounded up."""
    return [((size[0] - 1 >> i) + 1, (size[1] - 1 >> i) + 1) for i in range(times + 1)]


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
