"""Principal components, where every image chart begins and the baseline it is held against."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import DataError

EXACT_FEATURES = 2048  # above it the covariance's eigenvectors give way to a randomised SVD


@torch.no_grad()
def principal_components(rows: Tensor, dim: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Find the best d-dimensional affine subspace for a set of vectors.

    Args:
        rows: Vectors, shape (N, D), with N > d.
        dim: Dimension d of the subspace, 1 … D.
        seed: Seeds the randomised SVD that is used for D > 2048.

    Returns:
        The mean, shape (D,), and orthonormal columns by falling variance, shape (D, d).

    Raises:
        DataError: If there are too few vectors.

    Reference:
        Halko, Martinsson, Tropp, Finding structure with randomness, 2009, arXiv 0909.4061.
    """
    count, features = rows.shape
    if count <= dim:
        raise DataError(
            f"{count} images cannot span {dim} principal components: give more images or lower --dim"
        )
    mean = rows.mean(0)
    centred = rows - mean
    if features <= EXACT_FEATURES:
        _, vectors = torch.linalg.eigh(centred.T @ centred)
        return mean, vectors.flip(1)[:, :dim].contiguous()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _, _, basis = torch.svd_lowrank(centred, q=min(dim + 16, count, features), niter=4)
    return mean, basis[:, :dim].contiguous()
