"""The kernel distance between two sets of images: unbiased, so it compares sets of any size."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mfimage.errors import DataError


def kernel_distance(
    a: Tensor, b: Tensor, subsets: int = 100, size: int = 1000, seed: int = 2020
) -> tuple[float, float]:
    """Estimate the squared maximum mean discrepancy of features, kernel k(x, y) = (x·y / dim + 1)³.

        MMD² = mean over i ≠ j of k(aᵢ, aⱼ) + k(bᵢ, bⱼ), less 2 × mean of k(aᵢ, bⱼ),   averaged over subsets

    Args:
        a: (N, dim) features of one set.
        b: (M, dim) features of the other.
        subsets: How many are drawn.
        size: Images of each, at most N and M.
        seed: Of the draws; the draws themselves are those of torch-fidelity.

    Returns:
        Mean and standard deviation over the subsets; the mean may be negative. With subsets of m of n images
        the mean itself has a standard error of about √(m/n) times the deviation.

    Raises:
        DataError: Fewer than two images, or different dimensions.

    Reference:
        Bińkowski, Sutherland, Arbel, Gretton, Demystifying MMD GANs, 2018, arXiv 1801.01401.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise DataError(
            f"features of two sets are (N, dim), N at least 2; got {tuple(a.shape)}, {tuple(b.shape)}"
        )
    size, random = min(size, len(a), len(b)), np.random.RandomState(seed)
    values = []
    for _ in range(subsets):
        rows = [torch.from_numpy(random.choice(len(s), size, replace=False)) for s in (a, b)]
        values.append(_mmd(a[rows[0]].double(), b[rows[1]].double()))
    spread = torch.tensor(values, dtype=torch.float64)
    return float(spread.mean()), float(spread.std()) if subsets > 1 else float("nan")


def _mmd(x: Tensor, y: Tensor) -> float:
    count, dim = x.shape

    def kernel(p: Tensor, q: Tensor) -> Tensor:
        return (p @ q.T / dim + 1) ** 3

    xx, yy = kernel(x, x), kernel(y, y)
    within = (xx.sum() - xx.trace() + yy.sum() - yy.trace()) / (count * (count - 1))
    return float(within - 2 * kernel(x, y).mean())
