"""Charts: invertible maps from images to coordinates whose first d describe the manifold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from nflows.transforms import CompositeTransform, Transform
from torch import Tensor, nn
from torch.nn import functional as F

from mfimage.errors import ModelError
from mfimage.models.couplings import AffineCoupling
from mfimage.models.gains import Gains
from mfimage.models.layers import Haar, OrthogonalConv1x1, Value
from mfimage.models.nets import ConvNet, NoiseConvNet, noise_features
from mfimage.models.subspace import BentSubspace

NO_GAINS = "this model was not trained with noise, so it cannot shrink it: train it with --noise 0-0.5"

Shape = tuple[int, int, int]
Pad = tuple[int, int, int, int]


class Multiscale(Transform):
    """Levels that each halve the resolution; the coarsest coordinates come first in a flat vector.

    After every level but the last, the channels above the kept ones (the finest details) leave; what is left
    at the end is written in front: (B, C, H, W) to (B, C·H·W).

    Args:
        levels: One transform a level, (B, C, H, W) to (B, C·4ᵏ, H/2ᵏ, W/2ᵏ) after the channels that left.
        shapes: The shape (C, H, W) that each level puts out.
        keep: The number of channels that go on after each level but the last.

    Reference:
        Dinh, Sohl-Dickstein, Bengio, Density estimation using Real NVP, 2016, arXiv 1605.08803, §3.6.
    """

    def __init__(self, levels: Sequence[Transform], shapes: Sequence[Shape], keep: Sequence[int]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(levels)
        self.shapes, self.keep = list(shapes), list(keep)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Value:
        """Analyse images into coordinates, coarsest first."""
        ladj, details = x.new_zeros(x.shape[0]), []
        for level, keep in zip(self.levels, [*self.keep, self.shapes[-1][0]], strict=True):
            x, step = level(x, context)
            ladj = ladj + step
            details.append(x[:, keep:].flatten(1))
            x = x[:, :keep]
        return torch.cat([x.flatten(1), *reversed(details)], 1), ladj

    def inverse(self, x: Tensor, context: Tensor | None = None) -> Value:
        """Synthesise images from coordinates."""
        ladj = x.new_zeros(x.shape[0])
        size = torch.Size(self.shapes[-1]).numel()
        image, rest = x[:, :size].unflatten(1, self.shapes[-1]), x[:, size:]
        for i in reversed(range(len(self.levels))):
            level: Any = self.levels[i]
            image, step = level.inverse(image, context)
            ladj = ladj + step
            if i > 0:
                channels, height, width = self.shapes[i - 1]
                detail = (channels - self.keep[i - 1], height, width)
                size = torch.Size(detail).numel()
                image = torch.cat([image, rest[:, :size].unflatten(1, detail)], 1)
                rest = rest[:, size:]
        return image, ladj


class Chart(Transform):
    """Interface of charts: a Transform that knows its dimensions and can give the codes alone.

    forward maps data to coordinates (B, D), the d manifold coordinates u first; inverse maps back.
    """

    dim: int
    features: int

    def codes(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map data to u, shape (B, d): the first d coordinates of `forward`."""
        raise NotImplementedError

    def decode(self, u: Tensor, context: Tensor | None = None) -> Tensor:
        """Map u, shape (B, d), to the manifold: g(u) = f(u, 0)."""
        return self.inverse(F.pad(u, (0, self.features - self.dim)), context)[0]


