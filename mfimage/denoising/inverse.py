"""Inverse problems: the most probable point of the manifold given what is seen, and what agrees with it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.func import vmap

from mfimage.denoising.kriging import predicted
from mfimage.denoising.operators import Downsample, LinearOperator, Mask
from mfimage.errors import ModelError
from mfimage.models import ChartedModel, GenerativeModel
from mfimage.models.duals import Dual
from mfimage.models.geometry import tangents
from mfimage.models.least_squares import LevenbergMarquardt, Minimum
from mfimage.modes import plainly

_BUDGET = 2**28  # bytes that the Jacobians of a batch may take, in single and double precision
_LEVELS = (0.04, 0.01)  # σ of the first and the last clearing of `agreed`
_CLEARINGS = 5
_TRIES = 5  # damping factors tried at one linearisation, whose Jacobian costs more than all of them


@dataclass(frozen=True, eq=False)
class Posterior:
    """−log p(u | y) up to a constant, for a batch: ‖A g(u) − y‖²/2σ² − log p_h(u)."""

    y: Tensor  # what is seen, (B, C, h, w)
    operator: LinearOperator  # A
    model: ChartedModel  # gives g and p_h
    sigma: Tensor  # standard deviation of the noise in y, (B,), positive

    def rows(self, chosen: Tensor) -> Posterior:
        """Take some rows of the batch."""
        return Posterior(self.y[chosen], self.operator.rows(chosen), self.model, self.sigma[chosen])

    @torch.no_grad()
    def value(self, u: Tensor) -> Tensor:
        """Evaluate at u, shape (B, d) to (B,), float64, nats."""
        misfit = (self.operator.forward(self.model.decode(u)) - self.y).double().flatten(1)
        data = misfit.square().sum(1) / (2 * self.sigma.double().square())
        value = data - self.model.density.log_prob(u).double()
        return value.where(value.isfinite(), torch.inf)

    @torch.no_grad()
    def quadratic(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Approximate around u by Gauss–Newton: gradient (B, d), curvature and metric (B, d, d), float64.

        With J = ∂ A g/∂u, K = ∂z/∂u of the base noise z = h(u), −log p_h = ½‖z‖² − log|det K| + const:
        gradient  Jᵀ(A g(u) − y)/σ² − ∇ log p_h(u),  curvature  JᵀJ/σ² + KᵀK,  metric  KᵀK, positive definite.
        """
        columns = tangents(self.model.chart, u).mT.unflatten(2, self.model.shape)
        seen = vmap(self.operator.forward, in_dims=1, out_dims=1)(columns).flatten(2).double()
        misfit = (self.operator.forward(self.model.decode(u)) - self.y).double().flatten(1)
        weight = self.sigma.double().square().reciprocal()[:, None]
        gradient = weight * (seen @ misfit[..., None])[..., 0] - self._density_slope(u).double()
        directions = torch.eye(u.shape[1], dtype=u.dtype, device=u.device).expand(len(u), -1, -1)
        noise = self.model.density.push(Dual(u, directions)).tangent.double()
        metric = noise @ noise.mT
        return gradient, weight[..., None] * (seen @ seen.mT) + metric, metric

    def _density_slope(self, u: Tensor) -> Tensor:
        """∇ log p_h(u), (B, d)."""
        with torch.enable_grad():
            u = u.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.model.density.log_prob(u).sum(), u)
        return slope


@plainly
@torch.no_grad()
def most_probable(
    posterior: Posterior, start: Tensor, iterations: int = 20, step: float = 1.0, tolerance: float = 5e-2
) -> Minimum:
    """Descend to a local maximum of the posterior from u (B, d) by `LevenbergMarquardt`, image by image.

    A step ‖K δ‖, K as in `Posterior.quadratic`, is at most `step` √d, the base noise's typical length. An
    image is done when an iteration lowers its objective by less than `tolerance` nats, or a millionth of it.
    The use of a learned manifold: Bora, Jalal, Price, Dimakis, 2017, arXiv 1703.03208.
    """

    def settled(gain: Tensor, slope: Tensor, value: Tensor) -> Tensor:
        return gain <= (1e-6 * value.abs()).clamp_min(tolerance)

    longest = step * start.shape[1] ** 0.5
    solver = LevenbergMarquardt(settled, iterations, _TRIES, damping=1e-2, rise=10.0, longest=longest)
    return solver.minimise(posterior, start)


@plainly
@torch.no_grad()
def solve(
    y: Tensor, operator: LinearOperator, model: GenerativeModel, sigma: Tensor | float, start: Tensor
) -> Tensor:
    """Find the most probable images g(u*), (B, C, H, W), not clipped to [0, 1], as many at a time as fit.

    See `Posterior`; σ may be one number for all. The search begins at the coordinates `start`, shape (B, d).
    """
    charted = require_posterior(model)
    deviation = torch.as_tensor(sigma, dtype=torch.float64, device=y.device).expand(len(y)).clamp_min(1e-4)
    whole = Posterior(y, operator, charted, deviation)
    size = max(1, _BUDGET // (12 * charted.dim * math.prod(charted.shape)))
    parts = torch.arange(len(y), device=y.device).split(size)
    return torch.cat([charted.decode(most_probable(whole.rows(part), start[part]).u) for part in parts])


@plainly
@torch.no_grad()
def agreed(x: Tensor, y: Tensor, operator: Mask | Downsample, model: GenerativeModel) -> Tensor:
    """Make images x, (B, C, H, W), agree with what is seen without noise, y = A x, beyond the manifold.

    x ← x + what `kriging` predicts of the residual from y − A x;   then, some times, σ falling,
    x ← c_σ(x) + A⁺(y − A c_σ(x)),   c_σ the model's `clear`: what joins the seen to the unseen in a way that
    images do not is cleared away, by models that are noise-aware.
    Venkatakrishnan, Bouman, Wohlberg, Plug-and-play priors for model based reconstruction, 2013.
    """
    x = x + predicted(y - operator.forward(x), operator)
    first, last = _LEVELS
    for step in range(_CLEARINGS if model.noise_aware else 0):
        cleared = model.clear(x, first * (last / first) ** (step / (_CLEARINGS - 1))).clamp(0, 1)
        x = operator.completed(cleared, y)
    return operator.completed(x, y)


def require_posterior(model: GenerativeModel) -> ChartedModel:
    """Raise ModelError for what is no manifold with a density on its codes alone."""
    if not model.has_manifold or model.conditional:
        raise ModelError(
            "the most probable image needs a model with a density on its codes, without parameters"
        )
    return cast(ChartedModel, model)


@plainly
@torch.no_grad()
def map_denoise(y: Tensor, model: GenerativeModel, sigma: Tensor | float) -> Tensor:
    """Denoise by the most probable point of the manifold; see `methods` for the arguments, σ > 0.

    x̂ = g(u*),   u* = argmin ‖y − g(u)‖²/2σ² − log p_h(u),   from the codes of the projection that knows σ

    p_h is the density on coordinates, per du: the maximum is that of the codes' posterior. The density per
    volume on the manifold would add ½ log det(JᵀJ), whose gradient costs more than all else together.
    """
    clean = model.clear(y, sigma) if model.noise_aware else y
    return solve(y, LinearOperator(), model, sigma, model.encode(clean))
