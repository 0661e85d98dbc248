"""Metrics of sets: of features, Fréchet and kernel distances, precision and recall; of codes, normality.

A DataError says where there are too few images, features of different dimensions, or values not finite.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mfimage.errors import DataError

_ROWS = 2000  # of a matrix of distances or of a kernel at once


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Compute the squared Fréchet (Wasserstein-2) distance between the Gaussians of two sets of features.

    |m₁ − m₂|² + tr(C₁ + C₂ − 2 (C₁^½ C₂ C₁^½)^½);  with C = L Lᵀ the last trace is the sum of the singular
    values of L₁ᵀ L₂. All in float64.

    Args:
        a: Features of one set, (N, dim), N at least 2, of any float type and device.
        b: Features of the other, (M, dim), M at least 2.

    Returns:
        The distance, at least 0, in squared units of the features.

    Reference:
        D. Dowson, B. Landau, The Fréchet Distance between Multivariate Normal Distributions, 1982.
    """
    _check_features(a, b)
    (mean_a, root_a), (mean_b, root_b) = map(_mean_and_root, (a, b))
    cross = torch.linalg.svdvals(root_a.T @ root_b).sum()
    distance = (mean_a - mean_b).square().sum() + root_a.square().sum() + root_b.square().sum() - 2 * cross
    return max(float(distance), 0.0)  # equal sets give the rounding error of the traces, of either sign


def _mean_and_root(features: Tensor) -> tuple[Tensor, Tensor]:
    """The mean and L (dim, rank), L Lᵀ the covariance by N − 1.

    Of no more vectors than dimensions Lᵀ are the centred rows. Else it is a pivoted Cholesky factor, which
    stops at the rank, so that a singular covariance needs no jitter.

    Reference:
        N. Higham, Analysis of the Cholesky Decomposition of a Semi-definite Matrix, 1990.
    """
    from scipy.linalg import get_lapack_funcs

    x = features.detach().to("cpu", torch.float64)
    if len(x) < 2:
        raise DataError(f"a covariance needs at least two images; there are {len(x)}")
    if bad := int((~x.isfinite()).any(1).sum()):
        raise DataError(f"{bad} of {len(x)} feature vectors are not finite: look at their images")
    mean = x.mean(0)
    x = (x - mean).div_((len(x) - 1) ** 0.5)
    if len(x) <= x.shape[1]:
        return mean, x.T
    (pivoted_cholesky,) = get_lapack_funcs(("pstrf",), dtype="float64")
    lower, pivot, rank, _ = pivoted_cholesky((x.T @ x).numpy(), lower=1)
    root = torch.zeros(x.shape[1], rank, dtype=torch.float64)
    root[torch.from_numpy(pivot).long() - 1] = torch.from_numpy(lower).tril()[:, :rank]
    return mean, root


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

    Reference:
        Bińkowski, Sutherland, Arbel, Gretton, Demystifying MMD GANs, 2018, arXiv 1801.01401.
    """
    _check_features(a, b)
    if min(len(a), len(b)) < 2:
        raise DataError(f"a kernel distance needs at least 2 images of each; got {len(a)} and {len(b)}")
    size, random = min(size, len(a), len(b)), np.random.RandomState(seed)
    values = []
    for _ in range(subsets):
        x, y = (s[random.choice(len(s), size, replace=False)].double() for s in (a, b))
        values.append(squared_mmd(x, y, lambda p, q: (p @ q.T / p.shape[1] + 1) ** 3))
    spread = torch.tensor(values, dtype=torch.float64)
    return float(spread.mean()), float(spread.std()) if subsets > 1 else float("nan")


class Coverage(NamedTuple):
    """Precision and recall in feature space, image by image: what is published are their means."""

    precision: Tensor  # whether each sample lies in the ball of some real image, (M,)
    recall: Tensor  # whether each real image lies in the ball of some sample, (N,)
    density: Tensor  # number of real balls around each sample, over k, (M,); may exceed 1
    coverage: Tensor  # whether the ball of each real image holds a sample, (N,)


def coverage(real: Tensor, samples: Tensor, k: int = 5) -> Coverage:
    """Compute precision, recall, density and coverage; a ball reaches to the k-th neighbour within its set.

    Args:
        real: (N, dim) features, N > k.
        samples: (M, dim) features, M > k.
        k: Neighbours.

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


class Normality(NamedTuple):
    """How far codes z of the base are from N(0, I), as Kolmogorov's distances in [0, 1]."""

    coordinates: float  # mean over coordinates of the distance of zᵢ to N(0, 1)
    radius: float  # of ‖z‖² to χ²_d: small only where the coordinates are also independent enough
    expected: float  # mean distance that as many codes of N(0, I) have, 0.8687 / √N


def normality(z: Tensor) -> Normality:
    """Compare codes z, shape (N, d), with N(0, I).

    Reference:
        Marsaglia, Tsang, Wang, Evaluating Kolmogorov's distribution, Journal of Statistical Software, 2003:
        the mean of √N times the distance is √(π/2) log 2 = 0.8687.
    """
    from scipy.stats import chi2, kstest, norm

    if z.ndim != 2 or len(z) < 2 or not z.isfinite().all():
        raise DataError(f"codes are (N, d), N at least 2 and finite; got {tuple(z.shape)}")
    values = z.detach().cpu().double().numpy()
    each = [float(kstest(column, norm.cdf).statistic) for column in values.T]
    radius = float(kstest((values**2).sum(1), chi2(values.shape[1]).cdf).statistic)
    return Normality(sum(each) / len(each), radius, 0.8687 / len(values) ** 0.5)
