"""Metrics of images: errors of reconstructions, principal components as their baseline, copies.

`squared_error`, `mse`, `psnr` and `ssim` take two stacks of images (B, C, H, W) of one shape, in [0, 1], and
return a value of each, (B,). A DataError says where the shapes differ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mfimage.datasets.sets import Dataset
from mfimage.errors import DataError
from mfimage.models.subspace import pca_rows, principal_components

LEAST_SIDE = 3  # pixels, of a structural similarity


def squared_error(x: Tensor, y: Tensor) -> Tensor:
    """Compute the squared error of each image, summed over pixels and channels: Σ (x − y)²."""
    _check(x, y)
    return (x - y).square().flatten(1).sum(1)


def mse(x: Tensor, y: Tensor) -> Tensor:
    """Compute the squared error of each image, averaged over pixels and channels."""
    _check(x, y)
    return (x - y).square().flatten(1).mean(1)


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """Compute the peak signal-to-noise ratio of each image in dB, −10 log₁₀ mse; infinite if equal."""
    return -10 * mse(x, y).log10()


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Compute the structural similarity of each image by scikit-image, float32 in [−1, 1].

    A uniform window of 7 × 7 pixels, or the largest odd one that fits, at least 3 × 3; data range 1.

    Reference:
        Z. Wang et al., Image Quality Assessment: From Error Visibility to Structural Similarity, 2004, IEEE
        Transactions on Image Processing 13.
    """
    from skimage.metrics import structural_similarity

    _check(x, y)
    side = min(7, *x.shape[2:])
    if side < LEAST_SIDE:
        least = f"{LEAST_SIDE}×{LEAST_SIDE}"
        raise DataError(f"structural similarity needs at least {least} pixels; got {tuple(x.shape[2:])}")
    window = side - 1 + side % 2
    pairs = zip(x.detach().cpu().double().numpy(), y.detach().cpu().double().numpy(), strict=True)
    return torch.tensor(
        [structural_similarity(a, b, win_size=window, channel_axis=0, data_range=1.0) for a, b in pairs]
    )


def _check(x: Tensor, y: Tensor) -> None:
    if x.ndim != 4 or x.shape != y.shape:
        raise DataError(f"two equal stacks of images (B, C, H, W) are compared; got {x.shape} and {y.shape}")


@dataclass(frozen=True, eq=False)
class PCA:
    """The best linear manifold: the mean plus the span of d principal components."""

    mean: Tensor  # (D,) float32, D = C·H·W
    components: Tensor  # (d, D) float32, orthonormal rows, largest variance first
    shape: torch.Size  # (C, H, W)

    @classmethod
    def fit(cls, x: Tensor, dim: int, seed: int = 0) -> PCA:
        """Find d principal components, at most min(N − 1, C·H·W), of images (N, C, H, W), on the CPU.

        The seed is that of the random start that is used above `subspace.EXACT_FEATURES`.

        Raises:
            DataError: There are too few images for `dim` components.
        """
        mean, basis = principal_components(x.detach().cpu().float().flatten(1), dim, seed)
        return cls(mean, basis.T.contiguous(), x.shape[1:])

    @classmethod
    def of(cls, training: Dataset, dim: int) -> PCA:
        """Find the d principal components of a set, with which everything learned from it is compared."""
        rows = pca_rows(len(training), math.prod(training.shape), dim)
        return cls.fit(training.batch(rows), dim)

    def encode(self, x: Tensor) -> Tensor:
        """Compute coordinates on the linear manifold: (B, C, H, W) -> (B, d)."""
        return (x.flatten(1) - self.mean.to(x)) @ self.components.to(x).T

    def decode(self, u: Tensor) -> Tensor:
        """Compute the point of given coordinates: (B, d) -> (B, C, H, W), not cut to [0, 1]."""
        return (u @ self.components.to(u) + self.mean.to(u)).unflatten(1, self.shape)

    def project(self, x: Tensor) -> Tensor:
        """Find the nearest point of the linear manifold: (B, C, H, W) -> the same, not cut to [0, 1]."""
        return self.decode(self.encode(x))


def nearest(x: Tensor, among: Tensor) -> tuple[Tensor, Tensor]:
    """Find the nearest of rows (M, dim) to each of x (N, dim): its distance and its place, both (N,)."""
    found = [torch.cdist(part.float(), among.float()).min(1) for part in x.split(500)]
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])


def copies(samples: Tensor, held_out: Tensor) -> tuple[Tensor, float]:
    """Compare distances to the nearest training image, of samples (N,) and of held-out images (M,).

    Returns:
        Whether each sample is nearer to a training image than 1 % of held-out images are, (N,) float64: a
        mean of 0.01 is what the data themselves give, more says that images were learned by heart. And the
        median distance of samples over that of held-out images.

    Reference:
        Meehan, Chaudhuri, Dasgupta, A non-parametric test to detect data-copying in generative models, 2020,
        arXiv 2004.05675.
    """
    limit = held_out.double().quantile(0.01)
    return (samples < limit).double(), float(samples.median() / held_out.median())
