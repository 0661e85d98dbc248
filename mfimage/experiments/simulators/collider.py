"""Higgs bosons at the LHC: a 14-dimensional manifold in 40 observables, with the true likelihood."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from mfimage.datasets.points import Points
from mfimage.errors import UsageError
from mfimage.experiments.simulators import events
from mfimage.experiments.simulators.event_density import draw, joint_score, log_density
from mfimage.experiments.simulators.simulator import Simulator

_SCALE_EVENTS = 100_000
_OOD_SCALE = 0.1


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

    So a point whose observables have nothing to do with each other has weighted residuals of about 1. The
    weights published with the paper come without a derivation and belong to its own simulator; ours stand
    in for them and are within a factor of about two.
    """
    generator = torch.Generator().manual_seed(1)
    shuffled = [column[torch.randperm(len(column), generator=generator)] for column in _reference().unbind(1)]
    return _rounded(1 / events.closure(torch.stack(shuffled, 1)).mean(0))


class Collider(Simulator):
    """Weak-boson fusion pp → h jj, h → γγ at 13 TeV, with two parameters of an effective theory.

    x = (40 observables − mean) / standard deviation,  observables = kinematics(z),  z ∈ R^9 × circle^4 × R.

    z holds 14 independent quantities, named in `events.LATENTS`; θ_0 hardens the spectra of pT_γγ and pT_j2,
    θ_1 draws the azimuths of the jets together or apart. The observables and closure tests are the paper's;
    its simulation is not, so the densities here stand in for it and have a closed form (nothing forbids the
    rare jet above the beams' energy). The jets' masses move their energies by a few percent only: along
    these two directions the manifold is some fifty times thinner than along the others. Means and
    standard deviations are those of 100,000 events of seed 0 with θ from the prior.

    Reference:
        Brehmer, Cranmer, Flows for simultaneous manifold learning and density estimation, 2020,
        arXiv 2003.13913 (particle physics experiment).
    """

    name = "collider"
    shape = (40,)
    dim = 14
    parameters = 2
    scores = True

    def sample(self, n: int, generator: torch.Generator, theta: Tensor | None = None) -> Points:
        """Draw events.

        Args:
            n: How many.
            generator: Of all randomness.
            theta: (n, 2) or (1, 2); drawn from the prior if None.

        Returns:
            x (n, 40) standardised, with theta, the joint score and latents z (n, 14), all float32.

        Raises:
            UsageError: If theta has another shape.
        """
        given = self.prior(n, generator) if theta is None else self._theta(theta, n)
        parameters = given.double().cpu().expand(n, 2)
        z = draw(parameters, generator)
        score = joint_score(z, parameters)
        return Points(
            self.embed(z).float(), self.name, parameters.float().contiguous(), score.float(), z.float()
        )

    def prior(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw θ ~ N(0, 1)², (n, 2) float32."""
        return torch.randn(n, 2, generator=generator)

    def log_prior(self, theta: Tensor) -> Tensor:
        """Compute log N(θ; 0, 1)² of (n, 2), shape (n,), float64 nats."""
        return -0.5 * self._theta(theta, len(theta)).double().square().sum(1) - math.log(2 * math.pi)

    def log_prob(self, x: Tensor, theta: Tensor | None = None) -> Tensor:
        """Compute log p(z|θ) of the quantities z that x determines.

        The density is with respect to dz, not to volume on the manifold. At one x the two differ by a
        constant, so differences between θ are those of log p(x|θ) in any coordinates.

        Args:
            x: (n, 40), standardised, on the manifold; of others, only the momenta are read.
            theta: (n, 2) or (1, 2).

        Returns:
            (n,), float64 nats; from float32 x, exact to about 1e-4.

        Raises:
            UsageError: If a shape is wrong, or theta missing.
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
        """Compute the 26 residuals named in `events.CLOSURE_NAMES` of x (n, 40): (n, 26), float64, in GeV."""
        return events.closure(self._raw(x))

    def distance(self, x: Tensor) -> Tensor:
        """Compute the closure measure: the mean of 26 weighted residuals, each clipped at 10.

        Not a Euclidean distance: 0 on the manifold, about 1 where the observables are unrelated.

        Args:
            x: (n, 40), standardised; any numbers.

        Returns:
            (n,), float64, in [0, 10]; NaN only from NaN.
        """
        weighted = _closure_weights().to(x.device) * self.closure(x)
        return weighted.clamp(max=10).mean(1)

    def sample_ood(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw events with N(0, 0.1²) added to every standardised observable, (n, 40) float32."""
        x = self.sample(n, generator).x
        return x + _OOD_SCALE * torch.randn(x.shape, generator=generator)

    def _raw(self, x: Tensor) -> Tensor:
        """Observables in GeV, float64."""
        if x.ndim != 2 or x.shape[1] != 40:
            raise UsageError(f"collider: x must be (n, 40), not {tuple(x.shape)}")
        mean, std = _scales()
        return x.double() * std.to(x.device) + mean.to(x.device)

    def _theta(self, theta: Tensor, n: int) -> Tensor:
        if theta.shape not in {(n, 2), (1, 2)}:
            raise UsageError(f"collider: theta must be ({n}, 2) or (1, 2), not {tuple(theta.shape)}")
        return theta
