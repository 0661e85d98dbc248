"""Manifolds and charts: the interfaces, and the chart of images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfimage.errors import ModelError
from mfimage.models.duals import Dual, by_jvp, join
from mfimage.models.layers import Transform, Value, push_inverse
from mfimage.models.nets import Gains, noise_features
from mfimage.models.subspace import BentSubspace

NO_GAINS = "this model was not trained with noise, so it cannot shrink it: train it with --noise 0-0.5"

Shape = tuple[int, int, int]
Pad = tuple[int, int, int, int]


class Manifold(nn.Module):
    """Interface of d-dimensional manifolds { decode(u) } in the space of the data."""

    dim: int  # d
    features: int  # D, the number of elements of an example
    context_features: int = 0  # number of parameters θ that it depends on
    noise_aware: bool = False  # whether it can `shrink` noise

    def initialise(self, x: Tensor) -> None:
        """Start from data, shape (N, …) with N > d; one that is prescribed stays as it is."""

    def codes(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map data (B, …) to u, shape (B, d)."""
        raise NotImplementedError

    def decode(self, u: Tensor, context: Tensor | None = None) -> Tensor:
        """Map u, shape (B, d), to the manifold, (B, …)."""
        raise NotImplementedError

    def push_codes(self, u: Dual, context: Tensor | None = None, rotated: bool = False) -> Dual:
        """Push u, shape (B, d), and its tangents through `decode`, or `decode` and a rotation of R^D.

        A rotation leaves all lengths and angles; `rotated` allows one where that is less work.
        """
        return by_jvp(lambda value: self.decode(value, context), u)

    def shrink(self, y: Tensor, sigma: Tensor) -> Tensor:
        """Remove noise of deviations σ, shape (B,), from images (B, C, H, W); ModelError if it cannot."""
        raise ModelError(NO_GAINS)


