"""Higgs bosons at the LHC: a 14-dimensional manifold in 40 observables, the true likelihood and score."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from mfimage.datasets.points import Points
from mfimage.errors import UsageError
from mfimage.experiments.simulators import events
from mfimage.experiments.simulators.simulator import Simulator

# Normal densities of the first nine quantities: mean at θ = 0, standard deviation, shift of the mean by θ_0.
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
_SCALE_EVENTS = 100_000


class Collider(Simulator):
    """Weak-boson fusion pp → h jj, h → γγ at 13 TeV, with two parameters of an effective theory.

    x = (40 observables − mean) / standard deviation,  observables = kinematics(z),  z ∈ R^9 × circle^4 × R.

    z holds the 14 independent quantities of `events`; θ ~ N(0, I): θ_0 hardens the spectra of pT_γγ and
    pT_j2, θ_1 draws the azimuths of the jets together or apart. The observables and closure tests are the
    paper's; its simulation is not, so the densities here stand in for it and have a closed form (nothing
    forbids the rare jet above the beams' energy). The jets' masses move their energies by a few percent only:
    along these two directions the manifold is some fifty times thinner than along the others. Means and
    standard deviations are those of 100,000 events of seed 0.

    Reference:
        Brehmer, Cranmer, Flows for simultaneous manifold learning and density estimation, 2020,
        arXiv 2003.13913 (particle physics experiment).
    """

    name, shape, dim = "collider", (40,), 14
    parameters, scores = 2, True

    def sample(self, n: int, generator: torch.Generator, theta: Tensor | None = None) -> Points:
        """Draw events with θ, the joint score and the quantities z."""
        given = self.prior(n, generator) if theta is None else self._theta(theta, n)
        parameters = given.double().cpu().expand(n, 2)
        z = draw(parameters, generator)
        x, score = self.embed(z).float(), joint_score(z, parameters).float()
        return Points(x, self.name, parameters.float().contiguous(), score, z.float())

    def log_prob(self, x: Tensor, theta: Tensor | None = None) -> Tensor:
        """Compute log p(z|θ) of the quantities z that x determines, of which only the momenta are read.

        The density is with respect to dz, not to volume on the manifold. At one x the two differ by a
        constant, so differences between θ are those of log p(x|θ) in any coordinates. From float32 x it is
        exact to about 1e-4.
        """
        if theta is None:
            raise UsageError("collider: the likelihood is known for given theta only; pass theta, (n, 2)")
        z = self.latents(x)
        return log_density(z, self._theta(theta, len(z)).to(z))

    def latents(self, x: Tensor) -> Tensor:
        """Read the 14 quantities off x (n, 40), the inverse of `embed` on the manifold; (n, 14) float64."""
        return events.quantities(events.particles(self._raw(x)))

    def embed(self, z: Tensor) -> Tensor:
        """Map the 14 quantities (n, 14) to standardised observables (n, 40), float64."""
        mean, std = _scales()
        raw = events.observables(events.momenta(z.double()))
        return (raw - mean.to(raw.device)) / std.to(raw.device)

    def closure(self, x: Tensor) -> Tensor:
        """Compute the 26 residuals of `events.closure` of x (n, 40): (n, 26), float64, in GeV."""
        return events.closure(self._raw(x))

    def distance(self, x: Tensor) -> Tensor:
        """Compute the closure measure: the mean of 26 weighted residuals, each clipped at 10.

        Not a Euclidean distance: 0 on the manifold, about 1 where the observables are unrelated, NaN only
        from NaN.
        """
        weighted = _closure_weights().to(x.device) * self.closure(x)
        return weighted.clamp(max=10).mean(1)

    def _raw(self, x: Tensor) -> Tensor:
        """Observables in GeV, float64."""
        if x.ndim != 2 or x.shape[1] != 40:
            raise UsageError(f"collider: x must be (n, 40), not {tuple(x.shape)}")
        mean, std = _scales()
        return x.double() * std.to(x.device) + mean.to(x.device)


# The density of the quantities


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
    """Draw the 14 quantities, (n, 14) float64, of an event for each θ, (n, 2) float64.

    An angle is centre + 2 arctan(e^(−2s) tan(a / 2)) with a uniform on the circle.
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
    return torch.cat([lines, events.wrap(angles), side + _GAP_WIDTH * noise[:, 9:]], 1)


def log_density(z: Tensor, theta: Tensor) -> Tensor:
    """Compute log p(z|θ) of z (n, 14), a product of 14 densities with known normalisers.

    Normal: mean shifted by θ_0. Angles: p(Δ) = 1 / 2π (e^(−2s) cos²(Δ/2) + e^(2s) sin²(Δ/2)), the wrapped
    Cauchy density of concentration tanh s, with s growing with θ_1. Δη_jj: ½ N(−3.2, 0.8²) + ½ N(3.2, 0.8²).
    In nats, with respect to dz; angles count on a circle of length 2π.

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
    """Compute t(x, z) = ∇_θ log p(x, z|θ), (n, 2); here ∇_θ log p(z|θ), as z and x determine each other."""
    _, width, slope = _NORMAL.to(z.device).unbind(1)
    near, far = _circle_sides(z, theta)
    growth = _CIRCLE[:, 2].to(z.device)
    first = (slope / width * _normal_shift(z, theta)).sum(1)
    return torch.stack([first, (2 * growth * (near - far) / (near + far)).sum(1)], 1)


# Scales of the observables


def _reference() -> Tensor:
    """The seeded events, (100,000, 40) in GeV, from which all scales come."""
    generator = torch.Generator().manual_seed(0)
    theta = torch.randn(_SCALE_EVENTS, 2, generator=generator, dtype=torch.float64)
    return events.observables(events.momenta(draw(theta, generator)))


def _rounded(values: Tensor) -> Tensor:
    """Six digits, so that the order in which a machine sums changes nothing."""
    return torch.tensor([float(f"{value:.6g}") for value in values.tolist()], dtype=torch.float64)


@cache
def _scales() -> tuple[Tensor, Tensor]:
    """Means and standard deviations of the observables, (40,) each, in GeV."""
    raw = _reference()
    return _rounded(raw.mean(0)), _rounded(raw.std(0))


@cache
def _closure_weights() -> Tensor:
    """1 / mean residual of events whose observables are shuffled among events independently, (26,) 1/GeV.

    So unrelated observables have weighted residuals of about 1. The paper's weights come without a derivation
    and belong to its own simulator; ours stand in for them, within a factor of about two.
    """
    generator = torch.Generator().manual_seed(1)
    shuffled = [column[torch.randperm(len(column), generator=generator)] for column in _reference().unbind(1)]
    return _rounded(1 / events.closure(torch.stack(shuffled, 1)).mean(0))
