"""Manifolds whose codes come from a network of their own: the Me-flow's and the autoencoder's."""

from __future__ import annotations

import math

import torch
from nflows.transforms import CompositeTransform
from torch import Tensor, nn
from torch.nn import functional as F

from mfimage.errors import ModelError
from mfimage.models.charts import NO_GAINS, Chart, ImageChart, Pad, Shape, padding
from mfimage.models.gains import Gains
from mfimage.models.layers import Haar, full_precision
from mfimage.models.linear import principal_components
from mfimage.models.nets import MLP, Decoder, Encoder


class EncodedChart(nn.Module):
    """A chart that only decodes; the codes come from a separate encoder.

    codes(x) = e(x),  decode(u) = f(u, 0).

    Both start at the principal components, and whatever measures scales of u does so on the encoder's codes,
    in the direction in which it is used.

    Args:
        encoder: Starts as a linear map.
        chart: f backwards.
    """

    def __init__(self, encoder: LinearPlus, chart: Chart) -> None:
        super().__init__()
        self.encoder, self.chart = encoder, chart
        self.dim, self.features = chart.dim, chart.features

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Start at the principal components of data (N, …): the encoder's codes are those of the chart."""
        self.chart.initialise(x)
        codes = torch.eye(self.dim).to(x)
        mean = self.chart.decode(torch.zeros_like(codes[:1])).flatten()
        basis = (
            self.chart.decode(codes).flatten(1) - mean
        )  # the chart is still linear, its columns orthonormal
        self.encoder.initialise(basis, -basis @ mean, x)

    def codes(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map data to u, shape (B, d)."""
        return self.encoder(x)

    def decode(self, u: Tensor, context: Tensor | None = None) -> Tensor:
        """Map u, shape (B, d), to the manifold."""
        return self.chart.decode(u, context)

    @property
    def gains(self) -> Gains | None:
        """Of the chart, if it can shrink noise."""
        return getattr(self.chart, "gains", None)

    def shrink(self, y: Tensor, sigma: Tensor) -> Tensor:
        """Remove noise in the coordinates of the chart, without the encoder; see `ImageChart.shrink`."""
        if not isinstance(self.chart, ImageChart):
            raise ModelError(NO_GAINS)
        return self.chart.shrink(y, sigma)


class Autoencoder(nn.Module):
    """Two plain networks, each beside a linear map that starts at the principal components."""

    def __init__(self, encoder: LinearPlus, decoder: LinearPlus, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.encoder, self.decoder, self.shape = encoder, decoder, tuple(shape)
        self.dim, self.features = encoder.linear.out_features, decoder.linear.out_features

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Start at the principal components of data (N, …)."""
        rows = x.flatten(1)
        mean, basis = principal_components(rows, self.dim)
        self.encoder.initialise(basis.T, -mean @ basis, x)
        self.decoder.initialise(basis, mean, (rows - mean) @ basis)

    def codes(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map data to u, shape (B, d)."""
        return self.encoder(x)

    def decode(self, u: Tensor, context: Tensor | None = None) -> Tensor:
        """Map u, shape (B, d), to data."""
        return self.decoder(u).unflatten(1, self.shape)


class LinearPlus(nn.Module):
    """A linear map and a network that starts at zero: x ↦ W x + b + s·net((x − m)/σ).

    m and σ are the mean of the input and its deviation (a feature for codes, one number for data), s that of
    the output that W x + b leaves.

    Args:
        features: Length of the input, flattened.
        out_features: Length of the output.
        net: (B, …) to (B, out_features) or a shape of that many elements.
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
        """Evaluate it."""
        rows = x.flatten(1)
        bent = self.net(((rows - self.mean) / self.scale).view_as(x)).flatten(1).to(rows)
        with full_precision(x):
            return self.linear(rows) + self.out_scale * bent


def image_encoder(shape: Shape, dim: int, halvings: int, width: int, hidden: int) -> LinearPlus:
    """Build a convolutional encoder: images (B, C, H, W) to (B, d), by wavelets and strided convolutions."""
    pad, grid = _grid(shape, halvings)
    layers = [_Wavelets(pad, halvings), Encoder(grid, dim, width, hidden)]
    return LinearPlus(math.prod(shape), dim, nn.Sequential(*layers))


def image_decoder(shape: Shape, dim: int, halvings: int, width: int, hidden: int) -> LinearPlus:
    """Build a convolutional decoder: codes (B, d) to images' vectors (B, C·H·W)."""
    pad, grid = _grid(shape, halvings)
    layers = [Decoder(dim, grid, width, hidden), _Synthesis(pad, halvings)]
    return LinearPlus(dim, math.prod(shape), nn.Sequential(*layers))


def vector_net(features: int, out_features: int, hidden: int) -> LinearPlus:
    """Build a fully connected encoder or decoder, (B, features) to (B, out_features)."""
    return LinearPlus(features, out_features, MLP(features, out_features, hidden))


def _grid(shape: Shape, halvings: int) -> tuple[Pad, Shape]:
    channels, height, width = shape
    pad = padding(height, width, halvings)
    height, width = height + pad[2] + pad[3], width + pad[0] + pad[1]
    return pad, (channels * 4**halvings, height >> halvings, width >> halvings)


class _Wavelets(nn.Module):
    """Pad, and transform by Haar wavelets."""

    def __init__(self, pad: Pad, halvings: int) -> None:
        super().__init__()
        self.pad, self.haar = pad, CompositeTransform([Haar() for _ in range(halvings)])

    def forward(self, x: Tensor) -> Tensor:
        return self.haar(F.pad(x, self.pad))[0]


class _Synthesis(nn.Module):
    """The way back."""

    def __init__(self, pad: Pad, halvings: int) -> None:
        super().__init__()
        self.pad, self.haar = pad, CompositeTransform([Haar() for _ in range(halvings)])

    def forward(self, x: Tensor) -> Tensor:
        x, _ = self.haar.inverse(x)
        left, right, top, bottom = self.pad
        return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]
