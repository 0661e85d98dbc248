"""The density of events: 14 independent quantities, some of which depend on two parameters."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mfimage.experiments.simulators.kinematics import wrap

# Normal densities of the first nine LATENTS: mean at θ = 0, standard deviation, shift of the mean by θ_0.
_NORMAL = torch.tensor(
    [
        (math.log(125), 0.02, 0.0),  # m_γγ = 125 GeV, seen with 2.5 GeV resolution
        (math.log(230), 0.42, 0.25),
        (0.0, 0.9, 0.0),
        (0.0, 0.8, 0.0),  # nearly isotropic, without the photons along the beam that nobody detects
        (-0.1, 0.25, 0.0),  # the first jet recoils against the Higgs
        (math.log(85), 0.45, 0.2),
        (0.0, 0.7, 0.0),
        (math.log(0.4), 0.3, 0.0),  # m / |p| = 0.4: energy and momentum, measured apart, differ by 8 %
        (math.log(0.4), 0.3, 0.0),
    ],
    dtype=torch.float64,
)
# Wrapped Cauchy densities of the four angles that follow: centre, squeeze at θ = 0, its growth with θ_1.
_CIRCLE = torch.tensor(
    [(0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (math.pi, 0.7, 0.0), (0.0, 0.0, 0.4)], dtype=torch.float64
)
_GAP, _GAP_WIDTH = 3.2, 0.8  # Δη_jj: one jet forward, one backward, either first


def _normal_shift(z: Tensor, theta: Tensor) -> Tensor:
    """(z − mean) / standard deviation of the first nine quantities, (n, 9)."""
    mean, width, slope = _NORMAL.to(z.device).unbind(1)
    return (z[:, :9] - mean - slope * theta[:, :1]) / width


def _circle_sides(z: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    """e^(−2s) cos²(Δ/2) and e^(2s) sin²(Δ/2) of the four angles, (n, 4) each; Δ from the centre."""
    centre, squeeze, slope = _CIRCLE.to(z.device).unbind(1)
    s, half = squeeze + slope * theta[:, 1:], (z[:, 9:13] - centre) / 2
    return (-2 * s).exp() * half.cos().square(), (2 * s).exp() * half.sin().square()


def draw(theta: Tensor, generator: torch.Generator) -> Tensor:
    """Draw the 14 quantities of an event for each θ.

    An angle is centre + 2 arctan(e^(−2s) tan(a / 2)) with a uniform on the circle.

    Args:
        theta: (n, 2) float64.
        generator: Of all randomness.

    Returns:
        (n, 14) float64 in the order of `events.LATENTS`.
    """
    n = len(theta)
    noise = torch.randn(n, 10, generator=generator, dtype=torch.float64)
    uniform = torch.rand(n, 5, generator=generator, dtype=torch.float64)
    mean, width, slope = _NORMAL.unbind(1)
    centre, squeeze, growth = _CIRCLE.unbind(1)
    half, s = math.pi * (uniform[:, :4] - 0.5), squeeze + growth * theta[:, 1:]
    angles = centre + 2 * torch.atan2((-s).exp() * half.sin(), s.exp() * half.cos())
    side = torch.where(uniform[:, 4:] < 0.5, -_GAP, _GAP)
    lines = mean + slope * theta[:, :1] + width * noise[:, :9]
    return torch.cat([lines, wrap(angles), side + _GAP_WIDTH * noise[:, 9:]], 1)


def log_density(z: Tensor, theta: Tensor) -> Tensor:
    """Compute log p(z|θ), a product of 14 densities with known normalisers.

    Normal: mean shifted by θ_0. Angles: p(Δ) = 1 / 2π (e^(−2s) cos²(Δ/2) + e^(2s) sin²(Δ/2)), the wrapped
    Cauchy density of concentration tanh s, with s growing with θ_1. Δη_jj: ½ N(−3.2, 0.8²) + ½ N(3.2, 0.8²).

    Args:
        z: (n, 14) in the order of `events.LATENTS`.
        theta: (n, 2) or (1, 2).

    Returns:
        (n,) nats, with respect to dz; angles count on a circle of length 2π.

    Reference:
        Mardia, Jupp, Directional statistics, 2000 (the wrapped Cauchy distribution).
    """
    width = _NORMAL[:, 1].to(z.device)
    normal = -0.5 * _normal_shift(z, theta).square() - width.log() - 0.5 * math.log(2 * math.pi)
    near, far = _circle_sides(z, theta)
    circle = -(near + far).log() - math.log(2 * math.pi)
    sides = -0.5 * ((z[:, 13:] - z.new_tensor([-_GAP, _GAP])) / _GAP_WIDTH).square()
    gap = sides.logsumexp(1) - math.log(2 * _GAP_WIDTH * math.sqrt(2 * math.pi))
    return normal.sum(1) + circle.sum(1) + gap


def joint_score(z: Tensor, theta: Tensor) -> Tensor:
    """Compute t(x, z) = ∇_θ log p(x, z|θ), here ∇_θ log p(z|θ) as z and x determine each other.

    Args:
        z: (n, 14) in the order of `events.LATENTS`.
        theta: (n, 2) or (1, 2).

    Returns:
        (n, 2), nats per unit of θ.
    """
    _, width, slope = _NORMAL.to(z.device).unbind(1)
    near, far = _circle_sides(z, theta)
    growth = _CIRCLE[:, 2].to(z.device)
    first = (slope / width * _normal_shift(z, theta)).sum(1)
    return torch.stack([first, (2 * growth * (near - far) / (near + far)).sum(1)], 1)
