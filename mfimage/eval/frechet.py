"""The Fréchet distance between two sets of images, from streamed moments of their features."""

from __future__ import annotations

import torch
from torch import Tensor

from mfimage.errors import DataError


class Moments:
    """Mean and covariance of feature vectors, accumulated batch by batch in float64.

    With mean m and scatter S = Σ (x − m)(x − m)ᵀ of each part:

        S = S₁ + S₂ + n₁ n₂ / (n₁ + n₂) (m₂ − m₁)(m₂ − m₁)ᵀ

    so nothing is ever the small difference of two large sums.

    Args:
        dim: length of a feature vector.

    Attributes:
        n: vectors seen so far.
        mean: (dim,) float64.

    Reference:
        T. Chan, G. Golub, R. LeVeque, Updating Formulae and a Pairwise Algorithm for Computing Sample
        Variances, 1979, Stanford STAN-CS-79-773.
    """

    def __init__(self, dim: int) -> None:
        self.n = 0
        self.mean = torch.zeros(dim, dtype=torch.float64)
        self._scatter = torch.zeros(dim, dim, dtype=torch.float64)

    def update(self, features: Tensor) -> None:
        """Add a batch.

        Args:
            features: (B, dim), any float type and device.

        Raises:
            DataError: the shape is another, or a value is not finite.
        """
        x = features.detach().to("cpu", torch.float64)
        if x.ndim != 2 or x.shape[1] != len(self.mean):
            raise DataError(f"features are (B, {len(self.mean)}); got {tuple(x.shape)}")
        bad = int((~x.isfinite()).any(1).sum())
        if bad:
            raise DataError(f"{bad} of {len(x)} feature vectors are not finite: look at their images")
        if len(x):
            mean = x.mean(0)
            centred = x - mean
            self._scatter.addmm_(centred.T, centred)
            self._shift(len(x), mean)

    def merge(self, other: Moments) -> None:
        """Add all that another accumulator has seen.

        Args:
            other: moments of the same dimension.

        Raises:
            DataError: its dimension is another.
        """
        if other.mean.shape != self.mean.shape:
            raise DataError(f"cannot merge moments of dimension {len(other.mean)} into {len(self.mean)}")
        if other.n:
            self._scatter += other._scatter
            self._shift(other.n, other.mean)

    def _shift(self, n: int, mean: Tensor) -> None:
        delta, total = mean - self.mean, self.n + n
        self._scatter.addr_(delta, delta, alpha=self.n * n / total)
        self.mean = self.mean + delta * (n / total)
        self.n = total

    @property
    def cov(self) -> Tensor:
        """Covariance with N − 1, (dim, dim) float64.

        Raises:
            DataError: fewer than two vectors were seen.
        """
        if self.n < 2:
            raise DataError(f"a covariance needs at least two images; there are {self.n}")
        return self._scatter / (self.n - 1)


def frechet_distance(a: Moments, b: Moments) -> float:
    """Squared Fréchet (Wasserstein-2) distance between the Gaussians of two sets of moments.

        |m₁ − m₂|² + tr(C₁ + C₂ − 2 (C₁^½ C₂ C₁^½)^½)

    With C = L Lᵀ the last trace is the sum of the singular values of L₁ᵀ L₂. L comes from a pivoted Cholesky
    factorisation, which stops at the rank: few images cost little, and a singular C needs no jitter.

    Args:
        a: moments of one set, of at least two vectors.
        b: moments of the other, of the same dimension.

    Returns:
        The distance, at least 0, in squared units of the features.

    Raises:
        DataError: fewer than two vectors, or different dimensions.

    Reference:
        D. Dowson, B. Landau, The Fréchet Distance between Multivariate Normal Distributions, 1982, Journal of
        Multivariate Analysis 12. N. Higham, Analysis of the Cholesky Decomposition of a Semi-definite Matrix,
        1990.
    """
    if a.mean.shape != b.mean.shape:
        raise DataError(f"moments of dimension {len(a.mean)} and {len(b.mean)} cannot be compared")
    cov_a, cov_b = a.cov, b.cov
    cross = torch.linalg.svdvals(_factor(cov_a).T @ _factor(cov_b)).sum()
    distance = (a.mean - b.mean).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross
    return max(float(distance), 0.0)  # equal sets give the rounding error of the traces, of either sign


def feature_distance(a: Tensor, b: Tensor) -> float:
    """Compute `frechet_distance` of features (N, dim) and (M, dim).

    Of fewer images than features C = XᵀX of the centred rows X/√(N − 1), which stand for L without a
    factorisation.

    Raises:
        DataError: fewer than two images, different dimensions, or features that are not finite.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise DataError(f"features are (N, dim); got {tuple(a.shape)} and {tuple(b.shape)}")
    if min(len(a), len(b)) < 2 or max(len(a), len(b)) > a.shape[1]:
        parts = [Moments(a.shape[1]), Moments(a.shape[1])]
        for part, features in zip(parts, (a, b), strict=True):
            part.update(features)
        return frechet_distance(*parts)
    if not (a.isfinite().all() and b.isfinite().all()):
        raise DataError("features are not finite: look at their images")
    a, b = a.double(), b.double()
    means = a.mean(0), b.mean(0)
    x, y = ((s - m) / (len(s) - 1) ** 0.5 for s, m in zip((a, b), means, strict=True))
    cross = torch.linalg.svdvals(x @ y.T).sum()
    distance = (means[0] - means[1]).square().sum() + x.square().sum() + y.square().sum() - 2 * cross
    return max(float(distance), 0.0)


def _factor(cov: Tensor) -> Tensor:
    """L (dim, rank) with L Lᵀ = cov, for a symmetric positive semi-definite cov."""
    from scipy.linalg import get_lapack_funcs

    (pivoted_cholesky,) = get_lapack_funcs(("pstrf",), dtype="float64")
    lower, pivot, rank, _ = pivoted_cholesky(cov.numpy(), lower=1)
    factor = torch.zeros(len(cov), rank, dtype=torch.float64)
    factor[torch.from_numpy(pivot).long() - 1] = torch.from_numpy(lower).tril()[:, :rank]
    return factor
