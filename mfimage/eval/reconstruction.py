"""How far an image lies from its reconstruction, and from the best linear one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mfimage.errors import DataError
from mfimage.models.linear import principal_components


def _check(x: Tensor, y: Tensor) -> None:
    if x.ndim != 4 or x.shape != y.shape:
        raise DataError(f"two equal stacks of images (B, C, H, W) are compared; got {x.shape} and {y.shape}")


def squared_error(x: Tensor, y: Tensor) -> Tensor:
    """Squared error of each image, summed over its pixels and channels.

    Σ (x − y)²

    Args:
        x: (B, C, H, W) in [0, 1].
        y: the same shape.

    Returns:
        (B,) in squared units of the pixel range.

    Raises:
        DataError: the shapes differ.
    """
    _check(x, y)
    return (x - y).square().flatten(1).sum(1)


def mse(x: Tensor, y: Tensor) -> Tensor:
    """Squared error of each image, averaged over its pixels and channels.

    Args:
        x: (B, C, H, W) in [0, 1].
        y: the same shape.

    Returns:
        (B,) in squared units of the pixel range.

    Raises:
        DataError: the shapes differ.
    """
    _check(x, y)
    return (x - y).square().flatten(1).mean(1)


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image.

    −10 log₁₀ mse, the peak being 1

    Args:
        x: (B, C, H, W) in [0, 1].
        y: the same shape.

    Returns:
        (B,) in dB; infinite where the images are equal.

    Raises:
        DataError: the shapes differ.
    """
    return -10 * mse(x, y).log10()


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity of each image, by scikit-image.

    A uniform window of 7×7 pixels, or the largest odd one that fits; data range 1.

    Args:
        x: (B, C, H, W) in [0, 1], H and W at least 3.
        y: the same shape.

    Returns:
        (B,) float32 in [-1, 1].

    Raises:
        DataError: the shapes differ or the images are smaller than 3×3.

    Reference:
        Z. Wang et al., Image Quality Assessment: From Error Visibility to Structural Similarity, 2004, IEEE
        Transactions on Image Processing 13.
    """
    from skimage.metrics import structural_similarity

    _check(x, y)
    side = min(7, *x.shape[2:])
    if side < 3:
        raise DataError(f"structural similarity needs at least 3×3 pixels; got {tuple(x.shape[2:])}")
    window = side - 1 + side % 2
    pairs = zip(x.detach().cpu().double().numpy(), y.detach().cpu().double().numpy(), strict=True)
    return torch.tensor(
        [structural_similarity(a, b, win_size=window, channel_axis=0, data_range=1.0) for a, b in pairs]
    )


@dataclass(frozen=True, eq=False)
class PCA:
    """The best linear manifold: the mean plus the span of d principal components.

    Attributes:
        mean: (D,) float32, D = C·H·W.
        components: (d, D) float32, orthonormal rows, largest variance first.
        shape: (C, H, W).
    """

    mean: Tensor
    components: Tensor
    shape: torch.Size

    @classmethod
    def fit(cls, x: Tensor, dim: int, seed: int = 0) -> PCA:
        """Find the principal components of a set of images.

        Args:
            x: (N, C, H, W) in [0, 1].
            dim: d, at most min(N − 1, C·H·W).
            seed: of the random start that is used above 4096 pixels.

        Returns:
            The fitted baseline, on the CPU.

        Raises:
            DataError: There are too few images for `dim` components.
        """
        mean, basis = principal_components(x.detach().cpu().float().flatten(1), dim, seed)
        return cls(mean, basis.T.contiguous(), x.shape[1:])

    def encode(self, x: Tensor) -> Tensor:
        """Coordinates on the linear manifold: (B, C, H, W) -> (B, d)."""
        return (x.flatten(1) - self.mean.to(x)) @ self.components.to(x).T

    def decode(self, u: Tensor) -> Tensor:
        """Point with the given coordinates: (B, d) -> (B, C, H, W), not cut to [0, 1]."""
        return (u @ self.components.to(u) + self.mean.to(u)).unflatten(1, self.shape)

    def project(self, x: Tensor) -> Tensor:
        """Nearest point of the linear manifold: (B, C, H, W) -> the same, not cut to [0, 1]."""
        return self.decode(self.encode(x))
