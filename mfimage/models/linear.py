"""Principal components, where every image chart begins and the baseline it is held against."""

from __future__ import annotations

import torch
from torch import Tensor

from mfimage.errors import DataError

EXACT_FEATURES = 4096  # above it the covariance's eigenvectors, of cubic cost, give way to subspace iteration
PCA_FLOATS = 50_000_000  # numbers that the principal components are taken from: 200 MB
_CHUNK = 1024


def enough_rows(features: int, dim: int) -> int:
    """How many vectors give d principal components: as many as `PCA_FLOATS` allows, at least 2 d + 32."""
    return max(PCA_FLOATS // features, 2 * dim + 32)


@torch.no_grad()
def principal_components(rows: Tensor, dim: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Find the best d-dimensional affine subspace for a set of vectors.

    Up to 4,096 features by the eigenvectors of the float64 covariance; above, by subspace iteration from a
    random start, with a Rayleigh–Ritz step last.

    Args:
        rows: Vectors, shape (N, D), with N > d.
        dim: Dimension d of the subspace, 1 … D.
        seed: Of the random start.

    Returns:
        The mean, shape (D,), and orthonormal columns by falling variance, shape (D, d), as `rows` in type.

    Raises:
        DataError: If there are too few vectors.

    Reference:
        Halko, Martinsson, Tropp, Finding structure with randomness, 2009, arXiv 0909.4061.
    """
    count, features = rows.shape
    if not 1 <= dim <= min(count - 1, features):
        raise DataError(
            f"{count} images of {features} pixels cannot span {dim} principal components: "
            "give more images or lower --dim"
        )
    mean = rows.mean(0, dtype=torch.float64)
    basis = _exact(rows, mean, dim) if features <= EXACT_FEATURES else _iterated(rows, mean, dim, seed)
    return mean.to(rows), basis.to(rows)


def _exact(rows: Tensor, mean: Tensor, dim: int) -> Tensor:
    from scipy.linalg import eigh

    total = rows.shape[1]
    covariance = torch.zeros(total, total, dtype=torch.float64, device=rows.device)
    for part in rows.split(_CHUNK):
        centred = part.double() - mean
        covariance += centred.T @ centred
    _, vectors = eigh(covariance.cpu().numpy(), subset_by_index=[total - dim, total - 1])
    return torch.from_numpy(vectors).flip(1)


def _iterated(rows: Tensor, mean: Tensor, dim: int, seed: int) -> Tensor:
    """Orthogonal iteration on XᵀX without forming it; the centring is applied to the small factors."""
    shift = mean.to(rows)
    width = min(dim + 16, *rows.shape)
    start = torch.randn(rows.shape[1], width, generator=torch.Generator().manual_seed(seed))
    basis = torch.linalg.qr(start.to(rows)).Q
    for _ in range(8):
        codes = rows @ basis - shift @ basis
        basis = torch.linalg.qr(rows.T @ codes - torch.outer(shift, codes.sum(0))).Q
    codes = (rows @ basis - shift @ basis).double()
    rotation = torch.linalg.eigh(codes.T @ codes).eigenvectors.flip(1)[:, :dim]
    return basis.double() @ rotation
