"""What the statistics of familiar images are like, and how surprising others are."""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mfimage.ood.statistics import Statistics, finite

if TYPE_CHECKING:
    from sklearn.mixture import GaussianMixture

SHARES = {"far out": 0.8, "ordinary": 0.2}  # of α, for each way to be strange

_REGULAR = 1e-3  # added to variances of standardised features, so that no component collapses
_PART = 20_000  # examples, about, that one of the mixtures is fitted on
_FAR = 1e5  # standard deviations beyond which features are clipped: far enough, and squares stay finite
_ENOUGH = 10  # images a feature, from which on a group of statistics has a density of its own
_TAILS = 4  # every fourth image measures tails, of densities that the others made
_KNOTS = 24  # quantiles of a tail
_RARE = 0.01  # share of values beyond the last of them, where there are enough
_BEYOND = 10  # values beyond it, at least
_FILTERS = threading.Lock()  # filters of warnings belong to all threads: one at a time changes them

GROUPS: dict[str, Callable[[Statistics], Tensor]] = {  # of statistics that have a joint density, (B, K)
    "named": lambda s: s.values,
    "whole": lambda s: torch.cat([s.values, s.places], 1),
    "scales": lambda s: s.scales,
}


@dataclass(frozen=True, eq=False)
class Mixture:
    """p(t) = Σ w N(t; m, (L Lᵀ)⁻¹) of standardised features t = (features − shift) / scale."""

    shift: Tensor  # (K,)
    scale: Tensor  # (K,), positive
    weights: Tensor  # (k,), summing to 1
    means: Tensor  # (k, K)
    factors: Tensor  # L of each precision, (k, K, K)

    def nll(self, features: Tensor) -> Tensor:
        """Compute −log p, shape (B,) float64, nats, of features (B, K); finite for any input."""
        t = finite((features.double() - self.shift) / self.scale, _FAR)
        logs = []
        for weight, mean, factor in zip(self.weights, self.means, self.factors, strict=True):
            square = ((t - mean) @ factor).square().sum(1)
            logs.append(weight.log() - 0.5 * square + factor.diagonal().log().sum())
        return -torch.stack(logs).logsumexp(0) + 0.5 * t.shape[1] * math.log(2 * math.pi)


