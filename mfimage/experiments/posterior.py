"""Posteriors of parameters: Markov chains that draw from them, the learned one beside the true one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from mfimage.datasets.points import Points
from mfimage.errors import DataError, ModelError, UsageError
from mfimage.eval.set_metrics import squared_mmd
from mfimage.experiments.simulators.simulator import Simulator
from mfimage.experiments.tables import Metric
from mfimage.models import GenerativeModel
from mfimage.models.density import Density
from mfimage.models.flow import ChartedModel

LogProb: TypeAlias = Callable[[Tensor], Tensor]
LogLikelihood: TypeAlias = Callable[[Tensor, Tensor], Tensor]

MMD = Metric("mmd", "² of posterior", "lower")
LOG_POSTERIOR = Metric("log_posterior", "at true θ", "higher")
TRUE_LOG_POSTERIOR = Metric("true_log_posterior", "truth", None)

OBSERVED, SETS = 20, 5  # data of which a posterior is taken, and how many such sets
CHAINS, BURN_IN, STEPS, THIN, STEP_SIZE = 100, 75, 100, 10, 0.3

_ADAPT_EVERY = 25


def likelihood(model: GenerativeModel, x: Tensor) -> tuple[LogLikelihood, Tensor]:
    """Give a function of (observations, θ) that is log p(x|θ) up to a constant in θ, and its observations.

    On a manifold that does not depend on θ, the codes and the volume are the same for every θ, and only h is
    evaluated; elsewhere it is the model's log_prob, of x.
    """
    module: GenerativeModel | Density = model
    if isinstance(model, ChartedModel) and not (model.config and model.config.chart_context):
        with torch.no_grad():
            module, x = model.density, model.encode(x)

    @torch.no_grad()
    def log_likelihood(observed: Tensor, theta: Tensor) -> Tensor:
        return module.log_prob(observed, theta.to(observed))

    return log_likelihood, x


def posterior_samples(
    log_likelihood: LogLikelihood, observed: Tensor, simulator: Simulator, generator: torch.Generator
) -> Tensor:
    """Draw θ from the posterior by Markov chains from the prior, shape (CHAINS·STEPS / THIN, P)."""
    log_prob = log_posterior(log_likelihood, simulator.log_prior, observed)
    start = simulator.prior(CHAINS, generator)
    chains, _ = metropolis(log_prob, start, STEPS, STEP_SIZE, generator, BURN_IN, target=0.4)
    return chains[:, THIN - 1 :: THIN].flatten(0, 1)


def posterior_metrics(
    model: GenerativeModel, simulator: Simulator, test: Points, generator: torch.Generator
) -> dict[str, float]:
    """Compare the posterior of θ after 20 data with the true one, by squared MMD; and at the true θ = 0.

    The means of five such sets of data; a single one, as in the paper, is mostly chance. The log posterior
    density at θ = 0 is that of a kernel estimate of the samples.
    """
    if not model.conditional:
        return {}
    values = []
    for x in test.x[: SETS * OBSERVED].split(OBSERVED):
        found = posterior_samples(*likelihood(model, x), simulator, generator)
        truth = posterior_samples(simulator.log_prob, x, simulator, generator)
        at_truth = [log_density_at(draws, torch.zeros(simulator.parameters)) for draws in (found, truth)]
        values.append((posterior_mmd(found, truth), *at_truth))
    names = ("mmd", "log_posterior", "true_log_posterior")
    return dict(zip(names, torch.tensor(values, dtype=torch.float64).mean(0).tolist(), strict=True))


def log_density_at(draws: Tensor, theta: Tensor) -> float:
    """Log of a Gaussian kernel estimate (Scott's rule) from draws (n, P) at one θ, shape (P,)."""
    from scipy.stats import gaussian_kde

    return float(gaussian_kde(draws.T.numpy()).logpdf(theta.double().numpy())[0])


# Markov chains


def metropolis(
    log_prob: LogProb,
    start: Tensor,
    steps: int,
    step_size: float,
    generator: torch.Generator,
    burn_in: int = 0,
    target: float | None = None,
) -> tuple[Tensor, float]:
    """Draw by random walks θ′ = θ + s·N(0, I), accepted with probability min(1, p(θ′) / p(θ)) (Metropolis).

    `log_prob` maps θ (chains, P), float64, to log p(θ) + constant, (chains,), −inf where p is 0. In burn-in
    the step size s moves towards the `target` share of accepted proposals, where one is given. Returns draws
    (chains, steps, P), float64, without the burn-in, and the share of proposals accepted in these steps.
    """
    if steps < 1 or burn_in < 0 or not step_size > 0:
        raise UsageError(f"steps ≥ 1, burn_in ≥ 0, step_size > 0, not {steps}, {burn_in}, {step_size}")
    if start.ndim != 2 or not start.numel():
        raise UsageError(f"start is (chains, P), both at least 1; got {tuple(start.shape)}")
    theta = start.detach().to("cpu", torch.float64, copy=True)
    current = _checked(log_prob, theta)
    if current.isneginf().any():
        raise UsageError(f"{int(current.isneginf().sum())} of {len(theta)} chains start where p = 0")
    samples, shares = theta.new_empty(len(theta), steps, theta.shape[1]), list[float]()
    for step in range(-burn_in, steps):
        theta, current, share = _walk(log_prob, theta, current, step_size, generator)
        shares.append(share)
        if step >= 0:
            samples[:, step] = theta
        elif target is not None and len(shares) == _ADAPT_EVERY:
            step_size *= math.exp(2 * (sum(shares) / _ADAPT_EVERY - target))
            shares = []
    return samples, sum(shares[-steps:]) / steps


def _walk(
    log_prob: LogProb, theta: Tensor, current: Tensor, step_size: float, generator: torch.Generator
) -> tuple[Tensor, Tensor, float]:
    """One step of every chain: θ, log p(θ), and the share of proposals accepted."""
    proposal = theta + step_size * torch.randn(theta.shape, generator=generator, dtype=torch.float64)
    there = _checked(log_prob, proposal)
    take = torch.rand(len(theta), generator=generator, dtype=torch.float64).log() < there - current
    chosen = torch.where(take[:, None], proposal, theta), torch.where(take, there, current)
    return *chosen, float(take.double().mean())


def log_posterior(log_likelihood: LogLikelihood, log_prior: LogProb, observed: Tensor) -> LogProb:
    """Build log p(θ | x_1 … x_n) + constant = log p(θ) + Σ_i log p(x_i | θ), as `metropolis` takes it.

    The likelihood maps x (m, …) and θ (m, P) float64, row by row, to nats, and is asked only where the prior
    is positive.
    """

    def log_prob(theta: Tensor) -> Tensor:
        total = log_prior(theta).to("cpu", torch.float64, copy=True)
        inside = (~total.isneginf()).nonzero()[:, 0]
        if len(inside):
            x = observed.repeat(len(inside), *[1] * (observed.ndim - 1))
            pairs = log_likelihood(x, theta[inside].repeat_interleave(len(observed), 0))
            total[inside] += pairs.detach().to("cpu", torch.float64).view(len(inside), -1).sum(1)
        return total

    return log_prob


def _checked(log_prob: LogProb, theta: Tensor) -> Tensor:
    """Log p at θ, (chains,), −inf allowed."""
    values = log_prob(theta).detach().to("cpu", torch.float64)
    if values.shape != theta.shape[:1]:
        raise UsageError(f"log_prob returns one value a chain, ({len(theta)},); got {tuple(values.shape)}")
    wrong = values.isnan() | values.isposinf()
    if wrong.any():
        first = wrong.nonzero()[0, 0]
        raise ModelError(
            f"log p is {values[first].item()} at θ = {theta[first].tolist()} ({int(wrong.sum())} of "
            f"{len(theta)} chains): the model diverged, or has no density there; give −inf where θ may not be"
        )
    return values


def posterior_mmd(x: Tensor, y: Tensor, scale: float | None = None) -> float:
    """Estimate `squared_mmd` of draws from two posteriors, with the kernel k(a, b) = exp(−|a − b|² / 2s²).

    The scale s is the median distance between two different draws of y, the true ones, where none is given.
    About 0 for equal distributions, below it too; up to 2 for two narrow ones far apart.
    """
    from scipy.spatial.distance import pdist

    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise UsageError(
            f"two sets of at least 2 draws (N, P) are needed; got {tuple(x.shape)}, {tuple(y.shape)}"
        )
    x, y = (values.detach().to("cpu", torch.float64) for values in (x, y))
    if not (x.isfinite().all() and y.isfinite().all()):
        raise DataError("draws that are not finite have no discrepancy; did a chain or a model diverge?")
    width = float(np.median(pdist(y.numpy()), overwrite_input=True)) if scale is None else scale
    if not width > 0:
        raise DataError(f"the kernel needs a scale above 0, not {width}; most draws of y may be equal")

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        # Of differences taken as such, so that k(a, a) is 1 exactly.
        distances = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
        return torch.exp(-0.5 * (distances / width).square())

    return squared_mmd(x, y, kernel)
