"""Intrinsic dimension from the distances to nearest neighbours, corrected for how few points there are.

With N points the neighbours of a point on a d-dimensional manifold are not near once d exceeds some 8, and
every estimate that takes them for near falls short. What an estimator says is therefore translated into the
d of the isotropic normal sample, of as many points, of which it says the same.

The libraries have these estimators too; they are two formulas, and scikit-dimension, well kept, brings numba
and LLVM for its others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mfimage.errors import DataError

NEIGHBOURS = 10
QUERIES = 4096  # points whose neighbours are sought: the estimate's own error is then 2 % of d
LEAST = 100  # points
EMBEDDING = 4  # coordinates a dimension: generically 2 embed a manifold (Whitney), with as many to spare
NOISE = 1.5  # equalised over plain estimate, above which the narrow directions count as noise
_KNOWN = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96)
_NARROW = 1e-5  # of the widest direction: below it lies float32's rounding
_BLOCK = 512
_ROUNDS = 8


@dataclass(frozen=True)
class Estimate:
    """What nearest neighbours say.

    Attributes:
        two_nn: By `two_nn`.
        mle: By `levina_bickel`.
        dimension: Mean of both, each translated by a `Calibration`.
        coordinates: How many principal components the distances were taken in.
    """

    two_nn: float
    mle: float
    dimension: float
    coordinates: int


@dataclass(frozen=True, eq=False)
class Calibration:
    """What the estimators say of isotropic normal samples of N points whose dimension is known.

    Attributes:
        known: (M,) dimensions, rising, from 0.
        two_nn: (M,) what `two_nn` says of each.
        mle: (M,) what `levina_bickel` says.

    Reference:
        Camastra, Vinciarelli, Estimating the intrinsic dimension of data with a fractal-based method, 2002,
        IEEE Transactions on Pattern Analysis and Machine Intelligence 24 (an estimate is read off from
        synthetic samples of the same size and known dimension).
    """

    known: np.ndarray
    two_nn: np.ndarray
    mle: np.ndarray

    def dimension(self, two: float, mle: float) -> float:
        """Translate both estimates into dimensions, and average them."""
        return 0.5 * (self._read_off(two, self.two_nn) + self._read_off(mle, self.mle))

    def _read_off(self, value: float, said: np.ndarray) -> float:
        if value > said[-1]:
            return float(value * self.known[-1] / said[-1])
        return float(np.interp(value, said, self.known))


def calibrate(points: int, most: int, seed: int = 0) -> Calibration:
    """Run the estimators on normal samples of every dimension that may be asked for.

    Args:
        points: N.
        most: Number of coordinates of the data, which no dimension exceeds.
        seed: Of the samples.
    """
    generator = torch.Generator().manual_seed(seed)
    known = [d for d in _KNOWN if d < most] + [min(most, _KNOWN[-1])]
    rows = [(0.0, 0.0)]
    for dim in known:
        distances = neighbour_distances(torch.randn(points, dim, generator=generator))
        rows.append((two_nn(distances), levina_bickel(distances)))
    said = np.maximum.accumulate(np.array(rows), 0)
    return Calibration(np.array([0.0, *known]), said[:, 0], said[:, 1])


def estimate(points: Tensor, calibration: Calibration) -> Estimate:
    """Estimate the intrinsic dimension of points (N, K), in random order, by both estimators."""
    distances = neighbour_distances(points)
    two, mle = two_nn(distances), levina_bickel(distances)
    return Estimate(two, mle, calibration.dimension(two, mle), points.shape[1])


def estimates(codes: Tensor, calibration: Calibration) -> tuple[Estimate, Estimate]:
    """Estimate the dimension as the data lie, and with their directions equalised.

    Neighbours see only the directions in which the data are wide. In the second estimate the leading K
    principal components have unit variance, K = 4 d as it says itself: as many linear coordinates as embed
    the manifold and as many again. Fewer would fold it, many more would be its overtones, and noise.

    Args:
        codes: Principal components, shape (N, K), by falling variance, rows in random order.
        calibration: For N points.

    Returns:
        Both estimates. If the second exceeds 1.5 times the first, the narrow directions are noise: they would
        count however many coordinates are given, and the search for K stops.

    Raises:
        DataError: If there are too few points, or all are the same.
    """
    spread = codes.double().std(0, unbiased=False)
    wide = int((spread > _NARROW * spread[0]).sum())
    if len(codes) < LEAST or not wide:
        what = f"{len(codes)} different ones are too few" if wide else "all are the same"
        raise DataError(f"the intrinsic dimension cannot be estimated: {what}; give {LEAST} or more")
    plain = estimate(codes[:, :wide], calibration)
    unit = codes[:, :wide] / spread[:wide]
    size, found = 0, plain
    for _ in range(_ROUNDS):
        wanted = min(wide, math.ceil(EMBEDDING * 0.5 * (found.two_nn + found.mle)))
        if abs(wanted - size) <= 1 or (size and found.dimension > NOISE * plain.dimension):
            break
        size = wanted
        found = estimate(unit[:, :size], calibration)
    return plain, found


def neighbour_distances(points: Tensor, neighbours: int = NEIGHBOURS) -> Tensor:
    """Compute the distances of the first 4,096 points to their nearest neighbours among all.

    Args:
        points: Shape (N, K), in random order.
        neighbours: k < N.

    Returns:
        Shape (Q, k), float64, rising along each row, in units of the points; points that have a double are
        left out.

    Raises:
        DataError: If there are not more than k points, or most have doubles.
    """
    if len(points) <= neighbours:
        raise DataError(f"{len(points)} points are too few for {neighbours} neighbours of each")
    x = points.double()
    x = x - x.mean(0)
    norms = x.square().sum(1)
    found = []
    for rows in torch.arange(min(len(x), QUERIES)).split(_BLOCK):
        squares = norms[rows, None] + norms - 2 * x[rows] @ x.T
        squares[torch.arange(len(rows)), rows] = torch.inf
        found.append(squares.topk(neighbours, largest=False).values)
    squares = torch.cat(found)
    apart = squares[:, 0] > 1e-13 * norms.max()  # less is what the subtraction above loses
    if apart.sum() < max(2, len(squares) // 2):
        raise DataError("most images or vectors have doubles: their distances say nothing of a dimension")
    return squares[apart].sqrt()


def two_nn(distances: Tensor) -> float:
    """Estimate d from the ratio μ of the distances to the second and the first neighbour.

    −log(1 − F(μ)) = d log μ, F the empirical distribution: a line through 0, without the tenth of largest μ.

    Args:
        distances: Shape (Q, k ≥ 2), rising along each row, positive.

    Returns:
        d; infinite where no two distances differ.

    Reference:
        Facco, d'Errico, Rodriguez, Laio, Estimating the intrinsic dimension of datasets by a minimal
        neighborhood information, 2017, arXiv 1803.06992.
    """
    logs = (distances[:, 1] / distances[:, 0]).log().sort().values
    kept = logs[: int(0.9 * len(logs))]
    ranks = torch.arange(1, len(kept) + 1, dtype=kept.dtype) / len(logs)
    return _ratio(-(kept * torch.log1p(-ranks)).sum(), kept.square().sum())


def levina_bickel(distances: Tensor) -> float:
    """Estimate d by the likelihood of a Poisson process, averaged over points as 1/d.

    1/d = mean over points and j < k of log(T_k / T_j),  T_j the distance to the j-th neighbour.

    Args:
        distances: Shape (Q, k ≥ 2), rising along each row, positive.

    Returns:
        d; infinite where no two distances differ.

    Reference:
        Levina, Bickel, Maximum likelihood estimation of intrinsic dimension, 2004, NeurIPS 17; MacKay,
        Ghahramani, Comments on "Maximum likelihood estimation of intrinsic dimension" by E. Levina and
        P. Bickel, 2005 (the average).
    """
    logs = (distances[:, -1:] / distances[:, :-1]).log()
    return _ratio(torch.tensor(float(logs.numel())), logs.sum())


def _ratio(above: Tensor, below: Tensor) -> float:
    return float(above / below) if below > 0 else math.inf