class Chart(Manifold, Transform):
    """Interface of charts f, bijections whose first d coordinates describe a manifold, { f(u, 0) }.

    forward, f⁻¹, maps data to coordinates (u, v), shape (B, D); inverse, f, maps back.
    """

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Value:
        raise NotImplementedError

    def codes(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self(x, context)[0][:, : self.dim]

    def decode(self, u: Tensor, context: Tensor | None = None) -> Tensor:
        return self.inverse(F.pad(u, (0, self.features - self.dim)), context)[0]


class Multiscale(Transform):
    """Levels that each halve the resolution; the coarsest coordinates come first in a flat vector.

    After every level but the last, the channels above the kept ones (the finest details) leave; what is left
    at the end is written in front: (B, C, H, W) to (B, C·H·W). Dinh, Sohl-Dickstein, Bengio, Density
    estimation using Real NVP, 2016, arXiv 1605.08803, §3.6.

    Args:
        levels: One transform a level, (B, C, H, W) to (B, C·4ᵏ, H/2ᵏ, W/2ᵏ) after the channels that left.
        shapes: The shape (C, H, W) that each level puts out.
        keep: The number of channels that go on after each level but the last.
    """

    def __init__(self, levels: Sequence[Transform], shapes: Sequence[Shape], keep: Sequence[int]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(levels)
        self.shapes, self.keep = list(shapes), list(keep)
        left = [(c - kept, h, w) for (c, h, w), kept in zip(shapes[:-1], keep, strict=True)]
        self.blocks = [shapes[-1], *reversed(left)]  # the shapes of what the vector joins

    def _blocks(self, x: Tensor) -> list[Tensor]:
        """Cut vectors, the last axis, into the coarsest channels and the details that join them."""
        parts = x.split([math.prod(shape) for shape in self.blocks], -1)
        return [part.unflatten(-1, shape) for part, shape in zip(parts, self.blocks, strict=True)]

    def forward(self, x: Tensor, context: Tensor | None = None) -> Value:
        ladj, details = x.new_zeros(x.shape[0]), []
        for level, keep in zip(self.levels, [*self.keep, self.shapes[-1][0]], strict=True):
            x, step = level(x, context)
            ladj = ladj + step
            details.append(x[:, keep:].flatten(1))
            x = x[:, :keep]
        return torch.cat([x.flatten(1), *reversed(details)], 1), ladj

    def inverse(self, x: Tensor, context: Tensor | None = None) -> Value:
        ladj = x.new_zeros(x.shape[0])
        image, *details = self._blocks(x)
        level: Any
        for i, level in enumerate(reversed(self.levels)):
            if i > 0:
                image = torch.cat([image, details[i - 1]], 1)
            image, step = level.inverse(image, context)
            ladj = ladj + step
        return image, ladj

    def push(self, z: Dual, rotated: bool = False) -> Dual:
        image, *details = map(Dual, self._blocks(z.value), self._blocks(z.tangent))
        for i, level in enumerate(reversed(self.levels)):
            if i > 0:
                image = join(image, details[i - 1])
            image = push_inverse(level, image, rotated and i == len(details))
        return image


def padded(shape: Shape, halvings: int) -> tuple[Pad, Shape]:
    """Zeros (left, right, top, bottom) that let an image be halved so often, and its shape with them."""
    channels, height, width = shape
    more_h, more_w = -height % 2**halvings, -width % 2**halvings
    pad = more_w // 2, more_w - more_w // 2, more_h // 2, more_h - more_h // 2
    return pad, (channels, height + more_h, width + more_w)


def crop(x: Tensor, pad: Pad) -> Tensor:
    """Undo `F.pad(x, pad)`."""
    left, right, top, bottom = pad
    return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]


class ImageChart(Chart):
    """The image chart: convolutional couplings over wavelet levels, then a bent linear subspace.

    x ↦ pad ↦ multiscale Haar + [orthogonal 1×1, affine coupling] steps ↦ bent subspace = (u, v),  u ∈ R^d.

    After `initialise` and before training, { f(u, 0) } is exactly the PCA subspace of the images given.

    Images whose sides cannot be halved often enough are padded with zeros on all four sides (the odd pixel
    goes right and down), and cropped by `inverse`: the bijection, and its ladj, are those of padded images.
    With `gains` the chart can `shrink` noise; its couplings must then take noise as their context.
    """

    def __init__(
        self, pad: Pad, multiscale: Multiscale, subspace: BentSubspace, gains: Gains | None = None
    ) -> None:
        super().__init__()
        self.pad, self.multiscale, self.subspace, self.gains = pad, multiscale, subspace, gains
        self.dim, self.features, self.noise_aware = subspace.dim, subspace.features, gains is not None

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        vectors = torch.cat([self.multiscale(F.pad(part, self.pad))[0] for part in x.split(256)])
        self.subspace.initialise(vectors)
        if self.gains is not None:
            self.gains.initialise(torch.cat([self.subspace(part)[0] for part in vectors.split(256)]))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Value:
        vectors, ladj = self.multiscale(F.pad(x, self.pad))
        z, step = self.subspace(vectors)
        return z, ladj + step

    def codes(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.subspace.codes(self.multiscale(F.pad(x, self.pad))[0])

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Value:
        vectors, ladj = self.subspace.inverse(z)
        x, step = self.multiscale.inverse(vectors)
        return crop(x, self.pad), ladj + step

    def push_codes(self, u: Dual, context: Tensor | None = None, rotated: bool = False) -> Dual:
        image = self.multiscale.push(self.subspace.push_codes(u), rotated and not any(self.pad))
        return image.both(lambda x: crop(x, self.pad))

    def shrink(self, y: Tensor, sigma: Tensor) -> Tensor:
        """Remove noise in the coordinates: x̂ = f(γ(σ)·f_σ⁻¹(y)), with f₀ = f the chart of clean images.

        The couplings of f_σ⁻¹ take σ as their context, those of f, whose input is clean, have none.
        """
        if self.gains is None:
            raise ModelError(NO_GAINS)
        sigma = sigma.to(y)
        vectors, _ = self.multiscale(F.pad(y, self.pad), noise_features(sigma))
        return self.inverse(self.gains(self.subspace(vectors)[0], sigma))[0]
