"""Four-vectors (E, px, py, pz) of relativistic particles, in GeV with c = 1, the beam along z."""

from __future__ import annotations

import math

import torch
from torch import Tensor

TINY = 1e-9  # GeV: what is divided by or taken the logarithm of stays above it, so that any input ends finite


def four_vector(pt: Tensor, eta: Tensor, phi: Tensor, mass: Tensor) -> Tensor:
    """Build momenta from what a detector measures.

    px = pT cos φ,  py = pT sin φ,  pz = pT sinh η,  E = √((pT cosh η)² + m²).

    Args:
        pt: Transverse momenta, > 0, any shape.
        eta: Pseudorapidities, same shape.
        phi: Azimuths in radians, same shape.
        mass: Masses, ≥ 0, same shape.

    Returns:
        (E, px, py, pz), shape (…, 4), in GeV.
    """
    energy = torch.hypot(pt * eta.cosh(), mass)
    return torch.stack([energy, pt * phi.cos(), pt * phi.sin(), pt * eta.sinh()], -1)


def massless(momentum: Tensor) -> Tensor:
    """Give three-momenta (…, 3) the energy of a massless particle, E = |p|; shape (…, 4)."""
    return torch.cat([momentum.norm(dim=-1, keepdim=True), momentum], -1)


def transverse_momentum(p: Tensor) -> Tensor:
    """Compute pT = √(px² + py²) of momenta (…, 4), shape (…), in GeV."""
    return torch.hypot(p[..., 1], p[..., 2])


def azimuth(p: Tensor) -> Tensor:
    """Compute the angle φ of momenta (…, 4) around the beam, shape (…), radians in [−π, π]."""
    return torch.atan2(p[..., 2], p[..., 1])


def pseudorapidity(p: Tensor) -> Tensor:
    """Compute η = arsinh(pz / pT) of momenta (…, 4), shape (…); finite even along the beam."""
    return torch.asinh(p[..., 3] / transverse_momentum(p).clamp(min=TINY))


def invariant_mass(p: Tensor) -> Tensor:
    """Compute m = √((E − |p|)(E + |p|)) of momenta (…, 4).

    The product loses fewer digits than E² − |p|² where a particle is fast.

    Returns:
        Shape (…), GeV; 0 where the momentum is spacelike.
    """
    momentum = p[..., 1:].norm(dim=-1)
    return ((p[..., 0] - momentum) * (p[..., 0] + momentum)).clamp(min=0).sqrt()


def boost(p: Tensor, frame: Tensor) -> Tensor:
    """Take momenta from the rest frame of a particle to the frame in which it is seen (a Lorentz boost).

    With γ = E/m and w = γβ = **p**/m of the particle:  E′ = γE + w·p,  p′ = p + (E + w·p / (γ + 1)) w.

    Args:
        p: Momenta in the particle's rest frame, shape (…, 4).
        frame: The particle's own momentum, timelike, shape (…, 4).

    Returns:
        Shape (…, 4), GeV.
    """
    mass = invariant_mass(frame).clamp(min=TINY)[..., None]
    gamma, w = frame[..., :1] / mass, frame[..., 1:] / mass
    along = (w * p[..., 1:]).sum(-1, keepdim=True)
    energy = gamma * p[..., :1] + along
    return torch.cat([energy, p[..., 1:] + (p[..., :1] + along / (gamma + 1)) * w], -1)


def to_rest_frame(p: Tensor, frame: Tensor) -> Tensor:
    """Take momenta (…, 4) to the rest frame of the particle `frame` (…, 4): the inverse of `boost`."""
    return boost(p, torch.cat([frame[..., :1], -frame[..., 1:]], -1))


def two_body_decay(parent: Tensor, eta: Tensor, phi: Tensor) -> tuple[Tensor, Tensor]:
    """Let particles decay into two massless ones, back to back in their rest frame.

    Args:
        parent: Momenta of the particles, timelike, shape (…, 4).
        eta: η* = artanh(cos θ*) of the first daughter in the rest frame, shape (…).
        phi: Its azimuth φ* there, shape (…), radians.

    Returns:
        The momenta of both daughters, (…, 4) each, GeV; they add up to the parent's.
    """
    half = invariant_mass(parent) / 2
    daughter = four_vector(half / eta.cosh(), eta, phi, torch.zeros_like(eta))
    first = boost(daughter, parent)
    return first, massless((parent - first)[..., 1:])


def wrap(angle: Tensor) -> Tensor:
    """Bring angles in radians to [−π, π)."""
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi
