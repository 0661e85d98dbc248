"""Simulator, a distribution on a manifold whose truth is known, and the nearest point of a manifold."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mfimage.datasets.points import Points
from mfimage.errors import UsageError
from mfimage.models.least_squares import LevenbergMarquardt

OOD_SCALE = 0.1


class Simulator(ABC):
    """A distribution on a manifold whose truth is known."""

    name: str
    shape: tuple[int, ...]  # of the data, (D,) or (C, H, W)
    dim: int  # d, the dimension of the manifold
    parameters: int = 0  # P, the length of θ; 0 where there are none
    scores: bool = False  # whether samples come with the joint score ∇_θ log p(x, z|θ)

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator, theta: Tensor | None = None) -> Points:
        """Draw n points with their latents z; where θ, (n, P) or (1, P), is None, it is of the prior."""

    @abstractmethod
    def distance(self, x: Tensor) -> Tensor:
        """Compute the distance of points (n, …) from the manifold, shape (n,), float64."""

    def sample_ood(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n points, (n, …) float32, that do not belong: moved by N(0, 0.1²) in each coordinate."""
        x = self.sample(n, generator).x
        return x + OOD_SCALE * torch.randn(x.shape, generator=generator)

    def prior(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw θ, shape (n, P), float32; ~ N(0, I) where nothing else is said."""
        self._require_parameters()
        return torch.randn(n, self.parameters, generator=generator)

    def log_prior(self, theta: Tensor) -> Tensor:
        """Compute the log-density of θ, (n, P), under the prior, shape (n,), float64 nats."""
        theta = self._theta(theta, len(theta)).double()
        return -0.5 * theta.square().sum(1) - 0.5 * self.parameters * math.log(2 * math.pi)

    def log_prob(self, x: Tensor, theta: Tensor | None = None) -> Tensor:
        """Compute the true log-density at x, (n, …), given θ, (n, P) or (1, P): (n,), float64, in nats."""
        raise UsageError(f"the density of {self.name} is not known in closed form")

    def log_prob_at(self, z: Tensor, theta: Tensor | None = None) -> Tensor:
        """Compute the true log-density at the points of known latents z, (n, d): as `log_prob`."""
        raise UsageError(f"the density of {self.name} is not known at latents")

    def _require_parameters(self) -> None:
        if not self.parameters:
            raise UsageError(f"{self.name} has no parameters")

    def _theta(self, theta: Tensor, n: int) -> Tensor:
        """Check that a given θ is one for all n or one for each."""
        self._require_parameters()
        if theta.shape not in {(n, self.parameters), (1, self.parameters)}:
            shapes = f"({n}, {self.parameters}) or (1, {self.parameters})"
            raise UsageError(f"{self.name}: theta must be {shapes}, not {tuple(theta.shape)}")
        return theta


@dataclass(frozen=True, eq=False)
class _SquaredDistance:
    """‖x − render(z)‖² of points x, shape (B, D); its metric is the diagonal of its curvature."""

    x: Tensor
    render: Callable[[Tensor], Tensor]
    jacobian: Callable[[Tensor], Tensor]

    def rows(self, chosen: Tensor) -> _SquaredDistance:
        return _SquaredDistance(self.x[chosen], self.render, self.jacobian)

    def value(self, z: Tensor) -> Tensor:
        return (self.x - self.render(z)).square().sum(1)

    def quadratic(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        j = self.jacobian(z)
        gradient = -2 * (j.mT @ (self.x - self.render(z))[..., None])[..., 0]
        curvature = 2 * j.mT @ j
        return gradient, curvature, torch.diag_embed(curvature.diagonal(dim1=1, dim2=2).clamp(min=2e-12))


def nearest_point(
    render: Callable[[Tensor], Tensor],
    jacobian: Callable[[Tensor], Tensor],
    x: Tensor,
    start: Tensor,
    bound: float,
    *,
    iterations: int = 100,
    tolerance: float = 1e-14,
    floor: float = 1e-24,
) -> tuple[Tensor, Tensor]:
    """Minimise ‖x − render(z)‖ over |z_k| ≤ bound by `LevenbergMarquardt`, every row on its own.

    `render` maps (B, d) to (B, D), `jacobian` to ∂ render / ∂z, (B, D, d); x (B, D), finite, and the start
    (B, d), on which it depends which minimum is found, are float64. At the end moving one coordinate gains at
    most `tolerance` of the squared distance plus `floor`, what `render` rounds. Returns z (B, d) and the
    squared distance (B,), never larger than at the start.
    """
    solver = LevenbergMarquardt(
        lambda gain, slope, squared: slope <= tolerance * squared + floor, iterations, bound=bound
    )
    found = solver.minimise(_SquaredDistance(x, render, jacobian), start)
    return found.u, found.value
