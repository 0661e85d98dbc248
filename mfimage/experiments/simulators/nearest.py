"""The point of a smooth parametrised manifold that lies nearest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mfimage.models.least_squares import LevenbergMarquardt

_TOLERANCE = 1e-14  # what float64 allows
_FLOOR = 1e-24  # of the squared distance itself: float64 knows no better


class Bank:
    """Points whose coordinates are known, to start the search for others from.

    Args:
        features: What is compared, shape (N, F), float64; N well above F.
        z: Their coordinates, shape (N, d), float64.
    """

    def __init__(self, features: Tensor, z: Tensor) -> None:
        self.features, self.z = features, z
        self.mean, self.mean_z = features.mean(0), z.mean(0)
        centred = features - self.mean
        ridge = 1e-6 * centred.square().sum() / features.shape[1] * torch.eye(features.shape[1]).double()
        self.slope = torch.linalg.solve(centred.mT @ centred + ridge, centred.mT @ (z - self.mean_z))

    def guesses(self, features: Tensor, bound: float) -> tuple[Tensor, Tensor]:
        """Guess coordinates for features (B, F).

        Returns:
            Those of the most similar point, (B, d), which are best where the manifold is strongly curved, and
            those by linear regression with |z_k| ≤ bound, (B, d), best where d is too large to fill a bank.
        """
        similar = self.z[torch.cdist(features.float(), self.features.float()).argmin(1)]
        return similar, (self.mean_z + (features - self.mean) @ self.slope).clamp(-bound, bound)


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


def nearest(
    render: Callable[[Tensor], Tensor],
    jacobian: Callable[[Tensor], Tensor],
    x: Tensor,
    start: Tensor,
    bound: float,
    iterations: int = 100,
    tolerance: float = _TOLERANCE,
    floor: float = _FLOOR,
) -> tuple[Tensor, Tensor]:
    """Minimise ‖x − render(z)‖ over |z_k| ≤ bound by `LevenbergMarquardt`, every row on its own.

    Args:
        render: Maps (B, d) to (B, D), each row on its own.
        jacobian: Maps (B, d) to J = ∂ render / ∂z, shape (B, D, d).
        x: Points, shape (B, D), float64, finite.
        start: Coordinates to start from, shape (B, d), float64; which minimum is found depends on them.
        bound: The largest |z_k|.
        iterations: At most so many steps.
        tolerance: Share of the squared distance that moving one coordinate may still gain at the end.
        floor: The same as a squared distance: what `render` rounds.

    Returns:
        z, shape (B, d), and the squared distance, shape (B,): never larger than at the start.
    """

    def settled(gain: Tensor, slope: Tensor, squared: Tensor) -> Tensor:
        return slope <= tolerance * squared + floor

    solver = LevenbergMarquardt(settled, iterations, bound=bound)
    found = solver.minimise(_SquaredDistance(x, render, jacobian), start)
    return found.u, found.value
