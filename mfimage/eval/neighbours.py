"""What nearest neighbours say of samples: whether they lie among real images, cover them, or copy them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mfimage.errors import DataError

_ROWS = 2000  # of a matrix of distances at once


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
    if real.ndim != 2 or samples.ndim != 2 or real.shape[1] != samples.shape[1]:
        raise DataError(f"features are (N, dim); got {tuple(real.shape)} and {tuple(samples.shape)}")
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
    return Coverage(
        (inside > 0).double(), torch.cat(recalled).double(), inside / k, torch.cat(covered).double()
    )


def _radius(x: Tensor, k: int) -> Tensor:
    """Distance of each to its k-th nearest other, (N,)."""
    return torch.cat([torch.cdist(x[r], x).kthvalue(k + 1).values for r in torch.arange(len(x)).split(_ROWS)])


def nearest(x: Tensor, among: Tensor) -> tuple[Tensor, Tensor]:
    """Distance of each row (N, dim) to the nearest of others (M, dim), and which it is, both (N,)."""
    found = [torch.cdist(x[rows].float(), among.float()).min(1) for rows in torch.arange(len(x)).split(500)]
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])


class Copies(NamedTuple):
    """Whether samples are copies of training images.

    Attributes:
        nearer: Whether each sample is nearer to a training image than 1 % of held-out images are, (N,): a
            mean of 0.01 is what the data themselves give; more says that images were learned by heart.
        ratio: Median distance of samples to their nearest training image, over that of held-out images.
    """

    nearer: Tensor
    ratio: float


def copies(samples: Tensor, held_out: Tensor) -> Copies:
    """Compare distances to the nearest training image, of samples (N,) and of held-out images (M,).

    Reference:
        Meehan, Chaudhuri, Dasgupta, A non-parametric test to detect data-copying in generative models, 2020,
        arXiv 2004.05675.
    """
    limit = held_out.double().quantile(0.01)
    return Copies((samples < limit).double(), float(samples.median() / held_out.median()))
