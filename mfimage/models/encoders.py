"""Manifolds whose codes come from a network of their own: the Me-flow's and the autoencoder's."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mfimage.models.charts import Chart, Manifold, Window
from mfimage.models.duals import Dual, push
from mfimage.models.nets import MLP, Decoder, Encoder, LinearPlus, Shape
from mfimage.models.subspace import principal_components


class EncodedChart(Manifold):
    """A chart that only decodes; the codes come from an encoder: codes(x) = e(x), decode(u) = f(u, 0).

    Both start at the principal components.

    Args:
        encoder: Data (B, …) to codes (B, d).
        chart: f backwards.
    """

    def __init__(self, encoder: LinearPlus, chart: Chart) -> None:
        super().__init__()
        self.encoder, self.chart = encoder, chart
        self.dim, self.features = chart.dim, chart.features
        self.context_features, self.noise_aware = chart.context_features, chart.noise_aware

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        self.chart.initialise(x)
        codes = torch.eye(self.dim, dtype=x.dtype, device=x.device)
        mean = self.chart.decode(torch.zeros_like(codes[:1])).flatten()
        basis = self.chart.decode(codes).flatten(1) - mean  # still linear, its rows orthonormal
        self.encoder.initialise(basis, -basis @ mean, x)

    def codes(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.encoder(x)

    def decode(self, u: Tensor, context: Tensor | None = None) -> Tensor:
        return self.chart.decode(u, context)

    def push_codes(self, u: Dual, context: Tensor | None = None, rotated: bool = False) -> Dual:
        return self.chart.push_codes(u, context, rotated)

    @property
    def denoiser(self) -> nn.Module | None:
        """What removes noise, the chart's."""
        return getattr(self.chart, "denoiser", None)

    def initialise_denoiser(self, x: Tensor) -> None:
        self.chart.initialise_denoiser(x)

    def fit_gains(self, x: Tensor) -> None:
        self.chart.fit_gains(x)

    def clear(self, y: Tensor, sigma: Tensor, window: Window | None = None) -> Tensor:
        return self.chart.clear(y, sigma, window)

    def shrink(self, cleared: Tensor, sigma: Tensor) -> Tensor:
        return self.chart.shrink(cleared, sigma)


class Autoencoder(Manifold):
    """Two plain networks, each beside a linear map that starts at the principal components."""

    def __init__(self, encoder: LinearPlus, decoder: LinearPlus, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.encoder, self.decoder, self.shape = encoder, decoder, tuple(shape)
        self.dim, self.features = encoder.linear.out_features, decoder.linear.out_features

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        rows = x.flatten(1)
        mean, basis = principal_components(rows, self.dim)
        self.encoder.initialise(basis.T, -mean @ basis, x)
        self.decoder.initialise(basis, mean, (rows - mean) @ basis)

    def codes(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.encoder(x)

    def decode(self, u: Tensor, context: Tensor | None = None) -> Tensor:
        return self.decoder(u).unflatten(1, self.shape)

    def push_codes(self, u: Dual, context: Tensor | None = None, rotated: bool = False) -> Dual:
        return push(self.decoder, u).view(self.shape)


def image_encoder(shape: Shape, dim: int, channels: int, halvings: int) -> LinearPlus:
    """Build a convolutional encoder: images (B, C, H, W) to (B, d); see `Encoder`."""
    return LinearPlus(math.prod(shape), dim, Encoder(shape, dim, channels, halvings))


def image_decoder(
    shape: Shape, dim: int, channels: int, halvings: int, hidden: int, dropout: float = 0.0
) -> LinearPlus:
    """Build a convolutional decoder: codes (B, d) to images' vectors (B, C·H·W); see `Decoder`."""
    return LinearPlus(dim, math.prod(shape), Decoder(dim, shape, channels, halvings, hidden, dropout))


def vector_net(features: int, out_features: int, hidden: int) -> LinearPlus:
    """Build a fully connected encoder or decoder, (B, features) to (B, out_features)."""
    return LinearPlus(features, out_features, MLP(features, out_features, hidden))
