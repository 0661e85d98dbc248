"""Flows with a density on the whole space: the ambient flow and PIE."""

from __future__ import annotations

import math

import torch
from nflows.transforms import Transform
from torch import Tensor

from mfimage.models.charts import Chart
from mfimage.models.density import Density
from mfimage.models.flow import ChartedModel, GenerativeModel
from mfimage.models.layers import invert, start


class AmbientFlow(GenerativeModel):
    """A full-dimensional flow: log p(x) = log N(z; 0, I) + ladj, z = f⁻¹(x) ∈ R^D.

    Its codes are z, so that every x is its own projection.

    Args:
        transform: Data (B, …) to noise (B, D).
        shape: Of the data.
    """

    def __init__(self, transform: Transform, shape: tuple[int, ...]) -> None:
        super().__init__(shape, math.prod(shape))
        self.transform = transform

    @property
    def has_manifold(self) -> bool:
        """Every x is its own projection."""
        return False

    @property
    def has_ambient_density(self) -> bool:
        """The density is on R^D."""
        return True

    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """Start every part that starts from data, shape (N, …) with N > d."""
        start(self.transform, x, context)

    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map data (B, …) to noise z, shape (B, D)."""
        return self.transform(x, context)[0]

    def decode(self, u: Tensor, context: Tensor | None = None) -> Tensor:
        """Map noise z, shape (B, D), to data."""
        return invert(self.transform, u, context)[0]

    def push_forward(self, noise: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the noise: here it is the code."""
        return noise

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Compute the log-density on R^D, shape (B,), in nats."""
        z, ladj = self.transform(x, context)
        return _normal(z) + ladj

    def bits_per_dim(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Compute the cost of coding dequantised images, shape (B,); see the function of this name."""
        return bits_per_dim(self.log_prob(x, context), self.dim)

    def tweedie(self, y: Tensor, sigma: float | Tensor, context: Tensor | None = None) -> Tensor:
        """Denoise by one step up the density; see the function of this name."""
        return tweedie(self, y, sigma, context)


class PIE(ChartedModel):
    """The M-flow's network with a density on the whole space, narrow off the manifold.

    log p(x) = log p_h(u) + log N(v; 0, ε²) + ladj,  (u, v) = f⁻¹(x).

    Args:
        chart: f⁻¹ forwards.
        density: h on R^d.
        shape: Of the data.
        epsilon: ε > 0, the standard deviation off the manifold.

    Reference:
        Beitler, Sosnovik, Smeulders, PIE: pseudo-invertible encoder, 2018, openreview SkgiX2Aqtm; Brehmer,
        Cranmer, 2020, arXiv 2003.13913, eq. 3.
    """

    def __init__(self, chart: Chart, density: Density, shape: tuple[int, ...], epsilon: float) -> None:
        super().__init__(chart, density, shape)
        self.epsilon = epsilon

    @property
    def has_ambient_density(self) -> bool:
        """The density is on R^D."""
        return True

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Compute the log-density on R^D, shape (B,), in nats."""
        z, ladj = self.chart(x, context)
        u, v = z[:, : self.dim], z[:, self.dim :]
        off = _normal(v / self.epsilon) - v.shape[1] * math.log(self.epsilon)
        return self.density.log_prob(u, context) + off + ladj

    @torch.no_grad()
    def sample_ambient(
        self, n: int, generator: torch.Generator | None = None, context: Tensor | None = None
    ) -> Tensor:
        """Draw from the density on R^D: v ~ N(0, ε²), where `sample` takes v = 0."""
        weight = next(self.density.parameters())
        noise = torch.randn(n, self.chart.features, generator=generator).to(weight)
        theta = None if context is None else context.to(weight).expand(n, -1)
        u = self.push_forward(noise[:, : self.dim], theta)
        return self.chart.inverse(torch.cat([u, self.epsilon * noise[:, self.dim :]], 1), theta)[0]


def tweedie(
    model: GenerativeModel, y: Tensor, sigma: float | Tensor, context: Tensor | None = None
) -> Tensor:
    """Denoise by one step up the density: x̂ = y + σ²·∇ log p(y).

    The mean of x given y, if the flow was trained on data with noise N(0, σ²) of the same σ.

    Args:
        model: With a density on the whole space (`has_ambient_density`).
        y: Noisy data, shape (B, …).
        sigma: Standard deviation of the noise, in units of the data: one number, or one an example, (B,).
        context: θ, shape (B, P).

    Returns:
        Shape (B, …).

    Reference:
        Efron, Tweedie's formula and selection bias, 2011, JASA 106; Zhai et al., Normalizing flows are
        capable generative models, 2024, arXiv 2412.06329.
    """
    with torch.enable_grad():
        y = y.detach().requires_grad_()
        (score,) = torch.autograd.grad(model.log_prob(y, context).sum(), y)
    variance = torch.as_tensor(sigma).to(y).square().view(-1, *[1] * (y.dim() - 1))
    return (y + variance * score).detach()


def bits_per_dim(log_prob: Tensor, features: int) -> Tensor:
    """Compute the cost of coding images at 256 levels: 8 − log₂ p(x)/D, shape (B,).

    Args:
        log_prob: Shape (B,), nats, on R^D, at dequantised images (k + U)/256, k = 0 … 255 and U ~ U(0, 1);
            see `losses.dequantise`.
        features: D.

    Reference:
        Theis, van den Oord, Bethge, A note on the evaluation of generative models, 2015, arXiv 1511.01844.
    """
    return 8 - log_prob / (features * math.log(2))


def _normal(z: Tensor) -> Tensor:
    return -0.5 * (z.square() + math.log(2 * math.pi)).sum(1)
