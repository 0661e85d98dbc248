"""The manifold-learning flow: a manifold, given by codes and a decoder, and a density on its codes."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from mfimage.models.bijections import in_rows
from mfimage.models.density import Density
from mfimage.models.geometry import log_volume, tangents
from mfimage.models.model import GenerativeModel


class Manifold(Protocol):
    """What draws a d-dimensional manifold: a `Chart`, a chart with an encoder of its own, or two networks."""

    dim: int

    def codes(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map data to u, shape (B, d)."""

    def decode(self, u: Tensor, context: Tensor | None = None) -> Tensor:
        """Map u, shape (B, d), to data."""


class ChartedModel(GenerativeModel):
    """Interface of models that are a manifold and a density on its codes; they differ in log_prob.

    Args:
        chart: The manifold.
        density: h on R^d.
        shape: Of the data.
    """

    def __init__(self, chart: Any, density: Density, shape: tuple[int, ...]) -> None:
        super().__init__(shape, density.dim)
        self.chart, self.density = chart, density

    @torch.no_grad()
    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """Start the chart, unless it is prescribed, and the density from data, shape (N, …) with N > d."""
        if hasattr(self.chart, "initialise"):
            self.chart.initialise(x)
        self.density.initialise(in_rows(self.chart.codes, x, context))

    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map data (B, …) to manifold coordinates u, shape (B, d)."""
        return self.chart.codes(x, context)

    def decode(self, u: Tensor, context: Tensor | None = None) -> Tensor:
        """Map coordinates u, shape (B, d), to the manifold, (B, …); images are not clipped to [0, 1]."""
        return self.chart.decode(u, context)

    def push_forward(self, noise: Tensor, context: Tensor | None = None) -> Tensor:
        """Turn base noise (B, d) into coordinates u, shape (B, d)."""
        return self.density.push_forward(noise, context)


class ManifoldFlow(ChartedModel):
    """An M-flow: the manifold { g(u) } with the density h on its coordinates.

    log p(x) = log p_h(u) − ½ log det(JᵀJ),  J = ∂g/∂u,  u = encode(x).

    Args:
        chart: The manifold. A `Chart` makes this the M-flow (g(u) = f(u, 0), u from f⁻¹), or the FOM where
            the chart is prescribed; an `EncodedChart` the Me-flow.
        density: h on R^d.
        shape: Of the data.

    Reference:
        Brehmer, Cranmer, Flows for simultaneous manifold learning and density estimation, 2020,
        arXiv 2003.13913, eqs. 4–6.
    """

    def log_prob(self, x: Tensor, context: Tensor | None = None, chunk: int | None = 8) -> Tensor:
        """Compute the exact log-density at the projections of x.

        Args:
            x: Data, shape (B, …); images in [0, 1].
            context: θ, shape (B, P), for a conditional model.
            chunk: Tangent directions at a time; see `geometry.tangents`.

        Returns:
            Shape (B,), float64: nats with respect to d-dimensional volume on the manifold, in units of the
            data (pixels in [0, 1]). Comparable between data under one model, never between models.
        """
        u = self.encode(x, context)
        j = tangents(lambda w: self.decode(w, context), u, chunk)
        return self.density.log_prob(u, context).double() - log_volume(j)


class ProbabilisticAutoencoder(ChartedModel):
    """An autoencoder with a density on its codes; a row to compare with.

    "log p(x)" = log p_h(u): the decoder's volume is left out, so this is a score and not a density of x.

    Args:
        chart: Encoder and decoder.
        density: h on R^d.
        shape: Of the data.

    Reference:
        Böhm, Seljak, Probabilistic autoencoder, 2020, arXiv 2006.05479.
    """

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Compute log p_h(u), shape (B,), in nats with respect to du, without the volume."""
        return self.density.log_prob(self.encode(x, context), context)
