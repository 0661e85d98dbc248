"""A Gaussian mixture with full covariances, kept as plain numbers."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

_REGULAR = 1e-3  # added to variances of standardised features, so that no component collapses
_FAR = 1e5  # standard deviations beyond which features are clipped: far enough, and squares stay finite


@dataclass(frozen=True, eq=False)
class Mixture:
    """p(t) = Σ w N(t; m, (L Lᵀ)⁻¹) of standardised features t = (features − shift) / scale.

    Attributes:
        shift: (K,).
        scale: (K,), positive.
        weights: (k,), summing to 1.
        means: (k, K).
        factors: L of each precision, (k, K, K).
    """

    shift: Tensor
    scale: Tensor
    weights: Tensor
    means: Tensor
    factors: Tensor

    def nll(self, features: Tensor) -> Tensor:
        """Compute −log p, shape (B,) float64, nats, of features (B, K); finite for any input."""
        t = ((features.double() - self.shift) / self.scale).nan_to_num(_FAR, _FAR, -_FAR).clamp(-_FAR, _FAR)
        logs = []
        for weight, mean, factor in zip(self.weights, self.means, self.factors, strict=True):
            square = ((t - mean) @ factor).square().sum(1)
            logs.append(weight.log() - 0.5 * square + factor.diagonal().log().sum())
        return -torch.stack(logs).logsumexp(0) + 0.5 * t.shape[1] * math.log(2 * math.pi)


def from_lists(values: dict[str, object]) -> Mixture:
    """Make a mixture of its numbers; ValueError, TypeError or KeyError if it is anything else."""
    names = ("shift", "scale", "weights", "means", "factors")
    parts = {name: torch.tensor(values[name], dtype=torch.float64) for name in names}
    count, size = parts["means"].shape
    right = {"shift": (size,), "scale": (size,), "weights": (count,), "factors": (count, size, size)}
    for name, shape in right.items():
        if parts[name].shape != shape or not parts[name].isfinite().all():
            raise ValueError(f"{name} of the density is not finite, of shape {shape}")
    return Mixture(**parts)


def fit(features: Tensor, seed: int = 0) -> Mixture:
    """Fit mixtures of 1, 2, 4, … components to features (N, K), and keep that of the lowest BIC.

    Doubling ends where BIC rises, or where a component would have fewer than 5 K examples.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    features = features.double()
    shift, scale = features.mean(0), features.std(0).clamp_min(1e-6)
    given = ((features - shift) / scale).numpy()
    best, lowest, count = None, math.inf, 1
    while count == 1 or len(given) >= 5 * given.shape[1] * count:
        mixture = GaussianMixture(count, reg_covar=_REGULAR, random_state=seed, max_iter=60)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # 60 steps are enough for a density
            mixture.fit(given)
        if (bic := mixture.bic(given)) >= lowest:
            break
        best, lowest, count = mixture, bic, 2 * count
    assert best is not None  # the first is always lower than infinity
    parts = (best.weights_, best.means_, best.precisions_cholesky_)
    return Mixture(shift, scale, *(torch.from_numpy(part.copy()) for part in parts))
