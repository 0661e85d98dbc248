"""Events pp → h(γγ) jj: from 14 independent quantities to 40 observables and back, and closure tests."""

from __future__ import annotations

import torch
from torch import Tensor

from mfimage.experiments.simulators.kinematics import (
    TINY,
    azimuth,
    four_vector,
    invariant_mass,
    massless,
    pseudorapidity,
    to_rest_frame,
    transverse_momentum,
    two_body_decay,
    wrap,
)

LATENTS = (
    "log m_aa",  # of the two photons together, the Higgs candidate
    "log pt_aa",
    "eta_aa",
    "eta_star",  # artanh(cos θ*) of the first photon in the candidate's rest frame
    "log pt_j1/pt_aa",
    "log pt_j2",
    "mean eta_jj",  # (η_j1 + η_j2) / 2
    "log m_j1/p_j1",  # of its momentum |p|
    "log m_j2/p_j2",
    "phi_aa",
    "phi_star",  # azimuth of the first photon in the rest frame
    "deltaphi_j1",  # φ_j1 − φ_aa
    "deltaphi_jj",  # φ_j1 − φ_j2
    "deltaeta_jj",  # η_j1 − η_j2
)
_PARTICLE = ("e", "px", "py", "pz", "pt", "eta")
_PAIR = ("e", "px", "py", "pz", "pt", "m", "eta", "deltaeta")
OBSERVABLES = tuple(
    [f"{what}_{who}" for who in ("a1", "a2", "j1", "j2") for what in _PARTICLE]
    + [f"{what}_{who}" for who in ("aa", "jj") for what in _PAIR]
)
_WHO = ("a1", "a2", "j1", "j2", "aa", "jj")
CLOSURE_NAMES = (
    *(f"pt {who}" for who in _WHO),
    *(f"eta {who}" for who in _WHO),
    *(f"on-shell {who}" for who in ("a1", "a2", "aa", "jj")),
    *(f"decay {what}_{pair}" for what in _PARTICLE[:4] for pair in ("aa", "jj")),
    *(f"deltaeta {pair}" for pair in ("aa", "jj")),
)
_START = {"a1": 0, "a2": 6, "j1": 12, "j2": 18, "aa": 24, "jj": 32}
_LARGEST = 1e30  # stands for infinity in garbage, so that no difference of infinities is NaN


def momenta(z: Tensor) -> Tensor:
    """Build the four particles from the 14 quantities.

    Args:
        z: (n, 14) in the order of LATENTS; logarithms of GeV, radians.

    Returns:
        (n, 4, 4): (E, px, py, pz) in GeV of both photons and both jets.
    """
    mass, pt, eta, eta_star, ratio, pt_j2, mean_eta, m_j1, m_j2, phi, phi_star, dphi_1, dphi, gap = z.unbind(
        1
    )
    higgs = four_vector(pt.exp(), eta, phi, mass.exp())
    eta_j = torch.stack([mean_eta + gap / 2, mean_eta - gap / 2], 1)
    pt_j = torch.stack([pt + ratio, pt_j2], 1).exp()
    phi_j = torch.stack([phi + dphi_1, phi + dphi_1 - dphi], 1)
    mass_j = pt_j * eta_j.cosh() * torch.stack([m_j1, m_j2], 1).exp()
    photons = torch.stack(two_body_decay(higgs, eta_star, phi_star), 1)
    return torch.cat([photons, four_vector(pt_j, eta_j, phi_j, mass_j)], 1)


def quantities(p: Tensor) -> Tensor:
    """Read the 14 quantities off the four particles: the inverse of `momenta`.

    Photons count as massless, whatever their energy says.

    Args:
        p: (n, 4, 4), GeV. Where they are no such event (a jet lighter than nothing, no transverse
            momentum), the quantities are finite and far from any event.

    Returns:
        (n, 14) in the order of LATENTS, angles in [−π, π).
    """
    photons, jets = massless(p[:, :2, 1:]), p[:, 2:]
    higgs = photons.sum(1)
    star = to_rest_frame(photons[:, 0], higgs)
    log_pt = transverse_momentum(jets).clamp(min=TINY).log()
    log_mass = (invariant_mass(jets) / jets[..., 1:].norm(dim=-1).clamp(min=TINY)).clamp(min=TINY).log()
    log_pt_h = transverse_momentum(higgs).clamp(min=TINY).log()
    eta, phi, phi_h = pseudorapidity(jets), azimuth(jets), azimuth(higgs)
    lines = [
        invariant_mass(higgs).clamp(min=TINY).log(),
        log_pt_h,
        pseudorapidity(higgs),
        pseudorapidity(star),
    ]
    lines += [log_pt[:, 0] - log_pt_h, log_pt[:, 1], eta.mean(1), log_mass[:, 0], log_mass[:, 1]]
    angles = torch.stack([phi_h, azimuth(star), phi[:, 0] - phi_h, phi[:, 0] - phi[:, 1]], 1)
    return torch.cat([torch.stack(lines, 1), wrap(angles), eta[:, :1] - eta[:, 1:]], 1)


def observables(p: Tensor) -> Tensor:
    """Compute the 40 observables of four particles.

    Args:
        p: (n, 4, 4), GeV, as `momenta` gives them.

    Returns:
        (n, 40) in the order of OBSERVABLES; GeV, pseudorapidities without unit.
    """
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

    |pT − √(px² + py²)| and |η − arsinh(pz/pT)| of a1, a2, j1, j2, aa, jj;  |E − √(p² + m²)| of a1, a2, aa,
    jj;  |pair − first − second| of E, px, py, pz;  ||Δη| − |η_first − η_second||.

    Args:
        raw: (n, 40), GeV, in the order of OBSERVABLES; any numbers.

    Returns:
        (n, 26) in the order of CLOSURE_NAMES, ≥ 0, GeV (η without unit), finite; NaN only from NaN.

    Reference:
        Brehmer, Cranmer, Flows for simultaneous manifold learning and density estimation, 2020,
        arXiv 2003.13913 (particle physics experiment).
    """
    value = dict(zip(OBSERVABLES, raw.clamp(-_LARGEST, _LARGEST).unbind(1), strict=True))
    p = {who: raw[:, i : i + 4].clamp(-_LARGEST, _LARGEST) for who, i in _START.items()}
    residuals = [value[f"pt_{who}"] - transverse_momentum(p[who]) for who in _WHO]
    residuals += [value[f"eta_{who}"] - pseudorapidity(p[who]) for who in _WHO]
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
