"""Whether a chart has its full dimension, and whether codes of the base are as normal as they should be."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mfimage.errors import DataError


class Geometry(NamedTuple):
    """Singular values of J at each of some images.

    Attributes:
        rank: Of J, (B,) int64: singular values above the largest × 10⁻⁵.
        condition: Largest over smallest singular value, (B,), infinite where the rank is not full.
        volume: ½ log det(JᵀJ), (B,), nats.
    """

    rank: Tensor
    condition: Tensor
    volume: Tensor


def geometry(gram: Tensor) -> Geometry:
    """Take rank, condition and volume from metrics JᵀJ, shape (B, d, d), float64."""
    squares = torch.linalg.eigvalsh(gram).clamp_min(0)
    largest, smallest = squares[:, -1], squares[:, 0]
    # J is of float32: below 1e-5 of the largest, a singular value is its rounding.
    rank = (squares > 1e-10 * largest[:, None]).sum(1)
    return Geometry(rank, (largest / smallest).sqrt(), 0.5 * squares.log().sum(1))


class Normality(NamedTuple):
    """How far codes z of the base are from N(0, I), as Kolmogorov's distances in [0, 1].

    Attributes:
        coordinates: Mean over coordinates of the distance of zᵢ to N(0, 1).
        radius: Distance of ‖z‖² to χ²_d: small only where the coordinates are also independent enough.
        expected: Mean distance that as many codes of N(0, I) have, 0.8687 / √N.
    """

    coordinates: float
    radius: float
    expected: float


def normality(z: Tensor) -> Normality:
    """Compare codes z, shape (N, d), with N(0, I).

    Raises:
        DataError: Fewer than two codes, or one that is not finite.

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
