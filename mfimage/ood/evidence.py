"""What the statistics of familiar images are like, and how surprising others are."""

from __future__ import annotations

import math
import threading
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mfimage.ood.statistics import Statistics, finite

if TYPE_CHECKING:
    from sklearn.mixture import GaussianMixture

SHARES = {"far out": 0.8, "ordinary": 0.2}  # of α, for each way to be strange

_EXTREME = 0.125  # of the first share, for named statistics one by one
_REGULAR = 1e-3  # added to variances of standardised features, so that no component collapses
_PART = 20_000  # examples, about, that one of the mixtures is fitted on
_FAR = 1e5  # standard deviations beyond which features are clipped: far enough, and squares stay finite
_FULL = 10  # images a feature, from which on the density sees places and codes too
_TAILS = 8  # every eighth image measures tails, of a density that the others made
_KNOTS = 24  # quantiles of a tail
_RARE = 0.01  # share of values beyond the last of them, where there are enough
_BEYOND = 10  # values beyond it, at least
_FILTERS = threading.Lock()  # filters of warnings belong to all threads: one at a time changes them


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

    Far out is what has a low joint density of all statistics, or one of the named statistics at an end where
    familiar images do not reach, whose p counts eight times: a density that knows strange familiar images
    finds others like them usual. Ordinary: w·(m − e), w ∝ Σ⁻¹1, of log energies e with mean m and covariance
    Σ on familiar images, which tells best, in Gaussian terms, that all energies have fallen alike, as when
    images are averaged or lose contrast. Turin, An introduction to matched filters, 1960.
    """

    full: bool  # whether the density also sees codes and places, or the named statistics alone
    mixture: Mixture
    edges: Tail  # of named statistics and their negatives, (L, 2·8)
    energy: Tensor  # m, (E,)
    weights: Tensor  # w, (E,)
    ways: Tail  # of −log density, of the edge that is out most, and of w·(m − e), (L, 3)

    def surprises(self, s: Statistics) -> Tensor:
        """−log p of images in both ways, in the order of `SHARES`, (B, 2) float64."""
        unusual, extreme, ordinary = self.ways.surprise(self.raw(s)).T
        far = torch.maximum(unusual + math.log(1 - _EXTREME), extreme + math.log(_EXTREME))
        return torch.stack([far, ordinary], 1)

    def raw(self, s: Statistics) -> Tensor:
        """What `ways` measures, (B, 3)."""
        extreme = self.edges.surprise(_both_ends(s)).amax(1)
        lack = (self.energy - s.energies) @ self.weights
        return torch.stack([self.mixture.nll(features(s, self.full)), extreme, lack], 1)


def features(s: Statistics, full: bool) -> Tensor:
    """What the density sees, (B, K): named statistics, and with `full` places and codes."""
    return torch.cat([s.values, s.places], 1) if full else s.values


def combined(surprises: Tensor) -> Tensor:
    """Join −log p in both ways, (B, 2), to a score (B,), the largest −log(p / share of α)."""
    return (surprises + torch.tensor(list(SHARES.values())).double().log()).amax(1)


def fit_evidence(s: Statistics, seed: int = 0) -> Evidence:
    """Learn from familiar images; with fewer than ten of them a feature of the named statistics alone."""
    order = torch.randperm(len(s), generator=torch.Generator().manual_seed(seed))
    cut = max(1, len(s) // _TAILS)
    held, fitted = s.subset(order[:cut]), s.subset(order[cut:])
    full = len(fitted) >= _FULL * features(s, True).shape[1]
    energy, spread = fitted.energies.mean(0), torch.cov(fitted.energies.T)
    ridge = 1e-3 * spread.diagonal().mean().clamp_min(1e-6)
    weights = torch.linalg.solve(spread + ridge * torch.eye(len(spread)).double(), torch.ones_like(energy))
    edges = fit_tail(_both_ends(held))
    draft = Evidence(full, fit_mixture(features(fitted, full), seed), edges, energy, weights, edges)
    return replace(draft, ways=fit_tail(draft.raw(held)))


def _both_ends(s: Statistics) -> Tensor:
    return torch.cat([s.values, -s.values], 1)


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


def fit_mixture(features: Tensor, seed: int = 0, most: int = 2**30, mixed: bool = True) -> Mixture:
    """Fit a mixture to features (N, K): the mean of mixtures of random parts of about 20,000 examples.

    Each has 1, 2, 4, … components: doubling ends where the likelihood of a tenth of the examples, held out
    (the first, unless they are `mixed` at random), falls, at `most`, or where a component would have fewer
    than 5 K examples of the first part. Ormoneit, Tresp, Improved Gaussian mixture density estimates using
    Bayesian penalty terms and network averaging, NeurIPS 1995.
    """
    features = features.double()
    shift, scale = features.mean(0), features.std(0).clamp_min(1e-6)
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(seed))
    order = order if mixed else torch.arange(len(features))
    given = ((features - shift) / scale)[order]
    held, rest = given[: len(given) // 10].numpy(), given[len(given) // 10 :]
    first, *others = (part.numpy() for part in rest.chunk(math.ceil(len(rest) / _PART)))
    best = _fitted(first, 1, seed)
    while len(first) >= 10 * first.shape[1] * best.n_components and 2 * best.n_components <= most:
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
