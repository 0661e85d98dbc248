"""A Gaussian mixture with full covariances, kept as plain numbers."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mfimage.ood.statistics import finite

if TYPE_CHECKING:
    from sklearn.mixture import GaussianMixture

_REGULAR = 1e-3  # added to variances of standardised features, so that no component collapses
_PART = 20_000  # examples, about, that one of the mixtures is fitted on
_FAR = 1e5  # standard deviations beyond which features are clipped: far enough, and squares stay finite


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
    best = _mixture(first, 1, seed)
    while len(first) >= 10 * first.shape[1] * best.n_components:
        more = _mixture(first, 2 * best.n_components, seed)
        if more.score(held) <= best.score(held):
            break
        best = more
    found = [best, *(_mixture(part, best.n_components, seed) for part in others)]
    weights, means, factors = (
        torch.cat([torch.from_numpy(getattr(one, name)) for one in found])
        for name in ("weights_", "means_", "precisions_cholesky_")
    )
    return Mixture(shift, scale, weights / len(found), means, factors)


def _mixture(given: np.ndarray, count: int, seed: int) -> GaussianMixture:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    mixture = GaussianMixture(count, tol=1e-2, reg_covar=_REGULAR, random_state=seed, max_iter=60)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 60 steps are enough for a density
        return mixture.fit(given)