class ImageChart(Chart):
    """The image chart: convolutional couplings over wavelet levels, then a bent linear subspace.

    x ↦ pad ↦ multiscale Haar + [orthogonal 1×1, affine coupling] steps ↦ bent subspace = (u, v),  u ∈ R^d.

    After `initialise` and before training, { f(u, 0) } is exactly the PCA subspace of the images given.

    Images whose sides are not divisible by 2^levels are padded with zeros on all four sides (the odd pixel
    goes right and down), and cropped by `inverse`: the bijection, and its ladj, are those of padded images.

    Args:
        pad: (left, right, top, bottom) zeros.
        multiscale: Padded images to vectors.
        subspace: Vectors to (u, v).
        gains: With it the chart can `shrink` noise; its couplings must then take noise as their context.
    """

    def __init__(
        self, pad: Pad, multiscale: Multiscale, subspace: BentSubspace, gains: Gains | None = None
    ) -> None:
        super().__init__()
        self.pad, self.multiscale, self.subspace, self.gains = pad, multiscale, subspace, gains
        self.dim, self.features = subspace.dim, subspace.features

    @torch.no_grad()
    def initialise(self, images: Tensor) -> None:
        """Start at the principal components of images, shape (N, C, H, W) with N > d."""
        vectors = torch.cat([self.multiscale(F.pad(x, self.pad))[0] for x in images.split(256)])
        self.subspace.initialise(vectors)
        if self.gains is not None:
            self.gains.initialise(torch.cat([self.subspace(part)[0] for part in vectors.split(256)]))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Value:
        """Map images (B, C, H, W) to coordinates (u, v), shape (B, D)."""
        vectors, ladj = self.multiscale(F.pad(x, self.pad))
        z, step = self.subspace(vectors)
        return z, ladj + step

    def codes(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map images (B, C, H, W) to u, shape (B, d), without the work that only v needs."""
        return self.subspace.codes(self.multiscale(F.pad(x, self.pad))[0])

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Value:
        """Map coordinates (u, v), shape (B, D), to images (B, C, H, W)."""
        vectors, ladj = self.subspace.inverse(z)
        x, step = self.multiscale.inverse(vectors)
        left, right, top, bottom = self.pad
        return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right], ladj + step

    def shrink(self, y: Tensor, sigma: Tensor) -> Tensor:
        """Remove noise in the coordinates: x̂ = f(γ(σ)·f_σ⁻¹(y)), with f₀ = f the chart of clean images.

        The couplings on the way to the coordinates are told σ, those on the way back see what is clean.

        Args:
            y: Noisy images (B, C, H, W).
            sigma: Standard deviation of their noise, shape (B,), in units of the images.

        Raises:
            ModelError: If the chart has no gains.
        """
        if self.gains is None:
            raise ModelError(NO_GAINS)
        sigma = sigma.to(y)
        vectors, _ = self.multiscale(F.pad(y, self.pad), noise_features(sigma))
        return self.inverse(self.gains(self.subspace(vectors)[0], sigma))[0]


def padding(height: int, width: int, levels: int) -> Pad:
    """Zeros (left, right, top, bottom) that make both sides divisible by 2^levels, halved on either side."""
    extra_h, extra_w = -height % 2**levels, -width % 2**levels
    return extra_w // 2, extra_w - extra_w // 2, extra_h // 2, extra_h - extra_h // 2


def coupling_steps(
    channels: int, steps: int, width: int, restore: bool, noise: bool = False
) -> list[Transform]:
    """[orthogonal 1×1, affine coupling with a 3×3–1×1–3×3 net] × steps, on (B, channels, H, W).

    With `restore` a last orthogonal 1×1 brings the channels back into their order, coarse ones first. With
    `noise` the nets are 3×3–3×3–3×3 and take features of noise as context.
    """
    half, net = channels // 2, NoiseConvNet if noise else ConvNet
    mixing = [OrthogonalConv1x1(channels) for _ in range(steps)]
    parts: list[Transform] = []
    for mix in mixing:
        parts += [mix, AffineCoupling(half, net(half, 2 * (channels - half), width))]
    return [*parts, OrthogonalConv1x1(channels).undo(mixing)] if restore and steps else parts


def image_chart(
    shape: Shape,
    dim: int,
    levels: Sequence[tuple[int, int]] = ((2, 1),),
    keep: float = 1.0,
    width: int = 24,
    hidden: int = 512,
    bends: int = 1,
    noise: bool = False,
) -> ImageChart:
    """Build an image chart.

    Args:
        shape: (C, H, W), any size.
        dim: d, 1 … C·H·W − 1.
        levels: For each level the number of Haar halvings and of coupling steps at the resolution reached.
        keep: Share of the channels that go on after each level but the last, in (0, 1].
        width: Hidden channels of the convolutional networks, in units; see `BentSubspace`.
        hidden: Features of their fully connected layers.
        bends: Pairs of networks that bend the subspace, 0 or more.
        noise: Whether the chart can `shrink` noise.

    Returns:
        A chart whose `initialise` must be called with training images.
    """
    channels, height, width_px = shape
    pad = padding(height, width_px, sum(halvings for halvings, _ in levels))
    height, width_px = height + pad[2] + pad[3], width_px + pad[0] + pad[1]
    features = channels * height * width_px
    transforms, shapes, kept = [], [], []
    for level, (halvings, steps) in enumerate(levels):
        channels, height, width_px = channels * 4**halvings, height >> halvings, width_px >> halvings
        haar: list[Transform] = [Haar() for _ in range(halvings)]
        restore = level < len(levels) - 1  # where details leave, they must be the finest
        transforms.append(
            CompositeTransform(haar + coupling_steps(channels, steps, 2 * width, restore, noise))
        )
        shapes.append((channels, height, width_px))
        channels = max(1, round(channels * keep))
        kept.append(channels)
    multiscale = Multiscale(transforms, shapes, kept[:-1])
    subspace = BentSubspace(features, dim, shapes[-1], width, hidden, bends)
    return ImageChart(pad, multiscale, subspace, Gains(features) if noise else None)
