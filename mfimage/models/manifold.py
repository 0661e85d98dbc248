"""The manifold-learning flow: a chart and a density on its first coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfimage.models.charts import Chart, Shape, image_chart
from mfimage.models.density import Density, latent_density
from mfimage.models.geometry import log_volume, tangents


class ManifoldFlow(nn.Module):
    """An M-flow: the manifold { g(u) = f(u, 0) } with the density h on its coordinates.

    log p(x) = log p_h(u) − ½ log det(JᵀJ),  J = ∂g/∂u,  u = encode(x).

    Args:
        chart: f⁻¹ forwards (images to coordinates (B, D), u first), f backwards.
        density: h on R^d.
        shape: (C, H, W) of the images.
        settings: The keyword arguments that made it, kept for checkpoints.

    Reference:
        Brehmer, Cranmer, Flows for simultaneous manifold learning and density estimation, 2020,
        arXiv 2003.13913, eqs. 4–6.
    """

    def __init__(
        self,
        chart: Chart,
        density: Density,
        shape: Shape,
        settings: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.chart, self.density = chart, density
        self.shape, self.dim = tuple(shape), density.dim
        self.settings = settings or {}

    def encode(self, x: Tensor) -> Tensor:
        """Map images (B, C, H, W) in [0, 1] to manifold coordinates u, shape (B, d)."""
        return self.chart.codes(x)

    def decode(self, u: Tensor) -> Tensor:
        """Map coordinates u, shape (B, d), to images on the manifold, (B, C, H, W), not clipped to [0, 1]."""
        return self.chart.inverse(F.pad(u, (0, self.chart.features - self.dim)))[0]

    def project(self, x: Tensor) -> Tensor:
        """Map images (B, C, H, W) to the manifold: x̂ = g(encode(x))."""
        return self.decode(self.encode(x))

    def log_prob(self, x: Tensor, chunk: int | None = 8) -> Tensor:
        """Compute the exact log-density at the projections of images.

        Args:
            x: Images, shape (B, C, H, W), in [0, 1].
            chunk: Tangent directions at a time; see `geometry.tangents`.

        Returns:
            Shape (B,), float64: nats with respect to d-dimensional volume on the manifold, in pixel units
            of [0, 1]. Comparable between images under one model, never between models.
        """
        u = self.encode(x)
        return self.density.log_prob(u).double() - log_volume(tangents(self.decode, u, chunk))

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None, batch_size: int = 256) -> Tensor:
        """Draw images from the model.

        All noise is drawn first, on the CPU: a seed gives the same images for every batch size and device
        (up to the rounding of batched arithmetic).

        Args:
            n: Number of images, ≥ 0.
            generator: Source of randomness; the global one if None.
            batch_size: Images decoded at a time.

        Returns:
            Shape (n, C, H, W), not clipped to [0, 1].
        """
        weight = next(self.density.parameters())
        noise = torch.randn(n, self.dim, generator=generator)
        images = [
            self.decode(self.density.push_forward(z.to(weight))) for z in noise.split(batch_size) if len(z)
        ]
        return torch.cat(images) if images else torch.empty(0, *self.shape)


def manifold_flow(
    shape: Shape,
    dim: int,
    levels: Sequence[tuple[int, int]],
    keep: float,
    width: int,
    hidden: int,
    bends: int,
    density_steps: int,
    density_width: int,
) -> ManifoldFlow:
    """Build the image M-flow; the arguments are those of `image_chart` and `latent_density`."""
    settings = dict(locals())
    chart = image_chart(shape, dim, levels, keep, width, hidden, bends)
    density = latent_density(dim, density_steps, density_width)
    return ManifoldFlow(chart, density, shape, settings)
