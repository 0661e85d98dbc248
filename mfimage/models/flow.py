"""Models: the interface of all, and the manifold-learning flow: a manifold, and a density on its codes."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mfimage.config import ModelConfig
from mfimage.errors import UsageError
from mfimage.models.density import Density
from mfimage.models.geometry import (
    Directions,
    estimate_log_volume,
    geodesic,
    metric,
    metric_log_volume,
    principal_directions,
)
from mfimage.models.layers import in_rows


class GenerativeModel(nn.Module):
    """Interface of models: codes and points, a density, samples from noise.

    Attributes:
        shape: Of the data: (C, H, W) for images, (D,) for vectors.
        dim: Length of the codes u and of the base noise.
        config: What it was built from; None for one put together by hand.
        measured: What was found out about it after training, as JSON takes it; saved beside the weights.
    """

    shape: tuple[int, ...]
    dim: int
    config: ModelConfig | None
    measured: dict[str, Any]

    def __init__(self, shape: tuple[int, ...], dim: int) -> None:
        super().__init__()
        self.shape, self.dim, self.config, self.measured = tuple(shape), dim, None, {}

    @property
    def has_manifold(self) -> bool:
        """Whether it has fewer coordinates than the data, so that projection changes an image."""
        return True

    @property
    def has_ambient_density(self) -> bool:
        """Whether `log_prob` is a density on the whole space R^D, and not on a manifold in it."""
        return False

    @property
    def context_features(self) -> int:
        """Number of parameters θ on which the model is conditioned; 0 for none."""
        return self.config.context if self.config else 0

    @property
    def conditional(self) -> bool:
        """Whether the density depends on parameters θ, which are then to be given as context."""
        return self.context_features > 0

    @property
    def noise_aware(self) -> bool:
        """Whether the chart can remove noise too, as `ImageChart.shrink` does."""
        return False

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.parameters()).device

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Project data onto the manifold; the same as `project`."""
        return self.project(x, context)

    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """Start from data, shape (N, …) with N > d, and their θ, before any training."""
        raise NotImplementedError

    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map data (B, …), images in [0, 1], to codes u, shape (B, d)."""
        raise NotImplementedError

    def decode(self, u: Tensor, context: Tensor | None = None) -> Tensor:
        """Map codes u, shape (B, d), to data (B, …), not clipped to [0, 1]."""
        raise NotImplementedError

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Compute the model's log-density, shape (B,), in nats."""
        raise NotImplementedError

    def push_forward(self, noise: Tensor, context: Tensor | None = None) -> Tensor:
        """Turn base noise (B, d) into codes u, shape (B, d)."""
        raise NotImplementedError

    def project(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map data to the nearest that the model can say: x̂ = decode(encode(x))."""
        return self.decode(self.encode(x, context), context)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        generator: torch.Generator | None = None,
        batch_size: int = 256,
        context: Tensor | None = None,
    ) -> Tensor:
        """Draw from the model.

        All noise is drawn first, on the CPU: a seed gives the same samples for every batch size and device
        (up to the rounding of batched arithmetic).

        Args:
            n: How many, ≥ 0.
            generator: Source of randomness; the global one if None.
            batch_size: How many are decoded at a time.
            context: θ of each, shape (n, P), or of all, (1, P).

        Returns:
            Shape (n, …), images not clipped to [0, 1].

        Raises:
            UsageError: If a conditional model is given no context.
        """
        if self.conditional and context is None:
            raise UsageError(f"a conditional model: give its {self.context_features} parameters as context")
        weight = next(self.parameters())
        noise = torch.randn(n, self.dim, generator=generator)
        theta = None if context is None else context.to(weight).expand(n, -1)
        drawn = []
        for start in range(0, n, batch_size):
            rows = slice(start, start + batch_size)
            part = None if theta is None else theta[rows]
            drawn.append(self.decode(self.push_forward(noise[rows].to(weight), part), part))
        return torch.cat(drawn) if drawn else torch.empty(0, *self.shape)


EXACT_DIM = 4096  # above it J of an image fills memory, and the estimate is quicker (benchmarks/density.py)


class Manifold(Protocol):
    """What draws a d-dimensional manifold: a `Chart`, a chart with an encoder of its own, or two networks."""

    dim: int

    def codes(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map data to u, shape (B, d)."""

    def decode(self, u: Tensor, context: Tensor | None = None) -> Tensor:
        """Map u, shape (B, d), to data."""


class NoiseAware(Manifold, Protocol):
    """A manifold of images whose chart can also remove noise."""

    def shrink(self, y: Tensor, sigma: Tensor) -> Tensor:
        """Remove noise of deviations σ, shape (B,), from images (B, C, H, W)."""


@dataclass(frozen=True)
class LogDensity:
    """Log-densities, and how they were come by.

    Attributes:
        log_prob: Shape (B,), float64, nats.
        standard_error: Of each, shape (B,), nats; 0 where exact.
        method: "exact" or "lanczos".
        measure: "manifold", per d-dimensional volume in the data space, or "latent", per du.
    """

    log_prob: Tensor
    standard_error: Tensor
    method: str
    measure: str


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

    @property
    def noise_aware(self) -> bool:
        """Whether the chart can remove noise too, as `ImageChart.shrink` does."""
        return getattr(self.chart, "gains", None) is not None

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

    def metric(self, u: Tensor, context: Tensor | None = None) -> Tensor:
        """Compute JᵀJ at coordinates u, shape (B, d) to (B, d, d), float64; see `geometry.metric`."""
        return metric(self.chart, u, context)

    @torch.no_grad()
    def principal_directions(self, x: Tensor, count: int = 8, context: Tensor | None = None) -> Directions:
        """Find in which directions the projections of x, (B, …), change most along the manifold.

        Args:
            x: Data.
            count: How many directions, at most d.
            context: θ, shape (B, P).

        Returns:
            Singular values and vectors of J; see `geometry.principal_directions`.
        """
        u = self.encode(x, context)
        return principal_directions(self.chart, u, self.shape, min(count, self.dim), context)

    def interpolate(self, x: Tensor, y: Tensor, points: int = 9, context: Tensor | None = None) -> Tensor:
        """Go from the projection of x to that of y on a shortest way along the manifold, in equal steps.

        Args:
            x: One example, shape (…) without a batch.
            y: Another.
            points: Number of examples on the way, both ends included.
            context: θ of all, shape (1, P).

        Returns:
            Shape (points, …); the middle of a straight line in the data would leave the manifold, and one in
            u moves by unequal steps. See `geometry.geodesic`.
        """

        def decode(u: Tensor) -> Tensor:
            return self.decode(u, None if context is None else context.expand(len(u), -1))

        with torch.no_grad():
            start, end = self.encode(torch.stack([x, y]), None if context is None else context.expand(2, -1))
            return decode(geodesic(decode, start, end, points))


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

    def log_prob(self, x: Tensor, context: Tensor | None = None, method: str = "auto") -> Tensor:
        """Compute the log-density at the projections of x.

        Args:
            x: Data, shape (B, …); images in [0, 1].
            context: θ, shape (B, P), for a conditional model.
            method: As for `log_density`. Where "auto" takes the estimate, a warning says so.

        Returns:
            Shape (B,), float64: nats with respect to d-dimensional volume on the manifold, in units of the
            data (pixels in [0, 1]). Comparable between data under one model, never between models.
        """
        result = self.log_density(x, context, method)
        if method == "auto" and result.method != "exact":
            warnings.warn(
                f"log_prob at d = {self.dim} is an estimate ({result.method}) with standard errors up to "
                f'{float(result.standard_error.max()):.2g} nats; method="exact" has none, and takes longer',
                stacklevel=2,
            )
        return result.log_prob

    def log_density(
        self,
        x: Tensor,
        context: Tensor | None = None,
        method: str = "auto",
        measure: str = "manifold",
        generator: torch.Generator | None = None,
    ) -> LogDensity:
        """Compute the log-density at the projections of x, and say how.

        Args:
            x: Data, shape (B, …); images in [0, 1].
            context: θ, shape (B, P), for a conditional model.
            method: "exact" (the whole Jacobian, d pushes), "lanczos" (`geometry.estimate_log_volume`: no
                Jacobian is kept, and no gradient is given) or "auto": exact up to d = 4,096.
            measure: "manifold" divides by the volume that J gives du: nats with respect to d-dimensional
                volume in the data space. "latent" does not: log p_h(u), nats with respect to du, which
                another choice of coordinates on the same manifold would change.
            generator: Of the estimate's probes.

        Raises:
            UsageError: If a method or measure is not one of these.
        """
        if method not in ("auto", "exact", "lanczos") or measure not in ("manifold", "latent"):
            raise UsageError(
                "method must be auto, exact or lanczos and measure manifold or latent, "
                f"not {method!r} and {measure!r}"
            )
        u = in_rows(self.encode, x, context) if len(x) else self.encode(x, context)
        value = self.density.log_prob(u, context).double()
        none = torch.zeros_like(value)
        if measure == "latent":
            return LogDensity(value, none, "exact", measure)
        if method == "lanczos" or (method == "auto" and self.dim > EXACT_DIM):
            volume, error = estimate_log_volume(self.chart, u, context, generator=generator)
            return LogDensity(value - volume, error, "lanczos", measure)
        return LogDensity(value - metric_log_volume(metric(self.chart, u, context)), none, "exact", measure)


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
