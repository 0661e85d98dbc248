"""Events pp → h(γγ) jj: from 14 independent quantities to 40 observables and back, closure tests, kinematics.

The quantities z, with the Higgs candidate γγ = both photons together, φ* and η* = artanh(cos θ*) those of the
first photon in its rest frame, |p| a jet's momentum:

    log m_γγ,  log pT_γγ,  η_γγ,  η*,  log pT_j1/pT_γγ,  log pT_j2,  (η_j1 + η_j2)/2,  log m_j1/|p_j1|,
    log m_j2/|p_j2|,  φ_γγ,  φ*,  φ_j1 − φ_γγ,  φ_j1 − φ_j2,  η_j1 − η_j2

Four-vectors are (E, px, py, pz) in GeV with c = 1, the beam along z.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_PARTICLE = ("e", "px", "py", "pz", "pt", "eta")
_PAIR = ("e", "px", "py", "pz", "pt", "m", "eta", "deltaeta")
OBSERVABLES = tuple(
    [f"{what}_{who}" for who in ("a1", "a2", "j1", "j2") for what in _PARTICLE]
    + [f"{what}_{who}" for who in ("aa", "jj") for what in _PAIR]
)
_START = {"a1": 0, "a2": 6, "j1": 12, "j2": 18, "aa": 24, "jj": 32}
_LARGEST = 1e30  # stands for infinity in garbage, so that no difference of infinities is NaN
_TINY = 1e-9  # GeV: stays below what is divided by or taken the logarithm of, so that any input ends finite


def momenta(z: Tensor) -> Tensor:
    """Build the four-vectors of both photons and both jets, (n, 4, 4), from the 14 quantities (n, 14)."""
    mass, pt, eta, eta_star, ratio, pt_j2, mean_eta, m_j1, m_j2 = z[:, :9].unbind(1)
    phi, phi_star, dphi_1, dphi, gap = z[:, 9:].unbind(1)
    higgs = four_vector(pt.exp(), eta, phi, mass.exp())
    eta_j = torch.stack([mean_eta + gap / 2, mean_eta - gap / 2], 1)
    pt_j = torch.stack([pt + ratio, pt_j2], 1).exp()
    phi_j = torch.stack([phi + dphi_1, phi + dphi_1 - dphi], 1)
    mass_j = pt_j * eta_j.cosh() * torch.stack([m_j1, m_j2], 1).exp()
    photons = torch.stack(two_body_decay(higgs, eta_star, phi_star), 1)
    return torch.cat([photons, four_vector(pt_j, eta_j, phi_j, mass_j)], 1)


def quantities(p: Tensor) -> Tensor:
    """Read the 14 quantities off the four particles: the inverse of `momenta`.

    Photons count as massless, whatever their energy says. Of four-vectors (n, 4, 4) that are no such event (a
    jet lighter than nothing, no transverse momentum), the quantities (n, 14) are finite and far from any
    event. Angles are in [−π, π).
    """
    photons, jets = massless(p[:, :2, 1:]), p[:, 2:]
    higgs = photons.sum(1)
    star = to_rest_frame(photons[:, 0], higgs)
    log_pt, log_pt_h = _log(transverse_momentum(jets)), _log(transverse_momentum(higgs))
    log_mass = _log(invariant_mass(jets) / jets[..., 1:].norm(dim=-1).clamp(min=_TINY))
    eta, phi, phi_h = pseudorapidity(jets), azimuth(jets), azimuth(higgs)
    lines = [_log(invariant_mass(higgs)), log_pt_h, pseudorapidity(higgs), pseudorapidity(star)]
    lines += [log_pt[:, 0] - log_pt_h, log_pt[:, 1], eta.mean(1), log_mass[:, 0], log_mass[:, 1]]
    angles = torch.stack([phi_h, azimuth(star), phi[:, 0] - phi_h, phi[:, 0] - phi[:, 1]], 1)
    return torch.cat([torch.stack(lines, 1), wrap(angles), eta[:, :1] - eta[:, 1:]], 1)


def observables(p: Tensor) -> Tensor:
    """Compute the observables (n, 40), in the order of OBSERVABLES, of four particles (n, 4, 4)."""
    pairs = p.unflatten(1, (2, 2))
    sums = pairs.sum(2)
    eta = pseudorapidity(pairs)
    singles = torch.cat([p, transverse_momentum(p)[..., None], pseudorapidity(p)[..., None]], -1)
    parts = [transverse_momentum(sums), invariant_mass(sums), pseudorapidity(sums), eta[..., 0] - eta[..., 1]]
    return torch.cat([singles.flatten(1), torch.cat([sums, torch.stack(parts, -1)], -1).flatten(1)], 1)


def particles(raw: Tensor) -> Tensor:
    """Take the momenta (n, 4, 4) of the four particles out of observables (n, 40)."""
    return raw[:, :24].clamp(-_LARGEST, _LARGEST).unflatten(1, (4, 6))[..., :4]


def closure(raw: Tensor) -> Tensor:
    """Compute by how much observables miss the 26 relations that hold between them.

    |pT − √(px² + py²)| of a1, a2, j1, j2, aa, jj;  |η − arsinh(pz/pT)| of the same;  |E − √(p² + m²)| of a1,
    a2, aa, jj;  |pair − first − second| of E (aa, jj), px, py, pz;  ||Δη| − |η_first − η_second|| of aa, jj.
    Any numbers (n, 40) in GeV give finite residuals (n, 26) ≥ 0 in GeV; NaN only from NaN.
    """
    value = dict(zip(OBSERVABLES, raw.clamp(-_LARGEST, _LARGEST).unbind(1), strict=True))
    p = {who: raw[:, i : i + 4].clamp(-_LARGEST, _LARGEST) for who, i in _START.items()}
    residuals = [value[f"pt_{who}"] - transverse_momentum(p[who]) for who in _START]
    residuals += [value[f"eta_{who}"] - pseudorapidity(p[who]) for who in _START]
    for who in ("a1", "a2", "aa", "jj"):
        mass = value.get(f"m_{who}", torch.zeros_like(raw[:, 0]))
        residuals.append(value[f"e_{who}"] - torch.hypot(p[who][:, 1:].norm(dim=1), mass))
    daughters = {"aa": ("a1", "a2"), "jj": ("j1", "j2")}
    for i in range(4):
        residuals += [p[pair][:, i] - p[one][:, i] - p[two][:, i] for pair, (one, two) in daughters.items()]
    for pair, (one, two) in daughters.items():
        gap = value[f"eta_{one}"] - value[f"eta_{two}"]
        residuals.append(value[f"deltaeta_{pair}"].abs() - gap.abs())
    return torch.stack(residuals, 1).abs()


def _log(value: Tensor) -> Tensor:
    return value.clamp(min=_TINY).log()


# Kinematics


def four_vector(pt: Tensor, eta: Tensor, phi: Tensor, mass: Tensor) -> Tensor:
    """Build momenta (…, 4) from what a detector measures, each of shape (…).

    px = pT cos φ,  py = pT sin φ,  pz = pT sinh η,  E = √((pT cosh η)² + m²).
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
    return torch.asinh(p[..., 3] / transverse_momentum(p).clamp(min=_TINY))


