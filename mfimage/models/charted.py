"""The interface of models that are a manifold and a density on it."""

from __future__ import annotations

import torch
from torch import Tensor

from mfimage.models.base import GenerativeModel
from mfimage.models.charts import Manifold
from mfimage.models.density import Density
from mfimage.models.geometry import Directions, geodesic, metric, principal_directions
from mfimage.models.layers import in_rows
from mfimage.modes import plainly


class ChartedModel(GenerativeModel):
    """Interface of models that are a manifold and a density on its codes; they differ in log_prob.

    Args:
        chart: The manifold.
        density: h on R^d.
        shape: Of the data.
    """

    def __init__(self, chart: Manifold, density: Density, shape: tuple[int, ...]) -> None:
        super().__init__(shape, density.dim, max(density.context_features, chart.context_features))
        self.chart, self.density, self.noise_aware = chart, density, chart.noise_aware

    @plainly
    @torch.no_grad()
    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        self.chart.initialise(x)
        self.density.initialise(in_rows(self.chart.codes, x, context))

    @plainly
    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.chart.codes(x, context)

    @plainly
    def decode(self, u: Tensor, context: Tensor | None = None) -> Tensor:
        return self.chart.decode(u, context)

    @plainly
    def push_forward(self, noise: Tensor, context: Tensor | None = None) -> Tensor:
        return self.density.push_forward(noise, context)

    @plainly
    def clear(self, y: Tensor, sigma: Tensor | float) -> Tensor:
        deviation = torch.as_tensor(sigma, dtype=y.dtype, device=y.device)
        return self.chart.clear(y, deviation if deviation.ndim else deviation.expand(y.shape[0]))

    def metric(self, u: Tensor, context: Tensor | None = None) -> Tensor:
        """Compute JᵀJ at coordinates u, shape (B, d) to (B, d, d), float64; see `geometry.metric`."""
        return metric(self.chart, u, context)

    @plainly
    @torch.no_grad()
    def principal_directions(self, x: Tensor, count: int = 8, context: Tensor | None = None) -> Directions:
        """Find the directions in which the projections of x change most; `geometry.principal_directions`."""
        u = self.encode(x, context)
        return principal_directions(self.chart, u, self.shape, min(count, self.dim), context)

    @plainly
    def interpolate(self, x: Tensor, y: Tensor, points: int = 9, context: Tensor | None = None) -> Tensor:
        """Go from the projection of x to that of y on a shortest way along the manifold, in equal steps.

        Where a sharper drawing was learned, the way is found without and drawn with it.

        Args:
            x: One example, shape (…) without a batch; `geometry.geodesic` says what is minimised.
            y: Another.
            points: Number of examples on the way, both ends included: the result is (points, …).
            context: θ of all, shape (1, P).
        """

        def decode(u: Tensor, model: GenerativeModel = self) -> Tensor:
            return model.decode(u, None if context is None else context.expand(len(u), -1))

        with torch.no_grad():
            start, end = self.encode(torch.stack([x, y]), None if context is None else context.expand(2, -1))
            return decode(geodesic(decode, start, end, points), self.shown)
