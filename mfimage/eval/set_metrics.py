"""Metrics of sets of features: Fréchet distance, kernel distance, precision and recall."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mfimage.errors import DataError

_ROWS = 2000  # of a matrix of distances or of a kernel at once


class Moments:
    """Mean and covariance of feature vectors, accumulated batch by batch in float64.

    S = S₁ + S₂ + n₁ n₂ / (n₁ + n₂) (m₂ − m₁)(m₂ − m₁)ᵀ,  S = Σ (x − m)(x − m)ᵀ of each part with mean m:
    nothing is ever the small difference of two large sums.

    Attributes:
        n: Number of vectors so far.
        mean: (dim,) float64.

    Reference:
        T. Chan, G. Golub, R. LeVeque, Updating Formulae and a Pairwise Algorithm for Computing Sample
        Variances, 1979.
    """

    def __init__(self, dim: int) -> None:
        self.n = 0
        self.mean = torch.zeros(dim, dtype=torch.float64)
        self._scatter = torch.zeros(dim, dim, dtype=torch.float64)

    @classmethod
    def of(cls, features: Tensor) -> Moments:
        """Take the moments of features (N, dim)."""
        moments = cls(features.shape[1])
        moments.update(features)
        return moments

    def update(self, features: Tensor) -> None:
        """Add a batch (B, dim) of any float type and device.

        Raises:
            DataError: The shape is another, or a value is not finite.
        """
        x = features.detach().to("cpu", torch.float64)
        if x.ndim != 2 or x.shape[1] != len(self.mean):
            raise DataError(f"features are (B, {len(self.mean)}); got {tuple(x.shape)}")
        bad = int((~x.isfinite()).any(1).sum())
        if bad:
            raise DataError(f"{bad} of {len(x)} feature vectors are not finite: look at their images")
        if len(x):
            centred, total = x - x.mean(0), self.n + len(x)
            delta = x.mean(0) - self.mean
            self._scatter.addmm_(centred.T, centred).addr_(delta, delta, alpha=self.n * len(x) / total)
            self.mean = self.mean + delta * (len(x) / total)
            self.n = total

    @property
    def cov(self) -> Tensor:
        """Covariance by N − 1, (dim, dim) float64; of fewer than two vectors a DataError."""
        if self.n < 2:
            raise DataError(f"a covariance needs at least two images; there are {self.n}")
        return self._scatter / (self.n - 1)


def frechet_distance(a: Moments, b: Moments) -> float:
    """Compute the squared Fréchet (Wasserstein-2) distance between the Gaussians of two sets of moments.

    |m₁ − m₂|² + tr(C₁ + C₂ − 2 (C₁^½ C₂ C₁^½)^½)

    With C = L Lᵀ the last trace is the sum of the singular values of L₁ᵀ L₂. L comes from a pivoted Cholesky
    factorisation, which stops at the rank: few images cost little, and a singular C needs no jitter.

    Returns:
        The distance, at least 0, in squared units of the features.

    Raises:
        DataError: Fewer than two vectors, or different dimensions.

    Reference:
        D. Dowson, B. Landau, The Fréchet Distance between Multivariate Normal Distributions, 1982. N. Higham,
        Analysis of the Cholesky Decomposition of a Semi-definite Matrix, 1990.
    """
    if a.mean.shape != b.mean.shape:
        raise DataError(f"moments of dimension {len(a.mean)} and {len(b.mean)} cannot be compared")
    cov_a, cov_b = a.cov, b.cov
    cross = torch.linalg.svdvals(_factor(cov_a).T @ _factor(cov_b)).sum()
    distance = (a.mean - b.mean).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross
    return max(float(distance), 0.0)  # equal sets give the rounding error of the traces, of either sign


def _factor(cov: Tensor) -> Tensor:
    """L (dim, rank) with L Lᵀ = cov, for a symmetric positive semi-definite cov."""
    from scipy.linalg import get_lapack_funcs

    (pivoted_cholesky,) = get_lapack_funcs(("pstrf",), dtype="float64")
    lower, pivot, rank, _ = pivoted_cholesky(cov.numpy(), lower=1)
    factor = torch.zeros(len(cov), rank, dtype=torch.float64)
    factor[torch.from_numpy(pivot).long() - 1] = torch.from_numpy(lower).tril()[:, :rank]
    return factor


def feature_distance(a: Tensor, b: Tensor) -> float:
    """Compute `frechet_distance` of features (N, dim) and (M, dim).

    Of fewer images than features the centred rows X / √(N − 1) stand for Lᵀ, without a factorisation.

    Raises:
        DataError: Fewer than two images, different dimensions, or features that are not finite.
    """
    _check_features(a, b)
    if min(len(a), len(b)) < 2 or max(len(a), len(b)) > a.shape[1]:
        return frechet_distance(Moments.of(a), Moments.of(b))
    if not (a.isfinite().all() and b.isfinite().all()):
        raise DataError("features are not finite: look at their images")
    a, b = a.double(), b.double()
    means = a.mean(0), b.mean(0)
    x, y = ((s - m) / (len(s) - 1) ** 0.5 for s, m in zip((a, b), means, strict=True))
    cross = torch.linalg.svdvals(x @ y.T).sum()
    distance = (means[0] - means[1]).square().sum() + x.square().sum() + y.square().sum() - 2 * cross
    return max(float(distance), 0.0)


def _check_features(a: Tensor, b: Tensor) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise DataError(f"features of two sets are (N, dim); got {tuple(a.shape)} and {tuple(b.shape)}")


def squared_mmd(x: Tensor, y: Tensor, kernel: Callable[[Tensor, Tensor], Tensor]) -> float:
    """Estimate the squared maximum mean discrepancy of two distributions, without bias.

        mean over i ≠ j of k(xᵢ, xⱼ) + mean over i ≠ j of k(yᵢ, yⱼ) − 2 mean of k(xᵢ, yⱼ)

    Args:
        x: Draws from one, (N, P), N at least 2.
        y: Draws from the other, (M, P), M at least 2.
        kernel: Maps (n, P) and (m, P) to k of each pair, (n, m).

    Returns:
        About 0 for equal distributions, below it too.

    Reference:
        Gretton, Borgwardt, Rasch, Schölkopf, Smola, A kernel two-sample test, 2012, JMLR 13, lemma 6.
    """

    def within(z: Tensor) -> float:
        total = 0.0
        for i, rows in enumerate(z.split(_ROWS)):
            k = kernel(rows, z)
            total += float(k.sum() - k.diagonal(i * _ROWS).sum())
        return total / (len(z) * (len(z) - 1))

    across = sum(float(kernel(rows, y).sum()) for rows in x.split(_ROWS))
    return within(x) + within(y) - 2 * across / (len(x) * len(y))


def kernel_distance(
    a: Tensor, b: Tensor, subsets: int = 100, size: int = 1000, seed: int = 2020
) -> tuple[float, float]:
    """Estimate `squared_mmd` of features by the kernel k(x, y) = (x·y / dim + 1)³, averaged over subsets.

    Args:
        a: (N, dim) features of one set.
        b: (M, dim) features of the other.
        subsets: How many are drawn.
        size: Images of each, at most N and M.
        seed: Of the draws, which are those of torch-fidelity.

    Returns:
        Mean, which may be negative, and standard deviation over the subsets; with m of n images in each the
        mean itself has a standard error of about √(m/n) times the deviation.

    Raises:
        DataError: Fewer than two images, or different dimensions.

    Reference:
        Bińkowski, Sutherland, Arbel, Gretton, Demystifying MMD GANs, 2018, arXiv 1801.01401.
    """
    _check_features(a, b)
    if min(len(a), len(b)) < 2:
        raise DataError(f"a kernel distance needs at least 2 images of each; got {len(a)} and {len(b)}")

    def kernel(p: Tensor, q: Tensor) -> Tensor:
        return (p @ q.T / p.shape[1] + 1) ** 3

    size, random = min(size, len(a), len(b)), np.random.RandomState(seed)
    values = []
    for _ in range(subsets):
        rows = [torch.from_numpy(random.choice(len(s), size, replace=False)) for s in (a, b)]
        values.append(squared_mmd(a[rows[0]].double(), b[rows[1]].double(), kernel))
    spread = torch.tensor(values, dtype=torch.float64)
    return float(spread.mean()), float(spread.std()) if subsets > 1 else float("nan")


class Coverage(NamedTuple):
    """Precision and recall in feature space, image by image: what is published are their means.

    Attributes:
        precision: Whether each sample lies in the ball of some real image, (M,).
        recall: Whether each real image lies in the ball of some sample, (N,).
        density: Number of real balls around each sample, over k, (M,); may exceed 1.
        coverage: Whether the ball of each real image holds a sample, (N,).
    """

    precision: Tensor
    recall: Tensor
    density: Tensor
    coverage: Tensor


def coverage(real: Tensor, samples: Tensor, k: int = 5) -> Coverage:
    """Compute precision, recall, density and coverage; a ball reaches to the k-th neighbour within its set.

    Args:
        real: (N, dim) features, N > k.
        samples: (M, dim) features, M > k.
        k: Neighbours.

    Raises:
        DataError: Too few images, or different dimensions.

    Reference:
        Kynkäänniemi, Karras, Laine, Lehtinen, Aila, Improved precision and recall metric for assessing
        generative models, 2019, arXiv 1904.06991. Naeem, Oh, Uh, Choi, Yoo, Reliable fidelity and diversity
        metrics for generative models, 2020, arXiv 2002.09797.
    """
    _check_features(real, samples)
    if min(len(real), len(samples)) <= k:
        raise DataError(f"{k} neighbours need more than {k} images in each set")
    real, samples = real.double(), samples.double()
    real_radius, sample_radius = _radius(real, k), _radius(samples, k)
    inside = torch.zeros(len(samples), dtype=torch.float64)
    recalled, covered = [], []
    for rows in torch.arange(len(real)).split(_ROWS):
        distances = torch.cdist(real[rows], samples)
        in_real = distances < real_radius[rows, None]
        inside += in_real.sum(0)
        covered.append(distances.min(1).values < real_radius[rows])
        recalled.append((distances < sample_radius).any(1))
    recall, covering = torch.cat(recalled).double(), torch.cat(covered).double()
    return Coverage((inside > 0).double(), recall, inside / k, covering)


def _radius(x: Tensor, k: int) -> Tensor:
    """Distance of each to its k-th nearest other, (N,)."""
    return torch.cat([torch.cdist(x[r], x).kthvalue(k + 1).values for r in torch.arange(len(x)).split(_ROWS)])
