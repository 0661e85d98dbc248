"""What a distribution on a known manifold can do."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from mfimage.datasets.points import Points
from mfimage.errors import UsageError


class Simulator(ABC):
    """A distribution on a manifold whose truth is known.

    Attributes:
        name: "circle", "surface", …
        shape: Of the data, (D,) or (C, H, W).
        dim: d, the dimension of the manifold.
        parameters: P, the length of θ; 0 where there are none.
        scores: Whether samples come with the joint score ∇_θ log p(x, z|θ).
    """

    name: str
    shape: tuple[int, ...]
    dim: int
    parameters: int = 0
    scores: bool = False

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator, theta: Tensor | None = None) -> Points:
        """Draw n points; θ, shape (n, P) or (1, P), is drawn from the prior where it is None and P > 0."""

    @abstractmethod
    def distance(self, x: Tensor) -> Tensor:
        """Compute the distance of points (n, …) from the manifold, shape (n,), float64."""

    @abstractmethod
    def sample_ood(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n points, (n, …), that do not belong."""

    def prior(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw θ, shape (n, P)."""
        raise UsageError(f"{self.name} has no parameters")

    def log_prior(self, theta: Tensor) -> Tensor:
        """Compute the log-density of θ under the prior, shape (n,)."""
        raise UsageError(f"{self.name} has no parameters")

    def log_prob(self, x: Tensor, theta: Tensor | None = None) -> Tensor:
        """Compute the true log-density, shape (n,), float64, in nats."""
        raise UsageError(f"the density of {self.name} is not known in closed form")