def invariant_mass(p: Tensor) -> Tensor:
    """Compute m = √((E − |p|)(E + |p|)) of momenta (…, 4), shape (…); 0 where they are spacelike."""
    # The product loses fewer digits than E² − |p|² where a particle is fast.
    momentum = p[..., 1:].norm(dim=-1)
    return ((p[..., 0] - momentum) * (p[..., 0] + momentum)).clamp(min=0).sqrt()


def boost(p: Tensor, frame: Tensor) -> Tensor:
    """Take momenta (…, 4) from the rest frame of the particle `frame` (…, 4) to where it has that momentum.

    The Lorentz boost, γ = E/m and w = γβ = **p**/m:  E′ = γE + w·p,  p′ = p + (E + w·p / (γ + 1)) w.
    """
    mass = invariant_mass(frame).clamp(min=_TINY)[..., None]
    gamma, w = frame[..., :1] / mass, frame[..., 1:] / mass
    along = (w * p[..., 1:]).sum(-1, keepdim=True)
    energy = gamma * p[..., :1] + along
    return torch.cat([energy, p[..., 1:] + (p[..., :1] + along / (gamma + 1)) * w], -1)


def to_rest_frame(p: Tensor, frame: Tensor) -> Tensor:
    """Take momenta (…, 4) to the rest frame of the particle `frame` (…, 4): the inverse of `boost`."""
    return boost(p, torch.cat([frame[..., :1], -frame[..., 1:]], -1))


def two_body_decay(parent: Tensor, eta: Tensor, phi: Tensor) -> tuple[Tensor, Tensor]:
    """Let particles (…, 4) decay into two massless ones, back to back in their rest frame.

    The first has η* = artanh(cos θ*) and the azimuth φ* there, each of shape (…).
    """
    half = invariant_mass(parent) / 2
    daughter = four_vector(half / eta.cosh(), eta, phi, torch.zeros_like(eta))
    first = boost(daughter, parent)
    return first, massless((parent - first)[..., 1:])


def wrap(angle: Tensor) -> Tensor:
    """Bring angles in radians to [−π, π)."""
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi
