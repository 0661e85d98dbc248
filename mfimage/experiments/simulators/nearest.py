"""The point of a smooth parametrised manifold that lies nearest."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_TOLERANCE = 1e-14  # what float64 allows
_FLOOR = 1e-24  # of the squared distance itself: float64 knows no better
_STUCK = 1e12  # damping at which steps drown in rounding


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
    """Minimise ‖x − render(z)‖ over |z_k| ≤ bound by Levenberg–Marquardt, every row on its own.

    (JᵀJ + λ diag JᵀJ) δ = Jᵀ(x − render(z));  δ is taken, and λ lowered, only where the distance shrinks.

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

    Reference:
        Moré, The Levenberg-Marquardt algorithm: implementation and theory, 1978.
    """
    z, damping = start.clone(), torch.full((len(x),), 1e-3, dtype=x.dtype)
    squared = (x - render(z)).square().sum(1)
    rows = torch.arange(len(x))
    for _ in range(iterations):
        if not len(rows):
            break
        here = z[rows]
        j = jacobian(here)
        gradient = (j.mT @ (x[rows] - render(here))[..., None])[..., 0]
        free = ~((here.abs() >= bound) & (here * gradient > 0))  # what pushes against the bound stays there
        j, gradient = j * free[:, None], gradient * free
        gram = j.mT @ j
        scale = gram.diagonal(dim1=1, dim2=2).clamp(min=1e-12)
        factor, _ = torch.linalg.cholesky_ex(gram + torch.diag_embed(damping[rows, None] * scale))
        step = torch.cholesky_solve(gradient[..., None], factor)[..., 0]
        trial = (here + step).clamp(-bound, bound)
        reached = (x[rows] - render(trial)).square().sum(1)
        better = reached < squared[rows]  # never where the factorisation failed: NaN compares as false
        z[rows] = torch.where(better[:, None], trial, here)
        squared[rows] = torch.where(better, reached, squared[rows])
        damping[rows] *= torch.where(better, 0.2, 4.0)
        gain = (gradient.square() / scale).amax(1)
        rows = rows[(gain > tolerance * squared[rows] + floor) & (damping[rows] < _STUCK)]
    return z, squared
