"""The fuzzy n-sphere: normal angles, and a radius close to one."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from mfimage.datasets.points import Points
from mfimage.errors import UsageError
from mfimage.experiments.simulators.simulator import Simulator

_PERIODS = 2  # full turns of an angle on either side that still count


class Sphere(Simulator):
    """Points near the unit n-sphere in R^(n+1).

    φ_i ~ N(π/2, (π/4)²),  r = 1 + N(0, ε²),
    x_0 = r cos φ_0,  x_1 = r sin φ_0 cos φ_1,  …,  x_n = r sin φ_0 ⋯ sin φ_(n−1).

    Args:
        n: Dimension of the sphere, ≥ 1; 1 is the circle.
        epsilon: ε.

    Reference:
        Brehmer, Cranmer, 2020, arXiv 2003.13913, §4 (circle).
    """

    def __init__(self, n: int = 1, epsilon: float = 0.01) -> None:
        if n < 1 or not epsilon > 0:
            raise UsageError(f"a sphere has a dimension from 1 and a width above 0, not {n} and {epsilon}")
        self.name = "circle" if n == 1 else "sphere"
        self.shape, self.dim, self.epsilon = (n + 1,), n, epsilon

    def sample(self, n: int, generator: torch.Generator, theta: Tensor | None = None) -> Points:
        """Draw n points; latents are the angles, as drawn; a θ is refused."""
        if theta is not None:
            self._require_parameters()
        angles = self._angles(n, generator)
        radius = 1 + self.epsilon * torch.randn(n, 1, generator=generator, dtype=torch.float64)
        return Points((radius * direction(angles)).float(), self.name, latents=angles.float())

    def distance(self, x: Tensor) -> Tensor:
        """Compute |‖x‖ − 1|, shape (n,)."""
        return (x.double().norm(dim=1) - 1).abs()

    def sample_ood(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw points inside: the same angles, radius 1 + U(−3ε, 0)."""
        angles = self._angles(n, generator)
        inside = 3 * self.epsilon * torch.rand(n, 1, generator=generator, dtype=torch.float64)
        return ((1 - inside) * direction(angles)).float()

    def log_prob(self, x: Tensor, theta: Tensor | None = None) -> Tensor:
        """Compute the log-density on R^(n+1), shape (n,), with respect to volume there.

        Every tuple of angles on the real line that points to x counts: full turns of any angle, and a polar
        angle reflected at its pole, φ_i → −φ_i, which takes the later ones to their antipode. At the poles
        themselves it is infinite, as all azimuths meet there.
        """
        x = x.double()
        r = x.norm(dim=1)
        angles = spherical(x)
        radial = _log_normal(r - 1, self.epsilon)
        powers = torch.arange(self.dim - 1, 0, -1, dtype=torch.float64)
        volume = self.dim * r.log() + (powers * angles[:, :-1].sin().log()).sum(1)  # none of the azimuth's
        return self._log_angular(angles) + radial - volume

    def _log_angular(self, angles: Tensor) -> Tensor:
        """Log of the density of the angles, summed over all that give the same direction."""
        terms = []
        for flips in itertools.product((False, True), repeat=self.dim - 1):
            total, antipodal = torch.zeros(len(angles), dtype=torch.float64), False
            for i, flip in enumerate(flips):
                polar = math.pi - angles[:, i] if antipodal else angles[:, i]
                total = total + _log_wrapped(-polar if flip else polar)
                antipodal = antipodal != flip
            terms.append(total + _log_wrapped(angles[:, -1] + math.pi * antipodal))
        return torch.stack(terms).logsumexp(0)

    def _angles(self, n: int, generator: torch.Generator) -> Tensor:
        noise = torch.randn(n, self.dim, generator=generator, dtype=torch.float64)
        return math.pi / 2 + math.pi / 4 * noise


def direction(angles: Tensor) -> Tensor:
    """Map angles (n, d) to unit vectors (n, d + 1)."""
    one = torch.ones(len(angles), 1, dtype=angles.dtype)
    return torch.cat([one, angles.sin().cumprod(1)], 1) * torch.cat([angles.cos(), one], 1)


def spherical(x: Tensor) -> Tensor:
    """Map points (n, d + 1) to angles: polar ones in [0, π], the last, the azimuth, in (−π, π]."""
    tails = x.square().flip(1).cumsum(1).flip(1).sqrt()
    polar = torch.atan2(tails[:, 1:-1], x[:, :-2])
    return torch.cat([polar, torch.atan2(x[:, -1:], x[:, -2:-1])], 1)


def _log_wrapped(angle: Tensor) -> Tensor:
    """Log-density of an angle modulo 2π."""
    turns = 2 * math.pi * torch.arange(-_PERIODS, _PERIODS + 1, dtype=angle.dtype)
    return _log_normal(angle[:, None] + turns - math.pi / 2, math.pi / 4).logsumexp(1)


def _log_normal(x: Tensor, width: float) -> Tensor:
    return -0.5 * (x / width).square() - math.log(width * math.sqrt(2 * math.pi))