@dataclass(frozen=True, eq=False)
class Tail:
    """−log of the share of familiar values above a value: between quantiles linear, exponential beyond."""

    knots: Tensor  # ascending quantiles, (L, K); the last is that of `last`
    last: float  # −log of the share above the last knot; the others are evenly spaced from 0
    excess: Tensor  # mean of what exceeds the last knot, (K,), positive

    def surprise(self, values: Tensor) -> Tensor:
        """Compute it for values (B, K), shape (B, K), ≥ 0 and finite where they are."""
        knots, x = self.knots.T.contiguous(), values.double().T.contiguous()
        right = torch.searchsorted(knots, x).clamp(1, len(self.knots) - 1)
        low, high = knots.gather(1, right - 1), knots.gather(1, right)
        part = ((x - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
        inside = (right - 1 + part) * (self.last / (len(self.knots) - 1))
        beyond = (x - knots[:, -1:]).clamp_min(0) / self.excess[:, None]
        return (inside + beyond).T


@dataclass(frozen=True, eq=False)
class Evidence:
    """Two ways to be strange, as −log p of each: too far out, and too ordinary.

    Far out: Σ −log p over the groups' densities and over the named statistic that is out most, R. Fisher's
    sum; what is far out in one group is not made up for by the others. Ordinary: w·(m − e), w ∝ Σ⁻¹1, of log
    energies e with mean m and covariance Σ on familiar images: what tells best, in Gaussian terms, that all
    energies have fallen alike, as when images are averaged or lose contrast. Fisher, Statistical methods for
    research workers, 1925, §21.1; Turin, An introduction to matched filters, 1960.
    """

    mixtures: dict[str, Mixture]  # of `GROUPS`
    edges: Tail  # of named statistics and their negatives, (L, 2·8)
    parts: Tail  # of each group, and of the edges, (L, G + 1)
    energy: Tensor  # m, (E,)
    weights: Tensor  # w, (E,)
    ways: Tail  # of both sums, (L, 2)

    def surprises(self, s: Statistics) -> Tensor:
        """−log p of images in both ways, in the order of `SHARES`, (B, 2) float64, ≥ 0."""
        return self.ways.surprise(_sums(s, self.mixtures, self.edges, self.parts, self.energy, self.weights))


def combined(surprises: Tensor) -> Tensor:
    """Join −log p in both ways, (B, 2), to a score (B,), the largest −log(p / share of α)."""
    return (surprises + torch.tensor(list(SHARES.values())).double().log()).amax(1)


def fit_evidence(s: Statistics, seed: int = 0) -> Evidence:
    """Learn from familiar images; what has fewer than ten of them a feature is left out."""
    order = torch.randperm(len(s), generator=torch.Generator().manual_seed(seed))
    cut = max(1, len(s) // _TAILS)
    held, fitted = s.subset(order[:cut]), s.subset(order[cut:])
    mixtures = {
        name: fit_mixture(features, seed)
        for name, group in GROUPS.items()
        if (features := group(fitted)).shape[1]
        and (name == "named" or len(features) >= _ENOUGH * features.shape[1])
    }
    edges = fit_tail(_both_ends(held))
    parts = fit_tail(_parts(held, mixtures, edges))
    energy, spread = fitted.energies.mean(0), torch.cov(fitted.energies.T)
    ridge = 1e-3 * spread.diagonal().mean().clamp_min(1e-6)
    weights = torch.linalg.solve(spread + ridge * torch.eye(len(spread)).double(), torch.ones_like(energy))
    sums = _sums(held, mixtures, edges, parts, energy, weights)
    return Evidence(mixtures, edges, parts, energy, weights, fit_tail(sums))


def _both_ends(s: Statistics) -> Tensor:
    return torch.cat([s.values, -s.values], 1)


def _parts(s: Statistics, mixtures: dict[str, Mixture], edges: Tail) -> Tensor:
    """−log density of each group, and the surprise of the named statistic that is out most, (B, G + 1)."""
    found = [mixture.nll(GROUPS[name](s)) for name, mixture in mixtures.items()]
    return torch.stack([*found, edges.surprise(_both_ends(s)).amax(1)], 1)


def _sums(
    s: Statistics, mixtures: dict[str, Mixture], edges: Tail, parts: Tail, energy: Tensor, weights: Tensor
) -> Tensor:
    """How far out, and how ordinary, (B, 2)."""
    far = parts.surprise(_parts(s, mixtures, edges)).sum(1)
    return torch.stack([far, (energy - s.energies) @ weights], 1)


def fit_tail(values: Tensor) -> Tail:
    """Measure the upper tails of familiar values (N, K)."""
    values = finite(values.double(), 1e9)
    share = min(max(_RARE, _BEYOND / len(values)), 0.9)
    last = -math.log(share)
    levels = 1 - torch.exp(-torch.linspace(0, last, _KNOTS).double())
    knots = torch.quantile(values, levels, 0)
    over = (values - knots[-1]).clamp_min(0)
    excess = over.sum(0) / (over > 0).sum(0).clamp_min(1)
    return Tail(knots, last, excess.clamp_min(1e-9))


def fit_mixture(features: Tensor, seed: int = 0) -> Mixture:
    """Fit a mixture to features (N, K): the mean of mixtures of random parts of about 20,000 examples.

    Each has 1, 2, 4, … components: doubling ends where the likelihood of a tenth of the examples, held out,
    falls, or where a component would have fewer than 5 K examples of the first part. Ormoneit, Tresp,
    Improved Gaussian mixture density estimates using Bayesian penalty terms and network averaging, NeurIPS
    1995.
    """
    features = features.double()
    shift, scale = features.mean(0), features.std(0).clamp_min(1e-6)
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(seed))
    given = ((features - shift) / scale)[order]
    held, rest = given[: len(given) // 10].numpy(), given[len(given) // 10 :]
    first, *others = (part.numpy() for part in rest.chunk(math.ceil(len(rest) / _PART)))
    best = _fitted(first, 1, seed)
    while len(first) >= 10 * first.shape[1] * best.n_components:
        more = _fitted(first, 2 * best.n_components, seed)
        if more.score(held) <= best.score(held):
            break
        best = more
    found = [best, *(_fitted(part, best.n_components, seed) for part in others)]
    weights, means, factors = (
        torch.cat([torch.from_numpy(getattr(one, name)) for one in found])
        for name in ("weights_", "means_", "precisions_cholesky_")
    )
    return Mixture(shift, scale, weights / len(found), means, factors)


def _fitted(given: np.ndarray, count: int, seed: int) -> GaussianMixture:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    mixture = GaussianMixture(count, tol=1e-2, reg_covar=_REGULAR, random_state=seed, max_iter=60)
    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 60 steps are enough for a density
        return mixture.fit(given)
